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
        if not passive & PassiveFlag.SQL_OK:  # SQLAlchemy looks whether something is there, and nobody has asked for it
            return sqlalchemy.orm.LoaderCallableStatus.PASSIVE_NO_RESULT
        raise NotCopied(
            f"{self.owner}.{self.name} was not copied, and there is no session to load it",
            remedy=f"get_detached_copy(..., include=({self.name!r},))",
        )


def copy(entity: Any, include: Iterable[str], strict: bool) -> Any:
    """A copy of an entity, or a list of copies; objects that are reached twice are copied once.

    `include` names relationships, on whatever entity they are found; with `strict`, UsageError is raised for a name that is
    on none of those that were reached. Raises UsageError for what is no mapped entity, or a relationship that is a query.
    """
    names = (include,) if isinstance(include, str) else tuple(include)
    work = _Copying(names)
    if isinstance(entity, list | tuple | set | frozenset):
        copies: Any = [work.copy(each) for each in entity]
    else:
        copies = work.copy(entity)
    work.finish()
    unknown = [name for name in names if name not in work.found]
    if strict and unknown and work.made:
        kinds = ", ".join(sorted({type(each).__name__ for each in work.made.values()}))
        raise UsageError(f"include={unknown[0]!r} is no relationship of {kinds}")
    return copies


class _Copying:
    """One call's work: which originals have their copy already, and whose relationships are still to be copied.

    A list of what is to do rather than recursion: a chain of entities may be longer than Python's stack.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.made: dict[int, Any] = {}
        self.todo: list[tuple[Any, Any]] = []
        self.originals: list[Any] = []  # kept, so that no id is given twice
        self.found: set[str] = set()

    def copy(self, original: Any) -> Any:
        """The copy of an entity; its relationships follow in finish()."""
        if original is None or id(original) in self.made:
            return original if original is None else self.made[id(original)]
        state = sqlalchemy.inspect(original, raiseerr=False)
        if not isinstance(getattr(state, "mapper", None), Mapper) or state is getattr(state, "mapper", None):
            raise UsageError(f"{type(original).__name__} is no entity that can be copied")
        made = state.mapper.class_manager.new_instance()
        self.made[id(original)] = made
        self.originals.append(original)
        self.todo.append((original, made))
        for attribute in state.mapper.column_attrs:
            value = _value(original, state, attribute.key)
            set_committed_value(made, attribute.key, value if isinstance(value, IMMUTABLE) else standard.deepcopy(value))
        if state.key is not None:
            sqlalchemy.inspect(made).key = state.key
        return made

    def finish(self) -> None:
        while self.todo:
            original, made = self.todo.pop()
            for relationship in sqlalchemy.inspect(made).mapper.relationships:
                if relationship.key in self.names:
                    self._include(original, made, relationship)
                else:
                    state = sqlalchemy.inspect(made)
                    if "callables" not in state.__dict__:
                        state.callables = {}
                    state.callables[relationship.key] = Absent(type(original).__name__, relationship.key)

    def _include(self, original: Any, made: Any, relationship: Any) -> None:
        name = relationship.key
        self.found.add(name)
        if relationship.lazy in UNLOADED:
            raise UsageError(f"{type(original).__name__}.{name} is a query ({relationship.lazy}) and cannot be copied")
        value = getattr(original, name)
        if not relationship.uselist:
            set_committed_value(made, name, self.copy(value))
        else:
            members = value.values() if isinstance(value, dict) else value
            set_committed_value(made, name, [self.copy(each) for each in members])


def _value(original: Any, state: Any, key: str) -> Any:
    """A column's value, loaded if need be, also one that its mapping forbids to load by the way."""
    try:
        return getattr(original, key)
    except sqlalchemy.exc.InvalidRequestError:
        if state.session is None:
            raise
        state.session.refresh(original, [key])
        return getattr(original, key)
