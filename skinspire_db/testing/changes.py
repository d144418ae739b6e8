"""What a test has changed in its database, row by row."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.inspection import verification
from skinspire_db.inspection.checks import Subject
from skinspire_db.objects import tenant_roles, versions
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection
    from skinspire_db.testing.modes import ClinicDatabase

SHOWN = 20  # rows that a failure names
ALWAYS_CHANGE = ("updated_at", "updated_by")  # with every other change of a row
WIDEST = 60  # characters of a value that a failure shows
# A partition's rows are counted as the partitioned table's.
TABLES = f"""
    SELECT format('%I.%I', n.nspname, c.relname), rn.nspname || '.' || r.relname,
           ARRAY(SELECT a.attname::text FROM pg_index i
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                 WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid) JOIN pg_namespace rn ON rn.oid = r.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {objects.APPLICATION_SCHEMA}
    ORDER BY 2
"""  # noqa: S608

Rows = dict[str, dict[str, Any]]  # key -> the row as JSON


@dataclass(frozen=True)
class Change:
    """A row that was added, deleted or changed; `was` is None for an added one, `now` for a deleted one."""

    table: str
    key: str
    was: dict[str, Any] | None
    now: dict[str, Any] | None

    def __str__(self) -> str:
        if self.was is None:
            return f"{self.table}: added {self.key}"
        if self.now is None:
            return f"{self.table}: deleted {self.key}"
        differs = [name for name in self.now if self.was.get(name) != self.now[name]]
        differs = [name for name in differs if name not in ALWAYS_CHANGE] or differs
        values = ", ".join(f"{name} {_short(self.was.get(name))} -> {_short(self.now[name])}" for name in differs)
        return f"{self.table}: changed {self.key}: {values}"


class Changes:
    """The rows as they were when the test began, or at the last assertion that held."""

    def __init__(self, database: ClinicDatabase) -> None:
        self.database = database
        self.before = snapshot(database.observer)

    def only(self, **expected: int) -> None:
        """Assert that so many rows of these tables were added, changed or deleted, and none of any other.

        A changed row of a table without a primary key counts as one deleted and one added.

        Args:
            expected: Table -> number of rows. A table outside the schema public is given as **{"billing.invoices": 1}.

        Raises:
            AssertionError: names the rows that were changed unexpectedly.
            ValueError: for a table that does not exist.
        """
        __tracebackhide__ = True
        now = snapshot(self.database.observer)
        names = {table if "." in table else f"public.{table}": count for table, count in expected.items()}
        if unknown := names.keys() - now.keys() - self.before.keys():
            raise ValueError(f"there is no table {min(unknown)}")
        changed = list(changes(self.before, now))
        counts = Counter(change.table for change in changed)
        wrong = {table for table in counts.keys() | names.keys() if counts[table] != names.get(table, 0)}
        if wrong:
            raise AssertionError("\n".join(_explain(wrong, counts, names, changed)))
        self.before = now

    def none(self) -> None:
        """Assert that no row was added, changed or deleted."""
        __tracebackhide__ = True
        self.only()


def snapshot(connection: Connection) -> dict[str, Rows]:
    """All rows of the application's tables: table -> key -> row."""
    tables: dict[str, Rows] = {}
    with _above_policies(connection):
        for quoted, name, key in connection.execute(TABLES.encode()).fetchall():
            rows = tables.setdefault(name, {})
            for (row,) in connection.execute(f"SELECT to_jsonb(t) FROM ONLY {quoted} AS t".encode()).fetchall():  # noqa: S608
                named = ", ".join(f"{column}={row[column]}" for column in key) or str(row)
                while named in rows:  # without a primary key two rows can be alike
                    named += "'"
                rows[named] = row
    return tables


@contextlib.contextmanager
def _above_policies(connection: Connection) -> Iterator[None]:
    """Look at all rows: a db_session has taken the application's role, for the transaction that this connection is in too."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL ROLE NONE; SET LOCAL row_security = off")
        yield


def changes(before: dict[str, Rows], now: dict[str, Rows]) -> Iterator[Change]:
    """The differences between two snapshots, row by row."""
    for table in sorted(before.keys() | now.keys()):
        was, is_now = before.get(table, {}), now.get(table, {})
        for key in sorted(was.keys() | is_now.keys()):
            if was.get(key) != is_now.get(key):
                yield Change(table, key, was.get(key), is_now.get(key))


def assert_valid(database: ClinicDatabase) -> None:
    """Assert that all checks of db.verify pass on the test's database.

    Raises:
        AssertionError: names the checks that do not pass.
    """
    __tracebackhide__ = True
    project = database.environment.project
    connection = database.observer
    subject = Subject(
        connection,
        database.environment,
        Blueprint.of_project(project),
        versions.current(project, roles=tenant_roles.of(database.environment)),
    )
    with _above_policies(connection):
        summary = verification.verify(subject)
    bad = [f"{check.name}: {check.status}: {check.detail}" for check in summary.checks if check.status != "pass"]
    if bad:
        raise AssertionError(f"{len(bad)} of {len(summary.checks)} checks do not pass:\n" + "\n".join(bad))


def _explain(wrong: set[str], counts: Counter[str], names: dict[str, int], changed: list[Change]) -> Iterator[str]:
    for table in sorted(wrong):
        yield f"{table.removeprefix('public.')}: {counts[table]} rows changed, not {names.get(table, 0)}"
    rows = [change for change in changed if change.table in wrong]
    yield from (f"  {str(change).removeprefix('public.')}" for change in rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
