"""What the sections of the report look at, and how each says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import spelling
from skinspire_db.catalog.definitions import snapshot
from skinspire_db.catalog.fields import Snapshot
from skinspire_db.catalog.spelling import Expected
from skinspire_db.config.project import Project
from skinspire_db.lifecycle.result import Summary
from skinspire_db.migrations import drift
from skinspire_db.migrations.drift import Difference
from skinspire_db.objects import adopted
from skinspire_db.objects.files import SqlFile
from skinspire_db.postgres import search_path
from skinspire_db.postgres.target import Target
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SHOWN = 12  # names in a line; --json has all


@dataclass(frozen=True)
class Subject:
    """A database that may be adopted, with what the project has to compare it with.

    Attributes:
        connection: an open one that only reads.
        target: where the database is.
        project: whose models and files.
        wanted: what the models say.
        files: the SQL files.
    """

    connection: Connection
    target: Target
    project: Project
    wanted: Blueprint
    files: list[SqlFile]

    @cached_property
    def expected(self) -> Expected:
        """What the models, and the files that were installed here, make."""
        absent = adopted.absent(self.connection, self.files)
        files = [file for file in self.files if file not in absent]
        return drift.expected(self.connection, self.target, self.project, self.wanted, files)

    @cached_property
    def live(self) -> Snapshot:
        """What the database has, in the words of the expected snapshot where the meaning is the same."""
        return spelling.settled(snapshot(self.connection), self.expected)

    @cached_property
    def differences(self) -> list[Difference]:
        """All differences, accepted or not."""
        return drift.differences(self.connection, self.target, self.project, self.wanted, self.files)

    def rows(self, query: str, parameters: Any = None) -> list[Any]:
        """The rows of a catalogue query; names of public come without their schema."""
        return search_path.rows(self.connection, query, parameters)

    def count(self, query: str) -> int | None:
        """The number that a query of the application's rows gives; None where PostgreSQL cannot run it.

        What asks for a column or table that only the models have counts nothing.
        """
        import psycopg

        try:
            with self.connection.transaction(), search_path.application(self.connection):  # a savepoint
                row = self.connection.execute(query.encode()).fetchone()
        except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable):
            return 0
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.Error:
            if self.connection.closed:
                raise
            return None
        return int(row[0] or 0) if row else 0


Section = Callable[[Subject], Summary]


def listed(title: str, names: Iterable[str]) -> list[str]:
    """A line of the report with some of the names; none where there are none."""
    every = list(names)
    more = f", and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return [f"{title}: {', '.join(every[:SHOWN])}{more}"] if every else []


def quoted(name: str) -> str:
    """A name in quotes, as SQL takes it whatever it is."""
    return '"' + name.replace('"', '""') + '"'
