"""Extensions that a dump asks for and its new server has not got: left out, unless a definition of the dump needs them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import TYPE_CHECKING

from skinspire_db.copies.absent_roles import unquoted
from skinspire_db.copies.dump_sql import Piece, bare, bare_text, normal
from skinspire_db.copies.dump_statements import NAME
from skinspire_db.errors import StepFailed
from skinspire_db.patterns import lazy_regex

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SHOWN = 5  # of what needs an extension
# What PostgreSQL could not find: its last name, without arguments. `operator does not exist` has its name behind.
NOT_FOUND = lazy_regex(r'([\w$]+)"?(?:\([^()]*\))?(?: for access method "\w+")? does not exist|operator does not exist: (.+)')
DEFINED = lazy_regex(
    rf"(?:CREATE|ALTER) (?:OR REPLACE )?(?:UNIQUE |TRUSTED |RECURSIVE |UNLOGGED )*(?P<kind>MATERIALIZED VIEW|[A-Z]+)"
    rf" (?:IF NOT EXISTS |ONLY )?(?P<name>{NAME}(?:\.{NAME})?)(?: ON (?:ONLY )?(?P<table>{NAME}(?:\.{NAME})?))?"
)
GRANTED_ON = lazy_regex(rf"(?:GRANT|REVOKE) .*? ON (?:[A-Z]+ )+(?P<schema>{NAME})(?:\.(?P<name>{NAME}))?[ (]", re.DOTALL)
# What functions call of the extensions that dumps ask for most: PostgreSQL looks into bodies only when they run.
CALLS = {
    "uuid-ossp": r"uuid_(generate_v\d|ns_|nil)",
    "pgcrypto": r"(crypt|gen_salt|digest|hmac|pgp_\w+|gen_random_bytes)\s*\(",
    "pg_trgm": r"(similarity|show_trgm|word_similarity)\s*\(",
    "unaccent": r"unaccent\s*\(",
    "tablefunc": r"(crosstab\w*|connectby|normal_rand)\s*\(",
    "dblink": r"dblink\w*\s*\(",
    "postgis": r"st_\w+\s*\(",
}
CALLING = """
    SELECT format('%%I.%%I', n.nspname, p.proname)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid >= 16384 AND p.prosrc ~* ('\\m' || %s) AND p.proname !~* ('^' || %s) ORDER BY 1
"""
THERE = """
    SELECT n.nspname, p.proname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    UNION SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    UNION SELECT n.nspname, t.typname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    UNION SELECT n.nspname, '' FROM pg_catalog.pg_namespace n
"""


def entries(name: str) -> str:
    """The pattern of an extension's entries in an archive's table of contents: itself and its comment."""
    return rf'\d+; \d+ \d+ (COMMENT - )?EXTENSION (- )?"?{re.escape(name)}(?![\w-])'


def granted(statements: Iterable[str], connection: Connection) -> list[str]:
    """The grants without those on the functions, types and tables of absent extensions, which no dump defines.

    Args:
        statements: GRANT and REVOKE, as pg_dump writes them.
        connection: to the database in which everything else is there.
    """
    there = {(str(schema), str(name)) for schema, name in connection.execute(THERE.encode()).fetchall()}

    def is_there(statement: str) -> bool:
        on = GRANTED_ON.match(statement)
        return on is None or (unquoted(on["schema"]), unquoted(on["name"] or "")) in there

    return [statement for statement in statements if is_there(statement)]


def explained(error: StepFailed, absent: Set[str], pieces: Iterable[Piece]) -> StepFailed:
    """The error of a restore that left extensions out, with what of the dump needs them.

    Args:
        error: what psql or pg_restore said.
        absent: the extensions that were left out.
        pieces: the statements of the dump.

    Returns:
        The same error where it is about something else.
    """
    missing = NOT_FOUND.search(error.message)
    if not absent or missing is None:
        return error
    reason = error.message.partition(" failed: ")[2] or error.message
    word = missing[1] or missing[2]
    needing = _needing(re.compile(rf"(?<![\w$]){re.escape(word)}(?![\w$])"), pieces) if missing[1] else []
    shown = ", ".join(needing[:SHOWN]) + (f", and {len(needing) - SHOWN} more" if needing[SHOWN:] else "")
    names = _names(absent)
    return StepFailed(
        f"the server has not got {names}, which the dump asks for, and {shown or 'a definition'} needs it: {reason}",
        remedy=f"install {names} on that server (most are in its package postgresql-contrib), and run it again",
    )


def notes(connection: Connection, absent: Set[str]) -> list[str]:
    """A sentence for each extension that was left out from a dump that is restored now."""
    found = []
    for name in sorted(absent):
        calls = CALLS.get(name, "")
        rows = connection.execute(CALLING.encode(), (calls, calls)).fetchall() if calls else []
        calling = [str(function) for (function,) in rows]
        shown = ", ".join(calling[:SHOWN]) + (f", and {len(calling) - SHOWN} more" if calling[SHOWN:] else "")
        uses = f"these functions call it, and will fail: {shown}" if calling else "nothing that the dump defines needs it"
        found.append(f"left out: the extension {name}, which the server has not got; {uses}")
    return found


def _needing(word: re.Pattern[str], pieces: Iterable[Piece]) -> list[str]:
    """What the dump defines with that word: kind and name. What is of a table is the table."""
    found: dict[str, None] = {}
    for kind, piece in pieces:
        if kind != "statement" or not bare(piece).startswith((b"CREATE ", b"ALTER ")) or not word.search(bare_text(piece)):
            continue
        text = normal(piece)
        if (defined := DEFINED.match(text)) and defined["kind"] not in ("SCHEMA", "EXTENSION"):
            found[f"{defined['kind'].lower()} {_written(piece, defined['table'] or defined['name'])}"] = None
    return list(found)


def _written(piece: bytes, name: str) -> str:
    """A name as the statement writes it: its text in `normal` has capitals."""
    found = re.search(re.escape(name), bare_text(piece), re.IGNORECASE)
    return found[0] if found else name


def _names(absent: Set[str]) -> str:
    return f"the extension{'s' if len(absent) > 1 else ''} {', '.join(sorted(absent))}"
