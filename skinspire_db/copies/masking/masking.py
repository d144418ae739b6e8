"""A masked copy as copies.copy makes it: planned before it begins, read through masks, searched before it is swapped in."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.config.project import Project
from skinspire_db.copies import streaming
from skinspire_db.copies.copied_tables import Table, quoted_name
from skinspire_db.copies.masking import catalogue, comments, fitting, plan, rules
from skinspire_db.copies.masking.plan import Plan
from skinspire_db.copies.masking.search import Search, session
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle import stamp
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# Sequences and the columns that they give numbers to, as their owner or by a default.
SEQUENCES = """
    WITH used (sequence, rel, number) AS (
        SELECT objid, refobjid, refobjsubid FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i') AND refobjsubid > 0
        UNION SELECT d.refobjid, a.adrelid, a.adnum FROM pg_depend d JOIN pg_attrdef a ON a.oid = d.objid
        WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
    )
    SELECT sn.nspname, s.relname, n.nspname, c.relname, a.attname, q.seqmin, q.seqmax, q.seqincrement
    FROM used JOIN pg_class s ON s.oid = used.sequence AND s.relkind = 'S' JOIN pg_sequence q ON q.seqrelid = s.oid
    JOIN pg_class c ON c.oid = used.rel AND c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_namespace sn ON sn.oid = s.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = used.number
