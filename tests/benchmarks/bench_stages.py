"""A model of a stream's stages: the processor time of each, measured alone, and what they take together on more cores.

A copy takes the longer of two: all its work on all cores, and the longest chain of work that nothing divides. The model is
checked where it can be measured, with one job and with two, and then says what 8 and 16 cores would bring.
"""

from __future__ import annotations

import heapq
import os
import resource
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from skinspire_db.catalog import row_hash
from skinspire_db.copies import copied_tables, streaming

from .bench_copies import TOOLS, pgbench, processor
from .harness import Bench, Figure, bench, medians

INDEXES = """
    SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = to_regclass(%s) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype = 'x')
"""
KEYS = """
    SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'f' AND conrelid = to_regclass(%s) AND conparentid = 0
"""


@dataclass(frozen=True)
class Stages:
    """Processor seconds of a table's stages: the session that reads, two psql, the session that writes, the hash of a side,
    each index, all foreign keys.
    """

    size: int
    read: float
    pumped: float
    write: float
    hashed: float
    indexes: list[float]
    keys: float

    @property
    def work(self) -> float:
        return self.read + self.pumped + self.write + 2 * self.hashed + sum(self.indexes) + self.keys


def bench_stages_of_pgbench() -> list[Figure]:
    with bench() as project:
        pgbench(project, int(os.environ.get("BENCH_SCALE", "30")))
        return compared(project, "pgbench")


def bench_stages_of_patients() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=test", f"--patients={os.environ.get('BENCH_PATIENTS', '330000')}")
        return compared(project, "patients")


def compared(project: Bench, what: str) -> list[Figure]:
    """The model beside what can be measured, and what it says of more cores."""
    found = measured(project)
    copy = ("db.copy", "--source=test", "--target=dev", "--method=stream")
    start, one, two = medians(
        lambda: project.invoke(*copy, "--schema-only"),
        lambda: project.invoke(*copy, "--jobs=1"), lambda: project.invoke(*copy, "--jobs=2"),
        rounds=3,
    )  # fmt: skip
    cores = os.cpu_count() or 1
    here = [start + together(found, jobs, cores) for jobs in (1, 2)]
    more = [start + together(found, jobs, jobs) for jobs in (8, 16)]
    name = f"db.copy, stream of {what}"
    return [
        Figure(f"{name}, 1 job", one, "the model", here[0], 1.3),
        Figure(f"{name}, 2 jobs", two, "the model", here[1], 1.3),
        Figure(f"the model of {name}, 8 jobs on 8 cores", more[0], "2 jobs on 2", here[1], 0.6),
        Figure(f"the model of {name}, 16 jobs on 16 cores", more[1], "2 jobs on 2", here[1], 0.6),
    ]


def together(found: list[Stages], jobs: int, cores: int) -> float:
    """Seconds that a stream takes: at least all work on all cores, and at least the longest chain of stages."""
    total = sum(each.size for each in found)
    pipes, chains = [0.0] * jobs, []
    for each in sorted(found, key=lambda each: -each.size):
        parts = min(jobs, each.size // max(total // jobs, streaming.PART) + 1) if jobs > 2 else 1
        ends = []
        for _ in range(parts):  # the slowest process of a pipe is its pace
            end = heapq.heappop(pipes) + max(each.read, each.pumped / 2, each.write) / parts
            ends.append(end)
            heapq.heappush(pipes, end)
        builds = max(max(each.indexes, default=0), sum(each.indexes) / jobs)
        chains.append(max(ends) + max(builds, each.hashed / max(1, jobs // 2)))
    keys = max((each.keys for each in found), default=0)
    return max(sum(each.work for each in found) / cores, max(chains) + keys)


def measured(project: Bench) -> list[Stages]:
    """The stages of the tables of more than 8 MB; smaller ones are part of what a copy of no rows takes."""
    with project.connect("skinspire_test") as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0; SET max_parallel_maintenance_workers = 0")
        connection.execute("SET maintenance_work_mem = '256MB'; SET TimeZone = 'UTC'")
        hashes = {name: hashed for name, _, hashed in row_hash.tables(connection, row_hash.CURRENT)}
        tables = [table for table in copied_tables.tables(connection) if table.size >= streaming.SMALL]
        return [of(project, connection, table, hashes[table.quoted]) for table in tables]


def of(project: Bench, connection: psycopg.Connection, table: copied_tables.Table, hashed: str) -> Stages:
    """The stages of one table, one after the other; the copy of it that is written goes again."""
    blocks: list[bytes] = []

    def run(*statements: str) -> float:
        before = processor(connection.info.backend_pid)
        for each in statements:
            connection.execute(each.encode())
        return processor(connection.info.backend_pid) - before

    def drained() -> None:
        with connection.cursor().copy(table.read.encode()) as copy:
            blocks.extend(bytes(block) for block in copy)

    def written() -> None:
        with connection.transaction():
            connection.execute("TRUNCATE peer_of_it")
            with connection.cursor().copy(f"COPY peer_of_it FROM STDIN (FORMAT {table.format}, FREEZE)".encode()) as copy:
                for block in blocks:
                    copy.write(block)

    def spent(work: Callable[[], None]) -> float:
        before = processor(connection.info.backend_pid)
        work()
        return processor(connection.info.backend_pid) - before

    read = spent(drained)
    pumped = 2 * pump(project, table.read)
    run(f"CREATE TABLE peer_of_it (LIKE {table.quoted} INCLUDING GENERATED)")
    write = spent(written)
    hashing = run(f"SELECT count(*), sum({hashed}) FROM ONLY {table.quoted} AS t")
    indexes = [
        run(
            definition.replace(f" ON {table.schema}.{table.name} ", " ON peer_of_it ", 1).replace(
                f" INDEX {name} ", " INDEX ", 1
            )
        )
        for name, definition in connection.execute(INDEXES, (table.quoted,)).fetchall()
    ]
    keys = [
        run(f"ALTER TABLE {relation} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {definition}")
        for name, relation, definition in connection.execute(KEYS, (table.quoted,)).fetchall()
    ]
    run("DROP TABLE peer_of_it")
    return Stages(table.size, read, pumped, write, hashing, indexes, sum(keys))


def pump(project: Bench, read: str) -> float:
    """Processor seconds of a psql that prints a table; one that reads as much takes about the same."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [TOOLS / "psql", "-X", "-q", "-c", read, "skinspire_test"], env=project.env, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
