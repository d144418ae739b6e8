"""SQLAlchemy engines for the application: one per environment and process, their pools, reconnecting, and forks."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine

from skinspire_db.config import environment
from skinspire_db.config import tenancy as tenancy_settings
from skinspire_db.config.environment import Environment
from skinspire_db.config.policy import Policy
from skinspire_db.config.server_pin import Pin
from skinspire_db.config.tenancy import AllHospitals
from skinspire_db.errors import HospitalNotSet
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections, failover
from skinspire_db.postgres.target import Target, libpq_parameters, replica, target_of
from skinspire_db.service import driver, options, ownership, test_override
from skinspire_db.service.identity import Identity
from skinspire_db.service.options import Options

log = logging.getLogger("skinspire_db")
# Errors that waiting does not mend. Any other failure to connect may be a server that restarts.
PERMANENT_ERROR = lazy_regex(
    r"password|authenticat|does not exist|pg_hba|certificate|support SSL|translate host|invalid|permission"
)
REPLICA_PAUSE = 30.0  # seconds for which a replica that did not answer is left alone
NOT_THE_APPLICATIONS = (
    str(Path(__file__).parent.parent) + os.sep,
    str(Path(sqlalchemy.__file__).parent) + os.sep,
    contextlib.__file__,
    "<",  # code that SQLAlchemy generates
)


@dataclass(eq=False)
class Service:
    """An environment's engines in this process. `reader` shares the engine's pool, and PostgreSQL refuses writes on it."""

    environment: Environment
    engine: Engine
    reader: Engine
    replica: Engine | None = None
    replica_down_until: float = 0.0
    replica_outage_logged: bool = False
    unreturned: dict[int, str] = field(default_factory=dict)  # id of a checked-out connection -> the place that took it
    closed: bool = False
    options: Options = field(default_factory=Options)
    units_in_loops: Counter[int] = field(default_factory=Counter)  # thread -> open units of work of its coroutines
    hospital_query: str | None = None  # whether a hospital is there and active; empty where no table has them, None before
    known_hospitals: dict[str, float] = field(default_factory=dict)  # active ones -> until when they are not asked for again
    branch: str | None = None  # whose database it is on, where each has its own

    @property
    def name(self) -> str:
        """The environment's name; that of asyncio's engines says so, for a unit of work is on one kind."""
        return self.environment.name

    @property
    def other_name(self) -> str:
        """The name of the engines of the other kind."""
        return f"{self.environment.name} (asyncio)"

    @property
    def follows(self) -> bool:
        """Whether it is on the database of the checkout's branch: after a switch it is not."""
        return not self.policy.database_per_branch or self.branch == self.environment.branch

    @cached_property
    def tenancy(self) -> bool:
        """Whether each block is for one hospital."""
        return tenancy_settings.is_on(self.environment.project)

    @cached_property
    def roles(self) -> tenancy_settings.Roles:
        """The database's roles, by the name that the tools know it by; a pooler may know it by another one."""
        return tenancy_settings.Roles(target_of(self.environment, start=False).database)

    def identity(self, user: str, hospital: str | AllHospitals) -> Identity:
        """The identity of a block where tenancy is on.

        Args:
            user: The name that triggers record.
            hospital: The hospital's key, or ALL_HOSPITALS.

        Raises:
            HospitalNotSet: there is no hospital.
        """
        if isinstance(hospital, AllHospitals):
            return Identity(user, "", self.roles.system)
        if not hospital:
            raise HospitalNotSet(
                "tenancy is on, and no hospital is set",
                remedy="call set_current_hospital() for the request, or write get_db_session(hospital=...)",
            )
        return Identity(user, hospital, self.roles.application)

    @property
    def policy(self) -> Policy:
        """The environment's policy."""
        return self.environment.policy

    def close(self) -> None:
        """Close the pools; a connection that is in use is closed when it is given back."""
        self.closed = True
        for engine in (self.engine, self.replica):
            if engine is not None:
                engine.dispose()


_services: dict[str | None, Service] = {}
_lock = threading.Lock()
_left_out: set[str] = set()  # former primaries that were logged
_inherited: list[Any] = []  # a forked child keeps its parent's pools alive: to collect them would end the connections


