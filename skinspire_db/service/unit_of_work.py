"""A unit of work: one session, one transaction at a time on one connection, and the get_db_session blocks that share it."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any, cast

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from skinspire_db.errors import SessionSpoiled, UsageError
from skinspire_db.service import criteria, engines, hospitals
from skinspire_db.service.engines import Service
from skinspire_db.service.identity import NO_IDENTITY, Identity, change_identity
from skinspire_db.service.ownership import Owner

_warned: set[str] = set()  # the places whose session.commit() was warned about


class BlockSession(Session):
    """A Session whose commit and rollback keep to the block in which they are called."""

    unit: UnitOfWork

    def begin(self, nested: bool = False) -> SessionTransaction:
        """As SQLAlchemy's; in a block inside another one a savepoint, since its end must commit nothing."""
        return super().begin(nested=nested or len(self.unit.blocks) > 1)

    def commit(self) -> None:
        """Commit what the outermost block has done so far; in a block inside it, only flush. Warns once for each caller.

        Raises:
            SessionSpoiled: when the end of the outermost block would raise it.
        """
        self.unit.refuse_in_child()
        place = engines.place()
        _warn_once(f"session.commit() at {place} is not needed: the end of the get_db_session block commits", place)
        if len(self.unit.blocks) > 1:
            self.flush()
        else:
            self.unit.commit()

    def rollback(self) -> None:
        """Undo what the unit of work has done so far; in a savepoint block, what that block has done."""
        self.unit.refuse_in_child()
        block = self.unit.blocks[-1] if self.unit.blocks else None
        if block and block.savepoint is not None:
            block.savepoint.rollback()
            block.savepoint = self.begin_nested()
            return
        self.unit.roll_back()
        inner = len(self.unit.blocks) > 1
        self.unit.spoiled_by = (
            UsageError("session.rollback() in an inner block undid the outer one's work") if inner else None
        )

    def close(self) -> None:
        """The end of the block closes. Inside it this discards what was done, and the block ends with SessionSpoiled."""
        self._discard("close")

    def reset(self) -> None:
        """As close()."""
        self._discard("reset")

    def invalidate(self) -> None:
        """As close()."""
        self._discard("invalidate")

    def _discard(self, method: str) -> None:
        if self.unit.blocks and self.unit.pid == os.getpid():
            self.unit.roll_back()
            self.unit.spoiled_by = UsageError(f"session.{method}() inside the block discarded its work")
        else:
            super().close()


_classes: dict[Any, type[BlockSession]] = {Session: BlockSession}


def block_session(service: Service, bind: Any) -> BlockSession:
    """A session of the application's own class that keeps to its blocks."""
    base = service.options.session_class
    if base not in _classes:
        _classes[base] = type(f"Block{base.__name__}", (BlockSession, base), {})
    return _classes[base](bind=bind, expire_on_commit=service.options.expire_on_commit, close_resets_only=False)


@dataclass(eq=False)
class OpenBlock:
    """What a unit of work remembers of one open block."""

    outer_identity: Identity
    savepoint: SessionTransaction | None = None


