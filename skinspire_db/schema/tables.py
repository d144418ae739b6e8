"""The application's tables: reset, create, create what is missing, compare with the models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.config.project import Project
from skinspire_db.errors import PermissionMissing, Refused, StepFailed
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence
from skinspire_db.schema import ddl_events, extensions, refused
from skinspire_db.schema.alchemy import constraints_kept
from skinspire_db.schema.blueprint import Blueprint, compiled, create_statements, dialect, name_of, named_constraints, tables
from skinspire_db.schema.models import metadata
from skinspire_db.schema.refused import Fault

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from skinspire_db.postgres.connections import Connection

BATCH = 200  # statements; each takes some locks, and a server may have room for 6,400
LISTENERS = "of the models that listens to before_create or after_create"
SHOWN = 160  # characters of a statement that was refused
TYPE_OR_SEQUENCE = lazy_regex(r'CREATE (TYPE|DOMAIN|SEQUENCE) ((?:"(?:[^"]|"")+"|[\w$]+|\.)+)')
DROP_ORDER = ("VIEW", "MATERIALIZED VIEW", "TABLE", "FOREIGN TABLE", "SEQUENCE", "ROUTINE", "DOMAIN", "TYPE", "SCHEMA")


def reset(connection: Connection) -> Summary:
    """Drop everything that the application owns: tables, views, sequences, functions, types, in every schema of its own.

    Extensions, the schema public and the tools' own schema stay.

    Returns:
        How many tables, views, functions and schemas were dropped.

    Raises:
        PermissionMissing: an object belongs to another role.
    """
    import psycopg

    present = objects.all_objects(connection)
    try:
        # The names come quoted from PostgreSQL's own format() and regprocedure.
        drops = [
            f"DROP {kind} IF EXISTS {', '.join(names)} CASCADE"
            for kind in DROP_ORDER
            if (names := [name for other, name in present if other == kind])
        ]
        if drops:
            connection.execute(";\n".join(drops).encode())
    except psycopg.errors.InsufficientPrivilege as error:
        role = connection.info.user
        raise PermissionMissing(
            f"reset cannot drop what another role owns: {error.diag.message_primary}",
            remedy=f'ask the administrator for: REASSIGN OWNED BY its_owner TO "{role}"',
        ) from None
    tool_schema.forget(connection)
    count = Counter(kind for kind, _ in present)
    return Summary({
        "tables_dropped": count["TABLE"] + count["FOREIGN TABLE"],
        "views_dropped": count["VIEW"] + count["MATERIALIZED VIEW"],
        "functions_dropped": count["ROUTINE"],
        "schemas_dropped": count["SCHEMA"],
    })  # fmt: skip


def refuse_tables(connection: Connection) -> None:
    """Refuse a database that has tables.

    Raises:
        Refused: it has; the remedy is `db.create --update-only`.
    """
    if existing := objects.count_tables(connection):
        raise Refused(
            f"the database has {counted(existing, 'table')} already",
            remedy="invoke db.create --update-only --env={env}",
        )


def create(
    connection: Connection,
    wanted: Blueprint,
    between: Callable[[], object] | None = None,
    project: Project | None = None,
    faults: list[Fault] | None = None,
) -> Summary:
    """Make the models' tables in an empty database.

    Args:
        connection: the database.
        wanted: what the models say.
        between: called every BATCH statements; it may commit. One transaction for thousands of tables holds a lock for each
            of their indexes, which a scratch database does not need.
        project: whose models have functions that listen to the creation of their tables, and are called then.
        faults: gets what PostgreSQL refuses, which is left out then; None for an error in its place.

    Raises:
        Refused: there are tables already; nothing is changed then.
        PermissionMissing: an extension cannot be made.
        StepFailed: PostgreSQL refuses a statement.
    """
    refuse_tables(connection)
    extensions.create(connection, wanted.extensions)
    if wanted.functions and project:
        loaded = metadata(project)
        connection.execute(b"SAVEPOINT models")
        try:
            ddl_events.create_all(connection, project, loaded, tables(loaded), missing=False)
        except StepFailed as error:
            if faults is None:
                raise
            connection.execute(b"ROLLBACK TO SAVEPOINT models; RELEASE SAVEPOINT models")
            faults.append(Fault("function", LISTENERS, "not called, as they end with an error", error.message))
        else:
            return Summary({"tables_created": len(wanted.columns), "indexes_created": wanted.indexes})
    batch = BATCH if between else len(wanted.statements) or 1
    for start in range(0, len(wanted.statements), batch):
        statements = wanted.statements[start : start + batch]
        try:
            _execute(connection, statements)
        except StepFailed:
            if faults is None:
                raise
            connection.execute(b"ROLLBACK TO SAVEPOINT statements; RELEASE SAVEPOINT statements")
            faults += refused.make(connection, statements)
        if between:
            between()
    return Summary({"tables_created": len(wanted.columns), "indexes_created": wanted.indexes})


def create_missing(connection: Connection, models: MetaData, project: Project | None = None) -> Summary:
    """Add the tables, columns, constraints and indexes that the models have and the database lacks. No row changes.

    It needs no scratch database and no right to create one, as migrate.new does.

    Returns:
        How many objects were added, and a line for each.

    Raises:
        StepFailed: a new column is NOT NULL without a default and its table has rows, or PostgreSQL refuses a statement.
    """
    from sqlalchemy import ForeignKeyConstraint
    from sqlalchemy.schema import AddConstraint, CreateIndex

    live, present = _live_columns(connection), live_names(connection)
    views = {name for kind, name in objects.all_objects(connection) if kind.endswith("VIEW")}
    new = [table for table in tables(models) if name_of(table) not in live and name_of(table) not in views]
    old = [table for table in tables(models) if name_of(table) in live]
    # Pairs of what is added and its statement. The groups run in an order in which each statement refers to what exists.
    columns: list[tuple[str, str]] = []
    constraints: list[tuple[str, str]] = []
    foreign_keys: list[tuple[str, str]] = []
    indexes: list[tuple[str, str]] = []
    for table in old:
        for column in table.columns:
            if column.name not in live[name_of(table)]:
                _refuse_unfillable(connection, column)
                columns.append((f"column {name_of(table)}.{column.name}", _add_column(column)))
        for name, constraint in sorted(named_constraints(table).items()):
            if (name_of(table), name) not in present:
                group = foreign_keys if isinstance(constraint, ForeignKeyConstraint) else constraints
                with constraints_kept(models):
                    statement = compiled(AddConstraint(constraint))
                group.append((f"constraint {name}", statement))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            if (name_of(table), index.name) not in present:
                indexes.append((f"index {index.name}", compiled(CreateIndex(index))))
    types = _missing_types(connection, models)
    made = [(f"table {name_of(table)}", "") for table in new]
    before, after = types + columns + constraints, foreign_keys + indexes
    tables_only = [sql for sql in create_statements(models, new) if not TYPE_OR_SEQUENCE.match(sql)]  # `types` has those
    if project and new and ddl_events.has_functions(models):
        _execute(connection, [sql for _, sql in before])
        ddl_events.create_all(connection, project, models, new, missing=True)
        _execute(connection, [sql for _, sql in after])
    else:
        _execute(connection, [*(sql for _, sql in before), *tables_only, *(sql for _, sql in after)])
    added = [what for what, _ in (*made, *before, *after) if what]
    return Summary({"added": len(added)}, lines=added)


def compare(connection: Connection, wanted: Blueprint) -> list[str]:
    """How the database differs from the models' tables and columns: a sentence for each difference."""
    live = _live_columns(connection)
    differences = []
    for table, columns in wanted.columns.items():
        if table not in live:
            differences.append(f"table {table} is missing")
            continue
        for column, (kind, nullable) in columns.items():
            if column not in live[table]:
                differences.append(f"column {table}.{column} is missing")
                continue
            live_kind, live_nullable = live[table][column]
            if kind and kind != live_kind:
                differences.append(f"column {table}.{column} is {live_kind}, not {kind}")
            if nullable is not None and nullable != live_nullable:
                differences.append(f"column {table}.{column} is {'' if live_nullable else 'not '}nullable")
    return differences


