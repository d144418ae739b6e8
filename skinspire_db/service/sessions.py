"""Units of work: what a get_db_session block is, how blocks nest, and what belongs to which thread or task."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from skinspire_db.errors import ConnectionFailed, SessionSpoiled, UsageError
from skinspire_db.service import engines
from skinspire_db.service.engines import Service

log = logging.getLogger("skinspire_db")
WHO = sqlalchemy.text(
    "SELECT set_config('app.current_user', :user, true), set_config('app.current_hospital', :hospital, true)"
)
READ_ONLY = sqlalchemy.text("SET LOCAL transaction_read_only = on")
LATE = 0.005  # seconds between two looks whether a connection has come free

Owner = tuple[int, Any]  # a thread's ident, and the asyncio task or None
Who = tuple[str, str]  # user and hospital; '' is none

# Weakly, so that a session that was left open is collected, and its connection given back.
_current: ContextVar[weakref.ref[Unit] | None] = ContextVar("skinspire_db unit of work", default=None)
_savepoints: ContextVar[bool | None] = ContextVar("skinspire_db savepoints", default=None)
_savepoints_by_default = False
_open: weakref.WeakSet[Block] = weakref.WeakSet()
_warned: set[str] = set()


class UnitSession(Session):
    """A Session whose commit and rollback keep to the block in which they are called."""

    unit: Unit

    def begin(self, nested: bool = False) -> SessionTransaction:
        """As SQLAlchemy's; in a block inside another one a savepoint, since its end must commit nothing."""
        return super().begin(nested=nested or len(self.unit.frames) > 1)

    def commit(self) -> None:
        """Commit what the outermost block has done so far; in a block inside it, only flush. Warns once for each caller.

        Raises SessionSpoiled when the end of the outermost block would.
        """
        self.unit.refuse_child()
        where = engines.place()
        _warn_once(f"session.commit() at {where} is not needed: the end of the get_db_session block commits", where)
        if len(self.unit.frames) > 1:
            self.flush()
        else:
            self.unit.commit()

    def rollback(self) -> None:
        """Undo what the unit of work has done so far; in a savepoint block, what that block has done."""
        self.unit.refuse_child()
        innermost = self.unit.frames[-1] if self.unit.frames else None
        if innermost and innermost.savepoint is not None:
            innermost.savepoint.rollback()
            innermost.savepoint = self.begin_nested()
            if innermost.restrained:
                self.execute(READ_ONLY)
            return
        for frame in self.unit.frames:
            frame.savepoint = None  # the whole transaction goes, with every savepoint in it
        self.unit.let_go()
        super().rollback()
        inner = len(self.unit.frames) > 1
        self.unit.spoiled = UsageError("session.rollback() in an inner block undid the outer one's work") if inner else None

    def close(self) -> None:
        """The end of the block closes. Inside it this discards what was done, and the block ends with SessionSpoiled."""
        self._discard("close")

    def reset(self) -> None:
        """As close()."""
        self._discard("reset")

    def invalidate(self) -> None:
        """As close()."""
        self._discard("invalidate")

    def _discard(self, verb: str) -> None:
        if self.unit.frames and self.unit.pid == os.getpid():
            for frame in self.unit.frames:
                frame.savepoint = None
            self.unit.let_go()
            super().rollback()
            self.unit.spoiled = UsageError(f"session.{verb}() inside the block discarded its work")
        else:
            super().close()


@dataclass(eq=False)
class Frame:
    """What a unit of work remembers of one open block."""

    read_only: bool
    former: Who
    savepoint: SessionTransaction | None = None
    restrained: bool = False  # READ ONLY until the savepoint is rolled back


