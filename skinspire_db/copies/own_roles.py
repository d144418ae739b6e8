"""The roles of tenancy in a database that was copied or restored from another one: its policies and rights name its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from skinspire_db.config.environment import Environment
from skinspire_db.lifecycle.operation import Running
from skinspire_db.objects import former_roles, install, ledger, policies, tenant_roles, versions
from skinspire_db.objects.kinds import POLICY
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target


def settled(environment: Environment, work: Callable[[Running], Target], running: Running) -> Target:
    """Build a database aside, and give it the roles of the environment whose database it will be.

    A project with tenancy makes anew the policies that name the roles of another database, or that were left out because such
    a role is not on this server. What the copy has never had, it does not get.

    Args:
        environment: whose database is replaced.
        work: builds the new one, and compares it with what it is a copy of.
        running: the operation.

    Returns:
        Where the new database is.

    Raises:
        SkinspireError: what `work` and an install raise.
    """
    aside = work(running)
    roles = tenant_roles.of(environment)
    if roles is None:
        return aside
    with contextlib.closing(connections.connect(aside, running.operation)) as connection:
        connections.begin(connection, aside.policy)
        entries = ledger.read(connection)
        made = [each for entry in entries.values() for each in entry.triggers.values() if each.of_policy]
        present = policies.live(connection, ())
        same = all(present.get((each.table, each.name)) == each.definition for each in made if each.name != policies.SECURITY)
        if not made or (same and not former_roles.former(connection, roles)):
            return aside  # a backup of this database itself can be restored though an SQL file is broken
        files = [file for file in versions.current(environment.project, (POLICY,), roles=roles) if file.name in entries]
        if files:
            former_roles.take_away(connection, roles)
            install.install(connection, files, others=False, kinds=(POLICY,))
            connection.commit()
    return aside
