"""Scratch databases: made aside on the target's server, swapped in under the real name, and swept up after a crash.

Names: what is made aside is TARGET_scratch_ and twelve hexadecimal digits; what it replaced, for `db.undo`, TARGET_former_
and six; a snapshot TARGET_snapshot_NAME_ and six. The last six are a check of the whole name, so that a database that others
gave such a name is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from skinspire_db.errors import OperationLocked, PermissionMissing, StepFailed
from skinspire_db.lifecycle import lock, stamp
from skinspire_db.postgres import connections, databases
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

LONGEST = 63  # bytes of a name; PostgreSQL cuts what is longer, and two names could become one
# From which name to which: the new database takes the present one's, which is kept as the former one.
RENAMES = (("former", "spare"), ("present", "former"), ("new", "present"))
RENAMES_BACK = (("present", "spare"), ("new", "present"), ("spare", "former"))  # where the new one is the former one
SWAP_SECONDS = 30  # how long sessions that come back again and again are ended


@contextlib.contextmanager
def database(
    target: Target,
    operation: str,
    *,
    template: str | None = None,
    locale: str = "ENCODING 'UTF8'",
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Target]:
    """A database beside the target's, empty with that locale or a copy of `template`; dropped at the end if it still has its
    name.

    As long as this process lives, an advisory lock says so; those of processes that died are dropped first.

    Raises:
        PermissionMissing: the role may not create databases.
        psycopg.errors.ObjectInUse: for a template that others use.
    """
    aside = new_name(target)
    with contextlib.closing(connections.maintenance(target, operation)) as watch:
        connections.require_direct(target, operation)
        connections.begin(watch, target.policy, brief=True)
        for name in sweep(target, operation, watch):
            tell(f"a scratch database of an operation that died was dropped: {name}")
        watch.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (aside.database,))
        try:
            try:
                databases.create_database(aside, operation, template=template, locale=locale)
            except PermissionMissing as error:
                error.remedy = f'ask the administrator for: ALTER ROLE "{target.user}" CREATEDB'
                raise
            yield aside
        finally:
            databases.drop_database(aside, operation, over=watch)


def new_name(target: Target) -> Target:
    """A scratch database of the target's that does not exist yet."""
    word = secrets.token_hex(3)
    return _beside(target, f"_scratch_{word}", _check(target, word))


def former(target: Target) -> Target:
    """Where the database is that the last swap replaced."""
    return _beside(target, "_former_", _check(target, "former"))


def snapshot(target: Target, name: str) -> Target:
    """Where the target's snapshot of that name is: what the name has beside letters and digits, the check stands for."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:20]
    return _beside(target, f"_snapshot_{slug}_", _check(target, f"snapshot {name}"))


def keep(aside: Target, kept: Target, operation: str, comment: str) -> None:
    """Give a scratch database the name under which it stays, closed to sessions, so that nothing changes it.

    Args:
        aside: where it is.
        kept: where it will be.
        operation: for what; other sessions see it as the application_name.
        comment: says what it is.

    Raises:
        psycopg.errors.DuplicateDatabase: there is one of that name; nothing has changed then.
    """
    from psycopg import sql

    with contextlib.closing(connections.maintenance(aside, operation)) as connection:
        connection.commit()
        _wait_for_leaving(connection, [aside.database])
        change = sql.SQL(
            "ALTER DATABASE {0} RENAME TO {1}; ALTER DATABASE {1} ALLOW_CONNECTIONS false; COMMENT ON DATABASE {1} IS {2}"
        )
        with connection.transaction():
            connection.execute(connections.DURABLE)
            connection.execute(change.format(sql.Identifier(aside.database), sql.Identifier(kept.database), comment))


def rename_kept(aside: Target, target: Target, operation: str) -> Target:
    """Give a scratch database a name under which it stays; what had that name is dropped.

    Returns:
        Where it is then.
    """
    from psycopg import sql

    kept = _beside(target, "_rehearsed_", _check(target, "rehearsed"))
    databases.drop_database(kept, operation)
    with contextlib.closing(connections.maintenance(target, operation)) as connection:
        connections.autocommit(connection)
        names = sql.Identifier(aside.database), sql.Identifier(kept.database)
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*names))
    return kept


def _called(target: Target, database: str) -> Target:
    """Another database of the target's server."""
    return dataclasses.replace(target, parameters=target.parameters | {"dbname": database})


