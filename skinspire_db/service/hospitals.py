"""Which hospital a block is for: what it asks for itself, else the current one of the request or job; and whether it may."""

from __future__ import annotations

import sys
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy

from skinspire_db.config.tenancy import ALL_HOSPITALS
from skinspire_db.errors import HospitalRefused, PermissionMissing, UsageError
from skinspire_db.service import ownership
from skinspire_db.service.identity import Identity

if TYPE_CHECKING:
    from skinspire_db.service.engines import Service

KNOWN_SECONDS = 1.0  # for which a hospital counts as active after PostgreSQL was asked
KNOWN_AT_MOST = 10_000  # hospitals that a process remembers
LONGEST_SHOWN = 40  # characters of a value that an error shows
CANNOT_TAKE_ROLE = ("22023", "42501")  # PostgreSQL's codes for SET ROLE: there is no such role, the login is no member
# The table of hospitals, to which most foreign keys of a column hospital_id refer; its key; the condition that one is active.
TENANTS = """
    SELECT format('%I.%I', n.nspname, c.relname), quote_ident(f.attname),
           coalesce((SELECT string_agg(format('%I IS NOT %s', s.attname, (s.attname = 'is_deleted')::text), ' AND ')
                     FROM pg_attribute s WHERE s.attrelid = c.oid AND s.attname IN ('is_active', 'is_deleted')
                     AND s.atttypid = 'bool'::regtype AND NOT s.attisdropped), 'true')
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attname = 'hospital_id' AND k.conkey = ARRAY[a.attnum]
    JOIN pg_attribute f ON f.attrelid = c.oid AND k.confkey = ARRAY[f.attnum]
    WHERE k.contype = 'f' AND f.atttypid = 'uuid'::regtype
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    GROUP BY c.oid, n.nspname, c.relname, f.attname ORDER BY count(*) DESC, c.oid LIMIT 1
"""

# The hospital, and the request of Flask in which it was set: its threads serve the next request in the same context.
_current: ContextVar[tuple[str, weakref.ref[Any] | None] | None] = ContextVar("skinspire_db hospital", default=None)


class CurrentHospital(AbstractContextManager[None]):
    """What set_current() returns; as a context manager it takes the hospital back at its end."""

    def __init__(self, former: tuple[str, weakref.ref[Any] | None] | None) -> None:
        self._former = former

    def __exit__(self, *error: object) -> None:
        _current.set(self._former)


def set_current(hospital: object) -> CurrentHospital:
    """Set the hospital of this thread's or task's blocks; None takes it back.

    Raises:
        HospitalRefused: it is no UUID, or a block for another hospital is open.
        UsageError: for ALL_HOSPITALS, which each block asks for with its reason.
    """
    if hospital is ALL_HOSPITALS:
        raise UsageError(
            "set_current_hospital(ALL_HOSPITALS) would give no reason",
            remedy='write get_db_session(hospital=ALL_HOSPITALS, reason="...")',
        )
    text = key_of(hospital)
    unit = ownership.innermost()
    if unit is not None and unit.owner == ownership.current_owner() and unit.identity.role and text:
        refuse_other(unit.identity, unit.service.identity("", text))
    former = _current.get()
    _current.set((text, _request()) if text else None)
    return CurrentHospital(former)


def current() -> str:
    """The hospital that was set for this thread or task, as text; empty where none was, or in an earlier request."""
    hospital, request = _current.get() or ("", None)
    context = _flask_context()
    return hospital if request is None or (context is not None and request() is context) else ""


def key_of(hospital: object) -> str:
    """The hospital's key as PostgreSQL writes it.

    Args:
        hospital: A UUID, its text, or an object with such a hospital_id; None is no hospital.

    Raises:
        HospitalRefused: it is no UUID.
    """
    value: Any = getattr(hospital, "hospital_id", hospital)
    if value is None or isinstance(value, uuid.UUID):
        return "" if value is None else str(value)
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        shown = (
            repr(value) if isinstance(value, int | str) and len(str(value)) <= LONGEST_SHOWN else f"a {type(value).__name__}"
        )
        raise HospitalRefused(f"{shown} is no hospital: it is no UUID", remedy="give the hospital's hospital_id") from None


