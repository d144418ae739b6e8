"""Snapshots: named copies of a database beside it, to come back to."""

from __future__ import annotations

from invoke.context import Context

from ._help import CONFIRM, ENV, JSON, task

NAME = {"name": "the snapshot's name"}


@task(help=ENV | NAME | CONFIRM | JSON)
def take(
    ctx: Context, env: str | None = None, name: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Keep an exact copy of the database beside it on its server, under a name; the policy says how many are kept."""
    from skinspire_db.operations import snapshot
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: snapshot.take(context, name), json=json, confirm=confirm)


@task(name="list", help=ENV | JSON)
def list_(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show the snapshots of the database, newest first, and the databases of branches, where each has its own."""
    from skinspire_db.operations import snapshot
    from skinspire_db.terminal import console

    console.operate(ctx, env, snapshot.listing, json=json)


@task(help=ENV | NAME | CONFIRM | JSON)
def restore(
    ctx: Context, env: str | None = None, name: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Make the database what it was when the snapshot was taken; says what is another one now, and keeps it for db.undo."""
    from skinspire_db.operations import snapshot
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: snapshot.restore(context, name), json=json, confirm=confirm)


@task(help=ENV | NAME | {"branch": "drop the database of this branch, where each has its own"} | CONFIRM | JSON)
def drop(
    ctx: Context,
    env: str | None = None,
    name: str | None = None,
    branch: str | None = None,
    confirm: str | None = None,
    json: bool = False,
) -> None:
    """Drop a snapshot, or the database of a branch."""
    from skinspire_db.operations import snapshot
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: snapshot.drop(context, name, branch), json=json, confirm=confirm)
