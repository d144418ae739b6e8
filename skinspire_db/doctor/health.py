"""From an open connection to a database that the application can work with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from skinspire_db.catalog import objects
from skinspire_db.doctor.link import Broken, Case, NotAsked, Unknown
from skinspire_db.doctor.reach import is_local
from skinspire_db.lifecycle import lock
from skinspire_db.lifecycle import stamp as stamps
from skinspire_db.lifecycle.result import counted
from skinspire_db.migrations import position, revisions
from skinspire_db.objects import status, versions
from skinspire_db.postgres import connections, search_path
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.programs import find_binaries
from skinspire_db.postgres.target import target_of
from skinspire_db.schema.extensions import CORE_EXTENSIONS

TOOLS = ("psql", "pg_dump", "pg_restore")
CLOCK_MAY_DIFFER = 5.0  # seconds
DISK_NEEDED = 500 * 1024**2  # bytes
WAITED = "1 second"  # for a lock; who waits less is no news
GRANTED_ONE_BY_ONE = 5  # tables named in a GRANT, before it is for all of the schema


def pooler(case: Case) -> str:
    """What the application may well go through, the tools may not."""
    connections.require_direct(case.to, "db.setup", writes=False)  # raises InvalidSetting with the remedy
    return f"{case.to.setting} leads to PostgreSQL itself"


def primary(case: Case) -> str:
    """Whether the database takes writes from this role."""
    connections.require_direct(case.to, "db.setup")  # raises GuardRefused with the remedy
    rows = _rows(case, READ_ONLY)
    if rows:
        source, role, database = rows[0]
        reset = {
            "user": f"ALTER ROLE {role} RESET", "database": f"ALTER DATABASE {database} RESET",
            "database user": f"ALTER ROLE {role} IN DATABASE {database} RESET",
        }.get(source)  # fmt: skip
        raise Broken(
            f"transactions are read only by default ({source})",
            f"ask the administrator for: {reset} default_transaction_read_only"
            if reset
            else f"take default_transaction_read_only out of {case.to.setting if source == 'client' else 'postgresql.conf'}",
        )
    return "it takes writes"


def application(case: Case) -> str:
    """Whether the application's URL leads to the database of the admin URL, perhaps through a pooler."""
    import psycopg

    target = target_of(case.project_environment, start=False, application=True)
    try:
        connections.open_once(target, "db.doctor").close()
    except psycopg.Error as error:
        raise connections.explain(error, target) from None
    project, there = case.to.pin, target.pin
    assert project.server and there.server
    # By their oids: to a pooler the database may have another name.
    if not (there.server.is_the_same(project.server) and set(there.databases.values()) <= set(project.databases.values())):
        raise Broken(
            f"{target.setting} leads to another database than {case.to.setting}: {target} and {case.to}",
            f"correct one of {target.setting} and {case.to.setting}",
        )
    return f"role {target.user} reaches it{' through a pooler' if there.pooled else ''}, by {target.setting}"


def stamp(case: Case) -> str:
    import psycopg

    try:
        filled = stamps.identify(case.open, case.to)  # raises GuardRefused with the remedy
        found = stamps.read(case.open)
    except psycopg.errors.InsufficientPrivilege:
        case.open.rollback()
        schema_name, role = objects.TOOLS_SCHEMA, _quoted(case, case.to.user)
        raise Broken(
            f"role {case.to.user} may not read the stamp",
            f"ask the administrator for: GRANT USAGE ON SCHEMA {schema_name} TO {role};"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema_name} TO {role}",
        ) from None
    if found is None or not filled:
        raise Broken(f"{case.to.database} holds no tables", f"invoke db.setup --env={case.name}")
    return f"{found.environment}, identity {found.identity}"


def rights(case: Case) -> str:
    role = _application_role(case)
    rows = _rows(case, RIGHTS, role, role, role)
    if not rows:
        return f"role {role} may read and write every table"
    schema_name, kind, _, missing = rows[0]
    alike = [row[2] for row in rows if (row[0], row[1], row[3]) == (schema_name, kind, missing)]
    on = f"{kind} {', '.join(alike)}"
    if kind != "SCHEMA" and len(alike) > GRANTED_ONE_BY_ONE:
        on = f"ALL {kind}S IN SCHEMA {schema_name}"
    raise Broken(
        f"role {role} lacks rights on {counted(len(rows), 'object')}: {missing} on {rows[0][2]}",
        f"ask the administrator for: GRANT {missing} ON {on} TO {_quoted(case, role)}",
    )


