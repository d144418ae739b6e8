"""By what a hospital could see or change another one's rows, though tenancy is on: roles, tables, policies, views, rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from skinspire_db.catalog import objects, tenant_tables
from skinspire_db.catalog.tenant_tables import TENANT, TenantTable
from skinspire_db.config.tenancy import Roles
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.objects import ledger, needs, policies, tenant_roles
from skinspire_db.objects.files import SqlFile
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

INSTALL = "invoke sql.install --env={env}"
TABLES = (
    f"give each table of a hospital's rows a column {TENANT}, as TenantMixin does; name in exclude of an own"
    " sql/policies/tenant.sql what belongs to none"
)
# How a role passes by the policies, for the roles that it is or can become by SET ROLE.
POWERS = f"""
    SELECT CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS' ELSE 'owns tables' END
           || CASE r.rolname WHEN %(role)s THEN '' ELSE ' as a member of ' || quote_ident(r.rolname) END
    FROM pg_roles r WHERE pg_has_role(%(role)s, r.oid, 'MEMBER') AND (r.rolsuper OR r.rolbypassrls OR EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p', 'v') AND {objects.RELATION}))
    ORDER BY r.rolname <> %(role)s, 1 LIMIT 1
"""  # noqa: S608
# What the application's role can reach beside the tables with policies: what reads them with other rights than its own, what
# no policy can be on, rights that no policy limits, and policies of others that open rows.
REACHED = f"""
    WITH RECURSIVE reads (relation) AS (
        SELECT oid FROM pg_class WHERE relrowsecurity
        UNION SELECT w.ev_class FROM reads JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reads.relation
        JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    ), own AS (
        SELECT c.*, c.oid::regclass::text AS shown, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {objects.RELATION}
    )
    SELECT 'view ' || shown || ' reads rows with the rights of its owner', format('ALTER VIEW %%s SET (security_invoker = true);', shown)
    FROM own WHERE relkind = 'v' AND oid IN (SELECT relation FROM reads) AND has_table_privilege(%(role)s, oid, 'SELECT')
      AND NOT coalesce((SELECT option_value::bool FROM pg_options_to_table(reloptions) WHERE option_name = 'security_invoker'), false)
    UNION ALL
    SELECT 'materialized view ' || shown || ' has rows of all hospitals', format('REVOKE ALL ON %%s FROM PUBLIC, %%I;', shown, %(role)s::text)
    FROM own WHERE relkind = 'm' AND oid IN (SELECT relation FROM reads) AND has_table_privilege(%(role)s, oid, 'SELECT')
    UNION ALL
    SELECT 'foreign table ' || shown || ' has {TENANT}, and no policy can be on it', format('REVOKE ALL ON %%s FROM PUBLIC, %%I;', shown, %(role)s::text)
    FROM own WHERE relkind = 'f' AND has_table_privilege(%(role)s, oid, 'SELECT, INSERT, UPDATE, DELETE') AND EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = own.oid AND a.attname = '{TENANT}' AND NOT a.attisdropped)
    UNION ALL
    SELECT format('role %%I has %%s on %%s, which no policy limits', %(role)s::text, may, shown),
           format('REVOKE %%s ON %%s FROM PUBLIC, %%I;', may, shown, %(role)s::text)
    FROM own, unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) AS may
    WHERE relkind IN ('r', 'p') AND relrowsecurity AND has_table_privilege(%(role)s, oid, may)
    UNION ALL
    SELECT format('policy %%I on %%s, which no file made, opens rows', p.polname, shown), format('DROP POLICY %%I ON %%s;', p.polname, shown)
    FROM own JOIN pg_policy p ON p.polrelid = own.oid
    WHERE p.polpermissive AND NOT format('%%I.%%I %%s', own.nspname, own.relname, p.polname) = ANY (%(policies)s)
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = own.oid AND a.attname = '{TENANT}' AND NOT a.attisdropped)
      AND EXISTS (SELECT FROM unnest(p.polroles) AS r WHERE r = 0 OR pg_has_role(%(role)s, r, 'MEMBER'))
    ORDER BY 1
