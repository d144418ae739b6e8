"""How a backup is compressed: size and processor time of pg_dump alone with each candidate, beside pg_dump's default."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from skinspire_db.copies.backup import COMPRESSION

from .bench_copies import TOOLS, pgbench
from .harness import Bench, Figure, bench, processor_time, timed

CANDIDATES = ("lz4", "zstd:-1", "zstd:1", "zstd:level=1,long", "zstd:2", "zstd:3", "zstd:level=3,long", "zstd:6")


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


def _dumped(project: Bench, compression: str) -> tuple[float, float]:
    """The size in MB, and the least processor time in seconds of three runs."""
    folder = project.root / "dump"
    command = (str(TOOLS / "pg_dump"), "-Fd", "-j2", f"--compress={compression}", "-f", str(folder), "skinspire_test")
    times = []
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        times.append(processor_time(partial(timed, *command, env=project.env)))
    return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6, min(times)
