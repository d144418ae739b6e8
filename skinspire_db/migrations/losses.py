"""What a statement of a revision cuts, rounds or drops, with the number of rows that it would hit in this database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path, sql_text

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

WORD = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
NAME = rf"{WORD}(?:\s*\.\s*{WORD})*"
ALTER_TABLE = lazy_regex(rf"\s*ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<table>{NAME})\s*\*?\s+", re.I)
RETYPE = lazy_regex(
    rf"ALTER\s+(?:COLUMN\s+)?(?P<column>{WORD})\s+(?:SET\s+DATA\s+)?TYPE\s+(?P<type>.+?)"
    rf"(?:\s+COLLATE\s+{NAME})?(?:\s+USING\s+(?P<using>.+))?\s*",
    re.I | re.S,
)
DROP_COLUMN = lazy_regex(
    rf"DROP\s+(?!CONSTRAINT\b)(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?(?P<column>{WORD})\s*(?:CASCADE|RESTRICT)?\s*", re.I
)
EMPTIES = lazy_regex(
    rf"\s*(?:DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?|TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?)(?P<tables>{NAME}(?:\s*,\s*{NAME})*)",
    re.I,
)
COMPOSED = lazy_regex(r"\s*EXECUTE\b", re.I)
# What each type can hold without a loss, beside its own kind: the type without its length.
WIDER = {
    "smallint": {"integer", "bigint", "numeric", "real", "double precision"},
    "integer": {"bigint", "numeric", "double precision"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "date": {"timestamp without time zone", "timestamp with time zone"},
    "timestamp without time zone": {"timestamp with time zone"},
    "cidr": {"inet"},
    "bit": {"bit varying"},
}
STRINGS = ("character varying", "text", "character")
CLOCK = ("timestamp", "time", "interval")


@dataclass(frozen=True)
class Retype:
    """A column that gets another type; `using` is the expression that makes its values, empty where PostgreSQL chooses."""

    table: str
    column: str
    old: str
    new: str
    using: str = ""


def base(kind: str) -> str:
    """A type, as PostgreSQL writes it, without its length."""
    return re.sub(r"\([\d, -]+\)", "", kind)


def lengths(kind: str) -> tuple[int, ...]:
    """What stands in a type's parentheses."""
    found = re.search(r"\(([\d, -]+)\)", kind)
    return tuple(int(each) for each in found[1].split(",")) if found else ()


def rewrites(old: str, new: str) -> bool:
    """Whether PostgreSQL writes the whole table anew for it; a longer type of the same kind is a word in the catalogue."""
    if {base(old), base(new)} <= {"character varying", "text"} or base(old) == base(new):
        return not _is_wider(old, new) or (
            base(old) == "numeric" and lengths(new) != () and lengths(new)[1:] != lengths(old)[1:]
        )
    return (base(old), base(new)) != ("cidr", "inet")


def _is_wider(old: str, new: str) -> bool:
    """Whether every value of a type has room in another of its kind."""
    had, has = lengths(old), lengths(new)
    if not has or had == has:
        return True
    if base(new) == "numeric":
        (digits, scale), (more, places) = (*had, 0)[:2] if had else (10**6, 10**6), (*has, 0)[:2]
        return places >= scale and more - places >= digits - scale
    return bool(had) and base(new) != "bit" and has[0] >= had[0]


def loses(old: str, new: str) -> bool:
    """Whether a value can be another one, or have no room, in the new type."""
    one, other = base(old), base(new)
    if other.removesuffix("[]") in STRINGS:
        return bool(lengths(new)) and not (one.removesuffix("[]") in STRINGS and _is_wider(old, new))
    if one == other:
        return not _is_wider(old, new)
    return other not in WIDER.get(one, set()) or (other.startswith(CLOCK) and bool(lengths(new)))


def of(connection: Connection, sql: str) -> list[str]:
    """What running this SQL would lose, a sentence each. It reads the rows concerned; nothing is changed."""
    import psycopg

    try:
        with connection.transaction(), search_path.application(connection):  # a savepoint
            return [loss for statement in sql_text.statements(sql) for loss in _of_statement(connection, statement)]
    except psycopg.Error as error:
        return [f"what it loses could not be looked at: {error.diag.message_primary or type(error).__name__}"]


def _of_statement(connection: Connection, sql: str) -> Iterator[str]:
    if COMPOSED.match(sql):
        yield "EXECUTE runs a statement that is not in the text: what that loses is not known"
    elif altered := ALTER_TABLE.match(sql):
        for action in sql_text.split(sql[altered.end() :], ","):
            if retype := RETYPE.fullmatch(action.strip()):
                yield from _retype(connection, altered["table"], retype)
            elif dropped := DROP_COLUMN.fullmatch(action.strip()):
                yield from _dropped(connection, altered["table"], dropped["column"])
    elif emptied := EMPTIES.match(sql):
        for table in re.findall(NAME, emptied["tables"]):
            if rows := _counted(connection, table, "true"):
                yield f"table {table}: its rows are lost: {rows}"


