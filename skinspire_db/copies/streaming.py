"""Copying a database as streams: its tables in parallel on one snapshot, largest first, indexes as each is filled.

PostgreSQL's own programs pump the bytes: pg_dump and pg_restore the definitions, psql to psql the rows (not on Windows);
Python directs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.catalog.fingerprint import OIDS, redivided
from skinspire_db.copies.archive_restore import ArchiveRestore, examined
from skinspire_db.errors import StepFailed
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import ClientTools, end_all, ended, remedy_of, said
from skinspire_db.postgres.progress import Transfer, watched
from skinspire_db.postgres.scripts import QUIET, private_folder
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# What a value's text depends on, the same on both sides; names are written with their schema.
SPELLING = (
    "-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=1 -c bytea_output=hex"
    " -c lc_monetary=C -c search_path=pg_catalog -c idle_in_transaction_session_timeout=0 -c statement_timeout=0"
)
# A scratch database that a crash takes along is no loss, so nothing waits for its WAL.
QUICK = f"{SPELLING} -c synchronous_commit=off -c maintenance_work_mem=256MB -c lock_timeout=0"
PLAIN = f"{SPELLING} -c row_security=off"
LOCKED = 100  # tables that one transaction fills; with those of others, three locks for each must have room in the server
SMALL = 8 << 20  # bytes: tables of less go together, as text; two programs for each would take longer than their rows
PUMPING: set[Any] = set()  # the connections whose bytes go through this process
# Windows' psql reads and writes its standard streams as text, which damages rows in binary and ends at a 0x1A byte.
PIPES = sys.platform != "win32"
TABLES = """
    SELECT c.oid, n.nspname, c.relname, pg_table_size(c.oid),
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                 AND a.attgenerated = '' ORDER BY a.attnum),
           NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typsend = 0) AND NOT {oids},
           ARRAY(SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = c.oid
                 UNION ALL SELECT k.oid FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {relations}
    ORDER BY 4 DESC, 2, 3
"""
INTERNAL_OPTIONS = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid >= 16384 AND attoptions::text ~ 'pg_attver=')"
# In an order in which each finds those that it reads.
POPULATED_VIEWS = """
    WITH RECURSIVE reads (view, level) AS (
        SELECT oid, 0 FROM pg_class WHERE relkind = 'm' AND relispopulated
        UNION SELECT r.ev_class, reads.level + 1 FROM reads JOIN pg_depend d ON d.refobjid = reads.view
        JOIN pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass AND r.ev_class <> reads.view AND reads.level < 50
    )
    SELECT format('%I.%I', n.nspname, c.relname) FROM reads JOIN pg_class c ON c.oid = view JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' AND c.relispopulated GROUP BY 1 ORDER BY max(level), 1
"""  # noqa: E501


@dataclass(frozen=True)
class Table:
    """A table to copy. `columns` are those that hold values of their own; `entries` are its indexes' and constraints' oids.

    `expressions`, column -> SQL, take the place of columns: what is read is then a SELECT and no longer the bare table.
    `root` is the table through which it is filled, where its rows can belong into another partition.
    """

    schema: str
    name: str
    size: int
    columns: list[str]
    binary: bool
    entries: frozenset[int]
    expressions: dict[str, str] = dataclasses.field(default_factory=dict)
    root: str = ""

    @property
    def quoted(self) -> str:
        return _quote(self.schema, self.name)

    @property
    def listed(self) -> str:
        return f"{self.quoted} ({', '.join(map(_quote, self.columns))})" if self.columns else self.quoted

    @property
    def read(self) -> str:
        """The COPY that reads it."""
        source = self.listed
        if self.expressions:
            chosen = (f"{self.expressions.get(column, _quote(column))}" for column in self.columns)
            source = f"(SELECT {', '.join(chosen)} FROM ONLY {self.quoted})"  # noqa: S608
        return f"COPY {source} TO STDOUT (FORMAT {self.format})"

    @property
    def write(self) -> list[str]:
        """The COPY that fills it; FREEZE, as nobody else sees the table yet, and a TRUNCATE, which FREEZE needs. What can
        belong into another partition goes through the root.
        """
        if self.root:
            return [f"COPY {self.listed.replace(self.quoted, self.root, 1)} FROM STDIN (FORMAT {self.format})"]
        return [f"TRUNCATE ONLY {self.quoted}", f"COPY {self.listed} FROM STDIN (FORMAT {self.format}, FREEZE)"]

    @property
    def format(self) -> str:
        return "binary" if self.binary else "text"


def tables(connection: Connection) -> list[Table]:
    """The tables of a database that have rows of their own, largest first."""
    roots = redivided(connection)
    return [
        Table(schema, name, size, columns, binary, frozenset(entries), root=roots.get(_quote(schema, name), ""))
        for _, schema, name, size, columns, binary, entries in connection.execute(
            TABLES.format(oids=OIDS.format(kinds="'c'"), relations=objects.USER_RELATION).encode()
        ).fetchall()
    ]


def stream(
    tools: ClientTools,
    source: Target,
    aside: Target,
    connection: Connection,
    snapshot: str,
    wanted: list[Table],
    jobs: int,
    transfer: Transfer,
    *,
    present: set[str],
    version: int,
    filled: Callable[[set[str]], object],
    large_objects: bool = True,
) -> tuple[dict[str, list[Any]], list[str]]:
    """Fill the empty database `aside`, whose server's version is `version`: all definitions, and the rows of the `wanted`
    tables, as of the exported snapshot that `connection` holds open on the source. Calls `filled` with the names of tables
    whose rows are there, before their indexes. Returns the values that the sequences were given, which no snapshot holds, and
    what of roles that are not `present` was mapped or left out, a sentence each.

    Raises StepFailed with what the programs said.
    """
    # Whoever wants a table for himself after we hold it waits for us, and our readers would wait behind him.
    wait_ms = round(source.policy.lock_timeout * 1000)
    source = with_options(source, f"{PLAIN} -c lock_timeout={wait_ms}{_forever(connection.info.server_version)}")
    aside = with_options(aside, QUICK + _forever(version))
    with private_folder() as folder:
        notes: list[str] = []
        archive, large = str(folder / "definitions"), folder / "large_objects"
        tools.run("pg_dump", source, "-Fc", "--schema-only", f"--snapshot={snapshot}", f"--file={archive}")
        missing = {role for (role,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()} - present
        internal = connection.execute(INTERNAL_OPTIONS).fetchone() == (True,)
        definitions = ArchiveRestore(tools, Path(archive), aside, frozenset(present))
        if missing or internal:
            definitions = examined(tools, Path(archive), aside, present)
        definitions.run(sections=("pre-data",))
        restore = _Restore(tools, aside, archive, folder, _entries(definitions.contents()), jobs, definitions.options)
        with watched(source, sum(table.size for table in wanted), transfer), ThreadPoolExecutor(max_workers=jobs) as pool:
            pipes = _Pipes(tools, source, aside, snapshot)
            shares = [pool.submit(_fill, pipes, table, restore, filled) for table in wanted if table.size >= SMALL]
            shares.append(pool.submit(pipes.small, [table for table in wanted if table.size < SMALL], folder))
            try:
                for share in wait(shares, return_when=FIRST_EXCEPTION).done:
                    share.result()
            except BaseException:  # Ctrl-C too: nothing goes on in the background
                pool.shutdown(wait=False, cancel_futures=True)
                end_all()
                for pumping in list(PUMPING):
                    with contextlib.suppress(Exception):
                        pumping.cancel()
                raise
        if large_objects and connection.execute("SELECT 1 FROM pg_largeobject_metadata LIMIT 1").fetchone():
            only = ("--data-only", "--large-objects", "--exclude-table-data=*.*")
            tools.run("pg_dump", source, "-Fc", *only, f"--snapshot={snapshot}", f"--file={large}")
            objects = ArchiveRestore(tools, large, aside, frozenset(present))
            if missing:
                objects = examined(tools, large, aside, present)
            objects.run()
            notes = objects.settle()
        sequences = _sequences_and_views(connection, aside)  # before event triggers are there, which a REFRESH would fire
        restore.rest()
        notes += definitions.settle()
    return sequences, list(dict.fromkeys(notes))


@dataclass(frozen=True)
class _Restore:
    """What of an archive's post-data section is still to be restored; oid -> line of its table of contents."""

    tools: ClientTools
    aside: Target
    archive: str
    folder: Path
    entries: dict[int, str]
    jobs: int
    options: list[str]

    def of(self, table: Table) -> None:
        self._run([self.entries.pop(oid) for oid in sorted(table.entries & self.entries.keys())], f"{id(table)}.list")

    def rest(self) -> None:
        self._run(list(self.entries.values()), "rest.list")

    def _run(self, lines: list[str], name: str) -> None:
        if lines:
            (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
            options = (f"--jobs={self.jobs}", "--section=post-data", f"--use-list={self.folder / name}")
            self.tools.restore(self.aside, *options, *self.options, self.archive)


def _entries(listing: str) -> dict[int, str]:
    """The lines of an archive's table of contents; indexes and constraints under the oid that they had, others under their
    own negative number.
    """
    found = {}
    for line in listing.splitlines():
        if entry := re.match(r"(\d+); \d+ (\d+) (.+)", line):
            own = re.match(r"(INDEX|CONSTRAINT) (?!ATTACH )", entry[3])
            found[int(entry[2]) if own else -int(entry[1])] = line
    return found


def _fill(pipes: _Pipes, table: Table, restore: _Restore, filled: Callable[[set[str]], object]) -> None:
    pipes.large(table)
    if not table.root:  # others may still put rows into it
        filled({table.quoted})
    restore.of(table)


@dataclass(frozen=True)
class _Pipes:
    """One psql reads, another writes what it reads."""

    tools: ClientTools
    source: Target
    aside: Target
    snapshot: str

    def large(self, table: Table) -> None:
        """A table alone, in binary where that can be."""
        if not PIPES:
            self._by_hand([table])
            return
        reads, writes = [*self._begin(), table.read], ["BEGIN", *table.write, "COMMIT"]
        self._pump(table.quoted, [f"--command={each}" for each in reads], [f"--command={each}" for each in writes])

    def small(self, tables: list[Table], folder: Path) -> None:
        """Tables one after the other, as text: the reader prints a script with their rows in it."""
        if not PIPES:
            self._by_hand(tables)
            return
        lines, word = [f"{each};" for each in self._begin()] + ["\\echo BEGIN;"], secrets.token_hex(16)
        for number, table in enumerate(dataclasses.replace(each, binary=False) for each in tables):
            lines += ["\\echo COMMIT; BEGIN;"] if number and number % LOCKED == 0 else []
            lines += [f"\\echo {_argument(f'{each};')}" for each in table.write] + [f"{table.read};", "\\echo '\\\\.'"]
        script = folder / "small.sql"
        script.write_text("\n".join([*lines, "\\echo COMMIT;", f"\\echo '\\\\echo {word}'", ""]), encoding="utf-8")
        self._pump(f"{len(tables)} small tables", [f"--file={script}"], ["--file=-"], last=word)

    def _begin(self) -> list[str]:
        return ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", f"SET TRANSACTION SNAPSHOT '{self.snapshot}'"]

    def _by_hand(self, tables: list[Table]) -> None:
        """The tables one after the other, their bytes through this process."""
        with (
            contextlib.closing(connections.connect(self.source, "copy")) as old,
            contextlib.closing(connections.connect(self.aside, "copy")) as new,
        ):
            old.execute(f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; {self._begin()[1]}".encode())
            PUMPING.update((old, new))
            try:
                for table in tables:
                    *first, fill = table.write
                    for each in first:
                        new.execute(each.encode())
                    with old.cursor().copy(table.read.encode()) as read, new.cursor().copy(fill.encode()) as write:
                        for block in read:
                            write.write(block)
                    new.commit()
            finally:
                PUMPING.difference_update((old, new))

    def _pump(self, what: str, reads: list[str], writes: list[str], last: str = "") -> None:
        """Let the writer read what the reader prints; `last` is what the writer has to say when it is at the end."""
        reader = self.tools.start("psql", self.source, *QUIET, *reads, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        writer = self.tools.start(
            "psql", self.aside, *QUIET, *writes, stdin=reader.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with ended(reader, writer):
            assert reader.stdout
            reader.stdout.close()  # so that the reader notices when the writer is gone
            printed, wrong = writer.communicate()
            complaint = reader.stderr.read() if reader.stderr else b""
            if reader.wait() or writer.returncode:
                first = complaint if reader.returncode and complaint else wrong  # what the writer says then only follows
                raise StepFailed(f"copying {what} failed: {said(first)}", remedy=remedy_of(first))
            if printed.decode(errors="replace").strip() != last:
                raise StepFailed(f"copying {what} failed: psql did not come to the last line", remedy="run it again")


def _forever(version: int) -> str:
    """The option that turns off a time-out which PostgreSQL has since 17; a server that is older would refuse it."""
    return " -c transaction_timeout=0" if version >= 170_000 else ""


def _argument(text: str) -> str:
    """The text as one argument of a command of psql's."""
    for plain, escaped in (("\\", "\\\\"), ("'", "''"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return f"'{text}'"


def hold(connection: Connection, target: Target) -> str:
    """Begin a transaction that keeps all tables as they are now, but for rows, and export its snapshot.

    TRUNCATE and ALTER TABLE do not go by snapshots: to one that is older, the table is empty then. PostgreSQL manual, MVCC
    caveats. Raises psycopg's LockNotAvailable for a table that somebody holds.
    """
    from psycopg import sql

    def listed() -> list[str]:
        return sorted(table.quoted for table in tables(connection))

    connections.begin(connection, target.policy, brief=True)
    before = listed()
    while True:
        connection.rollback()
        connections.begin(connection, target.policy, brief=True, isolation="REPEATABLE READ READ ONLY")
        if before:  # the first query takes the snapshot, and LOCK is none
            each = sql.SQL(", ").join(sql.SQL(f"ONLY {name}") for name in before)
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(each))
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row
        if (now := listed()) == before:
            return str(row[0])
        before = now  # a table came or went in between


def _sequences_and_views(connection: Connection, aside: Target) -> dict[str, list[Any]]:
    """What pg_dump has in its data section: the sequences' values, which no snapshot holds, and materialized views."""
    from psycopg import sql

    from skinspire_db.catalog.fingerprint import SEQUENCES

    values: dict[str, list[Any]] = {}
    with contextlib.closing(connections.connect(aside, "copy")) as new:
        connections.begin(new, aside.policy)
        for each in connection.execute(SEQUENCES).fetchall():
            value = connection.execute(
                sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(*each))
            ).fetchone()
            assert value
            values[_quote(*each)] = list(value)
            new.execute("SELECT setval(%s::regclass, %s, %s)", (_quote(*each), *value))
        for (view,) in connection.execute(POPULATED_VIEWS.encode()).fetchall():
            new.execute(f"REFRESH MATERIALIZED VIEW {view}".encode())
        new.commit()
    return values


def with_options(target: Target, options: str) -> Target:
    """The same database, its sessions with these settings."""
    given = target.parameters.get("options", "")
    return dataclasses.replace(target, parameters=target.parameters | {"options": f"{given} {options}".strip()})


def _quote(*names: str) -> str:
    from psycopg import sql

    return sql.Identifier(*names).as_string()