def identity(service: Service, user: str | None, hospital: object, reason: str | None, outer: Identity | None) -> Identity:
    """For whom a block works.

    Args:
        service: The engines that it works on.
        user: As given to the block; None is the outer one's.
        hospital: As given to the block; None is the outer one's, or the current hospital.
        reason: Why it works over all hospitals.
        outer: Of the block that this one is inside of.

    Raises:
        HospitalNotSet: tenancy is on, and there is no hospital.
        HospitalRefused: the hospital is no UUID, or is not the outer block's.
        UsageError: ALL_HOSPITALS without a reason, or a reason without it.
    """
    if (hospital is ALL_HOSPITALS) != (reason is not None) or (reason is not None and not reason.strip()):
        raise UsageError(
            "hospital=ALL_HOSPITALS and a reason go together",
            remedy='write get_db_session(hospital=ALL_HOSPITALS, reason="...")',
        )
    who = (outer.user if outer else "") if user is None else str(user)
    if hospital is None and outer is not None:
        return outer._replace(user=who)
    if not service.tenancy:
        named = "" if hospital is ALL_HOSPITALS else current() if hospital is None else str(hospital)
        return Identity(who, named)
    asked = service.identity(who, ALL_HOSPITALS if hospital is ALL_HOSPITALS else key_of(hospital) or current())
    if outer is not None:
        refuse_other(outer, asked)
    return asked


def refuse_other(outer: Identity, asked: Identity) -> None:
    """Look whether a block for one hospital would begin inside a block for another one, or for all.

    Both are refused, a narrower one too: they share one session, whose loaded objects would stay in reach.

    Raises:
        HospitalRefused: it would.
    """
    if outer[1:] != asked[1:]:
        raise HospitalRefused(
            f"a block for {asked.hospital or 'all hospitals'} cannot begin inside a block for"
            f" {outer.hospital or 'all hospitals'}: they share one session",
            remedy="end the outer block first",
        )


def check(service: Service, connection: sqlalchemy.Connection, identity: Identity) -> None:
    """Ask PostgreSQL whether the hospital is there and active; not again for KNOWN_SECONDS.

    Raises:
        HospitalRefused: it is not.
        PermissionMissing: the application's role cannot be taken.
    """
    if not identity.hospital or service.known_hospitals.get(identity.hospital, 0.0) > time.monotonic():
        return
    try:
        if service.hospital_query is None:
            row = connection.execute(sqlalchemy.text(TENANTS)).first()
            service.hospital_query = f"SELECT {row[2]} FROM {row[0]} WHERE {row[1]} = :hospital" if row else ""  # noqa: S608
        query = service.hospital_query
        active = not query or connection.scalar(sqlalchemy.text(query), {"hospital": uuid.UUID(identity.hospital)})
    except sqlalchemy.exc.DBAPIError as error:
        refuse_role(service, identity, error)
        raise
    if not active:
        raise HospitalRefused(
            f"hospital {identity.hospital} {'does not exist' if active is None else 'is not active'}",
            remedy="sign in for another hospital, or ask its administrator",
        )
    if len(service.known_hospitals) >= KNOWN_AT_MOST:
        service.known_hospitals.clear()
    service.known_hospitals[identity.hospital] = time.monotonic() + KNOWN_SECONDS


def write_down(service: Service, journal: Callable[..., Any], identity: Identity, reason: str) -> None:
    """Write a block over all hospitals into the journal, in a transaction of its own: it is there whatever the block does.

    Args:
        service: The engines that the block works on.
        journal: What writes an entry.
        identity: The block's, of the role that may write it.
        reason: What the block was given.

    Raises:
        PermissionMissing: the role cannot be taken.
    """
    entry = {"name": "all_hospitals", "ok": True, "seconds": 0.0, "summary": {"reason": reason, "user": identity.user}}
    with service.engine.connect() as connection:
        fairy: Any = connection.connection
        fairy.driver_connection.settings = identity.settings()
        try:
            connection.scalar(sqlalchemy.text("SELECT 1"))
            journal(fairy.dbapi_connection, "service.all_hospitals", service.environment.name, 0.0, [entry])
            connection.commit()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
            raise PermissionMissing(
                f"the role {identity.role} may not write the reason into the journal",
                remedy=f"invoke sql.install --env={service.environment.name}",
            ) from None
        except sqlalchemy.exc.DBAPIError as error:
            refuse_role(service, identity, error)
            raise


def refuse_role(service: Service, identity: Identity, error: sqlalchemy.exc.DBAPIError) -> None:
    """Say so where the error is that the identity's role cannot be taken.

    Raises:
        PermissionMissing: it is.
    """
    if getattr(error.orig, "sqlstate", None) in CANNOT_TAKE_ROLE and identity.role in str(error.orig):
        raise PermissionMissing(
            f"tenancy is on, and the login of {service.environment.name} cannot take the role {identity.role}",
            remedy=f"invoke db.doctor --env={service.environment.name}",
        ) from None


def _request() -> weakref.ref[Any] | None:
    context = _flask_context()
    return None if context is None else weakref.ref(context)


def _flask_context() -> Any:
    """Flask's context of the present request; None outside of one, and where Flask is not in use."""
    flask: Any = sys.modules.get("flask")
    return flask.globals.app_ctx._get_current_object() if flask is not None and flask.has_app_context() else None