@dataclass(eq=False)
class Unit:
    """A session, one transaction at a time on one connection, and the blocks that are open on it, outermost first.

    It knows its blocks by their frames only: a block that nobody holds any more was left open, and is collected.
    """

    service: Service
    session: UnitSession
    owner: Owner
    who: Who
    outer: Unit | None
    connection: sqlalchemy.Connection | None
    frames: list[Frame] = field(default_factory=list)
    spoiled: BaseException | None = None
    live: sqlalchemy.Connection | None = None  # of the transaction that has begun
    turn: int = 0  # the driver's count of transactions when it began
    ended: bool = False  # by somebody else than this
    introduced: bool = False  # somebody was named to PostgreSQL in this transaction
    joined: int = 0  # how many blocks inside it have ended well
    pid: int = field(default_factory=os.getpid)

    @property
    def environment(self) -> str:
        return self.service.environment.name

    def refuse_child(self) -> None:
        """Raise in a process that was forked while this was open: its connection is the parent's."""
        if self.pid != os.getpid():
            raise UsageError("this session is the parent process's", remedy="open a get_db_session block in the child")

    def commit(self) -> None:
        """Commit. Raises SessionSpoiled for what PostgreSQL, or a failure inside, would make a silent rollback."""
        import psycopg

        self.refuse_ended()
        if self.spoiled is not None:
            raise SessionSpoiled(
                f"nothing of this get_db_session block is kept: {self._reason(self.spoiled)}",
                remedy="let the error through, or call use_nested_transactions(True)",
            ) from self.spoiled
        self.session.flush()
        self.refuse_ended()
        driver = self._driver()
        if driver is not None and driver.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise SessionSpoiled(
                "nothing of this get_db_session block is kept: a statement failed, and its error was caught",
                remedy="let the error through, or put what may fail into session.begin_nested()",
            )
        Session.commit(self.session)

    def was_ended(self, *, rolled_back: bool = False) -> bool:
        """Whether something else than this has ended the transaction, or let statements run outside of one; `rolled_back`
        says that this has just rolled it back.

        psycopg begins it at the first statement, which counts one; whatever ends it leaves another count, or none open.
        """
        if not self.ended and (driver := self._driver()) is not None:
            turns = driver.turns - self.turn
            self.ended = driver.autocommit or turns > 1 or (turns == 1 and not driver.working and not rolled_back)
        return self.ended

    def refuse_ended(self) -> None:
        """Raise SessionSpoiled when the transaction was ended by something else."""
        if self.was_ended():
            raise SessionSpoiled(
                "the transaction of this get_db_session block was ended inside it; what it had done may have left a trace",
                remedy="take out the COMMIT or ROLLBACK, or the connection's commit() or rollback(); the block's end commits",
            )

    def let_go(self) -> None:
        """Note what was ended so far: the transaction is about to be rolled back by this."""
        self.was_ended()
        self.live = None

    def _reason(self, error: BaseException) -> str:
        return error.message if isinstance(error, UsageError) else f"an inner block failed ({type(error).__name__})"

    def _driver(self) -> Any:
        """The psycopg connection of the transaction that is open, if one is."""
        if self.live is None or self.live.closed or self.live.invalidated or not self.session.in_transaction():
            return None
        return self.live.connection.driver_connection

    def speak_as(self, who: Who) -> None:
        """From here on the triggers record this user; what waits to be written is still the former one's."""
        if who != self.who and self.session.in_transaction():
            self.session.flush()
            self.session.execute(WHO, {"user": who[0], "hospital": who[1]})
            self.introduced = True
        self.who = who

    def abandon(self) -> None:
        """Let no later block become a part of this."""
        if self.frames and self.owner[1] is not None:
            self.service.in_loops[self.owner[0]] -= 1
        self.frames.clear()

    def close(self) -> None:
        """Give the connection back; what was not committed is rolled back."""
        self.abandon()
        if self.pid != os.getpid():
            engines.keep_inherited(self.session, self.connection)
            return
        try:
            Session.close(self.session)
        except sqlalchemy.exc.DBAPIError:
            Session.invalidate(self.session)  # the server is gone, and the transaction with it
        finally:
            if self.connection is not None:
                self.connection.close()


