"""The application's one door to its database: sessions, engines, and copies that outlive them.

    with get_db_session(user=current_user) as session:
        session.add(Patient(...))

Importing this costs nothing: SQLAlchemy is loaded, the settings are read and a connection is opened when the first session
needs them. Everything that is raised for a reason outside the block's own code is a SkinspireError or SQLAlchemy's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from skinspire_db.config.tenancy import ALL_HOSPITALS as ALL_HOSPITALS
from skinspire_db.errors import HospitalNotSet as HospitalNotSet
from skinspire_db.errors import HospitalRefused as HospitalRefused
from skinspire_db.service import CONNECTION_TYPES

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

T = TypeVar("T")
ROLES = ("roles",)


class DbSession(
    AbstractContextManager["Session", None], AbstractAsyncContextManager["Session", None], Protocol
):  # pragma: no cover
    """What get_db_session returns; both `with` and `async with` give the Session."""


def get_db_session(
    env: str | None = None,
    *,
    user: str | None = None,
    hospital: object = None,
    reason: str | None = None,
    read_only: bool = False,
    hospital_id: object = None,
    connection_type: str | None = None,
) -> DbSession:
    """A block with a SQLAlchemy Session: committed when it ends well, rolled back when it does not, always closed.

    Args:
        env: The environment; None is the active one.
        user: The name that the triggers record in created_by and updated_by (`app.current_user`), for the transaction only.
        hospital: The hospital that the work is for, by its key or as an object with a `hospital_id`; None is the one of
            set_current_hospital(). With `tenancy = true` PostgreSQL shows and takes this hospital's rows alone.
            ALL_HOSPITALS is for jobs over all of them.
        reason: Why a job works over all hospitals; the journal keeps it.
        read_only: PostgreSQL refuses every write. Where the environment has a replica (PROD_REPLICA_URL), it serves.
        hospital_id: The former name of `hospital`.
        connection_type: 'auto', 'flask' or 'standalone', also as the first argument: it means nothing any more, and warns.

    A block inside another one of the same thread or task, on the same environment, is part of the outer one's unit of work,
    on its connection; see use_nested_transactions. Without a `user` of its own it works as the outer one's. `session.flush()`
    makes changes visible inside the block; the end of the block commits. Attributes stay readable after it.

    In a coroutine whose block holds an await write `async with`: waiting for a connection must not stop the loop.

    Raises:
        UnknownEnvironment, InvalidSetting: when the block begins.
        HospitalNotSet: with tenancy on, when there is no hospital; before any SQL.
        HospitalRefused: for a hospital that is no UUID, or another one than the outer block's, before any SQL; at the first
            statement for one that does not exist or is not active.
        PermissionMissing: at the first statement, where the login cannot take the role of the policies.
        UsageError: when a `read_only` block begins inside a block that writes; for ALL_HOSPITALS without a reason.
        ConnectionFailed, DatabaseMissing: at the first statement, after the policy's connect_retry.
        SessionSpoiled: at the end of the outermost block, when an inner one failed and its error was caught; in place of the
            block's own error too, when a COMMIT or ROLLBACK inside it, however it was sent, has ended the transaction: what
            the block had done may have left a trace then.
        Whatever the block raised. Nothing of it is left in the database then.
    """
    from skinspire_db.service.session_block import SessionBlock

    if connection_type is not None or env in CONNECTION_TYPES:
        from skinspire_db.service import compatible

        env = compatible.without_connection_type(env, connection_type)
    hospital = hospital_id if hospital is None else hospital
    return SessionBlock(env, user, hospital, read_only, reason, _journal(hospital))


def set_current_hospital(hospital: object) -> AbstractContextManager[None]:
    """Set the hospital of all blocks of this thread or asyncio task that name none: once for a request or job.

        with set_current_hospital(hospital):
            ...

    A plain call holds until the next one; None takes it back. Inside a request of Flask it ends with the request. Tasks that
    are started inside have the hospital, new threads have none.

    Args:
        hospital: The hospital's key, or an object with a `hospital_id`.

    Returns:
        A context manager, at whose end the former hospital is set again.

    Raises:
        HospitalRefused: for what is no UUID, and inside a block for another hospital.
        UsageError: for ALL_HOSPITALS, which each block asks for with its reason.
    """
    from skinspire_db.service import hospitals

    return hospitals.set_current(hospital)


def _journal(hospital: object) -> Any:
    """What writes a block over all hospitals into the journal."""
    if hospital is not ALL_HOSPITALS:
        return None
    from skinspire_db.lifecycle import journal

    return journal.record


def get_db_engine(env: str | None = None) -> Engine:
    """The environment's SQLAlchemy Engine: one per process, for all threads; a forked child gets connections of its own.

    Args:
        env: The environment; None is the active one.

    Raises:
        UnknownEnvironment: for a name that is not declared.
        InvalidSetting: for a setting that cannot be used.
        ServerFailed: when the embedded server cannot be started.
    """
    from skinspire_db.service.engines import service

    return service(env).engine


def get_async_session(
    env: str | None = None,
    *,
    user: str | None = None,
    hospital: object = None,
    reason: str | None = None,
    read_only: bool = False,
    hospital_id: object = None,
) -> AbstractAsyncContextManager[AsyncSession]:
    """As get_db_session, for asyncio: `async with` gives an AsyncSession, and nothing stops the loop.

    The rules are those of get_db_session: one commit at the end, blocks inside blocks, nothing lost in silence. A block of
    one kind inside one of the other, of the same task and environment, is refused: it would be a second transaction.

    Args:
        env: The environment; None is the active one.
        user: The name that the triggers record, for the transaction only.
        hospital: The hospital that the work is for, as get_db_session's.
        reason: Why a job works over all hospitals.
        read_only: PostgreSQL refuses every write; a replica serves, where there is one.
        hospital_id: The former name of `hospital`.

    Raises:
        InvalidSetting: where greenlet is not installed; else as get_db_session.
    """
    from skinspire_db.service.async_block import AsyncSessionBlock

    hospital = hospital_id if hospital is None else hospital
    return AsyncSessionBlock(env, user, hospital, read_only, reason, _journal(hospital))


def get_async_engine(env: str | None = None) -> AsyncEngine:
    """The environment's engine for asyncio, with psycopg's asynchronous connections; one per process.

    Args:
        env: The environment; None is the active one.

    Raises:
        InvalidSetting: where greenlet is not installed, and for a setting that cannot be used.
        UnknownEnvironment, ServerFailed: as get_db_engine.
    """
    from skinspire_db.service.async_engines import service

    engine = service(env).asynchronous
    assert engine is not None
    return engine


def get_active_env() -> str:
    """The name of the active environment.

    Raises:
        UnknownEnvironment: when a setting names one that is not declared.
    """
    from skinspire_db.config import environment, project
    from skinspire_db.service import test_override

    if test_override.served is not None:
        return test_override.served.environment.name
    return str(environment.active(project.current_project()).value)


def get_database_url(env: str | None = None) -> URL:
    """Where the environment's database is, as SQLAlchemy's URL; its text form hides the password.

    Args:
        env: The environment; None is the active one.

    Raises:
        UnknownEnvironment: for a name that is not declared.
        InvalidSetting: for a setting that cannot be used.
        ServerFailed: when the embedded server cannot be started.
    """
    from skinspire_db.config import environment
    from skinspire_db.postgres.target import target_of
    from skinspire_db.service import engines, test_override

    served = test_override.for_environment(env)
    return engines.url(target_of(served.environment if served else environment.resolve(env), application=True))


def get_detached_copy(entity_or_list: T, *, include: Iterable[str] = ROLES) -> T:
    """A copy of an entity, or of a list of them, to be used after the session is closed.

    Args:
        entity_or_list: Mapped objects whose session is still open, if anything of them is still to be loaded.
        include: Names of relationships to copy too, on whatever is reached through them; each object is copied once.

    The copy has every column value; the original and its collections stay as they are. Touching a relationship that was not
    copied raises NotCopied, and never loads anything.

    Returns:
        The copy, or a list of copies.

    Raises:
        UsageError: for what is no entity, and for a name in `include` that is no relationship.
    """
    from skinspire_db.service.detached import copy

    copied: T = copy(entity_or_list, include, strict=include is not ROLES)
    return copied


def use_nested_transactions(on: bool) -> None:
    """Choose how a get_db_session block inside another one of the same thread or task behaves.

    The choice holds for this thread or task, and for those that have not chosen themselves. With neither is anything
    committed before the outermost block ends.

    Args:
        on: False, the default: the inner block is part of the outer one. When it fails, nothing of the outer one is kept,
            even when its error is caught: the outer block then ends with SessionSpoiled. True: it is a savepoint. When it
            fails, what it did is undone, and the outer block goes on if the error is caught.
    """
    from skinspire_db.service import ownership

    ownership.use_nested_transactions(on)


def configure_service(
    *,
    session_class: type[Session] | None = None,
    expire_on_commit: bool | None = None,
    engine: dict[str, Any] | None = None,
) -> None:
    """Say how this process's sessions and engines are to be; this goes before [tool.skinspire_db.service] in pyproject.toml.

    Open pools are closed, as by close_db_connections(): the next block has what was said.

    Args:
        session_class: The class of the sessions, a subclass of SQLAlchemy's; None for what pyproject.toml says.
        expire_on_commit: As SQLAlchemy's; False by default, so that attributes stay readable after a block.
        engine: Arguments of create_engine(), such as json_serializer, isolation_level, echo; `connect_args` go to psycopg.

    Raises:
        InvalidSetting: for an option that is decided elsewhere, such as the pool's size by the environment's policy.
    """
    from skinspire_db.service import options

    options.configure(session_class=session_class, expire_on_commit=expire_on_commit, engine=engine)
    close_db_connections()


def close_db_connections() -> None:
    """Close this process's pools, and forget the settings: the next block reads them anew.

    Where the policy says so (report_unclosed), sessions and connections that are still open are logged with the place that
    opened them; they are closed when they are given back.
    """
    import sys

    if "skinspire_db.service.engines" in sys.modules:
        from skinspire_db.service import engines

        engines.close_all()


def get_entity_dict(entity: object) -> Any:
    """A plain dict of a mapped object's column values.

    Args:
        entity: A mapped object, a detached copy too; or a list of them; or None.

    Returns:
        Attribute name -> value, without relationships and SQLAlchemy's state; a list of such for a list, None for None.

    Raises:
        UsageError: for what is no entity.
    """
    from skinspire_db.service import compatible

    return compatible.entity_dict(entity)


def initialize_database(force: bool = False) -> bool:
    """Connect to the active environment's database once, so that a wrong setting shows at the start. Makes no table.

    Args:
        force: Close this process's pools first, and read the settings anew.

    Returns:
        True.

    Raises:
        UnknownEnvironment, InvalidSetting, ServerFailed: as get_db_engine.
        ConnectionFailed, DatabaseMissing: when the database does not answer.
    """
    from skinspire_db.service import compatible

    return compatible.initialize(force)


def set_debug_mode(debug: bool = True) -> None:
    """Log every SQL statement and what this library does; the statements' parameters, which are patients' data, never.

    Args:
        debug: False takes the loggers' former levels back.
    """
    from skinspire_db.service import compatible

    compatible.set_debug_mode(debug)


def manage_database_connections(action: str = "status", force: bool = False) -> dict[str, dict[str, Any]]:
    """Show, close or renew this process's connections.

    Args:
        action: "status" changes nothing; "close" ("dispose", "cleanup") closes the pools, and the next block opens them anew
            with the settings as they are then; "reset" closes and connects again at once.
        force: Close also while connections are in use; those are closed when they are given back.

    Returns:
        What is open afterwards: environment -> its URL without the password, and how many connections are in use and idle.

    Raises:
        UsageError: for another action, or when connections are in use and `force` was not given.
    """
    from skinspire_db.service import compatible

    return compatible.manage(action, force)