def extensions(case: Case) -> str:
    present = {name for (name,) in _rows(case, "SELECT extname FROM pg_extension")}
    if missing := [name for name in CORE_EXTENSIONS if name not in present]:
        if _rows(case, "SELECT 1 FROM pg_available_extensions WHERE name = %s", missing[0]):
            raise Broken(f"the extension {missing[0]} is missing", f"invoke db.create --update-only --env={case.name}")
        raise Broken(f"the server has no extension {missing[0]}", "install PostgreSQL's contrib package on the server")
    return ", ".join(CORE_EXTENSIONS)


def tools(case: Case) -> str:
    server = case.open.info.server_version // 10000
    found = find_binaries()  # raises ServerFailed with the remedy
    remedy = f"set SKINSPIRE_PG_BIN to a folder with PostgreSQL {server} or newer, its client programs included"
    if missing := [name for name in TOOLS if not found.tool(name).is_file()]:
        raise Broken(f"there is no {missing[0]} in {found.folder}", remedy)
    if found.major < server:
        raise Broken(f"the programs in {found.folder} are version {found.major}, the server {server}", remedy)
    return f"{', '.join(TOOLS)} {found.major}, the server is {server}"


def clock(case: Case) -> str:
    before = time.time()
    [(there,)] = _rows(case, "SELECT extract(epoch FROM clock_timestamp())::float8")
    ahead = (before + time.time()) / 2 - there
    if abs(ahead) > CLOCK_MAY_DIFFER:
        behind = "ahead of" if ahead > 0 else "behind"
        raise Broken(f"this machine's clock is {abs(ahead):.0f} s {behind} the server's", "set the one that is wrong")
    return f"{abs(ahead):.1f} s from the server's"


def locks(case: Case) -> str:
    waiting = _rows(case, WAITING)
    if waiting:
        pid, application, what, seconds, blockers = waiting[0]
        raise Broken(
            f"{counted(len(waiting), 'session', 'wait', 'waits')} for locks:"
            f" pid {pid} ({application}) has waited {seconds} s for {what},"
            f" which {blockers} holds",
            f"invoke db.activity --env={case.name}, and end that transaction",
        )
    held = lock.table_holders(case.open, case.open.info.backend_pid)
    return f"nobody waits; held by {'; '.join(held)}" if held else "nobody waits, and nobody holds any"


def connections_left(case: Case) -> str:
    [(left, maximum)] = _rows(case, LEFT)
    if left < case.to.policy.pool_size:
        raise Broken(
            f"{max(left, 0)} of {maximum} connections are left, and the application keeps {case.to.policy.pool_size} open",
            f"invoke db.activity --env={case.name}, and end what is not needed",
        )
    return f"{left} of {maximum} are left"


def disk(case: Case) -> str:
    import psycopg

    if not is_local(case):
        raise NotAsked("the server is on another machine")
    try:
        with case.open.transaction():
            [(folder,)] = _rows(case, "SELECT current_setting('data_directory')")
        free = shutil.disk_usage(case.to.server.data if case.to.server else Path(folder)).free
    except (psycopg.errors.InsufficientPrivilege, OSError):
        raise NotAsked("the server does not tell where its data is, or that is another machine's") from None
    if free < DISK_NEEDED:
        raise Broken(f"{free // 1024**2} MB are left where the server keeps its data", f"free some space in {folder}")
    return f"{free / 1024**3:.1f} GB are left"


def collation(case: Case) -> str:
    if stale := _rows(case, STALE_COLLATIONS):
        what, recorded, actual = stale[0]
        [(name,)] = _rows(case, "SELECT quote_ident(current_database())")
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


def migrations(case: Case) -> str:
    project = case.project_environment.project
    heads = revisions.heads(project)
    at = position.current(case.open)
    if at != heads:
        pending = position.next_up(case.open, revisions.directory(project), None)  # raises MigrationInvalid with the remedy
        late = f", the next is {pending.revision}" if pending else ""
        raise Broken(f"at {', '.join(at) or 'no revision'}{late}", f"invoke db.prepare --env={case.name}")
    return f"at {', '.join(at) or 'no revision, as there is none'}"


def triggers(case: Case) -> str:
    states = status.status(case.open, versions.current(case.project_environment.project))
    wrong = [each for each in states if each.state != "INSTALLED" and not each.on_purpose]
    if wrong:
        first = wrong[0]
        raise Broken(
            f"{len(wrong)} of {len(states)} are not as the files say:"
            f" {first.file}, {first.object}: {first.state}, {first.note}",
            f"invoke triggers.install --env={case.name}",
        )
    off = sum(each.on_purpose for each in states)
    return f"{len(states)} functions and triggers{f', {off} switched off on purpose' if off else ' as the files say'}"


