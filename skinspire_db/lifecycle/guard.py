"""What an operation must pass before it changes a database: the lock, the stamp, the confirmation."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects, row_security
from skinspire_db.errors import GuardRefused, SkinspireError
from skinspire_db.lifecycle import lock, stamp
from skinspire_db.lifecycle.result import counted
from skinspire_db.postgres import connections, databases, side_by_side
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def drop_if_new(target: Target, operation: str) -> None:
    """Drop the database that this operation has created, unless another session has begun to use it meanwhile."""
    import psycopg

    try:
        connection = connections.connect(target, operation)
    except SkinspireError:
        return
    try:
        if lock.try_take(connection) and stamp.read(connection) is None and not objects.all_objects(connection):
            databases.drop_unless_used(target, operation, connection.info.backend_pid)
    except psycopg.Error:
        pass  # the server is gone; what it leaves is an empty database
    finally:
        connection.close()


def about(danger: str, target: Target) -> str:
    """The phrase with the database in it."""
    return danger.replace("{}", str(target))


def require_confirmation(command: str, danger: str, target: Target, confirm: str | None) -> None:
    """Let a dangerous operation pass; `danger` says what it would do.

    Raises:
        GuardRefused: in a protected environment without the right confirmation, and anywhere when a confirmation was given
            that names another database.
    """
    if confirm == target.database or (confirm is None and not target.policy.protected):
        return
    wrong = f"--confirm={confirm} does not name it" if confirm is not None else f"{target.environment} is protected"
    raise GuardRefused(
        f"{command} would {about(danger, target)}: {wrong}",
        remedy=f"invoke {command} --env={target.environment} --confirm={quote(target.database)}",
    )


def require_source(command: str, source: Target, target: Target, confirm: str | None) -> None:
    """Let a masked copy pass: a protected source's database must be confirmed by name.

    Raises:
        GuardRefused: the confirmation is missing, or names another database.
    """
    if confirm == source.database or (confirm is None and not source.policy.protected):
        return
    wrong = f"--confirm={confirm} does not name it" if confirm is not None else f"{source.environment} is protected"
    raise GuardRefused(
        f"{command} would take masked rows out of {source}: {wrong}",
        remedy=f"invoke {command} --source={source.environment} --target={target.environment} --masked"
        f" --confirm={quote(source.database)}",
    )


def admit(
    connection: Connection,
    target: Target,
    command: str,
    danger: str,
    confirm: str | None,
    *,
    hold: bool = True,
    writes: bool = True,
) -> bool:
    """Lock, identify, guard.

    The lock comes first, so that nothing changes between the look and the change; but an operation does not wait for the
    lock of a database that is refused anyway.

    Args:
        connection: an open connection to the database, in a transaction.
        target: the database.
        command: the operation, as it is typed.
        danger: what it would do to what is there; "" for nothing.
        confirm: the confirmation that was given.
        hold: take the lock; without it nothing is locked, for a plan.
        writes: the operation writes; otherwise a standby will do.

    Returns:
        Whether the database holds anything that could be lost.

    Raises:
        OperationLocked: another operation has the lock.
        GuardRefused: the database is not the environment's, or a confirmation is missing.
        PermissionMissing: row security hides rows from the role.
        SkinspireError: what connections.require_direct() raises.
    """

    def look(asked: Connection) -> bool:
        filled = stamp.identify(asked, target)
        if danger and (filled or confirm):
            require_confirmation(command, danger, target, confirm)
        return filled

    connections.require_direct(target, command.partition(" ")[0], writes=writes)
    if hold and not lock.try_take(connection):
        look(connection)
        lock.take(connection, target)
    # An operation that changes a part of the rows would report all of them.
    filled, _ = side_by_side.run(connection, look, row_security.require_all_rows)
    return filled


def consent_to_adopt(connection: Connection, target: Target, confirm: str | None) -> None:
    """Let `env.stamp` pass.

    Raises:
        GuardRefused: unless confirmed, where the database is not empty and not ours yet.
    """
    connections.require_direct(target, "env.stamp")
    stamped = stamp.read(connection)
    if former := stamped.environment if stamped else stamp.last_owner(connection):
        stamp.refuse_protected(former, target.environment, str(target))
    if confirm == target.database or (stamped and stamped.environment == target.environment):
        return
    objects_held = len(objects.all_objects(connection))
    if stamped is None and not objects_held and confirm is None:
        return
    what = f"is stamped {stamped.environment}" if stamped else f"holds {counted(objects_held, 'object')} and no stamp"
    raise GuardRefused(
        f"{target} {what}; stamping it {target.environment} lets the tools change it",
        remedy=f"invoke env.stamp --env={target.environment} --confirm={quote(target.database)}",
    )
