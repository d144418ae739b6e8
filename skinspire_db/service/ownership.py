"""Which unit of work belongs to which thread or asyncio task, and whether its inner blocks are savepoints."""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skinspire_db.service.unit_of_work import UnitOfWork

Owner = tuple[int, Any]  # a thread's ident, and the asyncio task or None

# A weak reference, so that a session that was left open is collected, and its connection given back.
_latest: ContextVar[weakref.ref[UnitOfWork] | None] = ContextVar("skinspire_db unit of work", default=None)
_savepoints: ContextVar[bool | None] = ContextVar("skinspire_db savepoints", default=None)
_savepoints_by_default = False


def current_owner() -> Owner:
    """The running thread and asyncio task. A task that was started inside a block inherits the block's context, but not its
    unit of work: the owner tells the two apart.
    """
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return threading.get_ident(), task


def innermost() -> UnitOfWork | None:
    """The unit of work that was opened last in this context and still has an open block."""
    reference = _latest.get()
    unit = None if reference is None else reference()
    while unit is not None and not unit.blocks:
        unit = unit.outer
    return unit


def find(environment: str, owner: Owner) -> UnitOfWork | None:
    """The open unit of work of that thread or task on that environment."""
    unit = innermost()
    while unit is not None and (unit.environment != environment or unit.owner != owner or not unit.blocks):
        unit = unit.outer
    return unit


def set_innermost(unit: UnitOfWork | None) -> None:
    """Remember the unit of work as the one that was opened last in this context."""
    _latest.set(None if unit is None else weakref.ref(unit))


def use_nested_transactions(on: bool) -> None:
    """Choose for this thread or task, and for those that have not chosen themselves."""
    global _savepoints_by_default
    _savepoints_by_default = on
    _savepoints.set(on)


def nested_transactions() -> bool:
    """Whether a block inside another one is a savepoint."""
    chosen = _savepoints.get()
    return _savepoints_by_default if chosen is None else chosen


def nested_transactions_choice() -> tuple[bool, bool | None]:
    """What was chosen in this process, and in this thread or task; for restore_nested_transactions()."""
    return _savepoints_by_default, _savepoints.get()


def restore_nested_transactions(choice: tuple[bool, bool | None]) -> None:
    """Take back the choices that were made since nested_transactions_choice() returned `choice`."""
    global _savepoints_by_default
    _savepoints_by_default = choice[0]
    _savepoints.set(choice[1])
