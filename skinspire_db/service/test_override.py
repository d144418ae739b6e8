"""Who stands in for the environments' databases: in a test its own database, otherwise nobody.

The application's door (database_service) asks here first. In a test run, outside of a test that has a database, it is shut:
no test may reach a developer's or a patient's rows by mistake.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from skinspire_db.errors import GuardRefused

if TYPE_CHECKING:
    from skinspire_db.config.environment import Environment
    from skinspire_db.service.engines import Service


class StandIn(Protocol):
    """A database that serves in place of the active environment's."""

    environment: Environment

    def service(self) -> Service:
        """Its engines."""
        ...


current: StandIn | None = None
guarding = False  # whether a test run is on: nothing but a stand-in is reached then
# The same for processes that a test starts: the one environment that they may reach, - for none.
TOLD = "SKINSPIRE_TEST_MAY_REACH"


def asked(env: str | None) -> StandIn | None:
    """Who serves for that environment, None for its own database. Raises GuardRefused, and UnknownEnvironment."""
    from skinspire_db.config import environment

    may = current.environment.name if current is not None else "-" if guarding else os.environ.get(TOLD)
    if may == "-":
        raise GuardRefused(
            "in a test run the database is reached only from a test that has one",
            remedy="let the test use db_session, db_database or db_clone, or mark it with @pytest.mark.db",
        )
    if may is not None and env is not None and environment.resolve_name(env) != may:
        raise GuardRefused(
            f"a test's database stands for {may}, and {env} was asked for",
            remedy="call it without env: it then uses the active environment",
        )
    return current
