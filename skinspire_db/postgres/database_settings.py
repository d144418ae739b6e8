"""What belongs to a database but is in none: grants on it, ALTER DATABASE ... SET, its comment and connection limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Property = list[str]  # what it is, and its values


def read(connection: Connection) -> list[Property]:
    """The properties of the connection's database, as data that JSON can hold."""
    properties: list[Property] = []
    row = connection.execute(
        "SELECT datconnlimit::text, shobj_description(oid, 'pg_database'), datacl IS NOT NULL FROM pg_database"
        " WHERE datname = current_database()"
    ).fetchone()
    assert row
    properties.append(["limit", row[0]])
    if row[1] is not None:
        properties.append(["comment", row[1]])
    if row[2]:
        properties.append(["revoke"])
    grants = connection.execute(
        "SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable::text"
        " FROM pg_database, aclexplode(datacl) WHERE datname = current_database() AND grantee <> datdba ORDER BY 1, 2"
    ).fetchall()
    properties += [["grant", *each] for each in grants]
    settings = connection.execute(
        "SELECT CASE setrole WHEN 0 THEN '' ELSE pg_get_userbyid(setrole) END, s"
        " FROM pg_db_role_setting, unnest(setconfig) WITH ORDINALITY AS u (s, n)"
        " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, n"
    ).fetchall()
    return properties + [["set", *each] for each in settings]


def locale(connection: Connection) -> str:
    """Encoding and locale of the connection's database, as CREATE DATABASE takes them."""
    from psycopg import sql

    row = connection.execute(
        "SELECT pg_encoding_to_char(encoding), datlocprovider::text, datcollate, datctype,"
        " coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'), to_jsonb(d) ->> 'daticurules'"
        " FROM pg_database d WHERE datname = current_database()"
    ).fetchone()
    assert row
    encoding, provider, collate, ctype, name, rules = row
    named = {"i": "LOCALE_PROVIDER icu ICU_LOCALE {}", "b": "LOCALE_PROVIDER builtin BUILTIN_LOCALE {}"}
    parts = [sql.SQL("ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(encoding, collate, ctype)]
    if provider in named:
        parts.append(sql.SQL(named[provider]).format(name))
    if rules:
        parts.append(sql.SQL("ICU_RULES {}").format(rules))
    return sql.SQL(" ").join(parts).as_string()


def write(connection: Connection, database: str, properties: list[Property]) -> list[str]:
    """Give the connection's database, which has that name, these properties; the connection is in autocommit.

    Returns:
        What was left out, a sentence each: what names a role that does not exist, or may not be set.
    """
    import psycopg

    present = {role for (role,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
    left: list[str] = []
    for kind, *values in properties:
        role = values[0] if kind in ("grant", "set") else ""
        if role and role not in present:
            left.append(f"{kind} of role {role}, which does not exist")
            continue
        try:
            _apply(connection, database, kind, values)
        except psycopg.errors.InsufficientPrivilege:
            left.append(f"{kind} {' '.join(values)}: the role may not")
    return left


def _apply(connection: Connection, database: str, kind: str, values: list[str]) -> None:
    from psycopg import sql

    name = sql.Identifier(database)
    match kind, values:
        case "limit", [limit]:
            connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(int(limit))))
        case "comment", [text]:
            connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, text))
        case "revoke", []:
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        case "grant", [role, ("CREATE" | "CONNECT" | "TEMPORARY") as privilege, grantable]:
            grantee = sql.Identifier(role) if role else sql.SQL("PUBLIC")
            option = sql.SQL(" WITH GRANT OPTION" if grantable == "true" else "")
            connection.execute(sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(sql.SQL(privilege), name, grantee, option))
        case "set", [role, setting]:
            key, _, value = setting.partition("=")
            of = (
                sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), name)
                if role
                else sql.SQL("DATABASE {}").format(name)
            )
            with connection.transaction():
                connection.execute("SET TRANSACTION READ WRITE")  # the setting may be that transactions are read only
                connection.execute(
                    "SELECT pg_catalog.set_config(%s, %s, false)", (key, value)
                )  # as it is stored: FROM CURRENT is exact
                connection.execute(sql.SQL("ALTER {} SET {} FROM CURRENT").format(of, sql.Identifier(*key.split("."))))
            connection.execute(sql.SQL("RESET {}").format(sql.Identifier(*key.split("."))))  # it is not for this session