class Block:
    """What get_db_session returns: `with` it, or `async with` it where waiting for a connection must not stop the loop."""

    def __init__(self, env: str | None, user: object, hospital_id: object, read_only: bool) -> None:
        self.env = env
        self.user = user
        self.hospital_id = hospital_id
        self.read_only = read_only
        self.unit: Unit | None = None
        self.frame: Frame | None = None
        self.opened_at = ""
        self.patient = False  # a connection was waited for, and is there

    def __enter__(self) -> Session:
        if self.unit is not None:
            raise UsageError("this get_db_session() block is open already", remedy="call get_db_session() for each block")
        service = engines.service(self.env)
        owner = _owner()
        unit = _find(service, owner)
        try:
            if unit is None:
                unit = self._begin(service, owner)
            else:
                self._join(unit)
            self.unit = unit
            if service.policy.report_unclosed:
                self.opened_at = engines.place()
                _open.add(self)
            return unit.session
        except KeyboardInterrupt:  # between the lines: nobody may take this for an open block
            if unit is not None:
                unit.close()
            raise

    async def __aenter__(self) -> Session:
        service = engines.service(self.env)
        if _find(service, _owner()) is None:
            deadline = time.monotonic() + service.policy.pool_timeout
            # Other tasks of this loop may hold all connections: whoever blocks the loop now waits for ever.
            while not engines.has_room(service, self.read_only):
                if time.monotonic() > deadline:
                    raise ConnectionFailed(
                        f"no connection to {service.environment.name} came free in {service.policy.pool_timeout:g} s",
                        remedy="hold sessions for less long, or raise pool_size or pool_overflow in pyproject.toml",
                    )
                await asyncio.sleep(LATE)
            self.patient = True
        return self.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        unit, frame = self.unit, self.frame
        assert unit is not None and frame is not None
        self.unit = self.frame = None
        _open.discard(self)
        if unit.pid != os.getpid():
            unit.close()  # a forked child leaves the parent's block: the transaction is the parent's
            return
        if not unit.frames or unit.frames[-1] is not frame:
            unit.close()
            if error is not None and not isinstance(error, Exception):
                return  # it goes on its way
            raise UsageError("get_db_session() blocks must end in the reverse order of their beginning; nothing was kept")
        if len(unit.frames) == 1:
            self._end(unit, error)
        else:
            self._leave(unit, frame, error)

    async def __aexit__(self, *error: Any) -> None:
        self.__exit__(*error)

    def __del__(self) -> None:
        # Only `with` calls __exit__: whoever let go of the block before that can never end it.
        if (unit := getattr(self, "unit", None)) is not None:
            if self.opened_at:
                log.warning(
                    "a session that was opened at %s is not in a with block: nothing commits or closes it", self.opened_at
                )
            unit.abandon()

    def _begin(self, service: Service, owner: Owner) -> Unit:
        """Open the outermost block. The connection is taken at the first statement; at once from a replica, which may not
        answer, and in a coroutine, where it may not be there when it is needed.
        """
        engine = service.reader if self.read_only else service.engine
        connection = engines.replica_connection(service) if self.read_only else None
        if owner[1] is not None and connection is None:
            if not self.patient and service.in_loops[owner[0]] and not engines.has_room(service, False):
                raise UsageError(
                    "all connections are in use by tasks of this event loop, and waiting for one would stop it",
                    remedy="write async with get_db_session()",
                )
            connection = engine.connect()
        session = UnitSession(bind=connection or engine, expire_on_commit=False, close_resets_only=False)
        unit = Unit(service, session, owner, self._who(("", "")), _innermost(), connection)
        session.unit = unit
        self.frame = Frame(self.read_only, unit.who)
        unit.frames.append(self.frame)
        if owner[1] is not None:
            service.in_loops[owner[0]] += 1
        _current.set(weakref.ref(unit))
        return unit

    def _end(self, unit: Unit, error: BaseException | None) -> None:
        """Close the outermost block: commit, or roll back."""
        try:
            if error is None:
                unit.commit()
            elif isinstance(error, Exception) and not isinstance(error, SessionSpoiled):
                unit.refuse_ended()  # "from" this error, as Python chains them
            elif unit.was_ended():
                log.error(
                    "the transaction of the session opened at %s was ended inside it", self.opened_at or "an unknown place"
                )
            elif isinstance(error, GeneratorExit) and unit.joined:
                log.error(
                    "a generator that held the session opened at %s was closed: %d blocks that had joined it are rolled back",
                    self.opened_at or "an unknown place", unit.joined,
                )  # fmt: skip
        finally:
            _current.set(weakref.ref(unit.outer) if unit.outer else None)
            unit.close()

    def _join(self, unit: Unit) -> None:
        """Open a block inside another one."""
        frame = Frame(self.read_only, unit.who)
        # A block that only reads loses nothing when it ends by going back to its savepoint, and that ends READ ONLY too.
        restrain = self.read_only and not any(each.read_only for each in unit.frames)
        if restrain or nested_transactions():
            frame.savepoint = unit.session.begin_nested()
            frame.restrained = restrain
        unit.frames.append(frame)
        self.frame = frame
        try:
            unit.speak_as(self._who(unit.who))
            if restrain:
                unit.session.execute(READ_ONLY)
        except BaseException as failure:
            self._abandon(unit, frame, failure)
            raise

    def _leave(self, unit: Unit, frame: Frame, error: BaseException | None) -> None:
        """Close a block inside another one."""
        unit.was_ended()  # what follows can fail because of it
        if error is not None:
            self._abandon(unit, frame, error)
            return
        try:
            if frame.savepoint is None:
                unit.speak_as(frame.former)
            elif frame.read_only:
                unit.session.flush()  # PostgreSQL refuses what was added here
                unit.who = frame.former
                frame.savepoint.rollback()
            else:
                unit.speak_as(frame.former)
                frame.savepoint.commit()
        except BaseException as failure:
            self._abandon(unit, frame, failure)
            raise
        unit.who = frame.former
        unit.joined += 1
        unit.frames.remove(frame)

    def _abandon(self, unit: Unit, frame: Frame, error: BaseException) -> None:
        """Close a block inside another one that has failed: undo it alone if it can be, else the outer ones too."""
        unit.frames.remove(frame)
        unit.who = frame.former
        try:
            if frame.savepoint is not None:
                frame.savepoint.rollback()
            else:
                unit.spoiled = unit.spoiled or error
        except sqlalchemy.exc.SQLAlchemyError:  # the connection is gone, or somebody has ended the transaction
            unit.spoiled = unit.spoiled or error

    def _who(self, outer: Who) -> Who:
        return (
            outer[0] if self.user is None else str(self.user),
            outer[1] if self.hospital_id is None else str(self.hospital_id),
        )


