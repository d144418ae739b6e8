"""The application's tables: reset, create, create what is missing, compare with the models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, PermissionMissing, Refused, StepFailed
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.postgres import search_path
from skinspire_db.postgres.failures import sentence
from skinspire_db.schema.models import constraint_name
from skinspire_db.schema.models import metadata as metadata

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table
    from sqlalchemy.schema import Constraint

    from skinspire_db.postgres.connections import Connection

BATCH = 200  # statements; each takes some locks, and a server may have room for 6,400
EXTENSIONS = ("pgcrypto",)  # passwords are hashed with its crypt()

SHOWN = 160  # characters of a statement that was refused
TYPE_OR_SEQUENCE = re.compile(r'CREATE (TYPE|DOMAIN|SEQUENCE) ((?:"(?:[^"]|"")+"|[\w$]+|\.)+)')
DROP_ORDER = ("VIEW", "MATERIALIZED VIEW", "TABLE", "FOREIGN TABLE", "SEQUENCE", "ROUTINE", "DOMAIN", "TYPE", "SCHEMA")


@dataclass(frozen=True)
class Blueprint:
    """What the models say, as data: enough to make the tables and to compare with, without loading SQLAlchemy.

    The `extensions` come first; `statements` make the rest. `columns` is table -> column -> (type, nullable), the type None
    where PostgreSQL may write it otherwise; `names` are [table, name] of every constraint and index; `views` are what the
    application maps itself.
    """

    extensions: list[str]
    statements: list[str]
    columns: dict[str, dict[str, tuple[str | None, bool]]]
    names: list[list[str]]
    indexes: int
    views: list[str]

    @classmethod
    def of(cls, models: MetaData, extensions: Iterable[str] = EXTENSIONS) -> Blueprint:
        """What these models say, which need these extensions."""
        wanted = tables(models)
        columns = {
            name_of(table): {
                column.name: (_postgres_type(column.type.compile(dialect=_dialect())), bool(column.nullable))
                for column in table.columns
            }
            for table in wanted
        }
        views = sorted(name_of(table) for table in models.tables.values() if table.info.get("is_view"))
        names = {(name_of(table), name) for table in wanted for name in _named_constraints(table)}
        indexes = {(name_of(table), str(index.name)) for table in wanted for index in table.indexes}
        statements = _create_statements(models, wanted)
        return cls(sorted(extensions), statements, columns, sorted(map(list, names | indexes)), len(indexes), views)


def blueprint(project: Project) -> Blueprint:
    """The blueprint of the project's models. Raises ModelsInvalid as metadata() does."""
    return Blueprint(**cached(project, "blueprint", lambda: vars(Blueprint.of(metadata(project), extensions(project)))))


def tables(models: MetaData) -> list[Table]:
    """The models that are tables, referenced ones first; what is mapped to a view (info is_view) is left out."""
    from sqlalchemy.schema import sort_tables_and_constraints

    by_name = sorted(models.tables.values(), key=lambda table: table.key)
    ordered = (table for table, _ in sort_tables_and_constraints(by_name))  # type: ignore[no-untyped-call]  # circles, too
    return [table for table in ordered if table is not None and not table.info.get("is_view")]


def reset(connection: Connection) -> Summary:
    """Drop everything that the application owns: tables, views, sequences, functions, types, in every schema of its own.

    Extensions, the schema public and the tools' own schema stay. Raises PermissionMissing when something belongs to
    another role.
    """
    import psycopg

    found = objects.all_objects(connection)
    try:
        for kind in DROP_ORDER:
            if named := [name for each, name in found if each == kind]:
                # The names come quoted from PostgreSQL's own format() and regprocedure.
                connection.execute(f"DROP {kind} IF EXISTS {', '.join(named)} CASCADE".encode())
    except psycopg.errors.InsufficientPrivilege as error:
        role = connection.info.user
        raise PermissionMissing(
            f"reset cannot drop what another role owns: {error.diag.message_primary}",
            remedy=f'ask the administrator for: REASSIGN OWNED BY its_owner TO "{role}"',
        ) from None
    tool_schema.forget(connection)
    count = {kind: sum(1 for each, _ in found if each == kind) for kind in DROP_ORDER}
    return Summary({
        "tables_dropped": count["TABLE"] + count["FOREIGN TABLE"],
        "views_dropped": count["VIEW"] + count["MATERIALIZED VIEW"],
        "functions_dropped": count["ROUTINE"],
        "schemas_dropped": count["SCHEMA"],
    })  # fmt: skip


