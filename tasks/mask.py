"""The rules of masked copies: what they make of each column."""

from __future__ import annotations

from invoke.context import Context

from ._help import ENV, JSON, task


@task(help=ENV | JSON)
def check(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show every column with its rule or the default that would serve; exit code 3 while a column has no rule."""
    from skinspire_db.operations import mask
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: mask.check(context.environment), json=json)


@task(help=ENV | JSON | {"table": "the table, as NAME or SCHEMA.NAME"})
def preview(ctx: Context, env: str | None = None, table: str | None = None, json: bool = False) -> None:
    """Show ten rows of a table as a masked copy would have them."""
    from skinspire_db.operations import mask
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: mask.preview(context.environment, table), json=json)


@task(help=ENV | JSON | {"name": "the file's name in sql/masks (default: rules)"})
def new(ctx: Context, env: str | None = None, name: str | None = None, json: bool = False) -> None:
    """Write a first file of rules for the columns that have none, everything masked, for a person to loosen."""
    from skinspire_db.operations import mask
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: mask.new(context.environment, name), json=json)
