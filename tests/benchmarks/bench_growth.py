"""How commands grow with tables, rows, revisions, trigger files and hospitals: curves, and not points.

The unit is processor time, of the command with its processes and of the server's sessions, which other work on the machine moves
less than the clock. Linux alone says how much the server's ended sessions took.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import grown
from .harness import Bench, Figure, bench

ROWS = int(os.environ.get("GROWTH_ROWS", 10**6))  # the most; ten million take an hour
TABLES = int(os.environ.get("GROWTH_TABLES", 2000))  # the most, 200 at the least
LOOKS = ("db.prepare", "db.drift", "db.verify", "triggers.status", "migrate.upgrade")  # with nothing to do
WHOLE = ("db.copy --source=dev --target=test --method=template", "backup.create", "backup.restore")
FILL = """
    INSERT INTO grown_0000 (code, body) SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, {size}) n
"""
HOSPITALS = """
    INSERT INTO hospitals (name, license_no) SELECT 'hospital ' || n, 'L' || n FROM generate_series(2, {size}) n;
    INSERT INTO branches (hospital_id, name) SELECT hospital_id, 'main' FROM hospitals
"""


def processor_seconds(project: Bench) -> float:
    """What all commands and all ended sessions of the server took so far."""
    postmaster = (project.server.data / "postmaster.pid").read_text().split()[0]
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ours.ru_utime + ours.ru_stime + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def taken(project: Bench, command: str) -> float:
    """The processor seconds of a command's second run; the first one fills what is kept between commands."""
    for _ in range(2):
        before = processor_seconds(project)
        project.invoke(*command.split())
        time.sleep(0.2)  # the postmaster reaps the last session
    return processor_seconds(project) - before


def measured(
    axis: str, sizes: list[int], commands: tuple[str, ...], grow: Callable[[Path, int], None], fill: str = ""
) -> Iterator[Figure]:
    """A figure for each command: the step between two sizes at which it grows most, for the work that is added."""
    curves: dict[str, list[float]] = {command: [] for command in commands}
    for size in sizes:
        with bench() as project:
            grow(project.root, size)
            with project.connect("postgres") as connection:  # its workers are children of the postmaster, too
                connection.execute("ALTER SYSTEM SET autovacuum TO off")
                connection.execute("SELECT pg_reload_conf()")
            project.invoke("db.setup")
            with project.connect("skinspire_dev") as connection:
                if fill:
                    connection.execute(fill.format(size=size).encode())
                connection.execute("VACUUM ANALYZE")
            for command, curve in curves.items():
                curve.append(taken(project, command))
    for command, curve in curves.items():
        steps = list(zip(sizes, curve, sizes[1:], curve[1:], strict=False))
        size, less, larger, more = max(steps, key=lambda step: step[3] / step[1] / (step[2] / step[0]))
        told = " / ".join(f"{seconds:.2f}" for seconds in curve)
        name = f"`{command}`, {' / '.join(f'{each:,}' for each in sizes)} {axis}: {told} s; at {larger:,}"
        yield Figure(name, more, f"at {size:,}", less, 1.1 * larger / size)


def bench_tables() -> list[Figure]:
    """12, 200 and 2,000 tables, of which 12 are the core's."""
    sizes = [size for size in (12, 200, 2000) if size <= TABLES]
    return list(measured("tables", sizes, ("db.setup", *LOOKS, *WHOLE), lambda root, size: grown.write(root, tables=size)))


def bench_revisions() -> list[Figure]:
    """1, 100 and 1,000 revisions, all applied."""
    commands = (*LOOKS, "migrate.status")
    return list(measured("revisions", [1, 100, 1000], commands, lambda root, size: grown.write(root, revisions=size)))


def bench_pending() -> list[Figure]:
    """1, 10 and 100 revisions to apply; the command before notes that none of them is."""
    figures: list[float] = []
    sizes = [1, 10, 100]
    for size in sizes:
        with bench() as project:
            grown.write(project.root, revisions=size)
            project.invoke("db.setup")
            project.invoke("migrate.stamp", f"--to={grown.CORE_HEAD}")
            before = processor_seconds(project)
            project.invoke("migrate.upgrade")
            time.sleep(0.2)
            figures.append(processor_seconds(project) - before)
    told = " / ".join(f"{seconds:.2f}" for seconds in figures)
    name = f"`migrate.upgrade`, 1 / 10 / 100 pending revisions: {told} s; at 100"
    return [Figure(name, figures[2], "at 10", figures[1], 11)]


def bench_files() -> list[Figure]:
    """7 and 100 trigger files, of which 7 are the core's."""
    commands = ("db.setup", *LOOKS)
    return list(measured("trigger files", [7, 100], commands, lambda root, size: grown.write(root, files=size)))


def bench_rows() -> list[Figure]:
    """From ten thousand rows to GROWTH_ROWS, in one table."""
    sizes = [10**power for power in range(4, 8) if 10**power <= ROWS]
    commands = (*LOOKS, *WHOLE, "db.copy --source=dev --target=test --method=stream")
    return list(measured("rows", sizes, commands, lambda root, _: grown.write(root, tables=13), FILL))


def bench_hospitals() -> list[Figure]:
    """1 and 500 hospitals, with policies."""
    commands = (*LOOKS, *WHOLE)
    return list(measured("hospitals", [1, 500], commands, lambda root, _: grown.write(root, tenancy=True), HOSPITALS))
