"""Whether a role sees all rows of the tables with row security: policies hide rows from their owner too, in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.errors import PermissionMissing
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# The tables whose policies this role is under, and of these, whether one lets it see every row and none takes some away.
UNDER = """
    SELECT c.oid::regclass::text,
           coalesce(bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true'), false)
               AND NOT coalesce(bool_or(NOT p.polpermissive), false)
    FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polcmd IN ('*', 'r') AND EXISTS (
        SELECT FROM unnest(p.polroles) AS r WHERE r = 0 OR pg_has_role(current_user, r, 'USAGE'))
    WHERE c.relrowsecurity AND row_security_active(c.oid) GROUP BY c.oid ORDER BY 1
"""


def hidden(connection: Connection) -> tuple[list[str], bool]:
    """The tables of which this role does not see all rows, and whether it is under any policy at all.

    Args:
        connection: the database.
    """
    rows = search_path.rows(connection, UNDER)
    return [table for table, whole in rows if not whole], bool(rows)


def require_all_rows(connection: Connection) -> bool:
    """Make sure that this role sees all rows of all tables.

    Args:
        connection: the database.

    Returns:
        Whether it is under policies, which let it see all: it then needs `row_security = on`, and may not COPY into a table.

    Raises:
        PermissionMissing: some rows are hidden from it.
    """
    tables, under = hidden(connection)
    if tables:
        role, more = connection.info.user, f" and {len(tables) - 1} more tables" if tables[1:] else ""
        raise PermissionMissing(
            f"row security hides rows of {tables[0]}{more} from role {role}: only a part would be seen",
            remedy=f'ask the administrator for: ALTER ROLE "{role}" BYPASSRLS; or for membership in the role that sees all'
            " rows, which invoke db.doctor --env={env} names",
        )
    return under