"""


@dataclass(frozen=True)
class Masking:
    """What a masked copy needs beside a plain one.

    Attributes:
        project: whose rules hold.
        secret: what the pseudonyms depend on, in hexadecimal digits.
        stamped: whose the copy is said to be; "" for the environment that it is made for.
    """

    project: Project
    secret: str = field(repr=False, default_factory=plan.secret_of)
    stamped: str = ""

    @classmethod
    def of(cls, project: Project, secret_env: str | None) -> Masking:
        """A masking with a new secret, or with the one that the variable of that name holds.

        Raises:
            UsageError: the variable is not set, or holds less than 16 characters.
        """
        if secret_env is None:
            return cls(project)
        value = os.environ.get(secret_env) or project.setting(secret_env).value or ""
        if len(value) < 16:
            raise UsageError(
                f"--secret-env={secret_env} names a variable that "
                + ("is not set" if not value else "holds less than 16 characters"),
                remedy=f"export {secret_env}=$(openssl rand -hex 32), or leave --secret-env out",
            )
        return cls(project, plan.secret_of(value))

    def plan(self, connection: Connection, source: Target) -> Plan:
        """The plan for the database of this connection, which is in a transaction of connections.begin().

        Args:
            connection: the source.
            source: where it is, for a session of its own with the secret, on which the masks are tried.

        Raises:
            UsageError: it cannot be masked; with the column and why.
            SqlFileInvalid: the rules cannot be used.
        """
        made = plan.make(catalogue.read(connection), rules.read(self.project))
        if not made.refusals:
            with contextlib.closing(connections.connect(self.read_through(source), "copy")) as trial:
                connections.begin(trial, source.policy, brief=True, isolation="REPEATABLE READ READ ONLY")
                fitting.fit(trial, made)
        made.require(source.environment)
        return made

    def read_through(self, target: Target) -> Target:
        """The same database, its sessions with the secret."""
        return streaming.with_options(target, plan.setting(self.secret))


def preview(masking: Masking, target: Target, made: Plan, table: str, limit: int) -> list[dict[str, object]]:
    """The first rows of a table as a copy would have them.

    Args:
        masking: has the secret.
        target: the database.
        made: its plan.
        table: the table's name, as rules write it.
        limit: how many rows.

    Raises:
        UsageError: there is no such table with columns, or its rows stay away.
    """
    parts = made.catalogue.parts.get(table, [table])
    found = [columns for columns in made.catalogue.tables().values() if columns[0].table_name in parts]
    if not found:
        raise UsageError(
            f"there is no table {table} with columns", remedy=f"invoke db.inspect --env={target.environment} --section=tables"
        )
    if dropped := made.dropped & set(parts):
        raise UsageError(
            f"the rows of {min(dropped)} stay away from a masked copy",
            remedy=f"invoke mask.check --env={target.environment} shows the tables whose rows come",
        )
    with contextlib.closing(connections.connect(masking.read_through(target), "mask.preview")) as connection:
        connections.begin(connection, target.policy, brief=True, isolation="REPEATABLE READ READ ONLY")
        rows: list[dict[str, object]] = []
        for columns in found:  # values as text: a type of an extension's has no other form here
            of_part = connection.execute(fitting.rows(made, columns, {}, limit, text=True).encode()).fetchall()
            rows += [dict(zip((column.name for column in columns), row, strict=True)) for row in of_part]
    return rows[:limit]


def follow_sequences(aside: Target, made: Plan) -> dict[str, list[Any]]:
    """Set sequences behind the masked numbers of their columns: at them where all of its columns are masked, as the source's
    value is one of theirs, else at least there.

    Args:
        aside: the database that was filled.
        made: the plan that it was filled by.

    Returns:
        The values of those that were set.
    """
    masked = {(c.table_name, c.name) for c in made.catalogue.columns.values() if made.masks[c.place].changes}
    masked |= {(root, name) for root, parts in made.catalogue.parts.items() for part, name in masked if part in parts}
    using: dict[tuple[str, int, int], list[tuple[str, str, bool]]] = defaultdict(list)
    values: dict[str, list[Any]] = {}
    with contextlib.closing(connections.connect(aside, "copy")) as connection:
        connections.begin(connection, aside.policy)
        connection.execute("SET TRANSACTION READ WRITE")
        for schema, name, *table, column, least, most, step in connection.execute(SEQUENCES.encode()).fetchall():
            is_masked = (catalogue.table_name(*table), column) in masked
            if step > 0:
                using[quoted_name(schema, name), least, most].append((quoted_name(*table), quoted_name(column), is_masked))
        for (name, least, most), columns in using.items():
            numbers = [f"(SELECT max({column}) FROM {table})" for table, column, is_masked in columns if is_masked]
            if numbers:
                numbers += [f"(SELECT last_value FROM {name})"] * (len(numbers) < len(columns))
                value = f"greatest({least}, least({most}, greatest({', '.join(numbers)})))"
                connection.execute(f"SELECT setval(%s::regclass, {value}, true)".encode(), (name,))
                values[name] = list(connection.execute(f"SELECT last_value, is_called FROM {name}".encode()).fetchone() or ())
        connection.commit()
    return values


@dataclass
class MaskedStream:
    """What a stream of masked rows does beside one of plain rows.

    Attributes:
        masking: what was asked for.
        plan: the masks.
        search: looks for values of the source in the copy.
        wanted: the tables, read through the masks.
    """

    masking: Masking
    plan: Plan
    search: Search
    wanted: list[Table]

    @classmethod
    def of(cls, masking: Masking, connection: Connection, source: Target, wanted: list[Table]) -> MaskedStream:
        """Plan the masks, in the transaction that holds the source's tables.

        Args:
            masking: what was asked for.
            connection: holds the tables.
            source: where it is connected to.
            wanted: the tables to copy.

        Raises:
            UsageError: they cannot be masked.
        """
        made = masking.plan(connection, source)
        return cls(masking, made, Search(made), [made.table(table) for table in wanted])

    def gather(self, source: Target, snapshot: str, operation: str, watched: set[Any]) -> None:
        """Gather what is looked for, in a session of its own.

        Args:
            source: where the rows are.
            snapshot: of the transaction that holds the tables.
            operation: for whom.
            watched: holds the session's connection meanwhile, so that it can be cancelled.
        """
        begun = {"isolation": "REPEATABLE READ READ ONLY", "snapshot": snapshot}
        with session(source, operation, watched, **begun) as connection:
            self.search.gather(connection, self.wanted)

    @property
    def columns(self) -> int:
        """How many columns are masked."""
        return sum(len(table.reading.expressions) for table in self.wanted)

    def settle(self, aside: Target, source: str, operation: str, searched: set[str], summary: Any) -> None:
        """Search what was not searched yet, write the models' comments, and mark the copy as masked.

        Args:
            aside: the copy.
            source: the environment that it is of.
            operation: for whom.
            searched: the quoted names of tables that were searched when they were filled.
            summary: of the step; gets the numbers of values.

        Raises:
            StepFailed: a value of the source is in it.
        """
        self.search.look(aside, operation, [table for table in self.wanted if table.quoted not in searched])
        self.search.judge(summary)
        comments.write(aside, self.masking.project, self.plan.catalogue)
        with contextlib.closing(connections.connect(aside, operation)) as connection:
            connections.begin(connection, aside.policy, brief=True)
            connection.execute("SET TRANSACTION READ WRITE")
            stamp.mark_masked(connection, self.masking.stamped or aside.environment, source, self.plan.rules.versions)
            connection.commit()
