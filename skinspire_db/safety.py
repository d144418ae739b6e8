"""What stands between a command and somebody's data: stamp, guard, consent, lock, journal."""

from __future__ import annotations

import getpass
import json
import socket
import uuid
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

import skinspire_db
from skinspire_db import bookkeeping, connections, environment, schema
from skinspire_db.connections import Target
from skinspire_db.errors import GuardRefused, OperationLocked, SkinspireError
from skinspire_db.summary import counted

if TYPE_CHECKING:
    from skinspire_db.connections import Connection

GIVEN_UP = "env.unstamp"  # the operation by which an environment takes its own stamp off
LOCK_KEY = 0x5C1F_DB  # one number for all operations: an advisory lock is a database's own

# Who has a lock, and for how many seconds: a session, or a prepared transaction, which has none.
HOLDER = """
    coalesce('pid ' || a.pid,
        'prepared transaction ' || quote_literal(x.gid) || ', which ROLLBACK PREPARED ' || quote_literal(x.gid) || ' ends'),
    extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::int
"""
OF_WHOM = """
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN (pg_prepared_xacts x JOIN pg_locks o ON o.pid IS NULL AND o.transactionid = x.transaction)
        ON l.pid IS NULL AND o.virtualtransaction = l.virtualtransaction
"""


@dataclass(frozen=True)
class Stamp:
    """Which environment a database says it is."""

    environment: str
    identity: str


def read_stamp(connection: Connection) -> Stamp | None:
    """The database's stamp, None when it has none."""
    if connection.execute("SELECT to_regclass('skinspire_tools.stamp')").fetchone() == (None,):
        return None
    row = connection.execute("SELECT environment, identity::text FROM skinspire_tools.stamp").fetchone()
    return Stamp(*row) if row else None


def write_stamp(connection: Connection, environment: str, *, renew: bool = False) -> None:
    """Stamp the database, with a new identity when it was another environment's, or with `renew`, when it is a copy.

    Raises GuardRefused for another, protected environment's stamp: whoever asks, that is not taken off here.
    """
    if stamp := read_stamp(connection):
        refuse_protected(stamp.environment, environment, "this database")
    bookkeeping.ensure(connection)
    if renew:
        connection.execute("DELETE FROM skinspire_tools.stamp")
    connection.execute(
        """
        INSERT INTO skinspire_tools.stamp (environment) VALUES (%s)
        ON CONFLICT (only_row) DO UPDATE SET (environment, identity, stamped_at, stamped_by)
            = (EXCLUDED.environment, EXCLUDED.identity, EXCLUDED.stamped_at, EXCLUDED.stamped_by)
        WHERE stamp.environment <> EXCLUDED.environment
        """,
        (environment,),
    )


def identify(connection: Connection, to: Target) -> bool:
    """Make sure that this database is the environment's. Returns whether it holds tables, in a protected one anything at all.

    Raises GuardRefused for another environment's stamp, and for a database that has objects but no stamp.
    """
    stamp = read_stamp(connection)
    if stamp is None and (found := len(schema.objects(connection))):
        raise GuardRefused(
            f"{to} holds {counted(found, 'object')} and no stamp: it may be somebody else's",
            remedy=f"if it is {to.environment}'s: invoke env.stamp --env={to.environment} --confirm={quote(to.database)}",
        )
    refuse_foreign(stamp, to)
    return bool(schema.objects(connection)) if to.policy.protected else schema.count_tables(connection) > 0


def refuse_foreign(stamp: Stamp | None, to: Target) -> None:
    """Raise GuardRefused when the stamp is another environment's."""
    if stamp and stamp.environment != to.environment:
        raise GuardRefused(
            f"{to} is stamped {stamp.environment}, not {to.environment}",
            remedy=f"correct the URL of {to.environment}, or use --env={stamp.environment}",
        )


