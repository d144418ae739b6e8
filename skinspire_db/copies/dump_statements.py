"""What the statements of a dump touch: the database that is restored, or also its server and other databases."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from skinspire_db.copies.dump_sql import normal
from skinspire_db.errors import BackupInvalid
from skinspire_db.patterns import lazy_regex

# keep: run it; later: run it with the administrator's rights when all else is there; skip: pg_dump's own way of saying
# where, which we know better; out: leave it out and say so; refuse: nothing of the dump is restored.
Verdict = Literal["keep", "later", "skip", "out", "refuse"]

NAME = r'(?:[\w$]+|"(?:[^"]|"")+")'
OURS = rf'(?!"?(?:pg_|information_schema)){NAME}'  # of no system schema
COLUMNS = r'\((?:[^()"]|"(?:[^"]|"")*")*\)'
RIGHT = r"(?:SELECT|INSERT|UPDATE|DELETE|TRUNCATE|REFERENCES|TRIGGER|MAINTAIN|USAGE|EXECUTE|CREATE|CONNECT|TEMPORARY|TEMP|SET"
RIGHT += r"|ALTER SYSTEM|ALL(?: PRIVILEGES)?)"
RIGHTS = rf"(?:GRANT OPTION FOR )?{RIGHT}(?: ?{COLUMNS})?(?:, ?{RIGHT}(?: ?{COLUMNS})?)*"
KINDS = (
    "TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE|INDEX|TYPE|DOMAIN|FUNCTION|PROCEDURE|AGGREGATE|OPERATOR|OPERATOR CLASS"
    "|OPERATOR FAMILY|COLLATION|CONVERSION|TEXT SEARCH DICTIONARY|TEXT SEARCH CONFIGURATION|STATISTICS"
)
# Exactly as pg_dump writes them, for they are run with the administrator's rights: what they name is of the dump's own
# schemas, and there can be no expression in any of these.
OWNED = lazy_regex(
    rf"ALTER (?:(?:TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE|INDEX) {OURS}\.{NAME}|SCHEMA {OURS}|LARGE OBJECT \d+"
    rf"|PUBLICATION {NAME}|(?!TABLE|VIEW|MATERIALIZED|SEQUENCE|INDEX)(?:{KINDS}) {OURS}\.[^;]*) OWNER TO {NAME};",
    re.DOTALL,
)
OBJECT = (
    rf"(?:(?:{KINDS}) {OURS}\.{NAME}(?: ?\([^;]*\))?|SCHEMA {OURS}|LARGE OBJECT \d+|TABLES|SEQUENCES|FUNCTIONS|TYPES|SCHEMAS)"
)
GRANTED = lazy_regex(
    rf"(?:ALTER DEFAULT PRIVILEGES(?: FOR ROLE {NAME})?(?: IN SCHEMA {NAME})? )?(?:GRANT|REVOKE) {RIGHTS} ON {OBJECT}"
    rf" (?:TO|FROM) {NAME}(?: WITH GRANT OPTION)?;",
    re.DOTALL,
)
LATER = lazy_regex(r"(CREATE|ALTER|COMMENT ON) PUBLICATION ")
COMMAND = lazy_regex(rb"\\(connect|restrict|unrestrict)\b")  # the commands for psql that pg_dump writes; none is carried out
TRANSACTION = lazy_regex(
    r"(COMMIT|END|ROLLBACK|ABORT|BEGIN|START TRANSACTION|PREPARE TRANSACTION|SAVEPOINT|RELEASE)\b(?! ATOMIC)"
)
PROGRAM = lazy_regex(r"(DO|CALL|EXECUTE|PREPARE|DECLARE)\b")
# Large objects' contents come in a transaction of their own, within which pg_dump has nothing but these.
LARGE = lazy_regex(r"SELECT PG_CATALOG\.LO_?(OPEN|WRITE|CLOSE|CREATE)\(")
CALLS = lazy_regex(
    r"SELECT PG_CATALOG\.(SETVAL\('(?:[^']|'')*', -?\d+, (TRUE|FALSE)\)|SET_CONFIG\('search_path', '(?:[^']|'')*', FALSE\)"
    r"|LO(_OPEN|WRITE|_CLOSE|_CREATE)\([^()]*(\([^()]*\)[^()]*)?\)(, PG_CATALOG\.LO\w*\(.*\))?);",
    re.DOTALL,
)
SETTING = lazy_regex(r"(?:SET|RESET) (?:SESSION |LOCAL )?(SESSION AUTHORIZATION|[\w.\"]+)")
SETTINGS = {  # that pg_dump sets
    "STATEMENT_TIMEOUT", "LOCK_TIMEOUT", "IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "TRANSACTION_TIMEOUT", "CLIENT_ENCODING",
    "STANDARD_CONFORMING_STRINGS", "CHECK_FUNCTION_BODIES", "XMLOPTION", "CLIENT_MIN_MESSAGES", "ROW_SECURITY", "SEARCH_PATH",
    "DEFAULT_TABLESPACE", "DEFAULT_TABLE_ACCESS_METHOD", "ESCAPE_STRING_WARNING", "DEFAULT_WITH_OIDS",
    "RESTRICT_NONSYSTEM_RELATION_KIND", "DEFAULT_TOAST_COMPRESSION", "IDLE_SESSION_TIMEOUT", "EXTRA_FLOAT_DIGITS",
    "DATESTYLE", "INTERVALSTYLE", "TIMEZONE",
}  # fmt: skip
# In other encodings a byte of a letter can be a backslash, and without standard strings they end elsewhere: what we read
# would not be what the server reads.
ENCODINGS = r"'?(UTF-?8|UNICODE|LATIN\d+|ISO[\w-]+|WIN(DOWS-?)?(12\d\d|866|874)|KOI8\w*|SQL_?ASCII|EUC_\w+|MULE_INTERNAL)'?;"
OTHERWISE_READ = lazy_regex(
    r"SET (SESSION |LOCAL )?(STANDARD_CONFORMING_STRINGS ?(=|TO)(?! ?'?ON'?;)"
    rf"|CLIENT_ENCODING ?(=|TO)(?! ?{ENCODINGS}))",
    re.IGNORECASE,
)
# What is left out, and said; the first that fits.
OUTSIDE = {
    "roles": r"(CREATE|ALTER|DROP|COMMENT ON) (ROLE|USER(?! MAPPING)|GROUP)\b|(REASSIGN|DROP) OWNED\b"
    rf"|SECURITY LABEL .*ON ROLE |(GRANT|REVOKE) (?!{RIGHTS} ON )",
    "databases": r"(CREATE|ALTER|DROP|COMMENT ON) DATABASE\b|SECURITY LABEL .*ON DATABASE "
    r"|(GRANT|REVOKE) [^'\"]* ON DATABASE ",
    "tablespaces": r"(CREATE|ALTER|DROP|COMMENT ON) TABLESPACE\b|(GRANT|REVOKE) .* ON TABLESPACE ",
    "the server": r"ALTER SYSTEM\b|LOAD\b|CHECKPOINT\b|(GRANT|REVOKE) .* ON PARAMETER ",
    "other servers": r"(CREATE|ALTER|DROP|COMMENT ON) (SUBSCRIPTION|SERVER|USER MAPPING|FOREIGN DATA WRAPPER|FOREIGN TABLE)\b"
    r"|IMPORT FOREIGN SCHEMA\b|(GRANT|REVOKE) .* ON FOREIGN (SERVER|DATA WRAPPER) ",
    "event triggers": r"(CREATE|ALTER|DROP|COMMENT ON) EVENT TRIGGER\b",
    "files and programs": rf"COPY (?!{NAME}(\.{NAME})? ({COLUMNS} )?FROM STDIN\b)",
    "system functions' rights": r'(GRANT|REVOKE) .* ON .*"?(?i:pg_catalog|information_schema)"?\.',
}
OUTSIDES = {what: lazy_regex(each, re.DOTALL) for what, each in OUTSIDE.items()}
EXTENSION = lazy_regex(r"(?:CREATE|ALTER|COMMENT ON) EXTENSION (?:IF NOT EXISTS )?([\w$]+|\"[^\"]+\")")


@dataclass
class Judge:
    """Judges the statements of a dump, in order.

    Attributes:
        safe: the extensions that a role without superuser rights may make.
        settings: the settings that the target's server has.
        known: the extensions that the target's server has.
        left: what was left out: what it touches -> statements.
        unsafe: extensions that were left out, because only a superuser may make them.
        absent: extensions that were left out, because the server has not got them.
        within: whether the next statement is within a transaction for large objects.
    """

    safe: set[str]
    settings: set[str]
    known: set[str]
    left: dict[str, list[str]] = field(default_factory=dict)
    unsafe: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    within: bool = False

    def verdict(self, statement: bytes) -> Verdict:
        """What is to be done with the next statement; what is left out is noted."""
        if statement.startswith(b"INSERT INTO "):
            return "keep"
        text = normal(statement)
        if self.within and not LARGE.match(text):
            self.within = text != "COMMIT;"
            return "refuse" if self.within else "skip"
        if text == "BEGIN;":
            self.within = True
            return "skip"
        if TRANSACTION.match(text) or PROGRAM.match(text) or OTHERWISE_READ.match(text):
            return "refuse"
        if text.startswith("SELECT ") and not CALLS.fullmatch(text):
            return "refuse"
        if found := SETTING.match(text):
            return self._setting(found[1], text)
        for what, pattern in OUTSIDES.items():
            if pattern.match(text):
                return self._out(what, text)
        if found := EXTENSION.match(text):
            return self._extension(found[1].strip('"').lower(), text)
        return "later" if LATER.match(text) else "keep"

    def owners(self, text: str) -> None:
        """Note a change of owner that is left out: its object is named without a schema, and might not be of the dump."""
        self._out("owners of what is named without its schema", text)

    def _extension(self, name: str, text: str) -> Verdict:
        if name == "plpgsql":  # it is there
            return "skip"
        if name not in self.known:
            self.absent.add(name)
            return "out"
        if name in self.safe:
            return "keep"
        self.unsafe.add(name)
        return self._out("extensions that only a superuser may make", text)

    def _setting(self, name: str, text: str) -> Verdict:
        if name in SETTINGS:
            return "keep" if name.lower() in self.settings else "skip"  # of a newer or older PostgreSQL
        return self._out("other rights" if name in ("SESSION AUTHORIZATION", "AUTHORIZATION", "ROLE") else "settings", text)

    def _out(self, what: str, text: str) -> Verdict:
        self.left.setdefault(what, []).append(text)
        return "out"

    def notes(self) -> list[str]:
        """A sentence for each thing of which something was left out; no passwords."""
        notes = []
        for what, texts in self.left.items():
            first = re.sub(r"'.*", "...", texts[0], flags=re.DOTALL)[:60].rstrip(";")
            more = f", and {len(texts) - 1} more" if texts[1:] else ""
            notes.append(f"left out, for it concerns {what}: {first}{more}")
        return notes


def refused(statement: bytes, path: object) -> BackupInvalid:
    """The error for a statement with which a dump is refused."""
    text = re.sub(r"'.*", "...", normal(statement), flags=re.DOTALL)[:60]
    return BackupInvalid(
        f"{path} holds a statement that pg_dump does not write: {text}", remedy="take it out, or use a dump by pg_dump"
    )


def refused_command(command: bytes, path: object) -> BackupInvalid:
    """The error for a command for psql that pg_dump does not write."""
    shown = command.strip().decode(errors="replace")[:60]
    return BackupInvalid(f"{path} holds commands for psql: {shown}", remedy="use a dump by pg_dump")
