"""Roles of tenancy that a database needs no more: those of the one it was copied from, and all where tenancy is off."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.config.tenancy import Roles
from skinspire_db.objects.tenant_roles import MADE, quoted

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# The roles of the policies that are for another database's system role, and the application's beside it.
FORMER = """
    SELECT r.rolname::text FROM pg_roles r WHERE r.rolname IN (
        SELECT unnest(ARRAY[s.rolname, regexp_replace(s.rolname, '_system$', '_app')]) FROM pg_policy p JOIN pg_roles s
        ON s.oid = ANY (p.polroles) WHERE s.rolname ~ '_system$' AND s.rolname <> %s)
"""
# What `grant` gave to roles, to be taken from them. What a role has from another grantor, with the right to pass it on, or
# beside these rights is the operator's; REVOKE takes rights on columns with those on their table, so these are given again.
GIVEN = f"""
    WITH roles AS (SELECT oid, rolname FROM pg_roles WHERE rolname = ANY (%(roles)s)), own AS (
        SELECT c.oid, c.relkind, format('%%I.%%I', n.nspname, c.relname) AS shown, a.privilege_type AS may, r.rolname AS role, r.oid AS grantee
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) AS a, roles r
        WHERE a.grantee = r.oid AND a.grantor = c.relowner AND NOT a.is_grantable AND pg_has_role(a.grantor, 'USAGE')
          AND ({objects.RELATION} OR c.oid = to_regclass('skinspire_tools.journal'))
          AND (c.relkind IN ('r', 'p', 'v') AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
               OR c.relkind = 'S' AND a.privilege_type IN ('USAGE', 'SELECT'))
    )
    SELECT format('REVOKE %%s ON %%s %%s FROM %%I', string_agg(may, ', '), CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, shown, role)
    FROM own GROUP BY relkind, shown, role
    UNION ALL
    SELECT format('GRANT %%s (%%I) ON %%s TO %%I%%s', a.privilege_type, t.attname, o.shown, o.role, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM (SELECT DISTINCT oid, shown, role, grantee FROM own) AS o JOIN pg_attribute t ON t.attrelid = o.oid, aclexplode(t.attacl) AS a
    WHERE a.grantee = o.grantee
    UNION ALL
    SELECT format('REVOKE USAGE ON SCHEMA %%I FROM %%I', n.nspname, r.rolname) FROM pg_namespace n, aclexplode(n.nspacl) AS a, roles r
    WHERE a.grantee = r.oid AND a.grantor = n.nspowner AND a.privilege_type = 'USAGE' AND NOT a.is_grantable
      AND pg_has_role(a.grantor, 'USAGE')
    UNION ALL
    SELECT format('REVOKE EXECUTE ON ROUTINE %%s FROM %%I', p.oid::regprocedure, r.rolname)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) AS a, roles r
    WHERE a.grantee = r.oid AND a.grantor = p.proowner AND NOT a.is_grantable AND NOT p.prosecdef AND pg_has_role(a.grantor, 'USAGE')
      AND {objects.FUNCTION}
    UNION ALL
    SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I IN SCHEMA %%I REVOKE %%s FROM %%I', pg_get_userbyid(d.defaclrole), n.nspname,
                  CASE d.defaclobjtype WHEN 'r' THEN 'SELECT, INSERT, UPDATE, DELETE ON TABLES' ELSE 'USAGE, SELECT ON SEQUENCES' END, r.rolname)
    FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace, roles r
    WHERE d.defaclobjtype IN ('r', 'S') AND pg_has_role(d.defaclrole, 'MEMBER')
      AND EXISTS (SELECT FROM aclexplode(d.defaclacl) AS a WHERE a.grantee = r.oid)
    ORDER BY 1 DESC
"""  # noqa: S608, E501
# Of roles, what is said of each, who is a member of it, and whether anything still depends on it, in whatever database.
STAYING = """
    SELECT r.rolname::text, coalesce(shobj_description(r.oid, 'pg_authid'), ''),
           ARRAY(SELECT DISTINCT pg_get_userbyid(m.member)::text FROM pg_auth_members m WHERE m.roleid = r.oid),
           EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid)
    FROM pg_roles r WHERE r.rolname = ANY (%s) ORDER BY 1
"""


def former(connection: Connection, roles: Roles | None) -> list[str]:
    """The roles of other databases that the policies here are for, and the roles of applications beside them.

    Args:
        connection: the database.
        roles: its own roles, which are not among them; None where they are.
    """
    return [name for (name,) in connection.execute(FORMER, (roles.system if roles else "",)).fetchall()]


def take_away(connection: Connection, roles: Roles) -> None:
    """Take from the roles of the database that this one was copied from what was granted to them.

    Args:
        connection: the copy; in the caller's transaction.
        roles: its own roles, which keep theirs.
    """
    from psycopg import sql

    schemas = [name for _, name in connection.execute(objects.APPLICATION_SCHEMAS.encode()).fetchall()]
    others = former(connection, roles)
    statement = sql.SQL(
        "REVOKE ALL ON ALL TABLES IN SCHEMA {0} FROM {1}; REVOKE ALL ON ALL SEQUENCES IN SCHEMA {0} FROM {1};"
        " REVOKE ALL ON ALL ROUTINES IN SCHEMA {0} FROM {1}; REVOKE ALL ON SCHEMA {0} FROM {1};"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA {0} REVOKE ALL ON TABLES FROM {1};"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA {0} REVOKE ALL ON SEQUENCES FROM {1}"
    )
    for schema in schemas:
        for role in others:
            connection.execute(statement.format(sql.Identifier(schema), sql.Identifier(role)))


def of_tenancy(connection: Connection) -> list[str]:
    """The roles that the policies of a database are for: those of its own name, and those that the policies name.

    Args:
        connection: the database.
    """
    own = Roles(connection.info.dbname)
    return list({*former(connection, None), own.application, own.system})


def retire(connection: Connection, among: Collection[str]) -> list[str]:
    """Take back what tenancy gave: rights, default rights, and the roles with their members where the tools made these.

    Args:
        connection: the database; in the caller's transaction, when its policies are dropped.
        among: the roles that the policies were for.

    Returns:
        What to say of the roles that stay: the tools did not make them, or something else needs them.
    """
    given = [statement for (statement,) in connection.execute(GIVEN.encode(), {"roles": list(among)}).fetchall()]
    if given:
        connection.execute("; ".join(given).encode())
    own, staying = Roles(connection.info.dbname), []
    for role, comment, members, needed in connection.execute(STAYING, (list(among),)).fetchall():
        known = comment.removeprefix(MADE).split(", ") if comment.startswith(MADE) else []
        others = [member for member in members if member not in known]
        because = "the tools did not make it" if not known else f"{others[0]} is a member of it" if others else ""
        if because or needed:
            because = because or "other databases, or rights that an operator gave, need it"
            if role in (own.application, own.system):
                mend = f"DROP OWNED BY {quoted(role)}; DROP ROLE {quoted(role)}"
                staying.append(f"note: role {role} stays, as {because}; where it is not needed: {mend}")
        else:
            connection.execute(f"DROP ROLE {quoted(role)}".encode())
    return staying