@dataclass(eq=False)
class UnitOfWork:
    """A session, one transaction at a time on one connection, and the blocks that are open on it, outermost first.

    It does not refer to the SessionBlock objects: one that the application has dropped was left open, and is collected.
    """

    service: Service
    session: BlockSession
    owner: Owner
    identity: Identity
    read_only: bool
    outer: UnitOfWork | None
    held_connection: sqlalchemy.Connection | None  # one that was taken before the first statement
    blocks: list[OpenBlock] = field(default_factory=list)
    spoiled_by: BaseException | None = None
    connection: sqlalchemy.Connection | None = None  # of the transaction that has begun
    count_at_begin: int = 0  # the driver's transaction_count when it began
    ended_elsewhere: bool = False  # the transaction was ended by something other than this unit of work
    identity_is_set: bool = False  # PostgreSQL was told an identity in this transaction
    joined_blocks: int = 0  # how many inner blocks have ended well
    pid: int = field(default_factory=os.getpid)

    @property
    def environment(self) -> str:
        """The name of the environment."""
        return self.service.name

    def refuse_in_child(self) -> None:
        """Look whether this is the process that opened the unit.

        Raises:
            UsageError: it was forked while the unit was open: the connection is the parent's.
        """
        if self.pid != os.getpid():
            raise UsageError("this session is the parent process's", remedy="open a get_db_session block in the child")

    def commit(self) -> None:
        """Commit.

        Raises:
            SessionSpoiled: for what PostgreSQL, or a failure inside, would make a silent rollback.
        """
        import psycopg

        self.refuse_ended()
        if self.spoiled_by is not None:
            raise SessionSpoiled(
                f"nothing of this get_db_session block is kept: {_reason(self.spoiled_by)}",
                remedy="let the error through, or call use_nested_transactions(True)",
            ) from self.spoiled_by
        self.session.flush()
        self.refuse_ended()
        driver = self.driver_connection()
        if driver is not None and driver.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise SessionSpoiled(
                "nothing of this get_db_session block is kept: a statement failed, and its error was caught",
                remedy="let the error through, or put what may fail into session.begin_nested()",
            )
        super(BlockSession, self.session).commit()  # the application's own class, where it has one
        self.connection = None  # one that is held, in a coroutine, is not in a transaction now

    def roll_back(self) -> None:
        """Roll the whole transaction back, with every savepoint in it."""
        for block in self.blocks:
            block.savepoint = None
        self.was_ended()
        self.connection = None
        super(BlockSession, self.session).rollback()

    def was_ended(self, *, rolled_back: bool = False) -> bool:
        """Whether something else has ended the transaction, or let statements run outside of one.

        psycopg begins the transaction at the first statement, which counts one; what ends it leaves another count, or no
        open transaction.

        Args:
            rolled_back: This unit of work has just rolled the transaction back itself.
        """
        if not self.ended_elsewhere and (driver := self.driver_connection()) is not None:
            count = driver.transaction_count - self.count_at_begin
            closed = count == 1 and not driver.in_transaction and not rolled_back
            self.ended_elsewhere = driver.autocommit or count > 1 or closed
        return self.ended_elsewhere

    def refuse_ended(self) -> None:
        """Look whether the transaction is still the unit's.

        Raises:
            SessionSpoiled: something else has ended it.
        """
        if self.was_ended():
            raise SessionSpoiled(
                "the transaction of this get_db_session block was ended inside it; what it had done may have left a trace",
                remedy="take out the COMMIT or ROLLBACK, or the connection's commit() or rollback(); the block's end commits",
            )

    def driver_connection(self) -> Any:
        """The psycopg connection of the open transaction, or None."""
        connection = self.connection
        if connection is None or connection.closed or connection.invalidated or not self.session.in_transaction():
            return None
        return connection.connection.driver_connection

    def work_as(self, identity: Identity) -> None:
        """From here on the triggers record this user; what waits to be written is flushed under the former one's name."""
        if identity != self.identity and self.session.in_transaction():
            self.session.flush()
            change_identity(self.session, identity)
            self.identity_is_set = True
        self.identity = identity

    def join(self, identity: Identity, *, savepoint: bool) -> OpenBlock:
        """Open a block inside the innermost one.

        Returns:
            What leave() is called with.
        """
        block = OpenBlock(self.identity, self.session.begin_nested() if savepoint else None)
        self.blocks.append(block)
        try:
            self.work_as(identity)
        except BaseException as error:
            self._undo(block, error)
            raise
        return block

    def leave(self, block: OpenBlock, error: BaseException | None) -> None:
        """Close an inner block, which ended with that error or with none."""
        self.was_ended()  # asked first: what follows can fail because of it
        if error is not None:
            self._undo(block, error)
            return
        try:
            self.work_as(block.outer_identity)
            if block.savepoint is not None:
                block.savepoint.commit()
        except BaseException as failure:
            self._undo(block, failure)
            raise
        self.joined_blocks += 1
        self.blocks.remove(block)

    def _undo(self, block: OpenBlock, error: BaseException) -> None:
        """Close an inner block that has failed: undo it alone if it is a savepoint, else spoil the whole unit of work."""
        self.blocks.remove(block)
        self.identity = block.outer_identity
        try:
            if block.savepoint is not None:
                block.savepoint.rollback()
            else:
                self.spoiled_by = self.spoiled_by or error
        except sqlalchemy.exc.SQLAlchemyError:  # the connection is gone, or the transaction was ended elsewhere
            self.spoiled_by = self.spoiled_by or error

    def abandon(self) -> None:
        """Let no later block become a part of this."""
        if self.blocks and self.owner[1] is not None:
            self.service.units_in_loops[self.owner[0]] -= 1
        self.blocks.clear()

    def close(self) -> None:
        """Give the connection back; what was not committed is rolled back."""
        self.abandon()
        if self.pid != os.getpid():
            engines.keep_inherited(self.session, self.held_connection)
            return
        try:
            super(BlockSession, self.session).close()
        except sqlalchemy.exc.DBAPIError:
            super(BlockSession, self.session).invalidate()  # the server is gone, and the transaction with it
        finally:
            if self.held_connection is not None:
                self.held_connection.close()


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, UsageError) else f"an inner block failed ({type(error).__name__})"