def _beside(target: Target, ending: str, check: str) -> Target:
    """The target's database with another name, on the same server."""
    ending += check
    name = target.database.encode()[: LONGEST - len(ending)].decode(errors="ignore") + ending
    return _called(target, name)


def _check(target: Target, word: str) -> str:
    return hashlib.sha256(f"skinspire-db {word} {target.database}".encode()).hexdigest()[:6]


def discard(target: Target, database: str, operation: str) -> None:
    """Drop a database on the target's server, and look whether it is gone.

    Args:
        target: says which server.
        database: the database's name.
        operation: for what; other sessions see it as the application_name.

    Raises:
        StepFailed: it is still there.
    """
    databases.drop_database(_called(target, database), operation)
    with contextlib.closing(connections.maintenance(target, operation)) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
            raise StepFailed(f"{database} could not be dropped", remedy=f"invoke db.activity --env={target.environment}")


def sweep(target: Target, operation: str, watch: Connection) -> list[str]:
    """Drop the scratch databases of this target whose operations died.

    Returns:
        Their names.
    """
    names = watch.execute("SELECT datname FROM pg_database WHERE datname ~ '_scratch_[0-9a-f]{12}$'").fetchall()
    swept = []
    for (name,) in names:
        word, check = name[-12:-6], name[-6:]
        ours = _check(target, word) == check and _beside(target, f"_scratch_{word}", check).database == name
        if ours and _is_dead(watch, name):
            databases.drop_database(_called(target, name), operation)
            swept.append(name)
    return swept


def swap(target: Target, new: Target, operation: str, holder: Connection | None) -> list[str]:
    """Give the new database the target's name; what had it becomes the former database, and what was that is dropped.

    When the new one is the former one, the two change places. All in one transaction. A name proves nothing: each must be
    the database that this operation has looked at (its oid is in the target's pin), and what is replaced or dropped must
    still have this environment's stamp.

    Args:
        target: the database that is replaced.
        new: the database that gets its name.
        operation: for what; other sessions see it as the application_name.
        holder: has the target's operation lock, and is closed; None when the target does not exist.

    Returns:
        Which sessions were on the database, and were ended.

    Raises:
        OperationLocked: another operation has come in between. Nothing has changed then, nor after the other errors.
        StepFailed: another database has one of the names now, or others connect again and again.
        ConnectionFailed: a database is another one than was looked at.
        GuardRefused: a database has another environment's stamp now.
    """
    import psycopg

    aside = new_name(target)
    keep = former(target)
    back = new.database == keep.database
    looked_at = dict(target.pin.databases)
    called = {"present": target.database, "new": new.database, "former": keep.database, "spare": aside.database}
    renames = [(called[old], called[name]) for old, name in (RENAMES_BACK if back else RENAMES)]
    if holder is not None:
        holder.execute("SELECT 1")  # it was ended, and the operation lock with it: not the moment to go on
    names = [target.database, new.database, keep.database]
    ended: list[str] = []
    deadline = time.monotonic() + SWAP_SECONDS
    with contextlib.closing(connections.maintenance(target, operation)) as connection:
        while True:
            for name in names:
                if name in looked_at:
                    ended += _send_away(connection, name, looked_at[name], operation, holder)
            if holder is not None:
                holder.close()
                holder = None
            for named in (target, keep):
                if named.database in looked_at:
                    identify(named, operation)
            _wait_for_leaving(connection, names)
            try:
                with connection.transaction():
                    connection.execute(connections.DURABLE)
                    _rename(connection, target, renames, looked_at)
                break
            except psycopg.errors.ObjectInUse:  # a session came back in between
                _refuse_prepared(connection, target, names)
                if time.monotonic() > deadline:
                    raise StepFailed(
                        f"{target} could not be swapped: others connect again and again; the database is as it was",
                        remedy="stop what connects, and run it again",
                    ) from None
    if not back and keep.database in looked_at:
        databases.drop_without_waiting(aside, operation)  # if this is not reached, the next operation sweeps it up
    return ended


