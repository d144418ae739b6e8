"""What the models say, as data: the statements that make the tables, and what a database is compared with."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.schema import ddl_events, extensions
from skinspire_db.schema.alchemy import constraints_kept
from skinspire_db.schema.extensions import CORE_EXTENSIONS
from skinspire_db.schema.models import constraint_name, cycles, is_made_elsewhere, is_view, metadata, without_functions

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table
    from sqlalchemy.schema import Constraint


@dataclass(frozen=True)
class Blueprint:
    """What the models say, as data: enough to make the tables and to compare with, without loading SQLAlchemy.

    The `extensions` come first; `statements` make the rest. `columns` is table -> column -> (type, nullable), each None where
    it is not compared, such as a type that PostgreSQL writes otherwise. `names` are [table, name] of constraints and indexes;
    `views` is view -> columns of what the application maps itself. `python_defaults` is table -> columns whose default
    SQLAlchemy alone knows: triggers, psql and COPY see none. `functions`: functions of the application listen to the creation
    of its tables. `notes` are what SQLAlchemy warns of circles among the tables.
    """

    extensions: list[str]
    statements: list[str]
    columns: dict[str, dict[str, tuple[str | None, bool | None]]]
    names: list[list[str]]
    indexes: int
    views: dict[str, list[str]]
    python_defaults: dict[str, list[str]]
    functions: bool
    notes: list[str]

    @classmethod
    def of_project(cls, project: Project) -> Blueprint:
        """What the project's models say, from the cache where they have not changed.

        Raises:
            ModelsInvalid: as `models.metadata` does.
        """
        return cls(**cached(project, "blueprint", lambda: vars(cls.of(metadata(project), extensions.wanted(project)))))

    @classmethod
    def of(cls, models: MetaData, needs: Iterable[str] = CORE_EXTENSIONS) -> Blueprint:
        """What models say.

        Args:
            models: the tables, and what is mapped to views.
            needs: the extensions that the tables need.
        """
        wanted = tables(models)
        columns: dict[str, dict[str, tuple[str | None, bool | None]]] = {
            name_of(table): {
                column.name: (
                    _postgres_type(column.type.compile(dialect=dialect())),
                    bool(column.nullable) and not column.primary_key,
                )
                for column in table.columns
            }
            for table in wanted
            if not is_view(table)
        }
        views = {
            name_of(table): [column.name for column in table.columns] for table in models.tables.values() if is_view(table)
        }
        names = {(name_of(table), name) for table in wanted for name in named_constraints(table)}
        indexes = {(name_of(table), str(index.name)) for table in wanted for index in table.indexes}
        statements = create_statements(models, wanted)
        defaults = {name_of(table): found for table in wanted if (found := _python_defaults(table))}
        return cls(
            sorted(needs), statements, columns, sorted(map(list, names | indexes)), len(indexes), views, defaults,
            ddl_events.has_functions(models), cycles(),
        )  # fmt: skip

    def accepting(self, signed: Container[str]) -> Blueprint:
        """What a database is held to: all this but for accepted differences.

        Args:
            signed: the keys of the accepted differences.
        """

        def without(what: str) -> bool:
            return f"{what} missing" in signed or f"{what} refused" in signed

        tables = {name: columns for name, columns in self.columns.items() if not without(f"table {name}")}
        columns = {
            table: {
                name: (
                    None if f"column {table}.{name} type" in signed else kind,
                    None if f"column {table}.{name} not null" in signed else nullable,
                )
                for name, (kind, nullable) in listed.items()
                if not without(f"column {table}.{name}")
            }
            for table, listed in tables.items()
        }
        names = [
            [table, name]
            for table, name in self.names
            if table in tables and not any(without(f"{kind} {name} on {table}") for kind in ("constraint", "index"))
        ]
        views = {name: columns for name, columns in self.views.items() if not without(f"view {name}")}
        return replace(self, columns=columns, names=names, views=views)


def tables(models: MetaData) -> list[Table]:
    """The models that create_all makes, referenced ones first; what is mapped to a view by its `info` is left out."""
    from sqlalchemy.schema import sort_tables_and_constraints

    by_name = sorted(models.tables.values(), key=lambda table: table.key)
    ordered = (table for table, _ in sort_tables_and_constraints(by_name))  # type: ignore[no-untyped-call]  # circles, too
    return [table for table in ordered if table is not None and not is_made_elsewhere(table)]


def create_statements(models: MetaData, wanted: list[Table]) -> list[str]:
    """The statements that make these tables of the models, with their schemas, types and indexes."""
    from sqlalchemy import create_mock_engine

    statements: list[str] = []
    if not wanted:
        return statements
    if ddl_events.has_functions(models):
        models = without_functions(models)
        wanted = [models.tables[table.key] for table in wanted]
    schemas = sorted({table.schema for table in wanted if table.schema})
    statements += [f"CREATE SCHEMA IF NOT EXISTS {dialect().identifier_preparer.quote(schema)}" for schema in schemas]
    engine = create_mock_engine("postgresql+psycopg://", lambda ddl, *_, **__: statements.append(compiled(ddl)))
    with constraints_kept(models):
        models.create_all(engine, tables=wanted, checkfirst=False)
    return statements


def dialect() -> Any:
    """SQLAlchemy's PostgreSQL dialect, for statements that are run without parameters."""
    from sqlalchemy.dialects.postgresql import psycopg

    make: Any = psycopg.dialect
    # What it compiles is run without parameters: no % is doubled then. And it does not know the server: generated columns are
    # stored, as every version can.
    found = make(paramstyle="named")
    found.supports_virtual_generated_columns = False
    return found


def compiled(element: Any) -> str:
    """The SQL of a DDL element."""
    return str(element.compile(dialect=dialect())).strip()


def name_of(table: Table) -> str:
    """The table with its schema, as the blueprint has it."""
    return f"{table.schema or 'public'}.{table.name}"


def named_constraints(table: Table) -> dict[str, Constraint]:
    """The constraints that have a name, by it."""
    return {name: each for each in table.constraints if each.name and (name := constraint_name(each))}


def _python_defaults(table: Table) -> list[str]:
    """The columns that get their value from SQLAlchemy alone; a sequence as a default is one that PostgreSQL keeps."""
    return [
        column.name
        for column in table.columns
        if column.default is not None and not column.default.is_sequence and column.server_default is None
    ]


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
