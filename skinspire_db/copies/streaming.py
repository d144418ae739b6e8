"""Copying a database as streams: its tables in parallel on one snapshot, largest first, indexes as each is filled.

From three jobs on a large table is several streams, each of a range of its blocks. One stream keeps two processors busy: two
sessions, two psql. Several fill a table that is neither frozen nor spared the WAL, and put its rows in another order.

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

from skinspire_db.catalog.row_security import require_all_rows
from skinspire_db.copies.archive_restore import DEFINITIONS, SECURITY, UNDER_POLICIES, ArchiveRestore, examined
from skinspire_db.copies.copied_tables import Table, divided, quoted_name
from skinspire_db.copies.dump_files import sql_of
from skinspire_db.errors import StepFailed
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import ClientTools, client_tools, end_all, ended, remedy_of, said
from skinspire_db.postgres.index_builds import quick
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
PATIENT = f"{SPELLING} -c lock_timeout=0 "
PLAIN = f"{SPELLING} -c row_security="
LOCKED = 100  # tables that one transaction fills; with those of others, three locks for each must have room in the server
SMALL = 8 << 20  # bytes: tables of less go together, as text; two programs for each would take longer than their rows
PART = 64 << 20  # bytes: the least that a part of a table has
BLOCKS = """
    SELECT n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relam = 2
