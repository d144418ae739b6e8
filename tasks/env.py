"""Environments: which one is active, what every setting is and where it came from, and stamping a database."""

from __future__ import annotations

from invoke.context import Context

from ._help import ENV, JSON, task


@task(help=ENV | JSON)
def switch(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Make an environment the active one of this checkout."""
    from skinspire_db import errors
    from skinspire_db.config import environment
    from skinspire_db.terminal import console

    if env is None:
        raise errors.UsageError("env.switch needs the name of an environment", remedy="invoke env.switch --env=test")
    if ctx.config.run.dry:
        chosen = environment.resolve_name(env)
        console.show_result("env.switch", json=json, text=f"would switch to {chosen}", environment=chosen, dry=True)
        return
    now = environment.switch(env)
    text = f"active environment: {now.value} ({now.source})"
    console.show_result("env.switch", json=json, text=text, environment=now.value, source=now.source)


@task(help=ENV | JSON)
def status(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show every setting and where it came from; connects to nothing."""
    from skinspire_db.config import environment
    from skinspire_db.config.project import Setting
    from skinspire_db.terminal import console

    rows = environment.describe(env)
    rows += [
        Setting(f"{group}.{name}", str(value), "invoke.yaml, or Invoke's layers over it")
        for group in ("seed", "copy", "backup")
        for name, value in ctx.config[group].items()
    ]
    if json:
        values = [{"name": row.name, "value": row.value, "source": row.source} for row in rows]
        console.show_result("env.status", json=True, text="", environment=rows[0].value, settings=values)
    else:
        console.table([(row.name, row.value or "-", row.source) for row in rows], ("setting", "value", "from"))


@task(help=ENV | JSON | {"confirm": "the database's name: needed when it holds objects or another environment's stamp"})
def stamp(ctx: Context, env: str | None = None, confirm: str | None = None, json: bool = False) -> None:
    """Stamp a database as this environment's, so that the tools may change it."""
    from skinspire_db.operations import env as operations
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: operations.stamp(context.environment), json=json, confirm=confirm)


@task(help=ENV | JSON | {"confirm": "the database's name: needed in a protected environment, which gives its protection up"})
def unstamp(ctx: Context, env: str | None = None, confirm: str | None = None, json: bool = False) -> None:
    """Take an environment's stamp off its database, so that another one may adopt what it holds."""
    from skinspire_db.operations import env as operations
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: operations.unstamp(context.environment), json=json, confirm=confirm)