def databases(case: Case) -> str:
    """Whether the role may make scratch databases: restore, copy, drift, downgrade and backup.verify --full work in one."""
    [(may, owner, name)] = _rows(case, MAY_CREATE)
    if not may:
        raise Broken(
            f"role {case.to.user} may not create databases, which db.copy, db.drift, migrate.downgrade, backup.restore and"
            " backup.verify --full need",
            f"ask the administrator for: ALTER ROLE {name} CREATEDB",
        )
    return f"role {case.to.user} may create databases" + (
        "" if owner else f"; only its owner may swap {case.to.database}, as db.copy, backup.restore and db.undo do"
    )


# Migrations before triggers: a revision that is pending brings tables, and they their triggers. What only the tools need is
# last: all that the application needs has been looked at then.
LINKS: dict[str, Callable[[Case], str]] = {
    "pooler": pooler, "primary": primary, "application": application, "stamp": stamp, "rights": rights,
    "extensions": extensions, "tools": tools, "clock": clock, "locks": locks, "connections": connections_left, "disk": disk,
    "collation": collation, "migrations": migrations, "triggers": triggers, "databases": databases,
}  # fmt: skip


def links(case: Case) -> Iterator[tuple[str, Callable[[Case], str]]]:
    """The links, each looked at in a read-only transaction of its own, so that one that breaks spoils no other."""
    left_out = set() if case.project_environment.admin else {"application"}
    return ((name, _guarded(look)) for name, look in LINKS.items() if name not in left_out)


def _guarded(look: Callable[[Case], str]) -> Callable[[Case], str]:
    def guarded(case: Case) -> str:
        import psycopg

        try:
            connections.begin(case.open, case.to.policy, brief=True)
            case.open.execute("SET TRANSACTION READ ONLY")
            return look(case)
        except psycopg.Error as error:
            if case.open.closed:
                raise Broken(f"the server went away: {sentence(error)}", f"invoke db.doctor --env={case.name}") from None
            raise Unknown(f"could not look: {sentence(error)}") from None
        finally:
            if not case.open.closed:
                case.open.rollback()

    return guarded


def _application_role(case: Case) -> str:
    """Whose rights the application has: with an admin URL the tools' connection is another role's."""
    [(role,)] = _rows(case, "SELECT current_user::text")
    if case.project_environment.admin is None:
        return str(role)
    return target_of(case.project_environment, start=False, application=True).user or str(role)


def _quoted(case: Case, role: str) -> str:
    """The role's name, quoted where it must be."""
    [(name,)] = _rows(case, "SELECT quote_ident(%s)", role)
    return str(name)


def _rows(case: Case, query: str, *parameters: Any) -> list[Any]:
    return search_path.rows(case.open, query, parameters or None)


RIGHTS = f"""
    WITH schemas AS ({objects.APPLICATION_SCHEMAS}), lacking (schema, kind, object, missing) AS (
        SELECT quote_ident(nspname), 'SCHEMA', quote_ident(nspname),
               CASE WHEN NOT has_schema_privilege(%s, oid, 'USAGE') THEN 'USAGE' END FROM schemas
        UNION ALL
        SELECT quote_ident(nspname), 'TABLE', quote_ident(nspname) || '.' || quote_ident(relname),
               (SELECT string_agg(may, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS may
                WHERE NOT has_table_privilege(%s, c.oid, may))
        FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace WHERE relkind IN ('r', 'p')
        UNION ALL
        SELECT quote_ident(nspname), 'SEQUENCE', quote_ident(nspname) || '.' || quote_ident(relname),
               CASE WHEN relkind <> 'S' THEN NULL WHEN NOT has_sequence_privilege(%s, c.oid, 'USAGE') THEN 'USAGE' END
        FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
    )
    SELECT schema, kind, object, missing FROM lacking WHERE missing IS NOT NULL ORDER BY kind, object
"""  # noqa: S608
READ_ONLY = """
    SELECT source, quote_ident(current_user), quote_ident(current_database()) FROM pg_settings
    WHERE name = 'default_transaction_read_only' AND setting = 'on'
"""
MAY_CREATE = """
    SELECT rolcreatedb OR rolsuper, pg_has_role(datdba, 'USAGE'), quote_ident(current_user)
    FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
"""
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