def service(env: str | None) -> Service:
    """The engines of an environment, made at the first call; settings are read then, and not again until close_all().

    Args:
        env: The environment's name; None is the active one.

    Raises:
        UnknownEnvironment: for a name that is not declared.
        InvalidSetting: for a setting that cannot be used.
        ServerFailed: when the embedded server cannot be started.
        GuardRefused: in a test run, for a test without a database.
    """
    if (served := test_override.for_environment(env)) is not None:
        return served.service()
    if (existing := _services.get(env)) is not None and existing.follows:
        return existing
    with _lock:
        if (former := _services.get(env)) is None or not former.follows:
            resolved = environment.resolve(env)
            present = _services.get(resolved.name)
            _services[env] = _services[resolved.name] = present if present and present.follows else make(resolved)
            if former is not None:
                former.close()
        return _services[env]


def opened() -> list[Service]:
    """The engines that this process has made since close_all()."""
    with _lock:
        return list(dict.fromkeys(_services.values()))


def close_all() -> None:
    """Close this process's pools; a connection that is in use is closed when it is given back."""
    with _lock:
        services = set(_services.values())
        _services.clear()
    for closing in services:
        _report(closing)
        closing.close()
    if (of_asyncio := sys.modules.get("skinspire_db.service.async_engines")) is not None:
        of_asyncio.close_all()


def place() -> str:
    """File and line of the calling application code; frames of this library and of SQLAlchemy are left out."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(NOT_THE_APPLICATIONS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def make(resolved: Environment) -> Service:
    """New engines for an environment, which service() does not return to other callers.

    Raises:
        InvalidSetting: for a setting that cannot be used.
        ServerFailed: when the embedded server cannot be started.
    """
    policy = resolved.policy
    wanted = options.of(resolved.project)
    # Each of the application's connections goes to any of the URL's hosts, so that it survives a failover.
    branch = resolved.branch
    engine = _engine(target_of(resolved, application=True), policy, policy.connect_retry, wanted)
    service = Service(resolved, engine, engine.execution_options(postgresql_readonly=True), options=wanted, branch=branch)
    if (replica_target := replica(resolved)) is not None:
        # A replica that does not answer is not waited for: the primary is there.
        service.replica = _engine(replica_target, policy, 0.0, wanted).execution_options(postgresql_readonly=True)
    for watched in (service.engine, service.replica):
        if watched is not None:
            watch(watched, service)
    return service


def _engine(target: Target, policy: Policy, wait_seconds: float, wanted: Options) -> Engine:
    given = dict(wanted.engine)
    connect_args = given.pop("connect_args", {})
    address = url(target)

    def connect() -> psycopg.Connection[Any]:
        # The dialect's own adapters, with its JSON serializers, which it would give to psycopg itself.
        context = {"context": engine.dialect.create_connect_args(address)[1].get("context")}
        return _connect(target, policy, wait_seconds, context | connect_args)

    engine = sqlalchemy.create_engine(
        address,
        creator=connect,
        **engine_arguments(policy) | given,
    )
    return engine


def engine_arguments(policy: Policy) -> dict[str, Any]:
    """What the policy says of an engine, as create_engine() takes it."""
    return {
        "pool_size": policy.pool_size, "max_overflow": policy.pool_overflow, "pool_timeout": policy.pool_timeout,
        "pool_recycle": round(policy.pool_recycle), "pool_pre_ping": True,
        "hide_parameters": True,  # an error's text goes into logs, and the parameters are patients' data
    }  # fmt: skip


def url(target: Target) -> URL:
    """The target as SQLAlchemy writes it; its text form hides the password."""
    known = {"user": "username", "password": "password", "host": "host", "dbname": "database"}
    parts: dict[str, Any] = {name: target.parameters.get(key) for key, name in known.items()}
    query: dict[str, Any] = {
        key: str(value)
        for key, value in target.parameters.items()
        if key not in (*known, "port") and value != "" and "password" not in key
    }
    if "," in (host := str(parts["host"] or "")):
        parts["host"] = None
        query |= {"host": host, "port": ",".join(port or "5432" for _, port in target.addresses)}
    return URL.create("postgresql+psycopg", port=int(target.port) if target.port.isdecimal() else None, query=query, **parts)


def _connect(target: Target, policy: Policy, wait_seconds: float, given: dict[str, Any]) -> psycopg.Connection[Any]:
    """Open a connection, waiting up to `wait_seconds` for a server that restarts; an embedded one is started.

    Raises:
        ConnectionFailed, DatabaseMissing: what connections.explain() makes of the failure.
    """
    deadline = time.monotonic() + wait_seconds
    pause = 0.05
    while True:
        try:
            return driver.connect(**connect_parameters(current(target), policy, given))
        except psycopg.OperationalError as error:
            if PERMANENT_ERROR.search(str(error)) or time.monotonic() + pause > deadline:
                raise connections.explain(error, replace(target, pin=Pin())) from None
        if target.server:
            target.parameters.update(target.server.start().parameters)  # its port may be another one now
        time.sleep(pause)
        pause = min(pause * 2, 1.0)


def current(target: Target) -> Target:
    """The target without servers that were primaries before another one was promoted; each is logged once.

    Raises:
        ConnectionFailed: two of its servers are primaries of different databases.
    """
    old = failover.former(target)
    for each in old:
        if each.shown not in _left_out:
            _left_out.add(each.shown)
            log.warning("%s, and is left out", failover.refusal(target, each).message)
    return failover.without(target, old)


def connect_parameters(target: Target, policy: Policy, given: dict[str, Any]) -> dict[str, Any]:
    """What psycopg is given for a connection; `given` are the application's own arguments."""
    parameters = libpq_parameters(target, f"skinspire {target.environment}")
    both = {"options": f"{parameters.get('options', '')} {given['options']}".strip()} if "options" in given else {}
    # A pooler in transaction mode gives each transaction another server session, which does not know our statements.
    prepared: dict[str, Any] = {"prepare_threshold": None} if policy.transaction_pooler else {}
    return parameters | given | both | prepared


