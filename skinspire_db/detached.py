"""Copies of entities that outlive their session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import sqlalchemy
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import set_committed_value

from skinspire_db.errors import NotCopied, UsageError


class Absent:
    """Stands for an attribute that was not copied. A class, so that a copy can be pickled."""

    def __init__(self, owner: str, name: str) -> None:
        self.owner = owner
        self.name = name

    def __call__(self, state: Any, passive: Any) -> NoReturn:
        raise NotCopied(
            f"{self.owner}.{self.name} was not copied, and there is no session to load it",
            remedy=f"get_detached_copy(..., include=({self.name!r},))",
        )


def copy(entity: Any, include: Iterable[str], strict: bool) -> Any:
    """A copy of an entity, or a list of copies; objects that are reached twice are copied once.

    `include` names relationships, on whatever entity they are found; with `strict`, UsageError is raised for a name that is
    on none of those that were reached. Raises UsageError for what is no mapped entity.
    """
    names = (include,) if isinstance(include, str) else tuple(include)
    work = _Copying(names)
    if isinstance(entity, list | tuple | set | frozenset):
        copies: Any = [work.copy(each) for each in entity]
    else:
        copies = work.copy(entity)
    unknown = [name for name in names if name not in work.found]
    if strict and unknown and work.made:
        kinds = ", ".join(sorted({type(each).__name__ for each in work.made.values()}))
        raise UsageError(f"include={unknown[0]!r} is no relationship of {kinds}")
    return copies


class _Copying:
    """One call's work: which originals have their copy already, so that a circle ends."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.made: dict[int, Any] = {}
        self.originals: list[Any] = []  # kept, so that no id is given twice
        self.found: set[str] = set()

    def copy(self, original: Any) -> Any:
        if original is None:
            return None
        if id(original) in self.made:
            return self.made[id(original)]
        state = sqlalchemy.inspect(original, raiseerr=False)
        if not isinstance(getattr(state, "mapper", None), Mapper) or state is getattr(state, "mapper", None):
            raise UsageError(f"{type(original).__name__} is no entity that can be copied")
        mapper = state.mapper
        made = mapper.class_manager.new_instance()
        self.made[id(original)] = made
        self.originals.append(original)
        for attribute in mapper.column_attrs:
            set_committed_value(made, attribute.key, getattr(original, attribute.key))
        for relationship in mapper.relationships:
            self._relationship(original, made, relationship.key)
        kept = sqlalchemy.inspect(made)
        kept.key = state.key or mapper._identity_key_from_state(kept)
        return made

    def _relationship(self, original: Any, made: Any, name: str) -> None:
        if name not in self.names:
            state: Any = sqlalchemy.inspect(made)
            if "callables" not in state.__dict__:
                state.callables = {}
            state.callables[name] = Absent(type(original).__name__, name)
            return
        self.found.add(name)
        value = getattr(original, name)
        if isinstance(value, dict):
            copies: Any = {key: self.copy(each) for key, each in value.items()}
        elif isinstance(value, Iterable) and sqlalchemy.inspect(value, raiseerr=False) is None:
            copies = [self.copy(each) for each in value]
        else:
            copies = self.copy(value)
        set_committed_value(made, name, copies)
