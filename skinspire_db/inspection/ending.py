"""Ending a session that others wait for."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import Environment
from skinspire_db.errors import GuardRefused, PermissionMissing, StepFailed, UsageError
from skinspire_db.lifecycle import journal, stamp
from skinspire_db.lifecycle.failures import translated
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.remedies import ending as command
from skinspire_db.postgres import connections

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

MAY_END = ("client backend", "autovacuum worker")
WAIT = 5000  # milliseconds for the session to be gone
SESSION = """
    SELECT a.pid, a.backend_start, a.datname, coalesce(a.backend_type, 'client backend'),
           coalesce(nullif(a.application_name, ''), a.usename, a.backend_type), coalesce(r.rolsuper, false),
           round(extract(epoch FROM clock_timestamp() - a.xact_start))::int, current_database()
    FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid WHERE a.pid = %s
"""
# The number may belong to another session by now: it is ended only where it began at the same moment. A role that may not end
# it may not see that moment either.
END = """
    SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity
    WHERE pid = %s AND backend_start IS NOT DISTINCT FROM %s::timestamptz
"""
STILL = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"


def end(environment: Environment, pid: str) -> Job:
    """End a session of an environment's database, and with it its transaction; the journal says so.

    Args:
        environment: whose database.
        pid: the number of its process, as it was typed.

    Returns:
        The operation, to be run; it asks for the database's name in every environment.

    Raises:
        UsageError: the number is none.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}", pid):
        raise UsageError(
            f"--end={pid} is no process number", remedy=f"invoke db.activity --env={environment.name} shows them"
        )

    def look(running: Running) -> Any:
        with contextlib.closing(connections.connect(running.target, running.operation)) as connection:
            return _admit(connection, int(pid), running)

    def work(running: Running) -> None:
        with contextlib.closing(connections.connect(running.target, running.operation)) as connection:
            with running.step("end") as summary:
                _, began, _, _, who, superuser, seconds, _ = _admit(connection, int(pid), running)
                connection.rollback()
                _end(connection, int(pid), began, who, superuser, running)
                transaction = "" if seconds is None else f", whose transaction was open for {seconds} s"
                summary.numbers = {"sessions_ended": 1}
                summary.lines = [f"pid {pid} ({who}){transaction}"]
                summary.data = {"ended": int(pid), "application": who}
            _record(connection, running)

    return Job("db.activity", environment, work, ("end",), done="the session is gone", look=look)


def _admit(connection: Connection, pid: int, running: Running) -> Any:
    """The session, if it may be ended. Raises GuardRefused where it may not, StepFailed where there is none."""
    target = running.target
    connections.require_direct(target, running.operation, writes=False)
    connections.begin(connection, target.policy, brief=True)
    stamp.identify(connection, target)
    shows = f"invoke db.activity --env={target.environment} shows those of {target.database}"
    row: Any = connection.execute(SESSION, (pid,)).fetchone()
    if row is None:
        raise StepFailed(f"there is no session with the pid {pid}: it has ended", remedy=shows)
    _, _, database, kind, who, _, _, own = row
    if pid == connection.info.backend_pid:
        raise GuardRefused(f"pid {pid} is this command's own session", remedy=shows)
    if kind not in MAY_END:
        raise GuardRefused(f"pid {pid} is PostgreSQL's own process ({kind})", remedy=shows)
    if database != own:
        raise GuardRefused(f"pid {pid} ({who}) is on the database {database}, not on {own}", remedy=shows)
    if running.confirm != target.database:
        wrong = "that asks for its name" if running.confirm is None else f"--confirm={running.confirm} does not name it"
        raise GuardRefused(
            f"db.activity --end={pid} would end {who} on {target}, and its transaction with it: {wrong}",
            remedy=command(target.environment, target.database, pid),
        )
    return row


def _end(connection: Connection, pid: int, began: Any, who: str, superuser: bool, running: Running) -> None:
    import psycopg

    user = running.target.user
    try:
        with connection.transaction():
            ended = connection.execute(END, (WAIT, pid, began)).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        right = f'ask the administrator for: GRANT pg_signal_backend TO "{user}"'
        raise PermissionMissing(
            f"role {user} may not end pid {pid} ({who})",
            remedy="ask a superuser to end it" if superuser else right,
        ) from None
    if ended is None:
        raise StepFailed(f"pid {pid} ({who}) ended by itself", remedy="look again: the number may be another session's now")
    if connection.execute(STILL, (pid, began)).fetchone():
        raise StepFailed(
            f"pid {pid} ({who}) was told to end, and is still there after {WAIT // 1000} s", remedy="run it again"
        )
    connection.rollback()


def _record(connection: Connection, running: Running) -> None:
    """Write the journal's line; on a standby there is none."""
    if running.target.pin.standby:
        running.note("it is not in the database's journal: the server only reads, as a standby does")
        return
    with translated(running.target, running.operation, "journal", connection):
        connections.begin(connection, running.target.policy, brief=True)
        connection.execute("SET TRANSACTION READ WRITE")  # whatever the database's own setting
        stamp.write(connection, running.target.environment)
        steps = [each.as_dict() for each in running.result.steps]
        journal.record(connection, "db.activity --end", running.target.environment, 0.0, steps)
        connection.commit()