"""
PUMPING: set[Any] = set()  # the connections whose bytes go through this process
# Windows' psql reads and writes its standard streams as text, which damages rows in binary and ends at a 0x1A byte.
PIPES = sys.platform != "win32"
USER_MAPPINGS = r"^\d+; \d+ \d+ USER MAPPING "  # with passwords, and a way to rows that are not masked
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
class Stream:
    """A copy of the database `source` into the empty database `aside`.

    Attributes:
        connection: a connection to the source that holds the exported `snapshot` open.
        version: the version number of the server of `aside`.
        present: the roles of that server.
        jobs: how many tables are copied at once.
        examine: gets all definitions as SQL before they are made; comments, user mappings, subscriptions are left out then.
    """

    source: Target
    connection: Connection
    snapshot: str
    aside: Target
    version: int
    present: frozenset[str]
    jobs: int
    examine: Callable[[str], None] | None = None

    def run(
        self, wanted: list[Table], transfer: Transfer, filled: Callable[[set[str]], object], *, large_objects: bool
    ) -> tuple[dict[str, list[Any]], list[str]]:
        """Copy all definitions, and the rows of some tables.

        Args:
            wanted: the tables whose rows are copied.
            transfer: is told how many bytes and rows have gone over.
            filled: is called with the names of tables whose rows are there, before their indexes are.
            large_objects: whether large objects are copied.

        Returns:
            The values that the sequences were given, which no snapshot holds; and what of roles that are not present was
            mapped or left out, a sentence each.

        Raises:
            StepFailed: with what the programs said; the database `aside` is then incomplete.
        """
        stream = self._with_settings()
        with private_folder() as folder:
            definitions = stream._definitions(folder / "definitions")
            restore = _Restore(definitions, folder, _entries(definitions.contents()), self.jobs)
            with watched(stream.source, sum(table.size for table in wanted), transfer):
                stream._rows(wanted, restore, filled)
            notes = stream._large_objects(folder / "large_objects") if large_objects else []
            # Before event triggers are there, which a REFRESH would fire.
            sequences = _sequences_and_views(self.connection, stream.aside)
            restore.rest()
            notes += definitions.settle()
        return sequences, list(dict.fromkeys(notes))

    @property
    def tools(self) -> ClientTools:
        """The programs for the source's server."""
        return client_tools(self.connection.info.server_version)

    def _with_settings(self) -> Stream:
        """The same copy, whose sessions have the settings that it needs."""
        # A session that wants to lock a table waits for our lock, and our readers would wait behind that session.
        wait_ms = round(self.source.policy.lock_timeout * 1000)
        # Off, PostgreSQL refuses to read a table whose policies bind this role, be it that they let it see all rows.
        rows = "on" if require_all_rows(self.connection) else "off"
        options = f"{PLAIN}{rows} -c lock_timeout={wait_ms}{_forever(self.connection.info.server_version)}"
        written = PATIENT + quick(self.aside, self.jobs) + _forever(self.version)
        source, aside = with_options(self.source, options), with_options(self.aside, written)
        return dataclasses.replace(self, source=source, aside=aside)

    def _dumped(self, archive: Path, *options: str, internal: bool = False) -> ArchiveRestore:
        """Dump a part of the source; `internal` is whether its definitions have options that only its own server takes."""
        self.tools.run("pg_dump", self.source, "-Fc", *options, f"--snapshot={self.snapshot}", f"--file={archive}")
        roles = {role for (role,) in self.connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        if roles - self.present or internal:
            return examined(self.tools, archive, self.aside, set(self.present))
        return ArchiveRestore(self.tools, archive, self.aside, self.present)

    def _definitions(self, archive: Path) -> ArchiveRestore:
        """Make the tables; what comes after their rows is still to be restored."""
        internal = self.connection.execute(INTERNAL_OPTIONS).fetchone() == (True,)
        options = ["--no-comments", "--no-subscriptions"] if self.examine else []
        definitions = self._dumped(archive, "--schema-only", *options, internal=internal)
        if self.examine:
            self.examine(sql_of(self.tools, archive, self.aside, DEFINITIONS))
            if re.search(USER_MAPPINGS, definitions.contents(), re.MULTILINE):
                definitions = dataclasses.replace(definitions, outside=(USER_MAPPINGS,))
        definitions.run(sections=("pre-data",))
        return definitions

    def _rows(self, wanted: list[Table], restore: _Restore, filled: Callable[[set[str]], object]) -> None:
        """Copy the rows, and make the indexes of each table when it is filled."""
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            pipes = _Pipes(self.tools, self.source, self.aside, self.snapshot)
            tables = [_Filling(table, self._parts(table, wanted), filled) for table in wanted if table.size >= SMALL]
            shares = [pool.submit(table.fill, part, pipes, restore) for table in tables for part in table.parts]
            shares.append(pool.submit(pipes.small, [table for table in wanted if table.size < SMALL], restore.folder))
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

    def _parts(self, table: Table, wanted: list[Table]) -> list[Table]:
        """The table in as many parts as keep all jobs busy; whole where two jobs do, or its rows have no blocks."""
        share = sum(each.size for each in wanted) // self.jobs
        parts = min(self.jobs, table.size // max(share, PART) + 1, table.size // PART)
        blocks = dict.fromkeys([table.quoted], 0)
        if self.jobs > 2 and parts > 1:
            blocks |= {quoted_name(*row[:2]): row[2] for row in self.connection.execute(BLOCKS.encode()).fetchall()}
        return divided(table, blocks[table.quoted], parts) if blocks[table.quoted] >= parts > 1 else [table]

    def _large_objects(self, archive: Path) -> list[str]:
        """Copy the large objects. Returns what was mapped or left out."""
        if not self.connection.execute("SELECT 1 FROM pg_largeobject_metadata LIMIT 1").fetchone():
            return []
        objects = self._dumped(archive, "--data-only", "--large-objects", "--exclude-table-data=*.*")
        objects.run()
        return objects.settle()


@dataclass(frozen=True)
class _Restore:
    """What of an archive's post-data section is still to be restored; oid -> line of its table of contents."""

    definitions: ArchiveRestore
    folder: Path
    entries: dict[int, str]
    jobs: int

    def of(self, table: Table) -> None:
        """Restore the indexes and constraints of a table."""
        self._run([self.entries.pop(oid) for oid in sorted(table.entries & self.entries.keys())], f"{id(table)}.list")

    def rest(self) -> None:
        """Restore everything that is left; row security last, which hides rows from the owner who checks foreign keys."""
        security = [line for line in self.entries.values() if re.match(SECURITY, line)]
        self._run([line for line in self.entries.values() if line not in security], "rest.list")
        self._run(security, "security.list")

    def _run(self, lines: list[str], name: str) -> None:
        if lines:
            (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
            options = (f"--jobs={self.jobs}", "--section=post-data", f"--use-list={self.folder / name}")
            archive = self.definitions
            # The server's own workers count as jobs: one index alone is built by all, several by one process each.
            workers = self.jobs // min(self.jobs, len(lines)) - 1
            aside = with_options(archive.aside, f"-c max_parallel_maintenance_workers={workers}")
            archive.tools.restore(aside, *options, UNDER_POLICIES, *archive.options, str(archive.archive))


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


@dataclass
class _Filling:
    """A table that is being filled, and the parts of it; `filled` is as in Stream.run."""

    table: Table
    parts: list[Table]
    filled: Callable[[set[str]], object]
    done: list[Table] = dataclasses.field(default_factory=list)

    def fill(self, part: Table, pipes: _Pipes, restore: _Restore) -> None:
        """Copy a part of the rows; the last one to end makes the indexes."""
        pipes.large(part)
        self.done.append(part)
        if part is not self.done[-1] or len(self.done) < len(self.parts):
            return
        if not self.table.root:  # others may still put rows into it
            self.filled({self.table.quoted})
        restore.of(self.table)


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
            values[quoted_name(*each)] = list(value)
            new.execute("SELECT setval(%s::regclass, %s, %s)", (quoted_name(*each), *value))
        for (view,) in connection.execute(POPULATED_VIEWS.encode()).fetchall():
            new.execute(f"REFRESH MATERIALIZED VIEW {view}".encode())
        new.commit()
    return values


def with_options(target: Target, options: str) -> Target:
    """The same database, its sessions with these settings."""
    given = target.parameters.get("options", "")
    return dataclasses.replace(target, parameters=target.parameters | {"options": f"{given} {options}".strip()})