def refuse_tables(connection: Connection) -> None:
    """Raise Refused when there are tables already."""
    if existing := objects.count_tables(connection):
        raise Refused(
            f"the database has {counted(existing, 'table')} already",
            remedy="invoke db.create --update-only --env={env}",
        )


def create(connection: Connection, wanted: Blueprint, between: Callable[[], object] | None = None) -> Summary:
    """Make the models' tables in an empty database.

    Where `between` is given, it is called every BATCH statements and may commit: a database of the moment needs no one
    transaction, which would hold a lock for each index of thousands of tables.

    Raises Refused when there are tables already: nothing is then changed.
    """
    refuse_tables(connection)
    create_extensions(connection, wanted.extensions)
    batch = BATCH if between else len(wanted.statements) or 1
    for start in range(0, len(wanted.statements), batch):
        _execute(connection, wanted.statements[start : start + batch])
        if between:
            between()
    return Summary({"tables_created": len(wanted.columns), "indexes_created": wanted.indexes})


def create_missing(connection: Connection, models: MetaData) -> Summary:
    """Add the tables, columns, constraints and indexes that the models have and the database lacks. No row changes.

    Raises StepFailed for a column that is NOT NULL without a default where the table has rows.
    """
    from sqlalchemy import ForeignKeyConstraint
    from sqlalchemy.schema import AddConstraint, CreateIndex

    live, present = _live_columns(connection), live_names(connection)
    new = [table for table in tables(models) if name_of(table) not in live]
    old = [table for table in tables(models) if name_of(table) in live]
    # What is added (for the reader) and its statement, in an order in which everything refers to what is there already.
    columns: list[tuple[str, str]] = []
    constraints: list[tuple[str, str]] = []
    foreign_keys: list[tuple[str, str]] = []
    indexes: list[tuple[str, str]] = []
    for table in old:
        for column in table.columns:
            if column.name not in live[name_of(table)]:
                _refuse_unfillable(connection, column)
                columns.append((f"column {name_of(table)}.{column.name}", _add_column(column)))
        for name, constraint in sorted(_named_constraints(table).items()):
            if (name_of(table), name) not in present:
                group = foreign_keys if isinstance(constraint, ForeignKeyConstraint) else constraints
                group.append((f"constraint {name}", _compile(AddConstraint(constraint))))
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            if (name_of(table), index.name) not in present:
                indexes.append((f"index {index.name}", _compile(CreateIndex(index))))
    types = _missing_types(connection, models)
    made = [(f"table {name_of(table)}", "") for table in new]
    before, after = types + columns + constraints, foreign_keys + indexes
    tables_only = [sql for sql in _create_statements(models, new) if not TYPE_OR_SEQUENCE.match(sql)]  # `types` has those
    statements = [*(sql for _, sql in before), *tables_only, *(sql for _, sql in after)]
    _execute(connection, statements)
    added = [what for what, _ in (*made, *before, *after) if what]
    return Summary({"added": len(added)}, lines=added)


def compare(connection: Connection, wanted: Blueprint) -> list[str]:
    """How the database differs from the models' tables and columns, one sentence each; empty when it does not."""
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
            if nullable != live_nullable:
                differences.append(f"column {table}.{column} is {'' if live_nullable else 'not '}nullable")
    return differences


def extensions(project: Project) -> list[str]:
    """The extensions that the database needs: the core's, and `extensions` of [tool.skinspire_db]."""
    own = project.config.get("extensions", [])
    if not isinstance(own, list) or not all(isinstance(each, str) for each in own):
        raise InvalidSetting("extensions in pyproject.toml is no list of names", remedy='write extensions = ["citext"]')
    return sorted({*EXTENSIONS, *own})


def missing_extensions(connection: Connection, wanted: list[str]) -> list[str]:
    """Those that are not there."""
    present = {name for (name,) in connection.execute("SELECT extname FROM pg_extension").fetchall()}
    return [each for each in wanted if each not in present]


