"""The tables that a copy or backup reads: which there are, the COPY statements of each, and a snapshot of all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.catalog.fingerprint import redivided
from skinspire_db.catalog.objects import quoted_name as quoted_name
from skinspire_db.catalog.row_hash import OIDS
from skinspire_db.errors import UsageError
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from psycopg import Cursor

    from skinspire_db.postgres.connections import Connection

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
NAMES = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {objects.USER_RELATION} ORDER BY 1, 2
"""  # noqa: S608
# The columns by whose hash a partition or one that it is in is chosen, and the topmost table.
HASHED = """
    SELECT n.nspname, c.relname, a.attname, rn.nspname, r.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL pg_partition_ancestors(c.oid) AS up (oid)
    JOIN pg_partitioned_table p ON p.partrelid = up.oid AND p.partstrat = 'h'
    JOIN pg_attribute u ON u.attrelid = up.oid AND u.attnum = ANY (p.partattrs::int2[])
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = u.attname
    JOIN pg_class r ON r.oid = pg_partition_root(c.oid) JOIN pg_namespace rn ON rn.oid = r.relnamespace
    WHERE c.relkind = 'r' AND c.relispartition
"""


# The tools' own rows are copied also when other rows are left out: they say which triggers and revisions are there.
LEDGER = '"skinspire_tools"."ledger"'


@dataclass(frozen=True)
class Reading:
    """How the rows of a table are read; by default all of them, as they are. In its SQL the table is `t`.

    Attributes:
        expressions: column -> SQL of the column's type that takes its place.
        where: the condition of the rows that are copied; empty for all, "false" for none.
        by_value: columns whose expressions read nothing but the column, and cost more than looking up what they were for the
            same value: where a column has few values, PostgreSQL keeps that (Memoize).
    """

    expressions: dict[str, str] = dataclasses.field(default_factory=dict)
    where: str = ""
    by_value: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table to copy. `columns` are those that hold values of their own; `entries` are its indexes' and constraints' oids.

    `root` is the table through which it is filled, where its rows can belong into another partition; `part` is whether only
    some of its rows are meant, while others are filled by other sessions.
    """

    schema: str
    name: str
    size: int
    columns: list[str]
    binary: bool
    entries: frozenset[int]
    reading: Reading = dataclasses.field(default_factory=Reading)
    root: str = ""
    part: bool = False

    @property
    def quoted(self) -> str:
        """Schema and name, quoted."""
        return quoted_name(self.schema, self.name)

    @property
    def listed(self) -> str:
        """The table with its columns, as COPY takes them."""
        return f"{self.quoted} ({', '.join(map(quoted_name, self.columns))})" if self.columns else self.quoted

    @property
    def read(self) -> str:
        """The COPY that reads it."""
        source, reading = self.listed, self.reading
        if reading != Reading():
            looked_up = [column for column in self.columns if column in reading.by_value]
            values = {column: f"v{number}.v" for number, column in enumerate(looked_up)}
            chosen = ((reading.expressions | values).get(column, f"t.{quoted_name(column)}") for column in self.columns)
            rows = f"ONLY {self.quoted} AS t" + (f" WHERE {reading.where}" if reading.where else "")
            if looked_up and reading.where:  # before the expressions are run
                rows = f"(SELECT t.* FROM {rows} OFFSET 0) AS t"  # noqa: S608
            for number, column in enumerate(looked_up):
                rows += f" CROSS JOIN LATERAL (SELECT {reading.expressions[column]} AS v OFFSET 0) AS v{number}"
            source = f"(SELECT {', '.join(chosen)} FROM {rows})"  # noqa: S608
        return f"COPY {source} TO STDOUT (FORMAT {self.format})"

    @property
    def write(self) -> list[str]:
        """The COPY that fills it. No other session sees the table yet, so FREEZE is possible; it needs a TRUNCATE first. Rows
        that can belong into another partition go through the root. Several sessions that fill one table do without both.
        """
        if self.root or self.part:
            return [f"COPY {self.listed.replace(self.quoted, self.root or self.quoted, 1)} FROM STDIN (FORMAT {self.format})"]
        return [f"TRUNCATE ONLY {self.quoted}", f"COPY {self.listed} FROM STDIN (FORMAT {self.format}, FREEZE)"]

    @property
    def format(self) -> str:
        """The format of COPY: binary unless a column's type has no binary form."""
        return "binary" if self.binary else "text"


