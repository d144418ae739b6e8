"""Remedies as they have to be typed: for the environment that was meant, and with the confirmation that it asks for."""

from __future__ import annotations

import re
from shlex import quote

from skinspire_db.patterns import lazy_regex

COMMAND = lazy_regex(
    r"invoke ((?:db|backup|migrate|triggers|sql|scale|mask|snapshot)\.\w+)"
    r"((?: --?[a-z][\w-]*(?:[= ](?:\"[^\"]*\"|'[^']*'|[^\s,;:()-][^\s,;()]*))?)*)"
)
PROGRAM = "invoke"  # what the person has typed; skinspire-db on a machine without a tasks.py
WITHOUT_ENV = ("triggers.bump", "sql.bump")
CONFIRMED = (
    "db.undo",
    "migrate.stamp",
    "migrate.downgrade",
    "backup.restore",
    "snapshot.take",
    "snapshot.restore",
    "snapshot.drop",
)  # asked for in a protected environment


def in_shell(statement: str) -> str:
    """The remedy that is a statement of SQL, or a command of psql."""
    return f"type in invoke db.shell --env={{env}}: {statement}"


def ending(environment: str, database: str, pid: object) -> str:
    """The command that ends a session."""
    return f"invoke db.activity --env={environment} --end={pid} --confirm={quote(database)}"


def shortened(text: str, longest: int = 160) -> str:
    """The beginning of a long text; all of it is printed beside."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def as_typed(text: str) -> str:
    """The text with its commands as this program is called."""
    return text if PROGRAM == "invoke" else re.sub(r"\binvoke (?=[\w-])", f"{PROGRAM} ", text)


def complete(text: str, environment: str, *, given: bool, database: str = "", protected: bool = False) -> str:
    """The text with every command of ours in it as it helps when typed.

    Args:
        text: a remedy or another sentence with `invoke ...` in it.
        environment: the one that the failed command was meant for.
        given: whether it was typed; without --env the active one is meant, by the remedy too.
        database: its database's name, for --confirm.
        protected: whether it asks for confirmations. Making anew is no remedy there: db.prepare loses nothing.
    """

    def one(found: re.Match[str]) -> str:
        command, flags = found[1], found[2]
        elsewhere = re.search(r"--(?:env|target)[= ](?!" + re.escape(environment) + r"(?:\s|$))", flags)
        if given and command not in WITHOUT_ENV and not re.search(r"--(?:env|target)\b", flags):
            flags = f" --{'target' if command == 'db.copy' else 'env'}={environment}{flags}"
        if protected and not elsewhere and "--confirm" not in flags:
            if command == "db.setup":
                command = "db.prepare"
            elif command in CONFIRMED and database:
                flags += f" --confirm={quote(database)}"
        return f"invoke {command}{flags}"

    return COMMAND.sub(one, text.replace("{env}", environment))
