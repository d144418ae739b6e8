"""The operation lock: one operation at a time in a database, and who is in the way of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.errors import OperationLocked, SkinspireError
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


KEY = 0x5C1F_DB  # one number for all operations: an advisory lock is a database's own
# Who has a lock, and for how many seconds: a session, or a prepared transaction, which has none.
HOLDER = """
    coalesce('pid ' || a.pid,
        'prepared transaction ' || quote_literal(x.gid) || ', which ROLLBACK PREPARED ' || quote_literal(x.gid) || ' ends'),
    extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::int
"""
# The kind of a session's query: its first word, and no value.
KIND = """
    concat(CASE WHEN a.state LIKE 'idle%%' THEN 'idle after ' END, upper(substring(a.query FROM '^[[:space:]]*([A-Za-z]+)')))
"""
WAITED_FOR = f"""
    SELECT a.pid, coalesce(nullif(a.application_name, ''), a.usename)
           || coalesce(', for ' || extract(epoch FROM clock_timestamp() - a.xact_start)::int || ' s', ''), {KIND}
    FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids(%s)) ORDER BY a.xact_start LIMIT 5
"""  # noqa: S608
SHOWN = 5  # of the sessions in the way; under load there are hundreds
OF_WHOM = """
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN (pg_prepared_xacts x JOIN pg_locks o ON o.pid IS NULL AND o.transactionid = x.transaction)
        ON l.pid IS NULL AND o.virtualtransaction = l.virtualtransaction
"""


def try_take(connection: Connection) -> bool:
    """Take the database's one operation lock until the transaction ends, if it is free.

    A transaction's lock cannot strand behind a pooler or a killed process.

    Returns:
        Whether it was taken.
    """
    return connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (KEY,)).fetchone() == (True,)


def holder(connection: Connection) -> str:
    """The operation that has the database's lock, with its pid and how long; empty when none has."""
    row = connection.execute(
        f"""
        SELECT {HOLDER}, a.application_name FROM pg_locks l {OF_WHOM}
        WHERE l.locktype = 'advisory' AND l.granted AND l.objid = %s AND l.classid = 0
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """.encode(),  # noqa: S608
        (KEY,),
    ).fetchone()
    if row is None or row[0] is None:
        return ""
    who, age, name = row
    return f"{name} ({who}{_age(age)})" if name is not None else f"a {who}"


def take(connection: Connection, target: Target) -> None:
    """Take the lock, waiting as long as the policy says.

    Raises:
        OperationLocked: another operation has it; with its name.
    """
    import psycopg

    wait = round(target.policy.operation_wait * 1000)
    connection.execute("SAVEPOINT before_lock")
    try:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{wait}ms",))
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (KEY,))
    except psycopg.errors.LockNotAvailable:
        connection.execute("ROLLBACK TO before_lock")
        who = holder(connection) or "another operation that has just ended"
        raise OperationLocked(
            f"{target} is in use by {who}; waited {target.policy.operation_wait:g} s",
            remedy="run it again when that has ended",
        ) from None
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(target.policy.lock_timeout * 1000)}ms",))


def keep(connection: Connection) -> None:
    """Hold the lock until the session ends, also between transactions; the transaction has it already."""
    connection.execute("SELECT pg_advisory_lock(%s)", (KEY,))


def waited_for(target: Target, operation: str, pid: int) -> str:
    """The sessions that a session waits for at this moment, asked on a connection of its own; "" for none."""
    import psycopg

    try:
        with connections.connect(target, operation) as connection:
            rows = connection.execute(WAITED_FOR.encode(), (pid,)).fetchall()
    except (psycopg.Error, SkinspireError):
        return ""
    return "; ".join(f"pid {other} ({', '.join(filter(None, rest))})" for other, *rest in rows)


def blockers(target: Target, operation: str, own_pid: int) -> str:
    """Who holds locks on the application's tables: pid, application, how long its transaction is open, and what it runs."""
    import psycopg

    try:
        with connections.connect(target, operation) as connection:
            listed = table_holders(connection, own_pid)
    except (psycopg.Error, SkinspireError):
        listed = []
    more = [f"{len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
    return "; ".join([*listed[:SHOWN], *more]) or "a transaction that has ended since"


def table_holders(connection: Connection, own_pid: int) -> list[str]:
    """The sessions that hold locks on tables, but for `own_pid` and this one; the longest transaction comes first.

    Of its query the first word is said, never a value: "SELECT", or "idle after SELECT".
    """
    rows = connection.execute(
        f"""
        SELECT {HOLDER}, coalesce(nullif(a.application_name, ''), a.usename, x.owner),
               string_agg(DISTINCT l.relation::regclass::text, ', '),
               {KIND}
        FROM pg_locks l {OF_WHOM}
        JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.granted AND l.locktype = 'relation' AND coalesce(a.pid, 0) NOT IN (%s, pg_backend_pid())
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND {objects.USER_SCHEMA} AND c.relkind IN ('r', 'p', 'm', 'f')
        GROUP BY 1, 2, 3, 5 ORDER BY 2 DESC NULLS LAST
        """.encode(),  # noqa: S608
        (own_pid,),
    ).fetchall()
    return [
        f"{who} ({', '.join(filter(None, (name + _age(age), relations, kind)))})"
        for who, age, name, relations, kind in rows
        if who
    ]


def _age(seconds: int | None) -> str:
    return "" if seconds is None else f", for {seconds} s"
