"""What an operation would do, found out by looking only: whose database it is, what the guard says, which backup comes first.

PostgreSQL itself keeps these looks read only. No server is made for one; an embedded server that is stopped is started, as
for every look, because only the server can say whose database it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import Environment
from skinspire_db.errors import DatabaseMissing, PermissionMissing
from skinspire_db.lifecycle import guard, lock
from skinspire_db.lifecycle.read_only import present, read_only_connection
from skinspire_db.lifecycle.result import StepResult, json_object
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


@dataclass
class Plan:
    """What would be done: `steps` are names, `would` what comes with them, in phrases; `backup` is the folder of the backup
    that would be taken first. `looked` are the steps that only read, and were run. `nowhere`: the server is yet to be made,
    and so nothing on it is looked at.
    """

    operation: str
    environment: Environment
    target: Target
    steps: list[str]
    would: list[str] = field(default_factory=list)
    backup: str | None = None
    looked: list[StepResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    nowhere: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The plan as `--json` shows it."""
        return json_object(
            self.operation,
            self.environment.name,
            self.target.database,
            seconds=self.seconds,
            steps=self.looked,
            target=str(self.target),
            dry=True,
            plan=self.steps,
            would=self.would,
            backup=self.backup,
        ) | ({"notes": self.notes} if self.notes else {})

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection | None]:
        """A connection that only looks at the database; None where there is none."""
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(read_only_connection(present(self.environment), self.operation))
            except DatabaseMissing:
                connection = None
            yield connection

    def admit(self, connection: Connection, command: str, danger: str, confirm: str | None) -> bool:
        """Identify and guard, as the operation would under its lock.

        Returns:
            Whether there is anything to lose.

        Raises:
            GuardRefused: the operation would be refused.
        """
        filled = guard.admit(connection, self.target, command, danger, confirm, hold=False)
        if who := lock.holder(connection):
            self.would.append(f"wait for {who}")
        if danger and filled:
            allowed = f", as --confirm={confirm} allows" if confirm else ""
            self.would.append(guard.about(danger, self.target) + allowed)
        return filled

    def make_the_database(self) -> None:
        """There is none yet: the role must be able to create it."""
        self.nowhere = self.target.server is not None and not self.target.server.exists
        self.may_create_databases()
        self.would.append(f"create the database {self.target.database}")

    def may_create_databases(self) -> None:
        """Look whether the role may create databases; an embedded server that is yet to be made lets its role.

        Raises:
            PermissionMissing: the role may not.
        """
        if self.target.server and not self.target.server.exists:
            return
        with contextlib.closing(connections.maintenance(self.target, self.operation)) as connection:
            query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            if connection.execute(query).fetchone() != (True,):
                user = self.target.user
                raise PermissionMissing(
                    f"role {user} may not create databases, which {self.operation} does",
                    remedy=f'ask the administrator for: ALTER ROLE "{user}" CREATEDB',
                )


def missing(target: Target) -> DatabaseMissing:
    """The error of an operation that needs the database."""
    return DatabaseMissing(
        f"the database {target.database} does not exist", remedy=f"invoke db.setup --env={target.environment}"
    )
