"""The fingerprint of a database: the number and a hash of each table's rows, its definitions, and its sequences' values."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import definitions, objects, row_hash, row_security
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SEQUENCES = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND {objects.USER_SCHEMA} ORDER BY 1, 2
"""  # noqa: S608
# Partitions below one that is divided by the hash of an enum, and the topmost such. Labels have other oids in a copy, so that
# rows are in other partitions there; pg_dump (16 and newer) loads them through the root.
REDIVIDED = """
    WITH RECURSIVE up (leaf, at, level) AS (
        SELECT oid, oid, 0 FROM pg_class WHERE relispartition AND relkind = 'r'
        UNION ALL SELECT up.leaf, i.inhparent, up.level + 1 FROM up JOIN pg_inherits i ON i.inhrelid = up.at
    )
    SELECT DISTINCT ON (up.leaf) ln.nspname, l.relname, rn.nspname, r.relname
    FROM up JOIN pg_partitioned_table p ON p.partrelid = up.at AND p.partstrat = 'h' AND EXISTS (
        SELECT FROM unnest(p.partattrs::int2[]) AS k (n) JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.n
        JOIN pg_type t ON t.oid = a.atttypid WHERE t.typtype = 'e')
    JOIN pg_class l ON l.oid = up.leaf JOIN pg_namespace ln ON ln.oid = l.relnamespace
    JOIN pg_class r ON r.oid = up.at JOIN pg_namespace rn ON rn.oid = r.relnamespace
    ORDER BY up.leaf, up.level DESC
"""
# A row's text depends on these.
SPELLING = """
    SET LOCAL DateStyle = ISO; SET LOCAL IntervalStyle = postgres; SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = hex; SET LOCAL row_security = on
"""
CAST = lazy_regex(
    r"::(?:character varying|double precision|time(?:stamp)? with(?:out)? time zone|[\w.\"]+)(?:\([\d, ]+\))?(?:\[\])*"
)
# Gives the locks on a table, its indexes and its TOAST back, in the message of the query that needs them.
ALONE = ("SAVEPOINT alone", "ROLLBACK TO alone; RELEASE alone")
BATCH = 100  # sequences whose locks are held at once
PART = 8192  # blocks: larger tables are hashed in parts, by several sessions


@dataclass(frozen=True)
class Fingerprint:
    """`tables`: quoted name -> [rows, hash]; `sequences`: quoted name -> [last value, is called]; `definitions`: as the
    catalogue has them, name -> hash. Hashes can be compared with those of a server of the same `major` version only, and of
    the same kind: `row_hash`, as row_hash has them.
    """

    tables: dict[str, list[Any]]
    sequences: dict[str, list[Any]]
    definitions: dict[str, str]
    major: int
    row_hash: str = row_hash.FORMER

    @property
    def rows(self) -> int:
        """How many rows all tables have together."""
        return sum(rows for rows, _ in self.tables.values())

    @property
    def numbers(self) -> dict[str, int | str]:
        """How many tables the application has, how many the tools have beside them, and rows, as summaries have them."""
        own = sum(name.startswith(f'"{objects.TOOLS_SCHEMA}".') for name in self.tables)
        return {"tables": len(self.tables) - own, "of_the_tools": own, "rows": self.rows}

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)


Rows = dict[str, list[Any]]  # as in Fingerprint.tables
Sessions = set[Any]  # the connections that are hashing tables at the moment, so that they can be cancelled


