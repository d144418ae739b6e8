"""The statements of a revision, and the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, auto


class Phase(IntEnum):
    """The order of the statements. Drops come first, but for types and sequences, which columns use until the end."""

    SCHEMA = auto()
    DROP_FOREIGN_KEY = auto()
    DROP_TABLE = auto()
    DROP_CONSTRAINT = auto()
    DROP_GENERATED = auto()
    RENAME = auto()
    TYPE = auto()
    SEQUENCE = auto()
    DROP_COLUMN = auto()
    DETACH = auto()  # defaults and identities from columns that change
    COLUMN = auto()
    ATTACH = auto()
    CONSTRAINT = auto()
    INDEX = auto()
    CREATE_TABLE = auto()
    FOREIGN_KEY = auto()
    OWNER = auto()
    DROP_REST = auto()


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        phase: when it runs.
        sql: the statement.
        careful: what is risky about it and what to do instead; "" for nothing.
    """

    phase: Phase
    sql: str
    careful: str = ""


def risks(statements: Iterable[Statement]) -> list[str]:
    """What is risky about the statements, in their order."""
    return [each.careful for each in statements if each.careful]