def divided(table: Table, blocks: int, parts: int) -> list[Table]:
    """The table in parts of about the same number of blocks, which can be read at once (TID range scans, PostgreSQL 14).

    Args:
        table: a heap.
        blocks: how many it has; rows in later ones are in the last part.
        parts: how many parts.
    """
    bounds = [blocks * number // parts for number in range(parts)]
    conditions = [
        f"t.ctid >= '({start},0)'" + (f" AND t.ctid < '({end},0)'" if end else "")
        for start, end in zip(bounds, [*bounds[1:], 0], strict=True)
    ]
    where = f"({table.reading.where}) AND " if table.reading.where else ""
    return [
        dataclasses.replace(
            table, part=True, size=table.size // parts, reading=dataclasses.replace(table.reading, where=where + each)
        )
        for each in conditions
    ]


def tables(connection: Connection) -> list[Table]:
    """The tables of a database that have rows of their own, largest first."""
    roots = redivided(connection)
    return [
        Table(schema, name, size, columns, binary, frozenset(entries), root=roots.get(quoted_name(schema, name), ""))
        for _, schema, name, size, columns, binary, entries in connection.execute(
            TABLES.format(oids=OIDS.format(kinds="'c'"), relations=objects.USER_RELATION).encode()
        ).fetchall()
    ]


def redivided_by(connection: Connection, read: list[Table]) -> list[Table]:
    """The tables, where those that are partitions by the hash of a column that is read through an expression are filled
    through the topmost table: their rows can belong into another partition.

    Args:
        connection: the source.
        read: the tables.
    """
    hashed = {row[:3]: quoted_name(*row[3:]) for row in connection.execute(HASHED.encode()).fetchall()}
    found = []
    for table in read:
        places = [(table.schema, table.name, column) for column in table.reading.expressions]
        root = next((hashed[place] for place in places if place in hashed), table.root)
        found.append(dataclasses.replace(table, root=root))
    return found


def chosen(connection: Connection, found: list[Table], wanted: tuple[str, ...]) -> list[Table]:
    """Tables by name, with those that they need through foreign keys and those that say what is installed.

    Args:
        connection: the source.
        found: its tables.
        wanted: names, with a schema unless that is public; none for no rows of the application's.

    Raises:
        UsageError: there is no table of a name.
    """
    from psycopg import sql

    names = {f"{table.schema}.{table.name}": table for table in found}
    taken: set[str] = set()
    for name in wanted:
        full = name if "." in name else f"public.{name}"
        if full not in names:
            raise UsageError(f"there is no table {name} in the source", remedy="correct --tables=patients,staff")
        taken.add(names[full].quoted)
    needs = [
        (sql.Identifier(*names[:2]).as_string(), sql.Identifier(*names[2:]).as_string())
        for names in connection.execute(
            "SELECT DISTINCT n.nspname, c.relname, rn.nspname, r.relname"
            " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE k.contype = 'f'"
        ).fetchall()
    ]
    while more := {referenced for referring, referenced in needs if referring in taken} - taken:
        taken |= more
    taken |= {LEDGER, *(sql.Identifier(*each).as_string() for each in objects.version_tables(connection))}
    return [table for table in found if table.quoted in taken]


def hold(connection: Connection, target: Target) -> str:
    """Begin a transaction that keeps all tables as they are now, but for rows, and export its snapshot.

    TRUNCATE and ALTER TABLE ignore snapshots: an older snapshot then sees an empty table (PostgreSQL manual, MVCC caveats).

    Args:
        connection: the connection whose transaction holds the tables.
        target: the database that it is connected to.

    Returns:
        The snapshot's name, for SET TRANSACTION SNAPSHOT.

    Raises:
        psycopg.errors.LockNotAvailable: another session holds a table.
    """
    connections.begin(connection, target.policy, brief=True)
    before = _named(connection.execute(NAMES.encode()))
    while True:
        connections.begin(connection, target.policy, brief=True, isolation="REPEATABLE READ READ ONLY", again=True)
        # The first query takes the snapshot, and LOCK is none. All is one message: the server may be far.
        lock = f"LOCK TABLE ONLY {', ONLY '.join(before)} IN ACCESS SHARE MODE; " if before else ""
        cursor = connection.execute(f"{lock}SELECT pg_export_snapshot(); {NAMES}".encode())
        if lock:
            cursor.nextset()
        row = cursor.fetchone()
        cursor.nextset()
        assert row
        if (now := _named(cursor)) == before:
            return str(row[0])
        before = now  # a table came or went in between


def _named(cursor: Cursor[Any]) -> list[str]:
    return [quoted_name(*names) for names in cursor.fetchall()]
