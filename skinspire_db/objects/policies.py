"""The policies of policy files: on which tables they are, making what is missing or wrong, dropping it, and their states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.catalog.objects import quoted_name
from skinspire_db.errors import NotOurs, SqlFileInvalid
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.ledger import Entry, MadeTrigger, qualified
from skinspire_db.objects.policy_files import Policy
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SECURITY = "row security"  # stands for ENABLE and FORCE ROW LEVEL SECURITY beside a table's policies
FORCED = "enabled, forced"
# Partitions too: a query that names one meets its own policies and not those of its parent.
TABLES = f"""
    SELECT format('%%I.%%I', n.nspname, c.relname), n.nspname, c.relname,
           concat_ws(', ', CASE WHEN c.relrowsecurity THEN 'enabled' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END),
           coalesce((SELECT jsonb_object_agg(a.attname, a.attnotnull) FROM pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attname = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped), '{{}}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {objects.RELATION} AND {objects.NOT_ALEMBICS}
    ORDER BY 1
"""  # noqa: S608
LIVE = """
    SELECT format('%I.%I', n.nspname, c.relname), p.polname,
           concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for', p.polcmd, 'to',
               (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END, ', ' ORDER BY r)
                FROM unnest(p.polroles) AS r),
               'using ' || pg_get_expr(p.polqual, p.polrelid), 'with check ' || pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
"""


@dataclass(frozen=True)
class Table:
    """A table that policies may be on.

    Attributes:
        quoted: its name with its schema.
        name: the same, not quoted.
        security: its row security, as FORCED says it.
        columns: of the columns that policies name, those that it has, and whether they are NOT NULL.
    """

    quoted: str
    name: str
    security: str
    columns: dict[str, bool]

    def suits(self, policy: Policy) -> bool:
        """Whether the policy belongs on it."""
        named = [qualified(each) for each in policy.tables]
        return (
            (self.name in named if named else True)
            and self.name not in map(qualified, policy.exclude)
            and all(column in self.columns for column in policy.columns)
            and not (policy.nullable and all(self.columns[column] for column in policy.columns))
        )


@dataclass(frozen=True)
class Wanted:
    """A policy, or the row security, that a file should have on a table; `how` changes when it must be made anew."""

    table: str
    name: str
    how: str
    statement: str

    @property
    def shown(self) -> str:
        """For a reader."""
        return shown(self.table, self.name)


def shown(table: str, name: str) -> str:
    """A policy, or the row security of a table, for a reader."""
    return f"{name} on {table}" if name == SECURITY else f"policy {name} on {table}"


def tables(connection: Connection, file: SqlFile) -> list[Table]:
    """The tables that exist now, with the columns that the file's policies name."""
    named = sorted({column for policy in file.policies for column in policy.columns})
    rows = connection.execute(TABLES.encode(), (named,)).fetchall()
    return [Table(quoted, f"{schema}.{name}", security, columns) for quoted, schema, name, security, columns in rows]


def live(connection: Connection, among: Iterable[Table]) -> dict[tuple[str, str], str]:
    """(table, policy) -> definition of all policies, and what row security these tables have."""
    found = {(table, name): definition for table, name, definition in connection.execute(LIVE).fetchall()}
    return found | {(table.quoted, SECURITY): table.security for table in among if table.security}


def wanted(among: list[Table], file: SqlFile) -> dict[str, Wanted]:
    """What the file should have on these tables, by "table policy"."""
    found: dict[str, Wanted] = {}
    ways = {policy.name: (quoted_name(policy.name), _how(policy, file)) for policy in file.policies}
    for table in among:
        chosen = [policy for policy in file.policies if table.suits(policy)]
        if chosen:
            force = f"ALTER TABLE {table.quoted} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            found[f"{table.quoted} {SECURITY}"] = Wanted(table.quoted, SECURITY, f"POLICY {SECURITY}", force)
        for policy in chosen:
            quoted, how = ways[policy.name]
            statement = f"CREATE POLICY {quoted} ON {table.quoted} {how}"
            found[f"{table.quoted} {policy.name}"] = Wanted(table.quoted, policy.name, f"POLICY {how}", statement)
    return found


def _how(policy: Policy, file: SqlFile) -> str:
    assert file.roles
    to = {"public": "PUBLIC", "application": quoted_name(file.roles.application), "system": quoted_name(file.roles.system)}[
        policy.to
    ]
    using = f" USING ({policy.using})" if policy.using else ""
    return f"FOR {policy.command} TO {to}{using}" + (f" WITH CHECK ({policy.check})" if policy.check else "")


