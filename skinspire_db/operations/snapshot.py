"""The operations of snapshot.*: keep a copy of a database beside it, and come back to it."""

from __future__ import annotations

from skinspire_db.copies import snapshots
from skinspire_db.lifecycle.operation import Job
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
    """The snapshots of the environment's database.

    Args:
        context: the environment, and the report.
    """
    return snapshots.listing(context.environment)


def restore(context: Context, name: str | None) -> Replacement:
    """Come back to a snapshot.

    Args:
        context: the environment, and the report.
        name: the snapshot's name.
    """
    return snapshots.restore(context.environment, name)


def drop(context: Context, name: str | None) -> Job:
    """Drop a snapshot.

    Args:
        context: the environment, and the report.
        name: the snapshot's name.
    """
    return snapshots.drop(context.environment, name)
