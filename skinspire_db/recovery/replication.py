"""What a server must allow for its WAL to be received and base backups to be made, and the receiver's slot."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.errors import GuardRefused, PermissionMissing
from skinspire_db.lifecycle import stamp
from skinspire_db.postgres import connections
from skinspire_db.postgres.error_text import reason
from skinspire_db.postgres.target import Target, libpq_parameters
from skinspire_db.recovery.archive import Archive

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

LOGICAL = "invoke backup.create --env={env} makes a logical backup, which needs no such right"
# Settings with which a server must be recovered that are not less than those it was backed up with.
KEPT = (
    "max_connections",
    "max_worker_processes",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_wal_senders",
)


@dataclass(frozen=True)
class Source:
    """A server that its role may replicate. `system` is its identifier; `settings` are those that a recovery needs."""

    system: str
    version: int
    summaries: bool
    settings: dict[str, str]


def look(target: Target, operation: str, *, change: bool = True) -> Source:
    """Look whether base backups can be made of a server, and its WAL be received.

    Args:
        target: A database on it.
        operation: For what.
        change: An embedded server that writes too little WAL is restarted; without it that is only let pass.

    Raises:
        GuardRefused: The server does not write enough WAL, has tablespaces, or holds another environment's database.
        PermissionMissing: The role may not replicate.
    """
    with contextlib.closing(connections.connect(target, operation)) as connection:
        connections.begin(connection, target.policy, brief=True)
        connections.require_direct(target, operation)
        stamp.identify(connection, target)
        if spaces := _rows(connection, "SELECT spcname FROM pg_tablespace WHERE spcname !~ '^pg_'"):
            raise GuardRefused(
                f"the server has the tablespace {spaces[0][0]}, which physical backups of these tools cannot hold",
                remedy=LOGICAL,
            )
        level, senders = (_setting(connection, name) for name in ("wal_level", "max_wal_senders"))
    if level == "minimal" or senders == "0":
        if target.server is None:
            raise GuardRefused(
                f"the server writes no WAL to recover from: wal_level is {level}, max_wal_senders {senders}",
                remedy="ask the administrator for: ALTER SYSTEM SET wal_level = replica;"
                " ALTER SYSTEM SET max_wal_senders = 10; and a restart",
            )
        if not change:
            return Source("", 0, True, {})
        target.server.allow_replication()
    system = _identify(target, operation)
    with contextlib.closing(connections.connect(target, operation)) as connection:
        version = connection.info.server_version
        summaries = version >= 170_000 and _setting(connection, "summarize_wal") == "on"
        return Source(system, version, summaries, {name: _setting(connection, name) for name in KEPT})


def _identify(target: Target, operation: str) -> str:
    """The server's system identifier, asked for as pg_receivewal does: pg_hba.conf has lines of its own for that."""
    import psycopg

    parameters: dict[str, Any] = libpq_parameters(target, f"skinspire-db {operation}") | {"replication": "true"}
    try:
        with psycopg.connect(**parameters, autocommit=True) as connection:
            row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    except psycopg.Error as error:
        user = target.user or str(parameters["user"])
        says, remedy = reason(error), f'ask the administrator for: ALTER ROLE "{user}" REPLICATION'
        if "pg_hba.conf" in says:
            remedy = (
                f"ask the administrator for this line in pg_hba.conf: host replication {user} CLIENT-ADDRESS scram-sha-256"
            )
        elif "permission" not in says and "REPLICATION" not in says and "replication role" not in says:
            remedy = "look into the server's log"
        raise PermissionMissing(
            f"role {user} cannot receive the WAL of {target.where}: {says}", remedy=f"{remedy}; {LOGICAL}"
        ) from None
    assert row
    return str(row[0])


def slot_name(archive: Archive) -> str:
    """The slot of this archive's receiver: one for each folder on each machine, so that no two share one."""
    where = hashlib.sha256(f"{socket.gethostname()}:{archive.folder}".encode()).hexdigest()[:8]
    return f"skinspire_{archive.environment.replace('-', '_')}_{where}"


def hold_slot(connection: Connection, slot: str) -> str:
    """Make the slot when there is none or the server gave it up, and free it from a receiver that lost its parent.

    Returns:
        What was done that a reader should know; empty mostly.
    """
    rows = _rows(connection, "SELECT active_pid, wal_status FROM pg_replication_slots WHERE slot_name = %s", slot)
    if rows and rows[0][0] is not None:
        _rows(connection, "SELECT pg_terminate_backend(%s, 5000)", rows[0][0])
    said = ""
    if rows and rows[0][1] == "lost":
        drop_slot(connection, slot)
        rows, said = [], "the server had given up the slot: it kept more WAL than max_slot_wal_keep_size allows"
    if not rows:
        _rows(connection, "SELECT pg_create_physical_replication_slot(%s, true)", slot)
    return said


def drop_slot(connection: Connection, slot: str) -> None:
    """Drop the slot, if it is there: the server keeps no more WAL for it."""
    _rows(connection, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", slot)


def _rows(connection: Connection, query: str, *parameters: Any) -> list[Any]:
    return connection.execute(query.encode(), parameters or None).fetchall()


def _setting(connection: Connection, name: str) -> str:
    return str(_rows(connection, "SELECT current_setting(%s)", name)[0][0])