def use_nested_transactions(on: bool) -> None:
    """Choose for this thread or task, and for those that have not chosen themselves."""
    global _savepoints_by_default
    _savepoints_by_default = on
    _savepoints.set(on)


def nested_transactions() -> bool:
    """Whether a block inside another one is a savepoint."""
    chosen = _savepoints.get()
    return _savepoints_by_default if chosen is None else chosen


def open_places() -> list[str]:
    """Where the blocks of this process were opened that are open now, as far as the policy has that noted."""
    return sorted(block.opened_at for block in _open)


def forget_inherited() -> None:
    """In a forked child, and after a test: the unit of work that is still open is somebody else's."""
    _current.set(None)


def _owner() -> Owner:
    """Who runs: a task that was started inside a block inherits its context, but not its unit of work."""
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return threading.get_ident(), task


def _innermost() -> Unit | None:
    """The unit that was opened last in this context and is open still."""
    last = _current.get()
    unit = None if last is None else last()
    while unit is not None and not unit.frames:
        unit = unit.outer
    return unit


def _find(service: Service, owner: Owner) -> Unit | None:
    """The open unit of this thread or task on that environment."""
    unit = _innermost()
    while unit is not None and (unit.environment != service.environment.name or unit.owner != owner or not unit.frames):
        unit = unit.outer
    return unit


@event.listens_for(UnitSession, "after_begin")
def _introduce(session: UnitSession, transaction: SessionTransaction, connection: sqlalchemy.Connection) -> None:
    """Tell PostgreSQL who works, for this transaction alone."""
    if transaction.nested:
        return
    unit = session.unit
    unit.live = connection
    driver: Any = connection.connection.driver_connection
    unit.turn = driver.turns
    unit.introduced = unit.who != ("", "")
    if unit.introduced:
        connection.execute(WHO, {"user": unit.who[0], "hospital": unit.who[1]})


@event.listens_for(UnitSession, "after_rollback")
def _judge(session: UnitSession) -> None:
    """SQLAlchemy rolls back by itself when a flush fails. To a savepoint leaves the transaction open."""
    unit = session.unit
    driver = unit._driver()
    if driver is not None and not driver.working:
        unit.was_ended(rolled_back=True)
        unit.live = None


@event.listens_for(UnitSession, "after_transaction_end")
def _notice(session: UnitSession, transaction: SessionTransaction) -> None:
    """Whatever ends the transaction while an inner block is open takes the outer one's work along."""
    unit = session.unit
    if transaction.parent is None and unit.live is not None and len(unit.frames) > 1:
        unit.ended = True


@event.listens_for(UnitSession, "after_soft_rollback")
def _introduce_again(session: UnitSession, transaction: SessionTransaction) -> None:
    """Going back to a savepoint also takes back who was named since."""
    unit = session.unit
    if transaction.nested and unit.introduced and session.is_active and unit._driver() is not None:
        session.execute(WHO, {"user": unit.who[0], "hospital": unit.who[1]})


def _warn_once(message: str, where: str) -> None:
    if where in _warned:
        return
    _warned.add(where)
    depth = 1
    while sys._getframe(depth).f_code.co_filename.startswith(engines.NOT_THE_APPLICATIONS):
        depth += 1
    warnings.warn(message, stacklevel=depth + 1)