def _execute(connection: Connection, statements: list[str]) -> None:
    """Run the statements with the application's search path. Raises StepFailed with the statement that PostgreSQL refuses."""
    import psycopg
    from psycopg import errors

    if not statements:
        return
    with search_path.application(connection, then="SAVEPOINT statements"):
        try:
            connection.execute(";\n".join([*statements, "RELEASE SAVEPOINT statements"]).encode())
        except (psycopg.OperationalError, errors.InsufficientPrivilege):  # locks, the disk, the connection, rights
            raise
        except psycopg.Error:
            connection.execute(b"ROLLBACK TO SAVEPOINT statements")
            for statement in statements:  # one by one: PostgreSQL does not say which of many it was
                _execute_one(connection, statement)
            raise


def _execute_one(connection: Connection, statement: str) -> None:
    import psycopg

    try:
        connection.execute(statement.encode())
    except psycopg.Error as error:
        shown = " ".join(statement.split())
        if (position := error.diag.statement_position) and len(shown) > SHOWN:
            start = max(0, len(" ".join(statement[: int(position) - 1].split())) - SHOWN // 2)
            shown = f"{'...' if start else ''}{shown[start : start + SHOWN]}"
        shown = shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}..."
        raise StepFailed(
            f"{sentence(error)}; the statement: {shown}; the database is as it was", remedy="correct the model that says so"
        ) from None