def _type_of(connection: Connection, table: str, column: str) -> str | None:
    """The type of a column that is there and is not generated, as PostgreSQL writes it."""
    row = connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND NOT attisdropped"
        " AND attgenerated = '' AND attname = (parse_ident(%s))[1]",
        (table, column),
    ).fetchone()
    return str(row[0]) if row else None


def _dropped(connection: Connection, table: str, column: str) -> Iterator[str]:
    if _type_of(connection, table, column) and (rows := _counted(connection, table, f"{column} IS NOT NULL")):
        yield f"column {table}.{column}: its values are lost: {rows}"


def retypes(connection: Connection, statement: str) -> list[Retype]:
    """The columns of tables that are there to which a statement gives another type."""
    altered = ALTER_TABLE.match(statement)
    actions = sql_text.split(statement[altered.end() :], ",") if altered else []
    with search_path.application(connection):
        found = [_change(connection, altered["table"], RETYPE.fullmatch(each.strip())) for each in actions if altered]
    return [each for each in found if each]


def _change(connection: Connection, table: str, found: re.Match[str] | None) -> Retype | None:
    if found is None:
        return None
    old = _type_of(connection, table, found["column"])
    row = connection.execute("SELECT format_type(to_regtype(%s), NULL)", (base(found["type"]),)).fetchone()
    if old is None or row is None or row[0] is None:
        return None
    size = re.search(r"\([\d, -]+\)", found["type"])
    kind, many = (row[0].removesuffix("[]"), "[]") if row[0].endswith("[]") else (row[0], "")
    words = kind.split(" ", 1) if kind.startswith(CLOCK) else [kind]
    new = " ".join([words[0] + (size[0] if size else ""), *words[1:]]) + many
    return Retype(table, found["column"], old, new, found["using"] or "")


def _retype(connection: Connection, table: str, found: re.Match[str]) -> Iterator[str]:
    change = _change(connection, table, found)
    if change and (loses(change.old, change.new) or change.using):
        says, condition = _loss(change)
        if rows := _counted(connection, table, condition):
            yield f"column {table}.{change.column}: {change.old} becomes {change.new}: {says}: {rows}"


def _loss(change: Retype) -> tuple[str, str]:
    """In words, and as a condition on the rows that it hits."""
    column, one, other = change.column, base(change.old), base(change.new)
    if other in STRINGS and lengths(change.new) and (not change.using or one in STRINGS):
        longest = lengths(change.new)[0]
        cut = "cut" if change.using else "refused"
        return f"values over {longest} characters are {cut}", f"char_length({column}::text) > {longest}"
    if (
        not change.using
        and one in ("numeric", "real", "double precision")
        and (whole := other in ("smallint", "integer", "bigint"))
    ):
        places = 0 if whole else (*lengths(change.new), 0)[1]
        return "fractions are rounded away", f"{column}::numeric <> round({column}::numeric, {places})"
    if not change.using and one in ("numeric", "real", "double precision") and other == "numeric":
        places = (*lengths(change.new), 0)[1]
        return (
            f"values with more than {places} decimals are rounded",
            f"{column}::numeric <> round({column}::numeric, {places})",
        )
    made = f"({change.using or column})::{change.new}"
    condition = f"{column} IS NOT NULL AND ({made})::{change.old}::text IS DISTINCT FROM {column}::text"
    if one.startswith("timestamp") and other == "date":
        return "times of day are dropped", condition
    if one.startswith("timestamp") and other.startswith("time "):
        return "dates are dropped", f"{column} IS NOT NULL"
    if one == "timestamp with time zone" and other.startswith("timestamp"):
        return "time zones are dropped", f"{column} IS NOT NULL"
    if one == other and other.startswith(CLOCK):
        return "fractions of seconds are rounded", condition
    return "values that do not come back the same", condition


def _counted(connection: Connection, table: str, condition: str) -> str | None:
    """How many rows, of how many; None for a table that is not there yet."""
    import psycopg

    if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
        return None
    query = f"SELECT count(*) FILTER (WHERE {condition}), count(*) FROM {table}"  # noqa: S608
    try:
        with connection.transaction():  # a savepoint
            row = connection.execute(query.encode()).fetchone()
    except psycopg.Error as error:
        return f"how many rows is not known ({error.diag.message_primary or type(error).__name__})"
    assert row
    return f"{row[0]} of {row[1]} rows"
