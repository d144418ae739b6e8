"""For whom PostgreSQL works in a transaction: the user that triggers record, the hospital and the role of the policies."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy
from psycopg import sql

SET_IDENTITY = sqlalchemy.text(
    "SELECT set_config('app.current_user', :user, true), set_config('app.current_hospital', :hospital, true)"
)


class Identity(NamedTuple):
    """The user, the hospital and the role of a transaction; '' is none of them."""

    user: str = ""
    hospital: str = ""
    role: str = ""

    def settings(self) -> tuple[bytes, ...]:
        """The statements that begin a transaction for this identity; none where it is nobody's.

        SET LOCAL and not set_config(): Citus hands only the former on to its workers, and it takes no snapshot, so that the
        application may still choose the isolation level.
        """
        if self == NO_IDENTITY:
            return ()
        role = [sql.SQL("SET LOCAL row_security = on"), sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(self.role))]
        settings = [
            *(role if self.role else ()),
            sql.SQL('SET LOCAL app."current_user" = {}').format(sql.Literal(self.user)),
            sql.SQL("SET LOCAL app.current_hospital = {}").format(sql.Literal(self.hospital)),
        ]
        return tuple(setting.as_bytes() for setting in settings)


NO_IDENTITY = Identity()


def change_identity(executor: Any, identity: Identity) -> None:
    """Tell PostgreSQL another user, and another hospital where tenancy is off, in a transaction that has begun."""
    executor.execute(SET_IDENTITY, {"user": identity.user, "hospital": identity.hospital})
