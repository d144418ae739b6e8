"""SQLAlchemy's engines for asyncio: one per environment and process, with the settings and rules of the others."""

from __future__ import annotations

import asyncio
import importlib.util
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import event
from sqlalchemy.engine import Engine

from skinspire_db.config import environment
from skinspire_db.config.environment import Environment
from skinspire_db.config.policy import Policy
from skinspire_db.config.server_pin import Pin
from skinspire_db.errors import InvalidSetting
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, replica, target_of
from skinspire_db.service import driver, engines, options, test_override
from skinspire_db.service.engines import Service

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

REMEDY = "pip install 'sqlalchemy[asyncio]'"


@dataclass(eq=False)
class AsyncService(Service):
    """As Service; `engine` and `reader` are what `asynchronous` works with. `idle` are the connections in its pool."""

    asynchronous: AsyncEngine | None = None
    idle: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)

    @property
    def name(self) -> str:
        """The environment's name, and that this is asyncio's."""
        return f"{self.environment.name} (asyncio)"

    @property
    def other_name(self) -> str:
        """The name of the other engines."""
        return self.environment.name

    def close(self) -> None:
        """Close the pools, whatever loop their connections were opened in."""
        self.closed = True
        for connection in list(self.idle):
            connection.pgconn.finish()
        for engine in (self.engine, self.replica):
            if engine is not None:
                engine.dispose(close=False)


_services: dict[str, AsyncService] = {}


def service(env: str | None) -> AsyncService:
    """The engines of an environment for asyncio, made at the first call.

    Raises:
        SkinspireError: what engines.service() raises.
    """
    if (served := test_override.for_environment(env)) is not None:
        found: Any = served.async_service()
        return found  # type: ignore[no-any-return]
    resolved = environment.resolve(env)
    former = _services.get(resolved.name)
    if former is None or not former.follows:
        _services[resolved.name] = make(resolved)
        if former is not None:
            former.close()
    return _services[resolved.name]


def close_all() -> None:
    """Close this process's pools for asyncio."""
    closing = list(_services.values())
    _services.clear()
    for each in closing:
        each.close()


def make(resolved: Environment) -> AsyncService:
    """New engines for asyncio.

    Raises:
        InvalidSetting: for a setting that cannot be used, and where greenlet is not installed.
    """
    branch = resolved.branch
    primary = _engine(target_of(resolved, application=True), resolved, resolved.policy.connect_retry)
    made = of_engine(resolved, primary)
    made.branch = branch
    if (other := replica(resolved)) is not None:
        made.replica = _engine(other, resolved, 0.0).sync_engine.execution_options(postgresql_readonly=True)
    for watched in (made.engine, made.replica):
        if watched is not None:
            engines.watch(watched, made)
            _note_idle(watched, made)
    return made


def _note_idle(engine: Engine, made: AsyncService) -> None:
    @event.listens_for(engine, "checkin")
    def on_checkin(adapted: Any, _: Any) -> None:
        if adapted is not None:
            made.idle.add(adapted.driver_connection)

    @event.listens_for(engine, "checkout")
    def on_checkout(adapted: Any, *_: Any) -> None:
        made.idle.discard(adapted.driver_connection)


def of_engine(resolved: Environment, engine: AsyncEngine) -> AsyncService:
    """The service of an engine for asyncio."""
    work = engine.sync_engine
    reader = work.execution_options(postgresql_readonly=True)
    return AsyncService(resolved, work, reader, options=options.of(resolved.project), asynchronous=engine)


def require_greenlet() -> None:
    """Look whether greenlet is installed, without which SQLAlchemy has nothing for asyncio.

    Raises:
        InvalidSetting: it is not.
    """
    if importlib.util.find_spec("greenlet") is None:
        raise InvalidSetting("asyncio's sessions need greenlet, which is not installed", remedy=REMEDY)


def engine_of(target: Target, policy: Policy, opened: Callable[[], Awaitable[Any]], **given: Any) -> AsyncEngine:
    """An engine for asyncio whose connections `opened` opens.

    Raises:
        InvalidSetting: greenlet is not installed.
    """
    require_greenlet()
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(engines.url(target), async_creator=opened, **engines.engine_arguments(policy) | given)


def _engine(target: Target, resolved: Environment, wait_seconds: float) -> AsyncEngine:
    given = dict(options.of(resolved.project).engine)
    connect_args = given.pop("connect_args", {})

    async def opened() -> Any:
        context = {"context": engine.dialect.create_connect_args(engine.url)[1].get("context")}
        return await _connect(target, resolved.policy, wait_seconds, context | connect_args)

    engine = engine_of(target, resolved.policy, opened, **given)
    return engine


async def _connect(target: Target, policy: Policy, wait_seconds: float, given: dict[str, Any]) -> driver.AsyncConnection:
    """As engines.connect(), without stopping the loop while it waits."""
    deadline, pause = time.monotonic() + wait_seconds, 0.05
    while True:
        try:
            reached = await asyncio.to_thread(engines.current, target)
            return await driver.AsyncConnection.connect(
                **engines.connect_parameters(reached, policy, given), cursor_factory=driver.AsyncCursor
            )
        except psycopg.OperationalError as error:
            if engines.PERMANENT_ERROR.search(str(error)) or time.monotonic() + pause > deadline:
                raise connections.explain(error, replace(target, pin=Pin())) from None
        if target.server:
            target.parameters.update(target.server.start().parameters)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)