def attach(connection: Connection, file: SqlFile, entry: Entry | None) -> tuple[int, dict[str, MadeTrigger]]:
    """Make the policies of a file that are missing or wrong; one that is right is left alone, and its table is not locked.

    Args:
        connection: where; in the caller's transaction.
        file: a policy file that is applicable.
        entry: what the ledger has of it.

    Returns:
        How many were made, and what the ledger is to have of all of them.

    Raises:
        SqlFileInvalid: PostgreSQL refuses one; with the table.
        NotOurs: another policy of that name is there that no file made.
    """
    known = entry.triggers if entry else {}
    among = tables(connection, file)
    wish, present = wanted(among, file), live(connection, among)
    statements: list[tuple[Wanted, str]] = []
    for key, each in wish.items():
        now = present.get((each.table, each.name))
        made = known.get(key) or _moved(known, each, now)
        if made is not None and made.how == each.how and now == made.definition:
            continue
        if each.name == SECURITY:
            statements += [(each, each.statement)] if now != FORCED else []
            continue
        if now is not None:
            if made is None:
                raise NotOurs(
                    f"{each.shown} exists already, and no policy file made it",
                    remedy="rename it, or drop it if it is not needed",
                )
            statements.append((each, _drop(each.table, each.name)))
        statements.append((each, each.statement))
    if statements:
        _run(connection, file, statements)
        present = live(connection, tables(connection, file))
    made_now = {
        key: MadeTrigger(each.table, each.name, each.how, present[each.table, each.name]) for key, each in wish.items()
    }
    return len({each.shown for each, _ in statements}), made_now


def _moved(known: dict[str, MadeTrigger], wanted: Wanted, now: str | None) -> MadeTrigger | None:
    """What the ledger has of a policy under the former name of its table, which a revision has renamed."""
    if now is None:
        return None
    return next(
        (made for made in known.values() if (made.name, made.how, made.definition) == (wanted.name, wanted.how, now)), None
    )


def _run(connection: Connection, file: SqlFile, statements: list[tuple[Wanted, str]]) -> None:
    """Run all statements as one; where that fails, one by one, as PostgreSQL does not say which of them it was."""
    import psycopg

    try:
        with connection.transaction(), search_path.application(connection):  # a savepoint
            connection.execute("; ".join(statement for _, statement in statements).encode())
        return
    except psycopg.errors.ProgrammingError as error:
        if error.sqlstate == "42501":  # rights are not the file's
            raise
    for each, statement in statements:
        try:
            with search_path.application(connection):
                connection.execute(statement.encode())
        except psycopg.errors.ProgrammingError as error:
            columns = ", ".join(next((policy.columns for policy in file.policies if policy.name == each.name), ()))
            raise SqlFileInvalid(
                f"{file.path}:{file.line('policy')}: {each.shown} ({columns}): {sentence(error)}",
                remedy=f'correct the table, or have an own {file.path.name} in sql/policies with exclude = ["{each.table}"]',
            ) from None


def _drop(table: str, name: str) -> str:
    return f"DROP POLICY {quoted_name(name)} ON {table}"


def drop(connection: Connection, made: Iterable[MadeTrigger]) -> int:
    """Drop policies that files made, where they exist; the row security of a table goes with its last policy.

    Args:
        connection: where; in the caller's transaction.
        made: what the ledger has; what is no policy is left alone.

    Returns:
        How many policies were dropped.
    """
    listed = [each for each in made if each.of_policy]
    present = live(connection, ()) if listed else {}
    gone = [each for each in listed if (each.table, each.name) in present]
    for each in gone:
        connection.execute(_drop(each.table, each.name).encode())
    left = {table for table, _ in live(connection, ())} if listed else set()
    for table in sorted({each.table for each in listed if each.name == SECURITY} - left):
        statement = f"ALTER TABLE IF EXISTS {table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY"
        connection.execute(statement.encode())
    return len(gone)


def states(connection: Connection, file: SqlFile, entry: Entry) -> list[tuple[str, Any, str]]:
    """The state of each policy of an installed file: what it is called, the state, and a note.

    Args:
        connection: the database.
        file: a policy file that is applicable.
        entry: what the ledger has of it.
    """
    among = tables(connection, file)
    wish, present = wanted(among, file), live(connection, among)
    found = []
    for key, each in wish.items():
        now, made = present.get((each.table, each.name)), entry.triggers.get(key)
        if made is None and each.name != SECURITY and _moved(entry.triggers, each, now):
            state: tuple[str, str] = ("OUTDATED", "the table was renamed since the last install")
        elif made is None:
            state = ("DRIFTED", "another policy of that name is there") if now and each.name != SECURITY else (
                "UNATTACHED", "no install has seen it there yet")  # fmt: skip
        elif now is None:
            state = "MISSING", "switched off by hand" if each.name == SECURITY else "dropped by hand"
        elif now != made.definition:
            state = "DRIFTED", f"{now}, but version {entry.version} made: {made.definition}"
        else:
            state = ("INSTALLED", "") if made.how == each.how else ("OUTDATED", "the file wants it otherwise now")
        found.append((each.shown, *state))
    for key, made in entry.triggers.items():
        if key not in wish and (made.table, made.name) in present:
            found.append((shown(made.table, made.name), "ORPHANED", "the file does not ask for it there"))
    return found


def differences(connection: Connection, file: SqlFile, entry: Entry) -> list[tuple[str, str, str]]:
    """For each policy its name, its definition now, and the one that an install would give it; nothing is made to see it.

    Args:
        connection: the database.
        file: a policy file that is applicable.
        entry: what the ledger has of it.
    """
    among = tables(connection, file)
    wish, present = wanted(among, file), live(connection, among)
    found = []
    for key, each in wish.items():
        made = entry.triggers.get(key)
        right = FORCED if each.name == SECURITY else each.statement
        right = made.definition if made and made.how == each.how else right
        found.append((each.shown, present.get((each.table, each.name), ""), right))
    for key, made in entry.triggers.items():
        if key not in wish and (now := present.get((made.table, made.name))):
            found.append((shown(made.table, made.name), now, ""))
    return found
