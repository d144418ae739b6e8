"""What a check is made of: what it looks at, how it fails, and the remedies that several have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import tenant_tables
from skinspire_db.catalog.tenant_tables import TenantTable
from skinspire_db.config.environment import Environment
from skinspire_db.config.policy import Policy
from skinspire_db.content.seeding import Content
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.objects.files import SqlFile
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

MENDED = 3  # at once, by one remedy
DRIFT, STATUS = "invoke db.drift --env={env}", "invoke triggers.status --env={env}"
SEED = "invoke db.seed --env={env} --reference-only"


class Failed(Exception):
    """What a check found wrong, the check's detail, and what to do about it: in the project's files, or in the database."""

    def __init__(self, detail: str, remedy: str, *, in_files: bool = False) -> None:
        super().__init__(detail)
        self.remedy = remedy
        self.in_files = in_files


@dataclass(frozen=True)
class Subject:
    """What the checks look at; without `writes` the transaction is read only, and nothing is written on trial.

    `notes` are what a check found that is no failure, for a reader.
    """

    connection: Connection
    environment: Environment
    wanted: Blueprint
    files: list[SqlFile]
    writes: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def tenant_tables(self) -> dict[int, TenantTable]:
        """The tables with what keeps hospitals apart in them, read once.

        A cached_property has a lock in Python 3.11: a check would wait for it while the one that holds it waits for its turn.
        """
        if "tenant_tables" not in self.__dict__:
            self.__dict__["tenant_tables"] = tenant_tables.read(self.connection)
        found: dict[int, TenantTable] = self.__dict__["tenant_tables"]
        return found

    @property
    def policy(self) -> Policy:
        """What the environment allows."""
        return self.environment.policy

    @property
    def content(self) -> Content:
        """The project's reference data."""
        return Content(self.environment, self.wanted.python_defaults)


def expect(condition: bool, otherwise: str, remedy: str, *, in_files: bool = False) -> None:
    """Let a check go on only where its condition holds.

    Args:
        condition: what must hold.
        otherwise: what is wrong where it does not.
        remedy: what to do then.
        in_files: it is done in the project's files, so it helps also where an operation made the database and failed.

    Raises:
        Failed: the condition does not hold.
    """
    if not condition:
        raise Failed(otherwise, remedy, in_files=in_files)


def expect_none(wrong: list[tuple[str, str]], title: str = "", between: str = "; ") -> None:
    """Let a check go on only where nothing is wrong.

    Args:
        wrong: what is wrong, each with the statement that mends it or shows its rows.
        title: what is said before it.
        between: what stands between the sentences.

    Raises:
        Failed: something is wrong; the remedy is the statements of the first of them.
    """
    some = " ".join(statement for _, statement in wrong[:MENDED])
    expect(not wrong, title + between.join(says for says, _ in wrong), in_shell(some))


def one(subject: Subject, query: str, parameters: tuple[Any, ...] | None = None, remedy: str = DRIFT) -> tuple[Any, ...]:
    """The one row that a query finds.

    Args:
        subject: the connection.
        query: the query.
        parameters: the values of its placeholders.
        remedy: what to do where there is none.

    Raises:
        Failed: there is none.
    """
    row = subject.connection.execute(query.encode(), parameters).fetchone()
    if row is None:
        raise Failed("the row that was just written is not there", remedy)
    return tuple(row)


def first_column(subject: Subject, query: str, parameters: tuple[Any, ...] | None = None) -> list[str]:
    """The first column of what a query finds.

    Args:
        subject: the connection.
        query: the query.
        parameters: the values of its placeholders.
    """
    return [row[0] for row in subject.connection.execute(query.encode(), parameters).fetchall()]
