"""The one way to look at a database: PostgreSQL itself refuses to write, and everything is seen as it was at one moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from skinspire_db.config.environment import Environment
from skinspire_db.errors import DatabaseMissing, SkinspireError
from skinspire_db.lifecycle import stamp
from skinspire_db.lifecycle.failures import translated
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, target_of

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

T = TypeVar("T")


def present(environment: Environment) -> Target:
    """Where the environment's database is, for a look, which makes no server.

    Raises:
        DatabaseMissing: The embedded server was never made.
        SkinspireError: What target_of() raises.
    """
    target = target_of(environment, start=False)
    if target.server is None:
        return target
    if not target.server.exists:
        raise DatabaseMissing(
            f"the database {target.database} does not exist, nor the embedded server for it",
            remedy=f"invoke db.setup --env={environment.name}",
        )
    return target_of(environment)


@contextlib.contextmanager
def read_only_connection(target: Target, operation: str, *, tries: bool = False) -> Iterator[Connection]:
    """A connection for `operation` whose transaction is READ ONLY; it is rolled back and closed at the end.

    An embedded server that does not run is started.

    Args:
        target: The database.
        operation: Who looks, for pg_stat_activity and for errors.
        tries: The transaction may write, for what is tried and rolled back.

    Raises:
        SkinspireError: What connections.connect() raises, and PostgreSQL's errors in our words.
    """
    isolation = "READ COMMITTED" if tries else "REPEATABLE READ READ ONLY"
    with (
        target.pin.operation(),
        contextlib.closing(connections.connect(target, operation, brief=not tries, isolation=isolation)) as connection,
        translated(target, operation, "", connection),
    ):
        yield connection


def look_at(environment: Environment, at: Callable[[Connection], T]) -> T:
    """What `at` finds on a connection of its own, in the environment's database.

    Args:
        environment: Where it looks.
        at: Looks.

    Raises:
        DatabaseMissing: There is none.
        GuardRefused: The database is not this environment's: nothing is said of it.
    """
    target = present(environment)
    try:
        with read_only_connection(target, "migrate") as connection:
            stamp.identify(connection, target)
            return at(connection)
    except SkinspireError as error:
        error.remedy = error.remedy and error.remedy.replace("{env}", environment.name)
        raise
