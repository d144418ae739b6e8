"""The operations of snapshot.*: keep a copy of a database beside it, and come back to it."""

from __future__ import annotations

from skinspire_db.copies import branch_databases, snapshots
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.steps import Context


def take(context: Context, name: str | None) -> Job:
    """Keep a copy of the environment's database under a name.

    Args:
        context: the environment, and the report.
        name: the snapshot's name.
    """
    return snapshots.take(context.environment, name)


def listing(context: Context) -> Job:
    """The snapshots of the environment's database, and where branches have databases of their own, these.

    Args:
        context: the environment, and the report.
    """
    environment = context.environment

    def work(running: Running) -> None:
        snapshots.show(environment, running)
        if environment.policy.database_per_branch:
            branch_databases.show(environment, running)

    return Job("snapshot.list", environment, work, ("snapshots",), keeps=False)


def restore(context: Context, name: str | None) -> Replacement:
    """Come back to a snapshot.

    Args:
        context: the environment, and the report.
        name: the snapshot's name.
    """
    return snapshots.restore(context.environment, name)


def drop(context: Context, name: str | None, branch: str | None = None) -> Job:
    """Drop a snapshot, or the database of a branch.

    Args:
        context: the environment, and the report.
        name: the snapshot's name.
        branch: the branch's name, in place of that.

    Raises:
        UsageError: both are given.
    """
    if branch is None:
        return snapshots.drop(context.environment, name)
    if name is not None:
        raise UsageError("--name drops a snapshot, --branch the database of a branch", remedy="give one of the two")
    return branch_databases.drop(context.environment, branch)