@event.listens_for(BlockSession, "after_begin")
def _note_begin(session: BlockSession, transaction: SessionTransaction, connection: sqlalchemy.Connection) -> None:
    """Remember the transaction's connection, and tell PostgreSQL who works, for this transaction alone."""
    if transaction.nested:
        return
    unit = session.unit
    driver: Any = connection.connection.driver_connection
    if unit.identity.role and driver.autocommit:
        raise UsageError(
            "tenancy is on, and a connection with isolation_level AUTOCOMMIT would be no hospital's",
            remedy="take the isolation level out; a block is a transaction",
        )
    unit.connection = connection
    unit.count_at_begin = driver.transaction_count
    unit.identity_is_set = unit.identity != NO_IDENTITY
    driver.settings = unit.identity.settings()
    if unit.identity.role:
        hospitals.check(unit.service, connection, unit.identity)


@event.listens_for(BlockSession, "do_orm_execute")
def _limit_to_hospital(state: ORMExecuteState) -> None:
    unit = cast("BlockSession", state.session).unit
    if unit.identity.role and unit.identity.hospital:
        criteria.limit(state, unit.identity.hospital)


@event.listens_for(BlockSession, "after_rollback")
def _note_rollback(session: BlockSession) -> None:
    """SQLAlchemy rolls back by itself when a flush fails. A rollback to a savepoint leaves the transaction open."""
    unit = session.unit
    driver = unit.driver_connection()
    if driver is not None and not driver.in_transaction:
        unit.was_ended(rolled_back=True)
        unit.connection = None


@event.listens_for(BlockSession, "after_transaction_end")
def _note_end(session: BlockSession, transaction: SessionTransaction) -> None:
    """A transaction that ends while an inner block is open takes the outer one's work along."""
    unit = session.unit
    if transaction.parent is None and unit.connection is not None and len(unit.blocks) > 1:
        unit.ended_elsewhere = True


@event.listens_for(BlockSession, "after_soft_rollback")
def _restore_identity(session: BlockSession, transaction: SessionTransaction) -> None:
    """A rollback to a savepoint also takes back the identity that was set since."""
    unit = session.unit
    if transaction.nested and unit.identity_is_set and session.is_active and unit.driver_connection() is not None:
        change_identity(unit.connection, unit.identity)  # the session itself takes no statement here


def _warn_once(message: str, place: str) -> None:
    if place in _warned:
        return
    _warned.add(place)
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(engines.NOT_THE_APPLICATIONS):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, stacklevel=depth + 1)
