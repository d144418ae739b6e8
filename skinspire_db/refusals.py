"""Why a connection was refused: a client that could not log in gets no SQLSTATE, only the server's text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import psycopg

Kind = Literal["option", "pooler", "limit", "host", "TLS", "password", "database"]
KINDS: dict[Kind, str] = {  # the first that fits; a server that speaks another language falls through to the last
    "option": r"invalid \S+ value|bad value for|invalid connection option",
    "pooler": r"unsupported startup parameter",  # PgBouncer's words
    "limit": r"too many (connections|clients)|connection slots",
    "host": r"pg_hba\.conf",
    "TLS": r"SSL|certificate",
    "password": r"password|authentication|role \"\" does not exist|not permitted to log in",
}


def kind(error: psycopg.Error) -> Kind:
    """What was refused. The names in the text are left out: a database may be called password."""
    text = re.sub(r'(["«„]).*?(["»“])', '""', str(error))
    return next((each for each, pattern in KINDS.items() if re.search(pattern, text)), "database")


def reason(error: psycopg.Error) -> str:
    """What was said, in one line and without the address."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = re.sub(r"^(connection failed: |connection is bad: |connection to server (at|on) .*? failed: )+", "", lines[0])
    return re.sub(r"^(FATAL|ERROR): +", "", text.strip()) or "no reason given"


def more_connections(error: psycopg.Error) -> str:
    """What lets one more session in: which limit was reached the text says."""
    if found := re.search(r'for (role|database) "(.+?)"', str(error)):
        return f'ask the administrator for: ALTER {found[1].upper()} "{found[2]}" CONNECTION LIMIT -1'
    return "end a session that is not needed, or raise max_connections"