def create_extensions(connection: Connection, wanted: list[str]) -> None:
    """Make the extensions that are not there. Raises PermissionMissing with what to ask the administrator for."""
    import psycopg
    from psycopg import sql

    for extension in missing_extensions(connection, wanted):
        try:
            with search_path.application(connection):  # an extension lies where the application's own objects do
                connection.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(extension)))
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.UndefinedFile,
        ) as error:
            raise PermissionMissing(
                f"the extension {extension} cannot be created: {error.diag.message_primary}",
                remedy=f"ask the administrator for: CREATE EXTENSION {extension}",
            ) from None


def _create_statements(models: MetaData, wanted: list[Table]) -> list[str]:
    from sqlalchemy import create_mock_engine

    statements: list[str] = []
    if not wanted:
        return statements
    schemas = sorted({table.schema for table in wanted if table.schema})
    statements += [f"CREATE SCHEMA IF NOT EXISTS {_dialect().identifier_preparer.quote(schema)}" for schema in schemas]
    engine = create_mock_engine("postgresql+psycopg://", lambda ddl, *_, **__: statements.append(_compile(ddl)))
    models.create_all(engine, tables=wanted, checkfirst=False)
    return statements


def _execute(connection: Connection, statements: list[str]) -> None:
    """Run them where the application's names are found. Raises StepFailed with the statement that PostgreSQL refuses."""
    import psycopg
    from psycopg import errors

    if not statements:
        return
    with search_path.application(connection):
        connection.execute(b"SAVEPOINT statements")
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
    for statement in _create_statements(models, tables(models)):
        if statement.startswith("CREATE SCHEMA"):
            missing.append(("", statement))  # it says IF NOT EXISTS; what follows may lie in it
        if found := TYPE_OR_SEQUENCE.match(statement):
            look = "to_regclass" if found[1] == "SEQUENCE" else "to_regtype"
            with search_path.application(connection):
                there = connection.execute(f"SELECT pg_catalog.{look}(%s)".encode(), (found[2],)).fetchone()
            if there == (None,):
                missing.append((f"{found[1].lower()} {found[2]}", statement))
    return missing


def _dialect() -> Any:
    from sqlalchemy.dialects.postgresql import psycopg

    dialect: Any = psycopg.dialect
    # What it compiles is run without parameters: no % is doubled then. And it does not know the server: generated columns are
    # stored, as every version can.
    found = dialect(paramstyle="named")
    found.supports_virtual_generated_columns = False
    return found


def _compile(element: Any) -> str:
    return str(element.compile(dialect=_dialect())).strip()


def name_of(table: Table) -> str:
    """The table with its schema, as the blueprint has it."""
    return f"{table.schema or 'public'}.{table.name}"


def _add_column(column: Any) -> str:
    from sqlalchemy.schema import CreateColumn

    table = _dialect().identifier_preparer.format_table(column.table)
    return f"ALTER TABLE {table} ADD COLUMN {_compile(CreateColumn(column))}"


def _refuse_unfillable(connection: Connection, column: Any) -> None:
    if column.nullable or column.server_default is not None or column.identity is not None:
        return
    table = _dialect().identifier_preparer.format_table(column.table)
    with search_path.application(connection):
        filled = connection.execute(f"SELECT 1 FROM {table} LIMIT 1".encode()).fetchone()  # noqa: S608
    if filled:
        raise StepFailed(
            f"column {name_of(column.table)}.{column.name} is NOT NULL without a default, and the table has rows",
            remedy="give it a server_default, or make it nullable",
        )


def _named_constraints(table: Table) -> dict[str, Constraint]:
    return {name: each for each in table.constraints if each.name and (name := constraint_name(each))}


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


def _postgres_type(compiled: str) -> str | None:
    """A type in SQLAlchemy's spelling as format_type() writes it; None for one that is not known here."""
    same = (
        "uuid", "text", "jsonb", "json", "boolean", "integer", "bigint", "smallint", "date", "numeric", "double precision",
        "timestamp with time zone", "timestamp without time zone",
    )  # fmt: skip
    known = {"varchar": "character varying"} | {name: name for name in same}
    matched = re.fullmatch(r"([a-z ]+?)(\([\d, ]+\))?(\[\])?", compiled.lower())
    if matched is None or matched[1] not in known:
        return None
    return known[matched[1]] + (matched[2] or "").replace(" ", "") + (matched[3] or "")
