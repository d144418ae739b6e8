"""What PostgreSQL and libpq said when something failed, in our words, with a remedy and without the password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from skinspire_db.config.environment import admin_setting, url_setting
from skinspire_db.errors import ConnectionFailed, DatabaseMissing, InvalidSetting, SkinspireError
from skinspire_db.postgres.cluster import LOCKS

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.embedded_server import EmbeddedServer
    from skinspire_db.postgres.target import Target

# Why a connection was refused: a client that could not log in gets no SQLSTATE, only the server's text.
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
    return next((name for name, pattern in KINDS.items() if re.search(pattern, text)), "database")


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


def sentence(error: psycopg.Error) -> str:
    """What PostgreSQL said, in one line, without DETAIL and the value that is wrong, which can be patients' data."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    if (error.sqlstate or "").startswith("22"):
        text = re.sub(r': ".*"$|(?<=^value) ".*?"(?= is )', "", text, flags=re.DOTALL)
    setting = short_of_locks(error.diag.message_hint or "")
    return " ".join(text.split()) + (f" ({setting} is too small for so many tables)" if setting else "")


def is_lost(error: psycopg.Error) -> bool:
    """Whether it says that the connection or the server is gone."""
    import psycopg

    state = error.sqlstate or ""
    return state.startswith(("57P", "08")) or (not state and isinstance(error, psycopg.OperationalError))


def short_of_locks(hint: str) -> str | None:
    """The setting that PostgreSQL's hint names when a transaction needs more locks than the server has room for."""
    found = re.search(r"\bmax_(?:pred_)?locks_per_transaction\b", hint)
    return found[0] if found else None


def more_locks(setting: str, server: EmbeddedServer | None = None) -> str:
    """What gives a server room for more locks. An embedded one gets ours at its next start."""
    if server:
        where = server.data / "postgresql.conf"
        return f"invoke server.stop, and run it again; if that is not enough, raise {setting} in {where} before"
    return f"ask the administrator for: ALTER SYSTEM SET {setting} = {LOCKS}, and a restart of the server"


def install_extension(said: str) -> str | None:
    """Where an extension is to be had that the server has not got; None where the text says something else."""
    found = re.search(r'extension "([^"]+)" is not available', said)
    where = "most are in its package postgresql-contrib"
    return f"install the extension {found[1]} on that server ({where}), and run it again" if found else None


def refusal(error: psycopg.Error, target: Target) -> SkinspireError | None:
    """What the text alone tells, whatever databases there are."""
    # The server gives no SQLSTATE to a client that could not log in: there is only its text, in its own language.
    text = str(error)
    setting = target.setting or url_setting(target.environment)
    refused = kind(error)
    if refused == "option":
        return InvalidSetting(
            f"{setting} has an option that cannot be used: {text.splitlines()[0]}",
            remedy=f"correct {setting}=postgresql://user:password@host:5432/database?OPTION=VALUE",
        )
    if refused == "pooler":
        return InvalidSetting(
            f"{setting} leads through a pooler that does not take all of its options: {text.splitlines()[0]}",
            remedy=f"take them out of {setting}, and give the tools PostgreSQL itself in {admin_setting(target.environment)}",
        )
    if refused == "limit":
        return ConnectionFailed(f"{target.where} lets no more sessions in: {reason(error)}", remedy=more_connections(error))
    if "password" in text and ("authentication failed" in text or "no password supplied" in text):
        return ConnectionFailed(
            f"{target.where} refuses the password of role {target.user}"
            if "authentication failed" in text
            else f"role {target.user} needs a password at {target.where}",
            remedy=f"correct the password in {setting}; write special characters as %XX",
        )
    return None


def absence(error: psycopg.Error, target: Target, database: str, exists: bool | None) -> SkinspireError:
    """The error for a connection that was not refused: the database does not exist, or the server does not answer.

    Args:
        error: What psycopg said.
        target: Where it happened.
        database: The database that was wanted.
        exists: Whether it exists; None where the server could not be asked.
    """
    if exists is False:
        command = "db.prepare" if target.policy.database_per_branch else "db.setup"
        return DatabaseMissing(
            f"the database {database} does not exist", remedy=f"invoke {command} --env={target.environment}"
        )
    setting = target.setting or url_setting(target.environment)
    check = "invoke server.status" if target.server else f"invoke db.doctor --env={target.environment}, and check {setting}"
    return ConnectionFailed(f"cannot connect to {target}: {reason(error)}", remedy=check)
