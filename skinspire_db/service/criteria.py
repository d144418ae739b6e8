"""The WHERE that limits ORM statements to one hospital, beside PostgreSQL's policies: indexes and shards are found by it."""

from __future__ import annotations

import uuid
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.orm import Mapper, with_loader_criteria

if TYPE_CHECKING:
    from sqlalchemy.orm import ORMExecuteState

TENANT = "hospital_id"


def limit(state: ORMExecuteState, hospital: str) -> None:
    """Add the hospital to a SELECT, UPDATE or DELETE, for each mapped class of the application with a column hospital_id.

    Rows of the whole system, which have none, stay: the policies decide whether they may be read.
    """
    mapper = state.bind_mapper
    # An UPDATE of many rows by their keys takes no further conditions.
    if state.is_orm_statement and not state.is_insert and not state.is_executemany and mapper is not None:
        state.statement = state.statement.options(_option(_base(mapper), uuid.UUID(hospital)))


@cache
def _base(mapper: Mapper[Any]) -> type:
    """The declarative base of a mapped class; the class itself where it has none."""
    bases = [each for each in mapper.class_.__mro__ if getattr(each, "_sa_registry", None) is mapper.registry]
    return bases[-1] if bases else mapper.class_


@lru_cache(maxsize=1024)
def _option(base: type, hospital: uuid.UUID) -> Any:
    # Not for what is loaded later: each statement of a block gets an option of its own.
    return with_loader_criteria(
        base, lambda entity: _criterion(entity, hospital), include_aliases=True, propagate_to_loaders=False
    )


def _criterion(entity: Any, hospital: Any) -> sqlalchemy.ColumnElement[bool]:
    inspected: Any = sqlalchemy.inspect(entity, raiseerr=False)
    if inspected is None:  # SQLAlchemy calls the lambda once to see what values it holds
        return sqlalchemy.and_(sqlalchemy.column(TENANT, sqlalchemy.Uuid) == hospital)
    mapper = inspected.mapper
    column = next((each for each in mapper.columns if each.name == TENANT), None)
    if column is None or not isinstance(column.type, sqlalchemy.Uuid):
        return sqlalchemy.true()
    attribute = getattr(entity, mapper.get_property_by_column(column).key)
    own: sqlalchemy.ColumnElement[bool] = attribute == hospital
    return sqlalchemy.or_(own, attribute.is_(None)) if column.nullable else own