def replica_connection(service: Service) -> sqlalchemy.Connection | None:
    """A connection to the replica.

    Returns:
        None when there is no replica, or it does not answer; an outage is logged once.

    Raises:
        sqlalchemy.exc.TimeoutError: when all of its connections are in use.
    """
    from skinspire_db.errors import SkinspireError

    if service.replica is None or time.monotonic() < service.replica_down_until:
        return None
    try:
        connection = service.replica.connect()
    except sqlalchemy.exc.TimeoutError:  # all are in use, which is no outage
        raise
    except (SkinspireError, sqlalchemy.exc.SQLAlchemyError) as error:
        service.replica_down_until = time.monotonic() + REPLICA_PAUSE
        if not service.replica_outage_logged:
            reason = getattr(error, "message", type(error).__name__)
            log.warning("the replica of %s does not answer, the primary serves: %s", service.environment.name, reason)
        service.replica_outage_logged = True
        return None
    if service.replica_outage_logged:
        log.warning("the replica of %s answers again", service.environment.name)
        service.replica_outage_logged = False
    return connection


def has_room(service: Service, read_only: bool) -> bool:
    """Whether the pool that will serve can give a connection without waiting."""
    replica = service.replica if read_only and time.monotonic() >= service.replica_down_until else None
    pool: Any = (replica or service.engine).pool
    return bool(pool.checkedout() < service.policy.pool_size + service.policy.pool_overflow)


# What was not given back


def watch(engine: Engine, service: Service) -> None:
    """Note which place takes a connection, log a connection that the garbage collector had to give back, and close what
    comes back after close_all(). What comes back is no unit of work's any more.
    """

    @event.listens_for(engine, "checkin")
    def on_checkin(_: Any, record: Any) -> None:
        if record.driver_connection is not None:
            record.driver_connection.settings = ()
        taken = record.info.pop("taken", None)
        place_taken = service.unreturned.pop(id(record), None)
        if place_taken and taken is not None and taken() is None:
            log.warning(
                "a connection to %s that was opened at %s was never given back", service.environment.name, place_taken
            )
        if service.closed:
            record.close()

    if not service.policy.report_unclosed:
        return

    @event.listens_for(engine, "checkout")
    def on_checkout(_: Any, record: Any, proxy: Any) -> None:
        record.info["taken"] = weakref.ref(proxy)
        service.unreturned[id(record)] = place()


def _report(service: Service) -> None:
    for place_taken in list(service.unreturned.values()):
        log.warning("a connection to %s that was opened at %s is still open", service.environment.name, place_taken)


def keep_inherited(*parents: Any) -> None:
    """In a forked child: keep the parent's objects, so that the garbage collector never ends the parent's connections."""
    _inherited.append(parents)


def _after_fork() -> None:
    """In a forked child: leave the parent's connections alone; the child's pools make new ones."""
    global _lock
    _lock = threading.Lock()
    of_test = {test_override.served.service()} if test_override.served is not None else set()
    for inherited in of_test | set(_services.values()):
        for engine in (inherited.engine, inherited.replica):
            if engine is not None:
                _inherited.append(engine.pool)
                engine.dispose(close=False)
        inherited.unreturned.clear()
        inherited.units_in_loops.clear()
    # The services stay: an application may hold their engines. A unit of work that was open is the parent's.
    ownership.set_innermost(None)


def _at_exit() -> None:
    with contextlib.suppress(Exception):  # the interpreter is going down
        for service in set(_services.values()):
            _report(service)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
