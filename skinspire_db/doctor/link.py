"""What the links of the diagnosis share: the case, and how a link says that it does not hold."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import Environment
from skinspire_db.postgres import search_path
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection


@dataclass
class Case:
    """What is known so far. `address` is the host and port that answered; `refusal` is why no connection could be had.

    `backups`: the folder of backups; None is the project's.
    """

    name: str
    environment: Environment | None = None
    target: Target | None = None
    addresses: list[tuple[str, str]] = field(default_factory=list)
    address: tuple[str, str] | None = None
    connection: Connection | None = None
    refusal: psycopg.Error | None = None
    backups: Path | None = None

    @property
    def to(self) -> Target:
        """Where the database is; known from the link on that reads the settings."""
        assert self.target
        return self.target

    @property
    def open(self) -> Connection:
        """The connection; open from the link on that connects."""
        assert self.connection
        return self.connection

    @property
    def project_environment(self) -> Environment:
        """The environment; known from the first link on."""
        assert self.environment
        return self.environment

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        """The rows of a query of ours.

        Args:
            query: the query.
            parameters: the values of its placeholders.
        """
        return search_path.rows(self.open, query, parameters or None)

    def close(self) -> None:
        """Close the connection, if there is one. No error leaves it."""
        import psycopg

        if self.connection:
            with contextlib.suppress(psycopg.Error):
                self.connection.close()


class Broken(Exception):
    """The link does not hold."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


class Unknown(Exception):
    """It could not be found out whether the link holds."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotAsked(Exception):
    """There is nothing to be found out: where this server is, the link cannot be seen."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
