"""The links that are about the server: its programs here, its clock, locks, connections, disk and collations."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from skinspire_db.doctor.link import Broken, Case, NotAsked
from skinspire_db.doctor.reach import is_local
from skinspire_db.lifecycle import lock, remedies
from skinspire_db.lifecycle.result import counted
from skinspire_db.postgres.client_programs import client_tools

CLOCK_MAY_DIFFER = 5.0  # seconds
DISK_NEEDED = 500 * 1024**2  # bytes
WAITED = "1 second"  # for a lock; a shorter wait is usual
WAITING = f"""
    SELECT w.pid, coalesce(nullif(a.application_name, ''), a.usename), coalesce(w.relation::regclass::text, w.locktype),
           extract(epoch FROM clock_timestamp() - w.waitstart)::int,
           (SELECT string_agg('pid ' || b.pid || ' (' || coalesce(nullif(b.application_name, ''), b.usename) || ', '
                              || b.state || ')', ' and ')
            FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(w.pid)))
    FROM pg_locks w JOIN pg_stat_activity a USING (pid)
    WHERE NOT w.granted AND a.datname = current_database() AND w.waitstart < clock_timestamp() - interval '{WAITED}'
    ORDER BY w.waitstart
"""  # noqa: S608
LEFT = """
    WITH used AS (SELECT count(*) AS n, count(*) FILTER (WHERE datname = current_database()) AS here,
                         count(*) FILTER (WHERE usename = current_user) AS mine
                  FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
    SELECT least(s.maximum - used.n, CASE WHEN datconnlimit >= 0 THEN datconnlimit - used.here END,
                 CASE WHEN rolconnlimit >= 0 THEN rolconnlimit - used.mine END), s.maximum
    FROM used, pg_database, pg_roles,
         (SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true)::int, 0) AS maximum) AS s
    WHERE datname = current_database() AND rolname = current_user
"""
STALE_COLLATIONS = """
    SELECT 'the database', datcollversion, pg_database_collation_actual_version(oid) FROM pg_database
    WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)
    UNION ALL
    SELECT oid::regcollation::text, collversion, pg_collation_actual_version(oid) FROM pg_collation
    WHERE oid IN (SELECT attcollation FROM pg_attribute) AND collversion <> pg_collation_actual_version(oid)
"""


def tools(case: Case) -> str:
    """Whether there are client programs that are new enough for the server.

    Returns:
        What was found, for a reader.

    Raises:
        ToolMissing: there are none.
    """
    version = case.open.info.server_version
    found = client_tools(version)  # raises ToolMissing with the remedy
    return f"psql, pg_dump, pg_restore {found.major}, the server is {version // 10_000}"


def clock(case: Case) -> str:
    """Whether this machine's clock and the server's agree.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: they differ by more than CLOCK_MAY_DIFFER.
    """
    before = time.time()
    [(there,)] = case.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
    ahead = (before + time.time()) / 2 - there
    if abs(ahead) > CLOCK_MAY_DIFFER:
        behind = "ahead of" if ahead > 0 else "behind"
        raise Broken(f"this machine's clock is {abs(ahead):.0f} s {behind} the server's", "set the one that is wrong")
    return f"{abs(ahead):.1f} s from the server's"


def locks(case: Case) -> str:
    """Whether a session waits for a lock.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: one has waited longer than WAITED.
    """
    waiting = case.rows(WAITING)
    if waiting:
        pid, application, what, seconds, blockers = waiting[0]
        blocker = re.search(r"pid (\d+)", str(blockers))
        ends = f", and {remedies.ending(case.name, case.to.database, blocker[1])} ends it" if blocker else ""
        raise Broken(
            f"{counted(len(waiting), 'session', 'wait', 'waits')} for locks:"
            f" pid {pid} ({application}) has waited {seconds} s for {what},"
            f" which {blockers} holds",
            f"invoke db.activity --env={case.name}{ends}",
        )
    held = lock.table_holders(case.open, case.open.info.backend_pid)
    return f"no session waits; held by {'; '.join(held)}" if held else "no session waits, and none holds any"


def connections_left(case: Case) -> str:
    """Whether the server has room for the connections that the application keeps.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it has not.
    """
    [(left, maximum)] = case.rows(LEFT)
    if left < case.to.policy.pool_size:
        raise Broken(
            f"{max(left, 0)} of {maximum} connections are left, and the application keeps {case.to.policy.pool_size} open",
            f"invoke db.activity --env={case.name}, and end what is not needed",
        )
    return f"{left} of {maximum} are left"


def disk(case: Case) -> str:
    """Whether the disk with the server's data has room.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: less than DISK_NEEDED is left.
        NotAsked: the disk is another machine's, or its folder is not told.
    """
    import psycopg

    if not is_local(case):
        raise NotAsked("the server is on another machine")
    try:
        with case.open.transaction():
            [(folder,)] = case.rows("SELECT current_setting('data_directory')")
        free = shutil.disk_usage(case.to.server.data if case.to.server else Path(folder)).free
    except (psycopg.errors.InsufficientPrivilege, OSError):
        raise NotAsked("the server does not tell where its data is, or that is another machine's") from None
    if free < DISK_NEEDED:
        raise Broken(f"{free // 1024**2} MB are left where the server keeps its data", f"free some space in {folder}")
    return f"{free / 1024**3:.1f} GB are left"


def collation(case: Case) -> str:
    """Whether the collations are those with which indexes of text were made.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: a library of the server sorts otherwise now.
    """
    if stale := case.rows(STALE_COLLATIONS):
        what, recorded, actual = stale[0]
        [(name,)] = case.rows("SELECT quote_ident(current_database())")
        refresh = (
            f"ALTER DATABASE {name} REFRESH COLLATION VERSION"
            if what.startswith("the database")
            else (f"ALTER COLLATION {what} REFRESH VERSION")
        )
        raise Broken(
            f"{what} was sorted by collation version {recorded}, the server has {actual}: indexes of text may be wrong",
            f"in invoke db.shell --env={case.name}: REINDEX DATABASE; {refresh}",
        )
    return "as it was when the indexes were made"
