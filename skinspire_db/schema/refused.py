"""What of the models PostgreSQL refuses: it is left out of a schema that is made to compare with, and named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.sql_text import split, statements_only

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

NAME = r'((?:"(?:[^"]|"")+"|[\w$])+(?:\.(?:"(?:[^"]|"")+"|[\w$])+)*)'
TABLE = lazy_regex(rf"\s*CREATE TABLE (?:IF NOT EXISTS )?{NAME} \(")
CONSTRAINT = lazy_regex(rf"\s*(?:CONSTRAINT {NAME} )?((?:PRIMARY KEY|FOREIGN KEY|UNIQUE|CHECK|EXCLUDE)\b.*)", re.DOTALL)
# The other statements that SQLAlchemy writes: what they make, with its name, and the table that it is on.
OTHERS = {
    "constraint": lazy_regex(rf"\s*ALTER TABLE (?P<table>{NAME}) ADD (?:CONSTRAINT (?P<name>{NAME}) )?"),
    "index": lazy_regex(rf"\s*CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?(?P<name>{NAME}) ON (?P<table>{NAME})"),
    "type": lazy_regex(rf"\s*CREATE (?:TYPE|DOMAIN) (?P<name>{NAME})"),
    "sequence": lazy_regex(rf"\s*CREATE SEQUENCE (?:IF NOT EXISTS )?(?P<name>{NAME})"),
}


@dataclass(frozen=True)
class Fault:
    """An object of the models that PostgreSQL refuses.

    Attributes:
        kind: such as "constraint", "column" or "index"; "statement" for what is none of these.
        name: its name, with the table; for an unnamed constraint its definition.
        definition: its SQL.
        reason: what PostgreSQL says.
    """

    kind: str
    name: str
    definition: str
    reason: str

    def __str__(self) -> str:
        """A sentence."""
        return f"{self.kind} {self.name}: {self.reason}"


def make(connection: Connection, statements: list[str]) -> list[Fault]:
    """Run statements one by one, and leave out what is refused; of a table, the columns and constraints that are.

    Args:
        connection: where; in the caller's transaction, which none of them ends.
        statements: those of a blueprint.

    Returns:
        What was left out.

    Raises:
        psycopg.Error: for locks, the disk, the connection and rights, which are no fault of the models.
    """
    faults: list[Fault] = []
    with search_path.application(connection):
        for statement in statements:
            reason = _reason(connection, statement)
            if reason and (found := TABLE.match(statement)):
                faults += _make_in_parts(connection, statement, found)
            elif reason:
                faults.append(_fault(statement, reason))
    return faults


def _make_in_parts(connection: Connection, statement: str, found: re.Match[str]) -> list[Fault]:
    """Make a table with those of its columns and constraints that are taken, in their order."""
    end = _closing(statement, found.end() - 1)
    head, tail = statement[: found.end()], statement[end:]
    taken: list[str] = []
    faults = []
    for item in split(statement[found.end() : end], ","):
        if reason := _reason(connection, head + ",".join([*taken, item]) + tail, keep=False):
            faults.append(_fault_of_part(_qualified(found[1]), item, reason))
        else:
            taken.append(item)
    if reason := _reason(connection, head + ",".join(taken) + tail):
        faults.append(Fault("table", _qualified(found[1]), _short(statement), reason))
    return faults


def _reason(connection: Connection, statement: str, *, keep: bool = True) -> str:
    """What PostgreSQL says against a statement; "" where it is taken."""
    import psycopg
    from psycopg import errors

    try:
        with connection.transaction() as savepoint:
            connection.execute(statement.encode())
            if not keep:
                raise psycopg.Rollback(savepoint)
    except (psycopg.OperationalError, errors.InsufficientPrivilege):
        raise
    except psycopg.Error as error:
        if connection.closed:
            raise
        return sentence(error)
    return ""


def _closing(statement: str, opening: int) -> int:
    """Where the parenthesis that opens there is closed."""
    depth = 0
    for place, character in enumerate(statements_only(statement)):
        if place >= opening:
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return place
    return len(statement)


def _fault_of_part(table: str, item: str, reason: str) -> Fault:
    if found := CONSTRAINT.fullmatch(item):
        return Fault("constraint", f"{found[1] or _short(found[2])} on {table}", _short(found[2]), reason)
    name = re.match(rf"\s*{NAME}", item)
    return Fault("column", f"{table}.{name[1] if name else _short(item)}", _short(item), reason)


def _fault(statement: str, reason: str) -> Fault:
    for kind, pattern in OTHERS.items():
        if found := pattern.match(statement):
            parts = found.groupdict()
            rest = _short(statement[found.end() :])
            name = parts["name"] or rest
            on = f" on {_qualified(parts['table'])}" if "table" in parts else ""
            return Fault(kind, f"{name}{on}" if on else _qualified(name), rest or _short(statement), reason)
    return Fault("statement", _short(statement), _short(statement), reason)


def _qualified(name: str) -> str:
    return name if "." in name.replace('"."', ".") else f"public.{name}"


def _short(text: str) -> str:
    return " ".join(text.split())