def identify(target: Target, operation: str) -> None:
    """Make sure that this database is the environment's still.

    Raises:
        GuardRefused: for another's stamp.
        ConnectionFailed: it is another one than was looked at.
    """
    with contextlib.closing(connections.connect(target, operation)) as connection:
        connections.begin(connection, target.policy, brief=True)
        stamp.identify(connection, target)


def _rename(connection: Connection, target: Target, renames: list[tuple[str, str]], looked_at: dict[str, int]) -> None:
    """Rename what is there of these, in order.

    Raises OperationLocked or StepFailed, for the caller to roll back, when one of the names belongs to another database than
    was looked at: before the renames, or in the moment of one of them.
    """
    from psycopg import sql

    named = {name for rename in renames for name in rename}
    wanted = {name: oid for name, oid in looked_at.items() if name in named}
    if target.database not in wanted and target.database in _oids(connection, named):
        raise OperationLocked(f"{target} was made by another session meanwhile", remedy="run it again")
    same = _oids(connection, named) == wanted
    for old, name in renames:
        if same and old in wanted:
            connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(name)))
            wanted[name] = wanted.pop(old)
    if not same or _oids(connection, named) != wanted:
        raise StepFailed(
            f"another database than this operation looked at is called {target.database}, or has a name of its former one;"
            " nothing was renamed",
            remedy="see who renamed it, and run it again",
        )


def _oids(connection: Connection, names: set[str]) -> dict[str, int]:
    rows = connection.execute("SELECT datname, oid FROM pg_catalog.pg_database WHERE datname = ANY (%s)", (list(names),))
    return dict(rows.fetchall())


def _send_away(connection: Connection, database: str, oid: int, operation: str, holder: Connection | None) -> list[str]:
    """End the sessions of a database, but no operation's of these tools. Returns who they were."""
    own = holder.info.backend_pid if holder and not holder.closed else 0
    working = connection.execute(
        """
        SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objid = %s AND l.classid = 0 AND a.pid <> %s
          AND l.database = %s
        """,
        (lock.KEY, own, oid),
    ).fetchone()
    if working:
        raise OperationLocked(
            f"{working[1]} (pid {working[0]}) began on {database} meanwhile", remedy="run it again when that has ended"
        )
    rows = connection.execute(
        """
        SELECT coalesce(nullif(application_name, ''), usename) || ' (pid ' || pid || ')', pg_terminate_backend(pid, 5000)
        FROM pg_stat_activity WHERE datid = %s AND pid NOT IN (%s, pg_backend_pid())
          AND coalesce(backend_type, 'client backend') = 'client backend'
        """,
        (oid, own),
    ).fetchall()
    connection.commit()
    return [who for who, _ in rows if f"skinspire-db {operation}" not in who]


def _refuse_prepared(connection: Connection, target: Target, databases: list[str]) -> None:
    """Raise StepFailed for a prepared transaction, which belongs to no session that could be ended."""
    query = "SELECT quote_literal(gid), database FROM pg_prepared_xacts WHERE database = ANY (%s)"
    if row := connection.execute(query, (databases,)).fetchone():
        raise StepFailed(
            f"{row[1]} could not be swapped: it has the prepared transaction {row[0]}; the database is as it was",
            remedy=f"in invoke db.shell --env={target.environment}: ROLLBACK PREPARED {row[0]}; then run it again",
        )
    connection.commit()


def _wait_for_leaving(connection: Connection, databases: list[str]) -> None:
    """Wait a moment until the ended sessions are gone: RENAME would look again after 0.1 s only."""
    for _ in range(20):
        session = connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname = ANY (%s)", (databases,)).fetchone()
        connection.commit()
        if session is None:
            break
        time.sleep(0.005)


def _is_dead(watch: Connection, name: str) -> bool:
    return watch.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (name,)).fetchone() == (True,)


@contextlib.contextmanager
def alone(target: Target, operation: str) -> Iterator[None]:
    """Be the only operation that makes a database of this name, which does not exist yet and so has no lock of its own.

    Raises:
        OperationLocked: another one is at it.
    """
    with contextlib.closing(connections.maintenance(target, operation)) as watch:
        connections.begin(watch, target.policy, brief=True)
        if not _is_dead(watch, target.database):
            raise OperationLocked(f"another operation is making {target}", remedy="run it again when that has ended")
        yield
