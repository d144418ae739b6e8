"""Migrations: write revisions, apply them, take them back, and see where a database stands."""

from __future__ import annotations

from typing import Any

from invoke.context import Context

from ._help import CONFIRM, ENV, JSON, task

TO = {"to": "a revision, which may be cut short (default: the newest)"}
MESSAGE = {"message": "what the revision does, in a few words"}


@task(
    help=ENV
    | MESSAGE
    | JSON
    | {
        "keep": "keep the file also when it fails on this database",
        "accepted": "take in the accepted differences, too",
        "head": "the line of revisions that it goes on, where there are several: a label, or a revision of it",
        "online": "divide it into revisions that stop no session, also for small tables",
    }
)
def new(
    ctx: Context,
    env: str | None = None,
    message: str | None = None,
    keep: bool = False,
    accepted: bool = False,
    head: str | None = None,
    online: bool = False,
    json: bool = False,
) -> None:
    """Write a revision from the difference between the models and the database."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(
        ctx,
        env,
        lambda context: migrate.new(context.environment, message, keep=keep, all_of_it=accepted, head=head, online=online),
        json=json,
    )


@task(help=ENV | TO | CONFIRM | JSON)
def upgrade(
    ctx: Context, env: str | None = None, to: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Apply the pending revisions, each in a transaction of its own."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: migrate.upgrade(context.environment, to), json=json, confirm=confirm)


@task(help=ENV | CONFIRM | JSON | {"steps": "how many revisions to take back"})
def downgrade(ctx: Context, env: str | None = None, steps: str = "1", confirm: str | None = None, json: bool = False) -> None:
    """Take the last revision back."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: migrate.downgrade(context.environment, steps), json=json, confirm=confirm)


@task(help=ENV | JSON)
def status(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show which revisions are applied, pending, or unknown to the files."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: migrate.status(context.environment), json=json)


@task(help=ENV | JSON)
def check(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """For CI: exit code 3 when a revision is pending or the models differ from the database."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: migrate.check(context.environment), json=json)


@task(help=ENV | JSON)
def lint(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show what is risky about the pending revisions; exit code 3 where something is."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: migrate.lint(context.environment), json=json)


@task(
    help=ENV
    | {
        "from_": "what the copy is made of: backup (the newest that a restore has proved), copy or masked",
        "on": "embedded: make the copy on the embedded server (default: the environment's own)",
        "keep": "keep the copy",
        "longest-lock": "seconds that a lock may stop readers or writers; exit code 3 where one is held longer",
        "to": "the revision that is rehearsed last, which may be cut short (default: the newest)",
    }
    | JSON
)
def rehearse(
    ctx: Context,
    env: str | None = None,
    from_: str = "backup",
    on: str | None = None,
    keep: bool = False,
    longest_lock: str = "1",
    to: str | None = None,
    json: bool = False,
) -> None:
    """Apply the pending revisions to a copy, and say what they lock and lose; exit code 3 where that is too much."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    options: dict[str, Any] = {"source": from_, "on": on, "keep": keep, "longest_lock": longest_lock, "last": to}
    console.operate(ctx, env, lambda context: migrate.rehearse(context.environment, **options), json=json)


@task(help=ENV | TO | CONFIRM | JSON)
def stamp(
    ctx: Context, env: str | None = None, to: str | None = None, confirm: str | None = None, json: bool = False
) -> None:
    """Note that the database is at a revision, and run nothing."""
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: migrate.stamp(context.environment, to), json=json, confirm=confirm)


@task(help=ENV | TO | JSON)
def sql(ctx: Context, env: str | None = None, to: str | None = None, json: bool = False) -> None:
    """Print the SQL of the pending revisions, and run nothing."""
    from skinspire_db.config import environment
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    chosen = environment.resolve(env)
    database, text = migrate.sql(chosen, to)
    found = {"environment": chosen.name, "database": database, "sql": text}
    console.show_result("migrate.sql", json=json, text=text.rstrip(), **found)


@task(help=ENV | MESSAGE | JSON)
def merge(ctx: Context, env: str | None = None, message: str | None = None, json: bool = False) -> None:
    """Write a revision that joins two heads."""
    from skinspire_db.config import environment
    from skinspire_db.operations import migrate
    from skinspire_db.terminal import console

    chosen = environment.resolve(env)
    written = migrate.merge(chosen, message, dry=bool(ctx.config.run.dry))
    if written is None:
        console.show_result("migrate.merge", json=json, text="would write a revision that joins the heads", dry=True)
        return
    text = f"{written.revision} joins the heads: {written.file}"
    console.show_result("migrate.merge", json=json, text=text, revision=written.revision, file=written.file)
