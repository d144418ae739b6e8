"""The models that a project declares, as one MetaData for PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib
import operator
import re
import sys
import traceback
import warnings
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skinspire_db.config import content, project_code
from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.errors import ModelsInvalid, ProjectCodeEnded
from skinspire_db.schema import ddl_events, model_faults

if TYPE_CHECKING:
    from sqlalchemy import Index, MetaData, Table
    from sqlalchemy.schema import Constraint

VIEW_WORDS = ("is_view", "view", "is_materialized_view", "materialized_view", "materialized")  # keys of `info`

_loaded: weakref.WeakSet[MetaData] = weakref.WeakSet()
_cycles: dict[str, None] = {}


def metadata(project: Project) -> MetaData:
    """The tables of the project: those of every entry of `metadata` in [tool.skinspire_db], as one MetaData.

    Constraints and indexes that are for other databases (`ddl_if`) are taken off.

    Raises:
        ModelsInvalid: an entry cannot be imported, two entries define one table, a foreign key points to a table or column
            that no model defines, or a model lacks a name or type that its SQL needs.
        ProjectCodeEnded: a module of models exits when it is imported.
    """
    from sqlalchemy import MetaData

    loaded = load(project)
    if len(loaded) > 1:
        model_faults.refuse_tables_of_both(_entries(project))
    together = loaded[0] if len(loaded) == 1 else MetaData()
    for entry in loaded:
        for table in entry.tables.values():
            _take_off_what_is_for_others(table)
            with _refusals(table):  # copying asks for the names, too
                items: list[Constraint | Index] = [*table.constraints, *table.indexes]
                for item in items:
                    constraint_name(item)
        if entry is not together:  # one MetaData, so that an application's foreign key may point to a core table
            _copy(entry, together)
    if len(loaded) > 1:
        together.naming_convention = MetaData().naming_convention
    model_faults.refuse_loose_ends(together)
    for table in together.tables.values():  # a foreign key's column may have its type from the column that it points to
        _refuse_without_sql(table)
    return together


def load(project: Project) -> list[MetaData]:
    """Import the models, each MetaData once.

    Raises:
        ModelsInvalid: an entry cannot be imported, or is no MetaData.
        ProjectCodeEnded: its module exits.
    """
    metadatas: list[MetaData] = []
    for _, _, loaded in _entries(project):
        if not any(loaded is other for other in metadatas):
            metadatas.append(loaded)
    _loaded.update(metadatas)
    return metadatas


def _entries(project: Project) -> list[tuple[str, Any, MetaData]]:
    """The text of each entry of `metadata`, what it names, and its tables."""
    return [(entry, *_load(entry, project)) for entry in content.metadata(project)]


@contextlib.contextmanager
def _cycles_noted() -> Iterator[None]:
    """Keep what SQLAlchemy warns of circles of foreign keys, in place of saying it at every command."""
    from sqlalchemy.exc import SAWarning

    with warnings.catch_warnings(record=True) as caught:
        yield
    for each in caught:
        if issubclass(each.category, SAWarning) and "cycle" in str(each.message):
            _cycles[" ".join(str(each.message).split()).partition(" (This")[0].partition(" (Background")[0]] = None
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno, source=each.source)


def cycles() -> list[str]:
    """What SQLAlchemy has warned of circles of foreign keys when the models were loaded."""
    return list(_cycles)


def has_core(project: Project) -> bool:
    """Whether the core's tables are content: `metadata` names them, or a base of the application's that is the core's own.

    Raises:
        ModelsInvalid: as `load`.
    """
    if content.CORE_METADATA in content.metadata(project):
        return True

    def is_loaded() -> bool:
        loaded = load(project)
        core: Any = sys.modules.get(content.CORE_MODELS)
        return core is not None and any(each is core.Base.metadata for each in loaded)

    return bool(cached(project, "core", is_loaded))


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Take off the loaded models what the block adds to them: a revision may attach a constraint to a model."""
    before = {each: {table: {*table.constraints, *table.indexes} for table in each.tables.values()} for each in _loaded}
    try:
        yield
    finally:
        for each, tables in before.items():
            for table in set(each.tables.values()) - tables.keys():
                each.remove(table)
            for table, items in tables.items():
                for item in {*table.constraints, *table.indexes} - items:
                    _take_off(item, table)


def without_functions(models: MetaData) -> MetaData:
    """A copy whose creation runs no function of the application, so that its statements can be written down."""
    from sqlalchemy import MetaData

    bare = MetaData()
    _copy(models, bare, functions=False)
    return bare


