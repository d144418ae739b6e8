"""Copies of entities that outlive their session."""

from __future__ import annotations

import copy as standard
import datetime
import decimal
import enum
import uuid
from collections.abc import Iterable
from typing import Any

import sqlalchemy
from sqlalchemy.orm import Mapper, PassiveFlag
from sqlalchemy.orm.attributes import set_committed_value

from skinspire_db.errors import NotCopied, UsageError

IMMUTABLE = (
    type(None), str, bytes, int, float, complex, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta,
    uuid.UUID, enum.Enum,
)  # fmt: skip
UNLOADED = ("dynamic", "write_only")  # relationships that are queries rather than values


class Absent:
    """Stands for a relationship that was not copied. A class, so that a copy can be pickled."""

    def __init__(self, owner: str, name: str) -> None:
        self.owner = owner
        self.name = name

    def __call__(self, state: Any, passive: Any) -> Any:
        if state.session is not None:  # merged or added: it is an entity of a session again, and loads as one
            state.callables.pop(self.name, None)
            loader = state.manager[self.name].impl.callable_
            return loader(state, passive) if loader else sqlalchemy.orm.LoaderCallableStatus.ATTR_EMPTY
        if not passive & PassiveFlag.SQL_OK:  # SQLAlchemy looks whether a value is loaded; the application did not ask for it
            return sqlalchemy.orm.LoaderCallableStatus.PASSIVE_NO_RESULT
        raise NotCopied(
            f"{self.owner}.{self.name} was not copied, and there is no session to load it",
            remedy=f"get_detached_copy(..., include=({self.name!r},))",
        )


def copy(entity: Any, include: Iterable[str], strict: bool) -> Any:
    """Copy an entity or a list of entities; an object that is reached twice is copied once.

    Args:
        entity: A mapped object, or a collection of them.
        include: Relationships to copy too, on every entity that has one of that name.
        strict: Refuse a name that is a relationship of none of the copied entities.

    Returns:
        The copy, or a list of copies.

    Raises:
        UsageError: for what is no mapped entity, a relationship that is a query, and, with `strict`, an unknown name.
    """
    names = (include,) if isinstance(include, str) else tuple(include)
    copier = _Copier(names)
    if isinstance(entity, list | tuple | set | frozenset):
        copies: Any = [copier.copy(member) for member in entity]
    else:
        copies = copier.copy(entity)
    copier.copy_relationships()
    unknown = [name for name in names if name not in copier.known_names]
    if strict and unknown and copier.copies:
        kinds = ", ".join(sorted({type(copied).__name__ for copied in copier.copies.values()}))
        raise UsageError(f"include={unknown[0]!r} is no relationship of {kinds}")
    return copies


class _Copier:
    """The work of one call: which originals have their copy already, and whose relationships are still to be copied.

    It keeps a list of what is pending in place of recursion: a chain of entities may be longer than Python's stack.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.copies: dict[int, Any] = {}
        self.pending: list[tuple[Any, Any]] = []
        self.originals: list[Any] = []  # kept, so that no id is given twice
        self.known_names: set[str] = set()

    def copy(self, original: Any) -> Any:
        """The copy of an entity; its relationships follow in copy_relationships()."""
        if original is None or id(original) in self.copies:
            return original if original is None else self.copies[id(original)]
        state = sqlalchemy.inspect(original, raiseerr=False)
        if not isinstance(getattr(state, "mapper", None), Mapper) or state is getattr(state, "mapper", None):
            raise UsageError(f"{type(original).__name__} is no entity that can be copied")
        copied = state.mapper.class_manager.new_instance()
        self.copies[id(original)] = copied
        self.originals.append(original)
        self.pending.append((original, copied))
        for attribute in state.mapper.column_attrs:
            value = value_of(original, state, attribute.key)
            set_committed_value(copied, attribute.key, value if isinstance(value, IMMUTABLE) else standard.deepcopy(value))
        if state.key is not None:
            sqlalchemy.inspect(copied).key = state.key
        return copied

    def copy_relationships(self) -> None:
        """Copy the relationships of all copies, and those of the copies that this makes."""
        while self.pending:
            original, copied = self.pending.pop()
            for relationship in sqlalchemy.inspect(copied).mapper.relationships:
                if relationship.key in self.names:
                    self._include(original, copied, relationship)
                else:
                    state = sqlalchemy.inspect(copied)
                    if "callables" not in state.__dict__:
                        state.callables = {}
                    state.callables[relationship.key] = Absent(type(original).__name__, relationship.key)

    def _include(self, original: Any, copied: Any, relationship: Any) -> None:
        name = relationship.key
        self.known_names.add(name)
        if relationship.lazy in UNLOADED:
            raise UsageError(f"{type(original).__name__}.{name} is a query ({relationship.lazy}) and cannot be copied")
        value = getattr(original, name)
        if not relationship.uselist:
            set_committed_value(copied, name, self.copy(value))
        else:
            members = value.values() if isinstance(value, dict) else value
            set_committed_value(copied, name, [self.copy(member) for member in members])


def value_of(original: Any, state: Any, key: str) -> Any:
    """A column's value, loaded when it is not yet, even where its mapping forbids implicit loading."""
    try:
        return getattr(original, key)
    except sqlalchemy.exc.InvalidRequestError:
        if state.session is None:
            raise
        state.session.refresh(original, [key])
        return getattr(original, key)
