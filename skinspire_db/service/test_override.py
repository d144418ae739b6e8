"""The seam between database_service and a test run: whether a test's database serves in place of the environments' own.

1. Before the first conftest.py is loaded, the pytest plugin calls refuse_all(). From then on get_db_session() and
   get_db_engine() raise GuardRefused, here and in every process that the run starts, so that no test reaches a developer's
   or a patient's rows by mistake.
2. For a test that has a database, the plugin calls serve(database). engines.service() asks for_environment() first, and uses
   the database's service() in place of the environment's engines.
3. In a db_session test the connections of these engines are JoinedConnections (testing/transaction.py): they have the
   methods of driver.Connection, and make savepoints of the test's one transaction out of the application's transactions.
4. After the test the plugin calls serve(None), and at the end of the run restore().

Nothing else in service/ depends on whether a test runs, but for the fork handler in engines.py: a forked child leaves the
test's connections to its parent, as it does with all others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from skinspire_db.config import environment
from skinspire_db.errors import GuardRefused

if TYPE_CHECKING:
    from skinspire_db.config.environment import Environment
    from skinspire_db.service.engines import Service

MAY_REACH = environment.MAY_REACH
NONE = "-"  # its value where they may reach no environment


class ServedDatabase(Protocol):
    """A test's database, which serves in place of the active environment's."""

    environment: Environment

    def service(self) -> Service:
        """Its engines."""
        ...

    def async_service(self) -> Service:
        """Its engines for asyncio."""
        ...


State = tuple[bool, ServedDatabase | None, str | None]

served: ServedDatabase | None = None
guarding = False  # whether a test run is on: only the served database is reached then


def refuse_all() -> None:
    """Let this process, and the processes that it starts, reach no database until serve() is called."""
    global guarding
    guarding = True
    serve(None)
    os.environ[MAY_REACH] = NONE


def serve(database: ServedDatabase | None) -> None:
    """Let the database serve in place of the active environment's; with None, no test's database serves any more."""
    global served
    served = database


def serves(service: Service) -> bool:
    """Whether these engines are those of the test that runs now."""
    return served is not None and served.service() is service


def state() -> State:
    """What restore() takes back to."""
    return guarding, served, os.environ.get(MAY_REACH)


def restore(former: State) -> None:
    """Undo refuse_all() and serve(), back to what state() returned."""
    global guarding, served
    guarding, served, may_reach = former
    if may_reach is None:
        os.environ.pop(MAY_REACH, None)
    else:
        os.environ[MAY_REACH] = may_reach


def for_environment(env: str | None) -> ServedDatabase | None:
    """What serves in place of that environment.

    Args:
        env: The environment's name; None is the active one.

    Returns:
        The test's database, or None where the environment's own serves.

    Raises:
        GuardRefused: in a test run, for a test without a database, and for another environment than the test's.
        UnknownEnvironment: for a name that is not declared.
    """
    from skinspire_db.config import environment

    may_reach = served.environment.name if served is not None else NONE if guarding else os.environ.get(MAY_REACH)
    if may_reach == NONE:
        raise GuardRefused(
            "in a test run the database is reached only from a test that has one",
            remedy="let the test use db_session, db_database or db_clone, or mark it with @pytest.mark.db;"
            " a fixture of a module or the run adds rows by db_module_rows or db_run_rows",
        )
    if may_reach is not None and env is not None and environment.resolve_name(env) != may_reach:
        raise GuardRefused(
            f"a test's database stands for {may_reach}, and {env} was asked for",
            remedy="call it without env: it then uses the active environment",
        )
    return served
