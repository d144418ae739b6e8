"""The SQL files of sql/: functions, views and triggers; install them, see what is installed, and give them versions."""

from __future__ import annotations

from invoke.context import Context

from ._help import ENV, JSON, task

NAME = {"name": "one SQL file, without .sql (see sql.status): views/open_bills, or open_bills where that is one file"}
VIEWS = {
    "functions": "only: is every function there, as its file made it",
    "views": "only: is every view there, as its file made it",
    "critical": "only: are the triggers that guard accounts there, and enabled",
    "counts": "only: how many triggers each table has, and should have",
    "proofs": "only: do the triggers, and what else has a proof, do what they should",
}


@task(
    help=ENV
    | NAME
    | JSON
    | {
        "at-version": "with --name: the version to install, from the folder archive if it is an earlier one",
        "verify": "prove every file that has a proof before it is committed, not only what was installed anew",
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
    """Install the SQL files: functions, views and triggers; what is right already is not touched."""
    from skinspire_db.operations import sql
    from skinspire_db.terminal import console

    console.operate(
        ctx,
        env,
        lambda context: sql.install(context.environment, name=name, at_version=at_version, verify=verify),
        json=json,
    )


@task(help=ENV | VIEWS | JSON | {"verbose": "show every check, not only what did not pass"})
def verify(
    ctx: Context,
    env: str | None = None,
    functions: bool = False,
    views: bool = False,
    critical: bool = False,
    counts: bool = False,
    proofs: bool = False,
    verbose: bool = False,
    json: bool = False,
) -> None:
    """Look whether functions, views and triggers are there and prove what they do, in a transaction that is rolled back."""
    from skinspire_db.operations import sql
    from skinspire_db.terminal import console

    asked = {"functions": functions, "views": views, "critical": critical, "counts": counts, "proofs": proofs}
    chosen = [name for name, wanted in asked.items() if wanted]
    verbose = verbose or bool(chosen)
    console.operate(ctx, env, lambda context: sql.verify(context.environment, chosen), json=json, verbose=verbose)


@task(help=ENV | JSON)
def status(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show the state of every function, view and trigger; exit code 3 when one is not INSTALLED."""
    from skinspire_db.operations import sql
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: sql.status(context.environment), json=json)


@task(help=ENV | NAME | JSON)
def diff(ctx: Context, env: str | None = None, name: str | None = None, json: bool = False) -> None:
    """Show what an install would change: - is the database, + the file; exit code 3 when there is anything."""
    from skinspire_db.operations import sql
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: sql.diff(context.environment, name), json=json)


@task(help=NAME | JSON)
def bump(ctx: Context, name: str | None = None, json: bool = False) -> None:
    """Give an edited SQL file its next version; the former one is frozen in the folder archive beside it."""
    from skinspire_db.config.project import current_project
    from skinspire_db.objects import versions
    from skinspire_db.terminal import console

    dry = bool(ctx.config.run.dry)
    done = versions.bump(current_project(), name, dry=dry)
    console.show_result("sql.bump", json=json, text=done.told(dry), name=done.name, version=done.version, dry=dry)


@task(
    help=ENV
    | JSON
    | {
        "view": "the view, or materialized view, that the file is to define",
        "function": "the function",
        "trigger": "the name of a trigger file, to be written by hand",
        "policy": "the name of a policy file, to be written by hand",
        "from-database": "write what the database has, as version 1; sql.install then takes it over as it is",
    }
)
def new(
    ctx: Context,
    env: str | None = None,
    view: str | None = None,
    function: str | None = None,
    trigger: str | None = None,
    policy: str | None = None,
    from_database: bool = False,
    json: bool = False,
) -> None:
    """Write an SQL file: an empty one, or one of a view or function that the database has."""
    from skinspire_db.lifecycle.remedies import as_typed
    from skinspire_db.operations import sql
    from skinspire_db.terminal import console

    wanted = {"view": view, "function": function, "trigger": trigger, "policy": policy}
    if from_database:
        console.operate(ctx, env, lambda context: sql.from_database(context.environment, wanted), json=json)
        return
    dry = bool(ctx.config.run.dry)
    made = sql.skeleton(wanted, dry=dry)
    then = f"edit it, then invoke {'triggers' if trigger else 'sql'}.bump --name={made.name}"
    text = as_typed(f"{made.path} {'would be' if dry else 'is'} written; {then}")
    console.show_result("sql.new", json=json, text=text, name=made.name, file=str(made.path), dry=dry)
