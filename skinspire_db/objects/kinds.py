"""The kinds of SQL files: what each folder of sql/ defines, and what is particular to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of SQL files.

    Attributes:
        word: What a file of it is called for.
        folder: Its folder in sql/.
        collection: The collection of tasks that a remedy names.
        attaches: The header has a firing order, and may say on which tables triggers are made.
        suffix: How its files end: those of .toml are settings alone, and nothing of them is installed.
    """

    word: str
    folder: str
    collection: str
    attaches: bool = False
    suffix: str = ".sql"

    def name_of(self, stem: str) -> str:
        """How a file is called in the ledger, in --name and in messages: a trigger file by its stem alone."""
        return stem if self is TRIGGER else f"{self.folder}/{stem}"


TRIGGER = Kind("trigger", "triggers", "triggers", attaches=True)
FUNCTION = Kind("function", "functions", "sql")
VIEW = Kind("view", "views", "sql")
POLICY = Kind("policy", "policies", "sql")  # its file is a header alone: the tool makes the statements, table by table
MASK = Kind("mask", "masks", "sql", suffix=".toml")
KINDS = (TRIGGER, FUNCTION, VIEW, POLICY)  # what is installed


def step_name(kinds: Iterable[Kind]) -> str:
    """What the step is called that installs files of these kinds: triggers where there are no others."""
    return "triggers" if set(kinds) <= {TRIGGER} else "sql"


def of_file(name: str) -> Kind:
    """The kind of a file, by what it is called."""
    return next((kind for kind in KINDS if name.startswith(f"{kind.folder}/")), TRIGGER)
