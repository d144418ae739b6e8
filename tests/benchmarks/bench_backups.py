"""What a backup reads, and how it is compressed: size and processor time of pg_dump alone with each candidate."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from skinspire_db.copies.backup import COMPRESSION

from .bench_copies import TOOLS, pgbench
from .harness import Bench, Figure, bench, processor_time, timed

CANDIDATES = ("lz4", "zstd:-1", "zstd:1", "zstd:level=1,long", "zstd:2", "zstd:3", "zstd:level=3,long", "zstd:6")


BLOCKS = (
    "SELECT sum(heap_blks_read) + sum(coalesce(toast_blks_read, 0)) FROM pg_statio_user_tables WHERE schemaname = 'public'"
)


def bench_blocks_read() -> list[Figure]:
    """The hash reads each block once more, from the operating system where the server's own buffers are small."""
    with bench() as project:
        project.invoke("db.setup", "--env=test", "--patients=20000")
        with project.connect("postgres") as connection:
            connection.execute("ALTER SYSTEM SET shared_buffers = '4MB'")
        project.invoke("server.stop")
        project.invoke("server.start")

        def read(run: Callable[[], object]) -> float:
            before = _blocks(project)
            run()
            return _blocks(project) - before

        dumped = read(lambda: _dumped(project, COMPRESSION, runs=1))
        made = read(lambda: project.invoke("backup.create", "--env=test"))
        return [Figure("`backup.create`, blocks from the operating system", made, "`pg_dump -Fd -j2`", dumped, 2.1, "blocks")]


def _blocks(project: Bench) -> float:
    """Blocks read so far; sessions that have ended tell it with a delay."""
    time.sleep(2)
    with project.connect("skinspire_test") as connection:
        row = connection.execute(BLOCKS.encode()).fetchone()
        assert row
        return float(row[0])


def bench_compression_of_patients() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=test", "--patients=40000")
        return _figures(project, "patients")


def bench_compression_of_pgbench() -> list[Figure]:
    with bench() as project:
        pgbench(project, 8)
        return _figures(project, "pgbench")


def _figures(project: Bench, what: str) -> list[Figure]:
    """Limits are the default's: no larger than pg_dump's default, in half of its processor time."""
    size, seconds = _dumped(project, "gzip")
    found = []
    for candidate in CANDIDATES:
        megabytes, took = _dumped(project, candidate)
        limit = 1 if candidate == COMPRESSION else 10
        found.append(Figure(f"{what}, `{candidate}`, size", megabytes, "`gzip`", size, limit, "MB"))
        found.append(Figure(f"{what}, `{candidate}`, processor time", took, "`gzip`", seconds, limit / 2))
    return found


def _dumped(project: Bench, compression: str, runs: int = 3) -> tuple[float, float]:
    """The size in MB, and the least processor time of some runs, in seconds."""
    folder = project.root / "dump"
    command = (str(TOOLS / "pg_dump"), "-Fd", "-j2", f"--compress={compression}", "-f", str(folder), "skinspire_test")
    times = []
    for _ in range(runs):
        shutil.rmtree(folder, ignore_errors=True)
        times.append(processor_time(partial(timed, *command, env=project.env)))
    return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6, min(times)
