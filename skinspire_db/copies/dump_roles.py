"""A role without superuser rights that restores a dump of others: what its functions do, they do with that role's rights."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from skinspire_db.errors import SkinspireError
from skinspire_db.postgres import connections, error_text
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from psycopg.sql import Composable

    from skinspire_db.postgres.connections import Connection

HOURS = 24  # how long the role could sign in, should this process be killed


@contextlib.contextmanager
def restorer(aside: Target, tell: Callable[[str], None]) -> Iterator[Target]:
    """The scratch database as a role sees it that owns it and has no other right. What the role owns is the present role's
    at the end, and the role is gone. Where the present role may make none, or it cannot sign in, the present role itself;
    if that is a superuser, `tell` says so.
    """
    import psycopg
    from psycopg import sql

    name = f"skinspire_restore_{secrets.token_hex(6)}"
    role, password = sql.Identifier(name), secrets.token_urlsafe(24)
    with contextlib.closing(connections.connect(aside, "backup.restore")) as admin:
        connections.autocommit(admin)
        is_super, may_make = _rights(admin)
        if not (is_super or may_make):
            yield aside
            return
        _sweep(admin)
        hashed = admin.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        try:
            _make(admin, role, hashed, is_super, aside.database)
            lent = replace(aside, parameters=aside.parameters | {"user": name, "password": password})
            connections.connect(lent, "backup.restore").close()
        except (psycopg.Error, SkinspireError) as error:
            _drop(admin, role, aside.database)
            why = error_text.sentence(error) if isinstance(error, psycopg.Error) else error.message
            if is_super:
                tell(
                    f"the dump was restored with the rights of {aside.user}, a superuser; no lesser role could be used: {why}"
                )
            yield aside
            return
        try:
            yield lent
        finally:
            _drop(admin, role, aside.database)


def _sweep(admin: Connection) -> None:
    """Drop the roles of restores that died. One that is in use owns its database, and stays."""
    import psycopg
    from psycopg import sql

    for (name,) in admin.execute(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname ~ '^skinspire_restore_[0-9a-f]{12}$'"
    ).fetchall():
        with contextlib.suppress(psycopg.Error):
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _rights(admin: Connection) -> tuple[bool, bool]:
    row = admin.execute("SELECT rolsuper, rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user").fetchone()
    return bool(row and row[0]), bool(row and row[1])


def _make(admin: Connection, role: Composable, hashed: str, is_super: bool, database: str) -> None:
    """Make the role, and give it the database. BYPASSRLS is for policies that the dump itself brings."""
    from psycopg import sql

    options = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION" + (" BYPASSRLS" if is_super else "")
    made = sql.SQL("CREATE ROLE {} {} PASSWORD {} VALID UNTIL {}")
    with admin.transaction():
        until = admin.execute("SELECT (now() + make_interval(hours => %s))::text", (HOURS,)).fetchone()
        assert until
        admin.execute(made.format(role, sql.SQL(options), sql.Literal(hashed), sql.Literal(until[0])))
        if not is_super:
            admin.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), role))


def _drop(admin: Connection, role: Composable, database: str) -> None:
    """What the role has becomes the present role's; the database's own settings, which an owner may change, are reset."""
    import psycopg
    from psycopg import sql

    with contextlib.suppress(psycopg.Error):
        reset = "ALTER DATABASE {} RESET ALL; ALTER DATABASE {0} CONNECTION LIMIT -1 ALLOW_CONNECTIONS true IS_TEMPLATE false"
        admin.execute(sql.SQL(reset.replace("{}", "{0}")).format(sql.Identifier(database)))
    with contextlib.suppress(psycopg.Error), admin.transaction():
        admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
        admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
        admin.execute(sql.SQL("DROP ROLE {}").format(role))