def refuse_protected(former: str, wanted: str, database: str) -> None:
    """Raise GuardRefused when `database` belongs to another environment than the one that is wanted, and that is protected.

    The remedy does not say how that environment gives it up: then the refusal would be the way to its patients' data.
    """
    if former != wanted and environment.is_protected(former):
        raise GuardRefused(
            f"{database} is {former}'s, which is protected: it is not made {wanted}'s",
            remedy=f"correct the URL of {wanted}, or use --env={former}",
        )


def drop_if_new(to: Target, operation: str) -> None:
    """Drop the database that this operation has created, unless somebody else has begun to use it meanwhile."""
    import psycopg

    try:
        connection = connections.connect(to, operation)
    except SkinspireError:
        return
    try:
        if try_lock(connection) and read_stamp(connection) is None and not schema.objects(connection):
            connections.drop_unless_used(to, operation, connection.info.backend_pid)
    except psycopg.Error:
        pass  # the server is gone; what it leaves is an empty database
    finally:
        connection.close()


def guard(command: str, danger: str, to: Target, confirm: str | None) -> None:
    """Let a dangerous operation pass; `danger` says what it would do. Raises GuardRefused in a protected environment without
    the right confirmation, and anywhere when a confirmation was given that names another database.
    """
    if confirm == to.database or (confirm is None and not to.policy.protected):
        return
    wrong = f"--confirm={confirm} does not name it" if confirm is not None else f"{to.environment} is protected"
    raise GuardRefused(
        f"{command} would {danger.format(to)}: {wrong}",
        remedy=f"invoke {command} --env={to.environment} --confirm={quote(to.database)}",
    )


def admit(
    connection: Connection,
    to: Target,
    command: str,
    danger: str,
    confirm: str | None,
    *,
    hold: bool = True,
    writes: bool = True,
) -> bool:
    """Lock, identify, guard. Returns whether the database holds anything that could be lost; raises what those raise, and
    what connections.require_direct() raises; with `writes` False a standby will do.
    Without `hold` no lock is taken: this is for a plan.

    In this order, so that nothing changes between the look and the deed; but nobody is kept waiting for a database that is
    refused anyway.
    """

    def look() -> bool:
        filled = identify(connection, to)
        if danger and (filled or confirm):
            guard(command, danger, to, confirm)
        return filled

    connections.require_direct(to, command.partition(" ")[0], writes=writes)
    if hold and not try_lock(connection):
        look()
        lock(connection, to)
    return look()


def consent_to_adopt(connection: Connection, to: Target, confirm: str | None) -> None:
    """Let `env.stamp` pass. Raises GuardRefused unless confirmed, where the database is not empty and not ours yet."""
    connections.require_direct(to, "env.stamp")
    stamp = read_stamp(connection)
    if former := stamp.environment if stamp else _last_owner(connection):
        refuse_protected(former, to.environment, str(to))
    if confirm == to.database or (stamp and stamp.environment == to.environment):
        return
    found = len(schema.objects(connection))
    if stamp is None and not found and confirm is None:
        return
    what = f"is stamped {stamp.environment}" if stamp else f"holds {counted(found, 'object')} and no stamp"
    raise GuardRefused(
        f"{to} {what}; stamping it {to.environment} lets the tools change it",
        remedy=f"invoke env.stamp --env={to.environment} --confirm={quote(to.database)}",
    )


def _last_owner(connection: Connection) -> str | None:
    """The environment of the last operation on a database without a stamp, None where it gave the database up itself."""
    if connection.execute("SELECT pg_catalog.to_regclass('skinspire_tools.journal')").fetchone() == (None,):
        return None
    row = connection.execute(
        "SELECT environment, operation FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1"
    ).fetchone()
    return row[0] if row and row[1] != GIVEN_UP else None


def try_lock(connection: Connection) -> bool:
    """Take the database's one operation lock until the transaction ends, if nobody has it. Returns whether it is ours.

    A transaction's lock cannot strand behind a pooler or a killed process.
    """
    return connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (LOCK_KEY,)).fetchone() == (True,)