"""  # noqa: S608, E501


class Fault(NamedTuple):
    """What is wrong, and what to do about it."""

    says: str
    remedy: str


def of_database(
    connection: Connection, roles: Roles, files: list[SqlFile], tables: dict[int, TenantTable] | None = None
) -> list[Fault]:
    """What is wrong with the database itself, whoever signs in.

    Args:
        connection: the database.
        roles: its roles.
        files: the project's SQL files; the policy files among them count.
        tables: as `tenant_tables.read` gives them, where they were read already.
    """
    present = {role for (role,) in connection.execute("SELECT rolname::text FROM pg_roles").fetchall()}
    if missing := [role for role in (roles.application, roles.system) if role not in present]:
        mend = _ask(tenant_roles.statements(connection, roles))
        if connection.execute(tenant_roles.MAY_MAKE_ROLES).fetchone() == (True,):  # an install makes them with the policies
            mend = _install(next((file for file in files if file.policies), None), ledger.read(connection))
        return [Fault(f"there is no role {missing[0]}", mend)]
    found = list(_of_roles(connection, roles))
    own = str(connection.info.user)
    if missing := [each for each in tenant_roles.statements(connection, roles) if f" TO {tenant_roles.quoted(own)}" in each]:
        found.append(Fault(f"the tools' role {own} cannot take the roles of tenancy", _ask(missing)))
    filed = [file for file in files if file.policies]
    lacks = needs.lacks(connection, filed)
    found += [Fault(f"{file.name} is not applicable: {lacks[file.name]}", TABLES) for file in filed if file.name in lacks]
    entries, keys = ledger.read(connection), list[str]()
    for file in (each for each in filed if each.name not in lacks):
        if entry := entries.get(file.name):
            keys += entry.triggers
            states = policies.states(connection, file, entry)
            found += [Fault(f"{name}: {state}, {note}", INSTALL) for name, state, note in states if state != "INSTALLED"]
        else:
            found.append(Fault(f"{file.name} was never installed here", _install(file, entries)))
    asked = {"role": roles.application, "policies": keys}
    views = {key for entry in entries.values() for key in entry.functions}  # what a file makes, an install mends
    for says, statement in search_path.rows(connection, REACHED, asked):
        of_file = says.partition(" reads ")[0] in views
        found.append(Fault(says, INSTALL if of_file else in_shell(statement)))
    excluded = {ledger.qualified(name) for file in filed for policy in file.policies for name in policy.exclude}
    tables = tenant_tables.read(connection) if tables is None else tables
    return [*found, *_without_column(connection, roles, excluded, tables)]


def _of_roles(connection: Connection, roles: Roles) -> Iterator[Fault]:
    quoted = {role: tenant_roles.quoted(role) for role in (roles.application, roles.system)}
    for role in quoted:
        for (power,) in search_path.rows(connection, POWERS, {"role": role}):
            options = {"is a s": f"ALTER ROLE {quoted[role]} NOSUPERUSER", "has BY": f"ALTER ROLE {quoted[role]} NOBYPASSRLS"}
            mend = options.get(power[:6], "") if " as a member" not in power else ""
            mend = mend or f"REASSIGN OWNED BY {quoted[role]} TO CURRENT_USER, or REVOKE its membership"
            yield Fault(f"role {role} {power}", f"ask the administrator for: {mend}")
        if connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (role,)).fetchone() == (True,):
            yield Fault(f"role {role} may log in", f"ask the administrator for: ALTER ROLE {quoted[role]} NOLOGIN")
    query = "SELECT pg_has_role(%s, %s, 'MEMBER')"
    if connection.execute(query, (roles.application, roles.system)).fetchone() == (True,):
        mend = f"REVOKE {quoted[roles.system]} FROM {quoted[roles.application]}"
        yield Fault(f"role {roles.application} is a member of {roles.system}", f"ask the administrator for: {mend}")


def _without_column(
    connection: Connection, roles: Roles, excluded: set[str], tables: dict[int, TenantTable]
) -> Iterator[Fault]:
    """The tables whose rows belong to rows of one hospital, by a foreign key, and that say of none which one."""
    query = "SELECT oid::int8 FROM pg_class WHERE relkind IN ('r', 'p') AND has_table_privilege(%s, oid, 'SELECT')"
    readable = {oid for (oid,) in connection.execute(query, (roles.application,)).fetchall()}
    leading = {oid for oid, table in tables.items() if table.has_tenant and table.required}
    added = leading
    while added:  # a table that leads to one that leads to a hospital's row
        added = {
            oid
            for oid, table in tables.items()
            if oid not in leading and not table.has_tenant and any(key.target in leading for key in table.foreign_keys)
        }
        leading = leading | added
    for oid in (each for each in tables if each in leading and not tables[each].has_tenant and each in readable):
        if ledger.qualified(tables[oid].name) in excluded:
            continue
        to = next(tables[key.target].name for key in tables[oid].foreign_keys if key.target in leading)
        yield Fault(f"table {tables[oid].name} has no {TENANT}, and its rows belong to rows of {to}", TABLES)


def of_login(connection: Connection, roles: Roles) -> list[Fault]:
    """By what the login of the application passes by the policies, or cannot take the roles.

    Args:
        connection: the database.
        roles: its roles, and the login.
    """
    login = roles.login or str(connection.info.user)
    asked = {"role": login}
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %(role)s", asked).fetchone() is None:
        return [
            Fault(f"there is no role {login}", f"ask the administrator for: CREATE ROLE {tenant_roles.quoted(login)} LOGIN")
        ]
    found = [
        Fault(
            f"the login {login} {power}: the policies do not bind it",
            "write another login into the application's URL, and this one into the tools' (the environment's ..._ADMIN_URL)",
        )
        for (power,) in search_path.rows(connection, POWERS, asked)
    ]
    if not found and (missing := [each for each in tenant_roles.statements(connection, roles) if each.startswith("GRANT ")]):
        wanted = [each for each in missing if f" TO {tenant_roles.quoted(login)}" in each]
        found += [Fault(f"the login {login} is no member of the roles of tenancy", _ask(wanted))] if wanted else []
    if not found and connection.execute("SELECT pg_has_role(%s, %s, 'USAGE')", (login, roles.system)).fetchone() == (True,):
        quoted = tenant_roles.quoted(login)
        mend = f"GRANT {tenant_roles.quoted(roles.system)} TO {quoted} WITH INHERIT FALSE"
        mend = mend if connection.info.server_version >= 160_000 else f"ALTER ROLE {quoted} NOINHERIT"
        found.append(Fault(f"the login {login} has the rights of {roles.system} without SET ROLE", _ask([mend])))
    return found


def definers(connection: Connection, roles: Roles) -> list[str]:
    """The functions that work with the rights of an owner above the policies, and that the application may call.

    Args:
        connection: the database.
        roles: its roles, which exist.
    """
    query = f"""
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_roles r ON r.oid = p.proowner
        WHERE p.prosecdef AND p.prorettype <> 'trigger'::regtype AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
          AND (r.rolsuper OR r.rolbypassrls OR pg_has_role(r.oid, %(system)s, 'USAGE')) AND {objects.FUNCTION} ORDER BY 1
    """  # noqa: S608
    asked = {"role": roles.application, "system": roles.system}
    return [name for (name,) in search_path.rows(connection, query, asked)]


def _install(file: SqlFile | None, entries: dict[str, ledger.Entry]) -> str:
    """The command that installs a file: where an adoption has left others alone, too, one without its name makes these."""
    return f"{INSTALL} --name={file.name}" if file and file.name not in entries else INSTALL


def _ask(statements: list[str]) -> str:
    return f"ask the administrator for: {'; '.join(statements)}"
