"""From an open connection to a database that the application can work with: what stands in it, and what its roles may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skinspire_db.catalog import objects
from skinspire_db.config import tenancy as setting
from skinspire_db.doctor import server
from skinspire_db.doctor.link import Broken, Case, Unknown
from skinspire_db.lifecycle import stamp as stamps
from skinspire_db.lifecycle.result import counted
from skinspire_db.migrations import position, revisions
from skinspire_db.objects import adopted, kinds, status, tenant_faults, tenant_roles, versions
from skinspire_db.postgres import connections
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.target import target_of
from skinspire_db.recovery import status as recovery
from skinspire_db.recovery.archive import Archive
from skinspire_db.schema.extensions import wanted

GRANTED_ONE_BY_ONE = 5  # tables named in a GRANT, before it is for all of the schema


def pooler(case: Case) -> str:
    """Whether the tools reach PostgreSQL itself; the application may go through a pooler.

    Returns:
        What was found, for a reader.

    Raises:
        InvalidSetting: they would go through one.
    """
    connections.require_direct(case.to, "db.setup", writes=False)  # raises InvalidSetting with the remedy
    return f"{case.to.setting} leads to PostgreSQL itself"


def primary(case: Case) -> str:
    """Whether the database takes writes from this role.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: transactions are read only by default.
        GuardRefused: the server is a standby.
    """
    connections.require_direct(case.to, "db.setup")  # raises GuardRefused with the remedy
    rows = case.rows(READ_ONLY)
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
    """Whether the application's URL leads to the database of the admin URL, perhaps through a pooler.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it leads to another one.
        SkinspireError: it cannot be reached.
    """
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
    """Whether the database belongs to the environment.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it holds no tables, is not adopted, or the role may not read the stamp.
        GuardRefused: it has another stamp, or lost it.
    """
    import psycopg

    try:
        found = stamps.read(case.open)
        if found is None and (count := len(objects.all_objects(case.open))) and not _has_history(case):
            raise Broken(
                f"{case.to} holds {counted(count, 'object')}, no stamp and no revision: others made it, it is not adopted",
                f"invoke db.adopt --env={case.name}",
            )
        filled = stamps.identify(case.open, case.to)  # raises GuardRefused with the remedy
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


def _has_history(case: Case) -> bool:
    """Whether it says at which revision it is, as one that only has lost its stamp."""
    return bool(position.current(case.open, case.project_environment.project))


def rights(case: Case) -> str:
    """Whether the application's role may read and write every table and use every sequence.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: rights are missing.
    """
    role = _application_role(case)
    rows = case.rows(RIGHTS, role, role, role)
    if setting.is_on(case.project_environment.project):  # the revisions are the tools'
        rows = [row for row in rows if row[2] != "public.alembic_version"]
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
    """Whether the extensions that the project needs are installed.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: one is missing.
    """
    present = {name for (name,) in case.rows("SELECT extname FROM pg_extension")}
    needed = wanted(case.project_environment.project)
    if missing := [name for name in needed if name not in present]:
        if case.rows("SELECT 1 FROM pg_available_extensions WHERE name = %s", missing[0]):
            raise Broken(f"the extension {missing[0]} is missing", f"invoke db.create --update-only --env={case.name}")
        raise Broken(f"the server has no extension {missing[0]}", "install PostgreSQL's contrib package on the server")
    return ", ".join(needed) or "none is needed"


def migrations(case: Case) -> str:
    """Whether the database is at the head of the revisions.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: a revision is pending.
        MigrationInvalid: its revision is unknown.
    """
    project = case.project_environment.project
    heads = revisions.heads(project)
    at = position.current(case.open, project)
    if at != heads:
        pending = position.next_up(
            case.open, project, revisions.directory(project), None
        )  # raises MigrationInvalid with the remedy
        late = f", the next is {pending.revision}" if pending else ""
        raise Broken(f"at {', '.join(at) or 'no revision'}{late}", f"invoke db.prepare --env={case.name}")
    return f"at {', '.join(at) or 'no revision, as there is none'}"


def triggers(case: Case) -> str:
    """Whether functions and triggers are as the files say.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: some are not, and were not switched off on purpose.
    """
    project = case.project_environment.project
    files = versions.current(project, roles=tenant_roles.of(case.project_environment))
    collection = kinds.step_name(file.kind for file in files)
    states = status.status(case.open, adopted.maintained(case.open, project, files))
    wrong = [each for each in states if not each.right and not each.on_purpose]
    if wrong:
        first = wrong[0]
        raise Broken(
            f"{len(wrong)} of {len(states)} are not as the files say:"
            f" {first.file}, {first.object}: {first.state}, {first.note}",
            f"invoke {collection}.install --env={case.name}",
        )
    off = sum(each.on_purpose for each in states)
    idle = sum(each.state == "NOT APPLICABLE" for each in states)
    what = "functions and triggers" if collection == "triggers" else "functions, views and triggers"
    here = f"{len(states) - idle} {what}{f', {off} switched off on purpose' if off else ' as the files say'}"
    return here + (f", {idle} files not applicable" if idle else "")


def tenancy(case: Case) -> str:
    """Whether the application meets the policies that keep hospitals apart.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: a role, a right or the login passes by them.
    """
    roles = tenant_roles.of(case.project_environment)
    assert roles
    files = versions.current(case.project_environment.project, roles=roles)
    faults = tenant_faults.of_database(case.open, roles, files)
    if not case.project_environment.embedded:  # there the login is the tools' own role, and each block takes the other one
        faults += tenant_faults.of_login(case.open, roles)
    if faults:
        more = f", and {len(faults) - 1} more" if faults[1:] else ""
        raise Broken(f"{faults[0].says}{more}", faults[0].remedy)
    return f"work for a hospital is done as {roles.application}, which the policies bind"


def databases(case: Case) -> str:
    """Whether the role may make scratch databases: restore, copy, drift, downgrade and backup.verify --full work in one.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it may not.
    """
    [(may, owner, name)] = case.rows(MAY_CREATE)
    if not may:
        raise Broken(
            f"role {case.to.user} may not create databases, which db.copy, db.drift, migrate.downgrade, backup.restore and"
            " backup.verify --full need",
            f"ask the administrator for: ALTER ROLE {name} CREATEDB",
        )
    return f"role {case.to.user} may create databases" + (
        "" if owner else f"; only its owner may swap {case.to.database}, as db.copy, backup.restore and db.undo do"
    )


def backups(case: Case) -> str:
    """Whether continuous backups stand as the policy wants them; looked at where there are any.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: there is something to complain of.
    """
    archive = Archive.of(case.project_environment, case.backups)
    found = recovery.findings(case.project_environment, archive, case.open)
    if bad := [each for each in found if each.remedy]:
        raise Broken(f"{bad[0].what}: {bad[0].detail}", bad[0].remedy or "invoke backup.status --env={env}")
    return found[-1].detail


# Migrations before triggers: a revision that is pending brings tables, and they their triggers. What only the tools need is
# last: all that the application needs has been looked at then.
LINKS: dict[str, Callable[[Case], str]] = {
    "pooler": pooler, "primary": primary, "application": application, "stamp": stamp, "rights": rights,
    "extensions": extensions, "tools": server.tools, "clock": server.clock, "locks": server.locks,
    "connections": server.connections_left, "disk": server.disk, "collation": server.collation,
    "migrations": migrations, "triggers": triggers, "tenancy": tenancy, "databases": databases,
    "backups": backups,
}  # fmt: skip


def links(case: Case) -> Iterator[tuple[str, Callable[[Case], str]]]:
    """The links, each looked at in a read-only transaction of its own, so that one that breaks spoils no other."""
    left_out = set() if case.project_environment.admin else {"application"}
    left_out |= set() if setting.is_on(case.project_environment.project) else {"tenancy"}
    left_out |= set() if Archive.of(case.project_environment, case.backups).folder.exists() else {"backups"}
    return ((name, _guarded(look)) for name, look in LINKS.items() if name not in left_out)


def _guarded(look: Callable[[Case], str]) -> Callable[[Case], str]:
    def guarded(case: Case) -> str:
        import psycopg

        try:
            connections.begin(case.open, case.to.policy, brief=True, isolation="READ COMMITTED READ ONLY", again=True)
            return look(case)
        except psycopg.Error as error:
            if case.open.closed:
                raise Broken(f"the server went away: {sentence(error)}", f"invoke db.doctor --env={case.name}") from None
            raise Unknown(f"could not look: {sentence(error)}") from None

    return guarded


def _application_role(case: Case) -> str:
    """Whose rights the application has: with an admin URL the tools' connection is another role's."""
    roles = tenant_roles.of(case.project_environment)
    if roles and case.rows("SELECT FROM pg_roles WHERE rolname = %s", roles.application):
        return roles.application
    [(role,)] = case.rows("SELECT current_user::text")
    if case.project_environment.admin is None:
        return str(role)
    return target_of(case.project_environment, start=False, application=True).user or str(role)


def _quoted(case: Case, role: str) -> str:
    """The role's name, quoted where it must be."""
    [(name,)] = case.rows("SELECT quote_ident(%s)", role)
    return str(name)


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
