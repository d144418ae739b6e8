"""The two roles of a database with tenancy: making them, their rights, and who is a member of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects, row_security
from skinspire_db.config import tenancy
from skinspire_db.config.environment import Environment
from skinspire_db.config.tenancy import Roles
from skinspire_db.errors import PermissionMissing
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import POLICY
from skinspire_db.postgres.target import target_of

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

MAY_MAKE_ROLES = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
# What each role lacks; `wanted` are the rights of an application. Nothing is granted on materialized views, which have no
# policies, nor on functions with their owner's rights, which are above them.
LACKING = f"""
    WITH schemas AS ({objects.APPLICATION_SCHEMAS}), roles AS (SELECT unnest(%(roles)s::text[]) AS role),
    wanted (what, may, role) AS (
        SELECT 'SCHEMA ' || quote_ident(s.nspname),
               CASE WHEN NOT has_schema_privilege(role, s.oid, 'USAGE') THEN 'USAGE' END, role FROM schemas s, roles
        UNION ALL
        SELECT format('%%I.%%I', n.nspname, c.relname),
               (SELECT string_agg(may, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS may
                WHERE NOT has_table_privilege(role, c.oid, may)), role
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, roles
        WHERE c.relkind IN ('r', 'p', 'v') AND {objects.RELATION} AND {objects.NOT_ALEMBICS}
        UNION ALL
        SELECT format('SEQUENCE %%I.%%I', n.nspname, c.relname),
               CASE WHEN c.relkind = 'S' AND NOT has_sequence_privilege(role, c.oid, 'USAGE') THEN 'USAGE, SELECT' END, role
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, roles WHERE c.relkind = 'S' AND {objects.RELATION}
        UNION ALL
        SELECT format('ROUTINE %%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
               CASE WHEN NOT has_function_privilege(role, p.oid, 'EXECUTE') THEN 'EXECUTE' END, role
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, roles
        WHERE NOT p.prosecdef AND p.prorettype <> 'trigger'::regtype AND {objects.FUNCTION}
    )
    SELECT format('GRANT %%s ON %%s TO %%I', may, what, role) FROM wanted WHERE may IS NOT NULL
"""  # noqa: S608
# What the application's role has and may not have: these pass by the policies, or let it stand in the way of others.
EXCESS = f"""
    SELECT format('REVOKE %%s ON %%s FROM %%I', CASE WHEN c.relkind = 'm' THEN 'ALL' ELSE 'TRUNCATE, REFERENCES, TRIGGER' END,
                  format('%%I.%%I', n.nspname, c.relname), %(role)s::text)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) AS a
    WHERE a.grantee = (SELECT oid FROM pg_roles WHERE rolname = %(role)s) AND {objects.RELATION}
      AND (c.relkind = 'm' OR c.relkind IN ('r', 'p', 'v') AND a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER'))
    GROUP BY 1
"""  # noqa: S608
# A get_db_session block over all hospitals writes its reason into the journal.
JOURNAL = """
    SELECT format('GRANT USAGE ON SCHEMA skinspire_tools TO %%1$I; GRANT INSERT ON skinspire_tools.journal TO %%1$I', role)
    FROM unnest(%(system)s::text[]) AS role
    WHERE to_regclass('skinspire_tools.journal') IS NOT NULL AND NOT (has_schema_privilege(role, 'skinspire_tools', 'USAGE')
        AND has_table_privilege(role, 'skinspire_tools.journal', 'INSERT'))
"""
MADE = "made by skinspire-db for tenancy, with the members "  # the comment on a role, which says who may drop it
LATER = f"""
    SELECT format('ALTER DEFAULT PRIVILEGES IN SCHEMA %%I GRANT %%s TO %%I', s.nspname, kind.may, role)
    FROM ({objects.APPLICATION_SCHEMAS}) AS s, unnest(%(roles)s::text[]) AS role,
         (VALUES ('r', 'SELECT, INSERT, UPDATE, DELETE ON TABLES'), ('S', 'USAGE, SELECT ON SEQUENCES')) AS kind (letter, may)
    WHERE NOT EXISTS (
        SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) AS a
        WHERE d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND d.defaclnamespace = s.oid
          AND d.defaclobjtype = kind.letter::"char" AND a.grantee = (SELECT oid FROM pg_roles WHERE rolname = role))
"""  # noqa: S608


def of(environment: Environment) -> Roles | None:
    """The roles of the environment's database; None where tenancy is off.

    Args:
        environment: the environment.

    Raises:
        InvalidSetting: `tenancy` is neither true nor false, or the URL cannot be used.
    """
    if not tenancy.is_on(environment.project):
        return None
    login = target_of(environment, start=False, application=True).user
    return Roles(target_of(environment, start=False).database, login)


def make(connection: Connection, files: Iterable[SqlFile]) -> None:
    """Make the roles that policy files need and that are missing, where this role may make roles.

    The login of the application becomes a member of both, without inheriting their rights: it has to take one by SET ROLE. So
    does this role, which inherits those of the system role: the policies hold for the owner of the tables too.

    Args:
        connection: where; in the caller's transaction.
        files: the files that are installed.

    Raises:
        PermissionMissing: this role may not make roles, or may not see all rows; with the statements for the administrator.
    """
    roles = of_files(files)
    if roles is None:
        return
    missing = statements(connection, roles)
    if any(each.startswith("CREATE ROLE") for each in missing):
        if connection.execute(MAY_MAKE_ROLES).fetchone() != (True,):
            raise PermissionMissing(
                f"the roles of tenancy are missing, and role {connection.info.user} may not make them",
                remedy=f"ask the administrator for: {'; '.join(missing)}",
            )
        made = [
            each.removeprefix("CREATE ROLE ").removesuffix(" NOLOGIN") for each in missing if each.startswith("CREATE ROLE")
        ]
        comment = _literal(MADE + ", ".join(dict.fromkeys((connection.info.user, roles.login or connection.info.user))))
        missing += [f"COMMENT ON ROLE {role} IS {comment}" for role in made]
        connection.execute("; ".join(missing).encode())


def statements(connection: Connection, roles: Roles) -> list[str]:
    """The statements that make what is missing of the roles and their members.

    Args:
        connection: the database.
        roles: its roles.
    """
    present, own = _present(connection), connection.info.user
    found = [f"CREATE ROLE {quoted(role)} NOLOGIN" for role in (roles.application, roles.system) if role not in present]
    for member in dict.fromkeys((own, roles.login)):
        superuser, bypasses = present.get(member, (True, True))  # of a login that is not there yet, nothing can be asked
        for role in (roles.application, roles.system) if not superuser else ():
            inherit = member == own and role == roles.system and not bypasses
            if role not in present or not _is_member(connection, member, role, inherit=inherit):
                options = f" WITH INHERIT {str(inherit).upper()}, SET TRUE" if _has_options(connection) else ""
                found.append(f"GRANT {quoted(role)} TO {quoted(member)}{options}")
    asked = "SELECT rolinherit AND NOT rolsuper FROM pg_roles WHERE rolname = %s"
    if (
        roles.login != own
        and not _has_options(connection)
        and connection.execute(asked, (roles.login,)).fetchone() == (True,)
    ):
        found.append(f"ALTER ROLE {quoted(roles.login)} NOINHERIT")
    return found


def grant(connection: Connection, files: Iterable[SqlFile]) -> int:
    """Give the roles the rights of an application on what is there now and on what this role will make, and no more.

    Args:
        connection: where; in the caller's transaction, after the policies are made.
        files: the files that are installed.

    Returns:
        How many rights were given or taken.

    Raises:
        PermissionMissing: this role does not see all rows from now on.
    """
    roles = of_files(files)
    if roles is None:
        return 0
    asked = {"roles": [roles.application, roles.system], "role": roles.application, "system": [roles.system]}
    found = [
        statement
        for query in (LACKING, EXCESS, LATER, JOURNAL)
        for (statement,) in connection.execute(query.encode(), asked).fetchall()
    ]
    if found:
        connection.execute("; ".join(found).encode())
    row_security.require_all_rows(connection)
    return len(found)


def made(connection: Connection, files: Iterable[SqlFile]) -> list[SqlFile]:
    """The files without policy files whose roles do not exist: a look makes none.

    Args:
        connection: the database.
        files: the project's SQL files.
    """
    present = _present(connection)
    return [
        file
        for file in files
        if file.kind is not POLICY or (file.roles and {file.roles.application, file.roles.system} <= present.keys())
    ]


def of_files(files: Iterable[SqlFile]) -> Roles | None:
    """The roles that the policy files among these are for; None where there is no such file.

    Args:
        files: SQL files.
    """
    return next((file.roles for file in files if file.kind is POLICY), None)


def _present(connection: Connection) -> dict[str, tuple[bool, bool]]:
    """All roles, and whether each is a superuser, and is above row security."""
    rows = connection.execute("SELECT rolname, rolsuper, rolsuper OR rolbypassrls FROM pg_roles").fetchall()
    return {name: (superuser, bypasses) for name, superuser, bypasses in rows}


def _has_options(connection: Connection) -> bool:
    return bool(
        connection.info.server_version >= 160_000
    )  # memberships say whether they inherit, and whether SET ROLE may be used


def _is_member(connection: Connection, member: str, role: str, *, inherit: bool) -> bool:
    may = "SET" if _has_options(connection) else "MEMBER"
    query = "SELECT pg_has_role(%(m)s, %(r)s, %(may)s) AND (pg_has_role(%(m)s, %(r)s, 'USAGE') OR NOT %(inherit)s)"
    return connection.execute(query, {"m": member, "r": role, "may": may, "inherit": inherit}).fetchone() == (True,)


def quoted(name: str) -> str:
    """The role's name, quoted where it must be.

    Args:
        name: the name.
    """
    from psycopg import sql

    return sql.Identifier(name).as_string()


def _literal(text: str) -> str:
    from psycopg import sql

    return sql.Literal(text).as_string()