def _missing_types(connection: Connection, models: MetaData) -> list[tuple[str, str]]:
    """The enums, domains and sequences that the models have and the database lacks, with the statement that makes each."""
    missing: list[tuple[str, str]] = []
    for statement in create_statements(models, tables(models)):
        if statement.startswith("CREATE SCHEMA"):
            missing.append(("", statement))  # with IF NOT EXISTS; the types may lie in it
        if found := TYPE_OR_SEQUENCE.match(statement):
            look = "to_regclass" if found[1] == "SEQUENCE" else "to_regtype"
            with search_path.application(connection):
                there = connection.execute(f"SELECT pg_catalog.{look}(%s)".encode(), (found[2],)).fetchone()
            if there == (None,):
                missing.append((f"{found[1].lower()} {found[2]}", statement))
    return missing


def _add_column(column: Any) -> str:
    from sqlalchemy.schema import CreateColumn

    table = dialect().identifier_preparer.format_table(column.table)
    return f"ALTER TABLE {table} ADD COLUMN {compiled(CreateColumn(column))}"


def _refuse_unfillable(connection: Connection, column: Any) -> None:
    if column.nullable or column.server_default is not None or column.identity is not None:
        return
    table = dialect().identifier_preparer.format_table(column.table)
    with search_path.application(connection):
        filled = connection.execute(f"SELECT 1 FROM {table} LIMIT 1".encode()).fetchone()  # noqa: S608
    if filled:
        raise StepFailed(
            f"column {name_of(column.table)}.{column.name} is NOT NULL without a default, and the table has rows",
            remedy="give it a server_default, or make it nullable",
        )


def _live_columns(connection: Connection) -> dict[str, dict[str, tuple[str, bool]]]:
    """table -> column -> (type as PostgreSQL writes it, nullable)"""
    live: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, kind, nullable in connection.execute(
        f"""
        SELECT n.nspname || '.' || c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p', 'f') AND {objects.USER_SCHEMA}
        """.encode()  # noqa: S608
    ).fetchall():
        live.setdefault(table, {})
        if column is not None:
            live[table][column] = (kind, nullable)
    return live


def live_names(connection: Connection) -> set[tuple[str, str]]:
    """(table, name) of every constraint and index."""
    return set(
        connection.execute(
            """
            SELECT n.nspname || '.' || c.relname, x.name
            FROM (SELECT conrelid, conname FROM pg_constraint WHERE conrelid <> 0
                  UNION ALL SELECT indrelid, i.relname FROM pg_index JOIN pg_class i ON i.oid = indexrelid
                 ) AS x (relid, name)
            JOIN pg_class c ON c.oid = x.relid JOIN pg_namespace n ON n.oid = c.relnamespace
            """
        ).fetchall()
    )
