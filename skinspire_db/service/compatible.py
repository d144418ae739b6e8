"""What the names mean that applications know from the module which this library replaces."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import sqlalchemy
from sqlalchemy.orm import Mapper

from skinspire_db.config import project
from skinspire_db.errors import UsageError
from skinspire_db.service import CONNECTION_TYPES, detached, engines, test_override
from skinspire_db.service.engines import Service

CLOSES = ("close", "dispose", "cleanup")
ACTIONS = ("status", *CLOSES, "reset")
LOGGERS = ("skinspire_db", "sqlalchemy.engine")
_levels: dict[str, int] = {}  # of the loggers, as they were before set_debug_mode(True)


def without_connection_type(env: str | None, connection_type: str | None) -> str | None:
    """The environment that get_db_session was called for; warns of a connection type, which means nothing any more.

    Raises:
        UsageError: for a connection type that there never was.
    """
    if connection_type is not None and connection_type not in CONNECTION_TYPES:
        raise UsageError(
            f"connection_type={connection_type!r} is none of {', '.join(CONNECTION_TYPES)}", remedy="leave it out"
        )
    old = env in CONNECTION_TYPES and env not in project.current_project().environments
    if old or connection_type is not None:
        said = "get_db_session's connection_type means nothing any more: leave it out; the first argument is an environment"
        warnings.warn(said, DeprecationWarning, stacklevel=3)
    return None if old else env


def entity_dict(entity: Any) -> Any:
    """A plain dict of a mapped object's column values, by attribute; a list of them of a list; None of None."""
    if entity is None:
        return None
    if isinstance(entity, list | tuple | set | frozenset):
        return [entity_dict(member) for member in entity]
    state: Any = sqlalchemy.inspect(entity, raiseerr=False)
    if not isinstance(getattr(state, "mapper", None), Mapper) or state is state.mapper:
        raise UsageError(f"{type(entity).__name__} is no entity", remedy="give it a mapped object")
    return {attribute.key: detached.value_of(entity, state, attribute.key) for attribute in state.mapper.column_attrs}


def initialize(force: bool) -> bool:
    """Connect to the active environment's database once; with `force`, close the pools and read the settings anew first."""
    if force:
        engines.close_all()
    with engines.service(None).engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    return True


def set_debug_mode(debug: bool) -> None:
    """Log statements, without their parameters, or take that back."""
    if debug:
        logging.basicConfig()  # a handler, where the application has made none
    for name, level in zip(LOGGERS, (logging.DEBUG, logging.INFO), strict=True):
        logger = logging.getLogger(name)
        if debug:
            _levels.setdefault(name, logger.level)
            logger.setLevel(level)
        elif name in _levels:
            logger.setLevel(_levels.pop(name))


def manage(action: str, force: bool) -> dict[str, dict[str, Any]]:
    """Show, close or renew the pools of this process.

    Raises:
        UsageError: for another action, and when connections are in use that `force` does not cover.
    """
    if action not in ACTIONS:
        raise UsageError(f"{action!r} is no action", remedy=f"one of {', '.join(ACTIONS)}")
    if action != "status":
        busy = [service.environment.name for service in _opened() if _pool(service)["in_use"]]
        if busy and not force:
            raise UsageError(
                f"connections to {', '.join(busy)} are in use",
                remedy="end their blocks first, or give force=True: they are closed when they are given back",
            )
        engines.close_all()
    if action == "reset":
        initialize(False)
    return {service.environment.name: _pool(service) for service in _opened()}


def _opened() -> list[Service]:
    return [test_override.served.service()] if test_override.served is not None else engines.opened()


def _pool(service: Service) -> dict[str, Any]:
    pools: list[Any] = [engine.pool for engine in (service.engine, service.replica) if engine is not None]
    counted = [pool for pool in pools if hasattr(pool, "checkedout")]
    return {
        "url": service.engine.url.render_as_string(hide_password=True),
        "in_use": sum(pool.checkedout() for pool in counted),
        "idle": sum(pool.checkedin() for pool in counted),
    }
