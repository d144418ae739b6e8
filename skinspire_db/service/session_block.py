"""The with-block that get_db_session returns: it opens a unit of work or joins the open one, and ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sqlalchemy.orm import Session

from skinspire_db.errors import ConnectionFailed, SessionSpoiled, UsageError
from skinspire_db.service import engines, hospitals, ownership
from skinspire_db.service.engines import Service
from skinspire_db.service.ownership import Owner
from skinspire_db.service.unit_of_work import OpenBlock, UnitOfWork, block_session

log = logging.getLogger("skinspire_db")
POLL_SECONDS = 0.005  # between two looks whether a connection has come free


class SessionBlock:
    """What get_db_session returns: `with` it, or `async with` it where waiting for a connection must not stop the loop."""

    def __init__(
        self,
        env: str | None,
        user: str | None,
        hospital: object,
        read_only: bool,
        reason: str | None = None,
        journal: Any = None,
        find_service: Callable[[str | None], Service] = engines.service,
    ) -> None:
        self.env = env
        self.find_service = find_service
        self.user = user
        self.hospital = hospital
        self.reason = reason
        self.journal = journal  # writes a block over all hospitals down
        self.read_only = read_only
        self.unit: UnitOfWork | None = None
        self.block: OpenBlock | None = None
        self.opened_at = ""
        self.connection_is_free = False  # __aenter__ has waited for one

    def __enter__(self) -> Session:
        if self.unit is not None:
            raise UsageError("this get_db_session() block is open already", remedy="call get_db_session() for each block")
        service = self.find_service(self.env)
        owner = ownership.current_owner()
        unit = ownership.find(service.name, owner)
        if unit is None and (other := ownership.find(service.other_name, owner)) is not None:
            raise UsageError(
                f"a block on {service.name} cannot begin inside a block on {other.environment}: that is two transactions",
                remedy="use get_db_session() or get_async_session() for both",
            )
        try:
            if unit is None:
                unit = self._begin(service, owner)
            else:
                self._join(unit)
            self.unit = unit
            if service.policy.report_unclosed:
                self.opened_at = engines.place()
            return unit.session
        except KeyboardInterrupt:  # it can come between any two lines: nothing may take this for an open block
            if unit is not None:
                unit.close()
            raise

    async def __aenter__(self) -> Session:
        service = engines.service(self.env)
        if ownership.find(service.name, ownership.current_owner()) is None:
            deadline = time.monotonic() + service.policy.pool_timeout
            # Other tasks of this loop may hold all connections: to block the loop now would be to wait for ever.
            while not engines.has_room(service, self.read_only):
                if time.monotonic() > deadline:
                    raise ConnectionFailed(
                        f"no connection to {service.environment.name} came free in {service.policy.pool_timeout:g} s",
                        remedy="hold sessions for less long, or raise pool_size or pool_overflow in pyproject.toml",
                    )
                await asyncio.sleep(POLL_SECONDS)
            self.connection_is_free = True
        return self.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        unit, block = self.unit, self.block
        assert unit is not None and block is not None
        self.unit = self.block = None
        if unit.pid != os.getpid():
            unit.close()  # a forked child leaves the parent's block: the transaction is the parent's
            return
        if not unit.blocks or unit.blocks[-1] is not block:
            unit.close()
            if error is not None and not isinstance(error, Exception):
                return  # KeyboardInterrupt and the like are never replaced by another error
            raise UsageError("get_db_session() blocks must end in the reverse order of their beginning; nothing was kept")
        if len(unit.blocks) == 1:
            self._end(unit, error)
        else:
            unit.leave(block, error)

    async def __aexit__(self, *error: Any) -> None:
        self.__exit__(*error)

    def __del__(self) -> None:
        # Only a `with` statement calls __exit__: a block that was dropped before that can never end.
        if (unit := getattr(self, "unit", None)) is not None:
            if self.opened_at:
                log.warning(
                    "a session that was opened at %s is not in a with block: nothing commits or closes it", self.opened_at
                )
            unit.abandon()

    def _begin(self, service: Service, owner: Owner) -> UnitOfWork:
        """Open the outermost block.

        The connection is taken at the first statement; at once from a replica, which may not answer, and in a coroutine,
        where it may not be there when it is needed.
        """
        identity = hospitals.identity(service, self.user, self.hospital, self.reason, None)
        engine = service.reader if self.read_only else service.engine
        connection = engines.replica_connection(service) if self.read_only else None
        if owner[1] is not None and connection is None:
            no_room = service.units_in_loops[owner[0]] and not engines.has_room(service, False)
            if no_room and not self.connection_is_free:
                raise UsageError(
                    "all connections are in use by tasks of this event loop, and waiting for one would stop it",
                    remedy="write async with get_db_session()",
                )
            connection = engine.connect()
        if self.journal is not None and identity.role:
            hospitals.write_down(service, self.journal, identity, str(self.reason))
        session = block_session(service, connection or engine)
        unit = UnitOfWork(service, session, owner, identity, self.read_only, ownership.innermost(), connection)
        session.unit = unit
        self.block = OpenBlock(identity)
        unit.blocks.append(self.block)
        if owner[1] is not None:
            service.units_in_loops[owner[0]] += 1
        ownership.set_innermost(unit)
        return unit

    def _join(self, unit: UnitOfWork) -> None:
        """Open a block inside another one."""
        if self.read_only and not unit.read_only:
            raise UsageError(
                "a get_db_session(read_only=True) block cannot begin inside a block that writes: they share one transaction",
                remedy="leave out read_only=True, or end the outer block first",
            )
        identity = hospitals.identity(unit.service, self.user, self.hospital, self.reason, unit.identity)
        self.block = unit.join(identity, savepoint=ownership.nested_transactions())

    def _end(self, unit: UnitOfWork, error: BaseException | None) -> None:
        """Close the outermost block: commit, or roll back."""
        opened_at = self.opened_at or "an unknown place"
        try:
            if error is None:
                unit.commit()
            elif isinstance(error, Exception) and not isinstance(error, SessionSpoiled):
                unit.refuse_ended()  # raises "from" this error, as Python chains them
            elif unit.was_ended():
                log.error("the transaction of the session opened at %s was ended inside it", opened_at)
            elif isinstance(error, GeneratorExit) and unit.joined_blocks:
                log.error(
                    "a generator that held the session opened at %s was closed: %d blocks that had joined it are rolled back",
                    opened_at, unit.joined_blocks,
                )  # fmt: skip
        finally:
            ownership.set_innermost(unit.outer)
            unit.close()
