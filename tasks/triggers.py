"""The trigger files of sql/triggers: install them, see and prove what is installed, and give them versions."""

from __future__ import annotations

from invoke.context import Context

from ._help import CONFIRM, ENV, JSON, task

NAME = {"name": "one trigger file, without .sql (see triggers.status)"}
VIEWS = {
    "functions": "only: is every function there, as its file made it",
    "critical": "only: are the triggers that guard accounts there, and enabled",
    "counts": "only: how many triggers each table has, and should have",
    "proofs": "only: do the triggers do what they should",
}


@task(
    help=ENV
    | NAME
    | JSON
    | {
        "at-version": "with --name: the version to install, from sql/triggers/archive if it is an earlier one",
        "verify": "prove every file before it is committed, not only what was installed anew",
    }
)
def install(
    ctx: Context,
    env: str | None = None,
    name: str | None = None,
    at_version: str | None = None,
    verify: bool = False,
    json: bool = False,
) -> None:
    """Install the trigger files; what is right already is not touched."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(
        ctx,
        env,
        lambda context: triggers.install(context.environment, name=name, at_version=at_version, verify=verify),
        json=json,
    )


@task(help=ENV | VIEWS | JSON | {"verbose": "show every check, not only what did not pass"})
def verify(
    ctx: Context,
    env: str | None = None,
    functions: bool = False,
    critical: bool = False,
    counts: bool = False,
    proofs: bool = False,
    verbose: bool = False,
    json: bool = False,
) -> None:
    """Look whether the triggers are there and prove what they do, in a transaction that is rolled back."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    asked = {"functions": functions, "critical": critical, "counts": counts, "proofs": proofs}
    views = [view for view, wanted in asked.items() if wanted]

    verbose = verbose or bool(views)
    console.operate(ctx, env, lambda context: triggers.verify(context.environment, views), json=json, verbose=verbose)


@task(help=ENV | JSON)
def status(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show the state of every function and trigger; exit code 3 when one is not INSTALLED."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: triggers.status(context.environment), json=json)


@task(help=ENV | NAME | JSON)
def diff(ctx: Context, env: str | None = None, name: str | None = None, json: bool = False) -> None:
    """Show what an install would change: - is the database, + the file; exit code 3 when there is anything."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: triggers.diff(context.environment, name), json=json)


@task(help=ENV | NAME | CONFIRM | JSON)
def disable(
    ctx: Context, env: str | None = None, name: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Switch a file's triggers off, and record that this is wished: an install leaves them off."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(
        ctx, env, lambda context: triggers.switch(context.environment, name, enabled=False), json=json, confirm=confirm
    )


@task(help=ENV | NAME | JSON)
def enable(ctx: Context, env: str | None = None, name: str | None = None, json: bool = False) -> None:
    """Switch a file's triggers on again."""
    from skinspire_db.operations import triggers
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: triggers.switch(context.environment, name, enabled=True), json=json)


@task(help=NAME | JSON)
def bump(ctx: Context, name: str | None = None, json: bool = False) -> None:
    """Give an edited trigger file its next version; the former one is frozen in sql/triggers/archive."""
    from skinspire_db.config.project import current_project
    from skinspire_db.objects import versions
    from skinspire_db.objects.kinds import TRIGGER
    from skinspire_db.terminal import console

    dry = bool(ctx.config.run.dry)
    done = versions.bump(current_project(), name, (TRIGGER,), dry=dry)
    console.show_result("triggers.bump", json=json, text=done.told(dry), name=done.name, version=done.version, dry=dry)