def _copy(models: MetaData, together: MetaData, *, functions: bool = True) -> None:
    """Copy all tables and sequences of the models into `together`, named by the models' own naming convention."""
    from sqlalchemy.schema import conv
    from sqlalchemy.types import SchemaType

    together.naming_convention = models.naming_convention
    ddl_events.copy(models, together, functions=functions)
    for table in models.tables.values():
        copied = table.to_metadata(together)
        ddl_events.copy(table, copied, functions=functions)
        _take_off_what_is_for_others(copied)
        items: list[Constraint | Index] = [*copied.constraints, *copied.indexes]
        for item in items:  # the next models have another convention
            if (name := constraint_name(item)) is not None:
                item.name = conv(name)
        for column in copied.columns:  # the copy takes every enum and domain for one of the table's schema
            if isinstance(column.type, SchemaType):
                column.type.schema = getattr(table.columns[column.name].type, "schema", None)
    for sequence in models._sequences.values():  # SQLAlchemy has no public list of the sequences that no column uses
        if sequence.column is None:
            sequence._copy()._set_metadata(together)


def _take_off_what_is_for_others(table: Table) -> None:
    from sqlalchemy.dialects.postgresql import psycopg
    from sqlalchemy.schema import Constraint, CreateIndex

    compiler = psycopg.dialect().ddl_compiler(psycopg.dialect(), None)  # type: ignore[no-untyped-call, arg-type]
    items: list[Constraint | Index] = [*table.constraints, *table.indexes]
    for item in items:
        if isinstance(item, Constraint):
            wanted = item._should_create_for_compiler(compiler)
        else:
            rule = item._ddl_if
            wanted = rule is None or rule._should_execute(CreateIndex(item), item, None, compiler)
        if not wanted:
            _take_off(item, table)


def _take_off(item: Any, table: Table) -> None:
    table.indexes.discard(item)
    table.constraints.discard(item)
    for column in table.columns:
        column.constraints.discard(item)
    for key in getattr(item, "elements", ()):  # of a foreign key
        table.foreign_keys.discard(key)
        key.parent.foreign_keys.discard(key)


def _refuse_without_sql(table: Table) -> None:
    """SQLAlchemy misses a type, or finds a name too long, only when it writes the SQL."""
    from sqlalchemy.dialects.postgresql import psycopg
    from sqlalchemy.schema import CreateIndex, CreateTable

    if is_view(table):
        return
    statements: list[Any] = [CreateTable(table), *map(CreateIndex, table.indexes)]
    with _refusals(table):
        for ddl in statements:
            ddl.compile(dialect=psycopg.dialect())  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _refusals(table: Table) -> Iterator[None]:
    """Turn what SQLAlchemy says about a table into ModelsInvalid."""
    from sqlalchemy import exc

    try:
        yield
    except exc.SQLAlchemyError as error:
        raise ModelsInvalid(f"no SQL can be written for table {table.key}: {_says(error)}", remedy=_remedy(error)) from None


def _says(error: BaseException) -> str:
    """The error in one line, without SQLAlchemy's address for it."""
    return " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__


def _remedy(error: BaseException, otherwise: str = "correct that model") -> str:
    """What to do about an error of SQLAlchemy in a model."""
    if "requires that constraint is explicitly named" in str(error):
        return "give the constraint, Enum or Boolean a name=, which the naming convention needs"
    return otherwise


def _load(entry: str, project: Project) -> tuple[Any, MetaData]:
    from sqlalchemy import MetaData

    module_name, _, attribute = str(entry).partition(":")
    remedy = f"correct metadata in {project.root / 'pyproject.toml'}"
    if not re.fullmatch(r"\w+(\.\w+)*", module_name):
        raise ModelsInvalid(f"metadata names {entry!r}, which is no module:attribute", remedy=remedy)
    try:
        with project_code.running(project), _cycles_noted():
            loaded: Any = operator.attrgetter(attribute or "Base")(importlib.import_module(module_name))
    except Exception as error:  # a fault in the module's own code
        own = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(str(project.root))]
        where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
        message = f"the models {entry} cannot be loaded: {_says(error)}{where}"
        if isinstance(error, ProjectCodeEnded):
            raise ProjectCodeEnded(message, remedy=error.remedy) from None
        raise ModelsInvalid(message, remedy=_remedy(error, "correct that line" if own else remedy)) from None
    tables = getattr(loaded, "metadata", loaded)
    if not isinstance(tables, MetaData):
        raise ModelsInvalid(f"{entry} is neither a declarative base nor a MetaData", remedy=remedy)
    return loaded, tables


def is_view(table: Table) -> bool:
    """Whether a model is mapped to a view: by a word in `info`, or by CreateView of SQLAlchemy 2.1."""
    return is_made_elsewhere(table) or bool(getattr(table, "is_view", False))


def is_made_elsewhere(table: Table) -> bool:
    """Whether a model is mapped to a view that create_all does not make."""
    return any(table.info.get(word) for word in VIEW_WORDS)


def constraint_name(constraint: Constraint | Index) -> str | None:
    """The name, by the naming convention where the model gives none; None when PostgreSQL chooses it."""
    if constraint.name is None:
        return None
    from sqlalchemy.dialects.postgresql import psycopg

    named = psycopg.dialect().identifier_preparer.format_constraint(constraint)  # type: ignore[no-untyped-call]
    return None if named is None else str(named).strip('"').replace('""', '"')