def at_work(connection: Connection) -> str:
    """The operation that has the database's lock, with its pid and how long; empty when none has."""
    holder = connection.execute(
        f"""
        SELECT {HOLDER}, a.application_name FROM pg_locks l {OF_WHOM}
        WHERE l.locktype = 'advisory' AND l.granted AND l.objid = %s AND l.classid = 0
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """.encode(),  # noqa: S608
        (LOCK_KEY,),
    ).fetchone()
    if holder is None or holder[0] is None:
        return ""
    who, age, name = holder
    return f"{name} ({who}{_age(age)})" if name is not None else f"a {who}"


def lock(connection: Connection, to: Target) -> None:
    """Take the lock, waiting as long as the policy says. Raises OperationLocked with the holder's name."""
    import psycopg

    wait = round(to.policy.operation_wait * 1000)
    connection.execute("SAVEPOINT before_lock")
    try:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{wait}ms",))
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
    except psycopg.errors.LockNotAvailable:
        connection.execute("ROLLBACK TO before_lock")
        who = at_work(connection) or "another operation that has just ended"
        raise OperationLocked(
            f"{to} is in use by {who}; waited {to.policy.operation_wait:g} s", remedy="run it again when that has ended"
        ) from None
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(to.policy.lock_timeout * 1000)}ms",))


def blockers(to: Target, operation: str, own_pid: int) -> str:
    """Who holds locks on the application's tables: pid, application and how long its transaction is open."""
    import psycopg

    try:
        with connections.connect(to, operation) as connection:
            listed = holders(connection, own_pid)
    except (psycopg.Error, SkinspireError):
        listed = []
    return "; ".join(listed) or "a transaction that has ended since"


def holders(connection: Connection, own_pid: int) -> list[str]:
    """Who but session `own_pid` and this one holds locks on tables, whose transaction is open longest first."""
    rows = connection.execute(
        f"""
        SELECT {HOLDER}, coalesce(nullif(a.application_name, ''), a.usename, x.owner),
               string_agg(DISTINCT l.relation::regclass::text, ', ')
        FROM pg_locks l {OF_WHOM}
        JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.granted AND l.locktype = 'relation' AND coalesce(a.pid, 0) NOT IN (%s, pg_backend_pid())
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'm', 'f')
        GROUP BY 1, 2, 3 ORDER BY 2 DESC NULLS LAST
        """.encode(),  # noqa: S608
        (own_pid,),
    ).fetchall()
    return [f"{who} ({name}{_age(age)}, {relations})" for who, age, name, relations in rows if who]


def record(connection: Connection, operation: str, environment: str, seconds: float, steps: Any) -> uuid.UUID:
    """Write the operation into the journal, in its own transaction; returns the entry's id."""
    entry = uuid.uuid4()
    connection.execute(
        """
        INSERT INTO skinspire_tools.journal (entry_id, operation, environment, seconds, os_user, host, tool_version, steps)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            entry, operation, environment, seconds, _os_user(), socket.gethostname(), skinspire_db.__version__,
            json.dumps(steps),
        ),
    )  # fmt: skip
    return entry


def recorded(to: Target, operation: str, entry: uuid.UUID, *, wait: bool = False) -> bool | None:
    """Whether the operation with this journal entry was committed, asked on a connection of its own; None when nobody
    could be asked.

    With `wait` the operation lock is taken first: as long as the operation's own transaction lives, it holds that, and
    may still commit.
    """
    import psycopg

    try:
        with connections.connect(to, f"{operation} read-back") as connection:
            connections.begin(connection, to.policy, brief=True)
            if wait:
                lock(connection, to)
            query = "SELECT count(*) FROM skinspire_tools.journal WHERE entry_id = %s"
            return connection.execute(query, (entry,)).fetchone() == (1,)
    except psycopg.errors.UndefinedTable:
        return False
    except (psycopg.Error, SkinspireError):
        return None


def _age(seconds: int | None) -> str:
    return "" if seconds is None else f", for {seconds} s"


def _os_user() -> str:
    try:
        return getpass.getuser().encode(errors="replace").decode()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
