"""The block that get_async_session returns: a unit of work of get_db_session in a coroutine."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from skinspire_db.service import async_engines
from skinspire_db.service.session_block import SessionBlock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class AsyncSessionBlock:
    """`async with` gives an AsyncSession over the session of a unit of work."""

    def __init__(
        self, env: str | None, user: str | None, hospital: object, read_only: bool, reason: str | None, journal: Any
    ) -> None:
        async_engines.require_greenlet()
        self.block = SessionBlock(env, user, hospital, read_only, reason, journal, async_engines.service)
        self.block.connection_is_free = True  # its pool waits without stopping the loop

    async def __aenter__(self) -> AsyncSession:
        from sqlalchemy.ext.asyncio import AsyncSession
        from sqlalchemy.util import greenlet_spawn

        session = await greenlet_spawn(self.block.__enter__)
        return AsyncSession(sync_session_class=lambda **_: session)  # type: ignore[arg-type]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from sqlalchemy.util import greenlet_spawn

        await greenlet_spawn(self.block.__exit__, kind, error, trace)