def take(
    target: Target,
    operation: str,
    *,
    at: str | None = None,
    jobs: int = 2,
    only: set[str] | None = None,
    where: Mapping[str, str] | None = None,
    counted: frozenset[str] = frozenset(),
    comments: bool = True,
    together: Mapping[str, str] | None = None,
    known: Rows | None = None,
    kind: str = row_hash.CURRENT,
    watched: tuple[Sessions, ...] = (),
) -> Fingerprint:
    """The fingerprint of a database, taken on one snapshot.

    Args:
        target: the database.
        operation: for whom, as the sessions' application_name says.
        at: the name of a snapshot that another session exported; None for a new one.
        jobs: how many sessions hash tables at once.
        only: the quoted names of the tables whose rows are read; None for all.
        where: quoted name -> the condition of the rows that are read, in SQL where the table is `t`.
        counted: the quoted names of tables whose rows are counted and not hashed.
        comments: definitions count with their comments.
        together: more partitions whose rows can be in another one in a copy, as `redivided` has them.
        known: the rows of tables that need not be read again.
        kind: of the rows' hashes; that of the fingerprint with which it is to be compared.
        watched: sets that hold the connections while they hash tables; see `meanwhile`.

    Raises:
        ConnectionFailed: the server does not answer; DatabaseMissing: it has no such database.
        PermissionMissing: row security hides rows from the role.
        psycopg.Error: what PostgreSQL refuses.
    """
    own: Sessions = set()
    options: dict[str, Any] = {"jobs": jobs, "only": only, "where": where, "counted": counted, "known": known, "kind": kind}
    with connections.connect(target, operation) as first, meanwhile(own) as pool:
        snapshot = _begin(first, target, at)
        tables = pool.submit(rows, target, operation, at=snapshot, watched=(*watched, own), **options)
        sequences = _values(first, [objects.quoted_name(*each) for each in first.execute(SEQUENCES).fetchall()])
        described = {key: digest(str(value)) for key, value in definitions.snapshot(first, comments=comments).items()}
        found = _together(tables.result(), redivided(first) | dict(together or {}))
        first.rollback()
        return Fingerprint(found, sequences, described, first.info.server_version // 10_000, kind)


def redivided(connection: Connection) -> dict[str, str]:
    """Partitions whose rows can be in another one in a copy: quoted name -> that of the table that they all belong to."""
    found = connection.execute(REDIVIDED.encode()).fetchall()
    return {objects.quoted_name(*names[:2]): objects.quoted_name(*names[2:]) for names in found}


def _together(found: Rows, roots: dict[str, str]) -> Rows:
    """The rows with those of such partitions as one table's."""
    kept = {name: row for name, row in found.items() if name not in roots}
    for name in found.keys() & roots.keys():
        kept[roots[name]] = _sum(kept.get(roots[name]), found[name])
    return dict(sorted(kept.items()))


def _sum(one: list[Any] | None, other: list[Any]) -> list[Any]:
    """The number and hash of the rows of both."""
    count, hashed = one or (0, "0")
    return [count + other[0], str(int(hashed) + int(other[1]))]


def _parts(blocks: int) -> Iterator[str]:
    """Conditions that divide a table by its blocks; the last part has no end."""
    for start in range(0, max(blocks, 1), PART):
        end = f" AND t.ctid < '({start + PART},0)'" if start + PART < blocks else ""
        yield f"t.ctid >= '({start},0)'{end}" if blocks > PART else "true"


def rows(
    target: Target,
    operation: str,
    *,
    at: str | None = None,
    jobs: int = 2,
    only: set[str] | None = None,
    where: Mapping[str, str] | None = None,
    counted: frozenset[str] = frozenset(),
    known: Rows | None = None,
    kind: str = row_hash.CURRENT,
    watched: tuple[Sessions, ...] = (),
) -> Rows:
    """The tables of the fingerprint, which take the most time. Arguments and errors are those of `take`."""
    found, own = dict(known or {}), Sessions()
    with connections.connect(target, operation) as first, meanwhile(own, jobs) as pool:
        snapshot = _begin(first, target, at)
        listed = [each for each in row_hash.tables(first, kind, only) if each[0] not in found]
        if jobs > 1 and (divided := [name for name, blocks, _ in listed if blocks > PART]):
            # A rewrite of a table between two parts would move rows from one to the other.
            first.execute(f"LOCK TABLE ONLY {', ONLY '.join(divided)} IN ACCESS SHARE MODE".encode())
        wanted = [
            (name, f"{part} AND {(where or {}).get(name, 'true')}", row_hash.COUNTED if name in counted else hashed)
            for name, blocks, hashed in listed
            for part in _parts(blocks if jobs > 1 else 0)
        ]
        queue, sessions = iter(wanted), (*watched, own)  # each session takes the next part when it has finished one
        shares = [pool.submit(_share, target, operation, snapshot, queue, sessions) for _ in wanted[1:jobs]]
        large = _large_objects(first) if only is None else None
        of_first = _hash(first, queue, sessions)
        for name, row in (*of_first, *(each for share in shares for each in share.result())):
            found[name] = _sum(found.get(name), row)
        first.rollback()
    return {name: found[name] for name in sorted(found)} | ({"large objects": large} if large else {})


class _Pool(ThreadPoolExecutor):
    """Threads, and what was submitted to them."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        self.submitted: list[Future[Any]] = []

    def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
        future = super().submit(*arguments, **options)
        self.submitted.append(future)
        return future


@contextlib.contextmanager
def meanwhile(sessions: Sessions, workers: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Threads that take fingerprints while something else goes on.

    Args:
        sessions: give it to `take` or `rows` in `watched`. When the block fails, by Ctrl-C too, the queries of the
            connections in it are cancelled.
        workers: how many threads.
    """
    pool = _Pool(max_workers=workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        while wait(pool.submitted, timeout=0.1).not_done:  # again: a session may have been between two queries
            for connection in list(sessions):
                with contextlib.suppress(Exception):
                    connection.cancel()
        raise
    finally:
        pool.shutdown()


def differences(
    one: Fingerprint, other: Fingerprint, *, of: Sequence[str] = ("tables", "sequences", "definitions")
) -> Iterator[str]:
    """How the other fingerprint differs, a sentence for each difference.

    Fingerprints of two major versions of PostgreSQL are compared only by the numbers of rows and the names.

    Args:
        one: the expected fingerprint.
        other: the one that is compared with it.
        of: the parts to compare. "unowned" is the definitions without owners, grants and policies.
    """
    for part in of:
        first, second = (_unowned(each) if part == "unowned" else getattr(each, part) for each in (one, other))
        for name in sorted(first.keys() | second.keys()):
            what = {"tables": "table ", "sequences": "sequence "}.get(part, "") + name
            if name not in second:
                yield f"{what} is missing"
            elif name not in first:
                yield f"{what} is extra"
            elif part == "tables" and first[name][0] != second[name][0]:
                yield f"{what} has {second[name][0]} rows, not {first[name][0]}"
            elif part == "tables" and one.row_hash != other.row_hash:
                yield f"{what} cannot be compared: its rows' hashes are of two kinds, {one.row_hash} and {other.row_hash}"
            elif first[name] != second[name] and (part == "sequences" or one.major == other.major):
                yield f"{what} differs"


def _unowned(one: Fingerprint) -> dict[str, str]:
    """The definitions without grants and policies; of those that name an owner, only that they are there."""
    owned = ("schema ", "table ", "view ", "function ")
    kept = {name: text for name, text in one.definitions.items() if not name.startswith(("grant ", "policy "))}
    return {name: "" if name.startswith(owned) else text for name, text in kept.items()}


def _values(connection: Connection, sequences: list[str]) -> Rows:
    found: Rows = {}
    for start in range(0, len(sequences), BATCH):
        names = sequences[start : start + BATCH]
        queries = [f"SELECT last_value, is_called FROM {name}" for name in names]  # noqa: S608
        cursor = connection.execute("; ".join((ALONE[0], *queries, ALONE[1])).encode())
        for name in names:
            cursor.nextset()
            found[name] = list(cursor.fetchone() or ())
    return found


def _share(
    target: Target, operation: str, snapshot: str, tables: Iterator[tuple[str, str, str]], watched: tuple[Sessions, ...]
) -> list[tuple[str, list[Any]]]:
    with connections.connect(target, operation) as connection:
        _begin(connection, target, snapshot)
        found = _hash(connection, tables, watched)
        connection.rollback()
    return found


def _hash(
    connection: Connection, tables: Iterator[tuple[str, str, str]], watched: tuple[Sessions, ...]
) -> list[tuple[str, list[Any]]]:
    import psycopg

    found = []
    for sessions in watched:
        sessions.add(connection)
    try:
        for name, where, hashed in tables:
            try:
                found.append((name, _rows(connection, name, where, hashed)))
            except psycopg.errors.UndefinedFunction:  # the former kind, of a type that has none: json
                found.append((name, _rows(connection, name, where, row_hash.OF_TEXT)))
    finally:
        for sessions in watched:
            sessions.discard(connection)
    return found


def _rows(connection: Connection, table: str, where: str, hashed: str) -> list[Any]:
    import psycopg

    query = f"SELECT count(*), coalesce(sum({hashed}), 0)::text FROM ONLY {table} AS t WHERE {where}"  # noqa: S608
    try:
        cursor = connection.execute(f"{ALONE[0]}; {query}; {ALONE[1]}".encode())
    except psycopg.errors.UndefinedFunction:
        connection.execute(ALONE[1])
        raise
    cursor.nextset()
    return list(cursor.fetchone() or ())


def _large_objects(connection: Connection) -> list[Any] | None:
    """Of all large objects; None where there are none, or the role may not read them."""
    may = connection.execute("SELECT has_table_privilege('pg_largeobject', 'SELECT')").fetchone()
    if may != (True,):
        return None
    query = "SELECT count(*), coalesce(sum(hashtextextended(loid::text || ' ' || pageno || data::text, 0)), 0)::text"
    row = connection.execute(f"{query} FROM pg_largeobject".encode()).fetchone()
    return list(row) if row and row[0] else None


def _begin(connection: Connection, target: Target, snapshot: str | None) -> str:
    """A transaction that sees one state of the database throughout; returns its snapshot's name for others."""
    connections.begin(connection, target.policy, brief=True, isolation="REPEATABLE READ READ ONLY", snapshot=snapshot)
    exported = connection.execute(SPELLING if snapshot else f"{SPELLING}; SELECT pg_export_snapshot()")
    row_security.require_all_rows(connection)
    if snapshot:
        return snapshot
    while exported.description is None:
        exported.nextset()
    row = exported.fetchone()
    assert row
    return str(row[0])


def digest(definition: str) -> str:
    """A hash of a definition.

    After a dump and restore PostgreSQL writes some comparisons with other casts and parentheses: those do not count.
    """
    return hashlib.sha256(re.sub(r"[\s()]", "", CAST.sub("", definition)).encode()).hexdigest()[:16]
