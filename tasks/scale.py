"""Beyond one server: would the schema distribute by hospital."""

from __future__ import annotations

from invoke.context import Context

from ._help import ENV, JSON, task


@task(help=ENV | JSON)
def check(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Say of each table what it becomes on Citus, distributed by hospital_id; exit code 3 while one is not possible."""
    from skinspire_db.operations import scale
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: scale.check(context.environment), json=json)
