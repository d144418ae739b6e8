"""Backups: make, list, verify, prune and restore them, and receive the WAL between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invoke.context import Context

from ._help import CONFIRM, ENV, JSON, task

JOBS = {"jobs": "how many tables at once (default: backup.jobs in invoke.yaml)"}
FILE = {"file": "a backup's name, as backup.list shows it, or its folder (default: the newest)"}


MASKED = {
    "masked": "mask every value that no rule in sql/masks declares safe; unprotected environments can restore it",
    "secret-env": "the variable with the secret that keeps pseudonyms the same from copy to copy (default: a new secret)",
}


PHYSICAL = {
    "physical": "the server's files, all its databases: with the WAL that is received, any second can be come back to",
    "incremental": "the server's files, only what has changed since the last time",
}


@task(help=ENV | JOBS | MASKED | PHYSICAL | JSON)
def create(
    ctx: Context,
    env: str | None = None,
    jobs: str | None = None,
    masked: bool = False,
    secret_env: str | None = None,
    physical: bool = False,
    incremental: bool = False,
    json: bool = False,
) -> None:
    """Back the database up, with a manifest of what it holds."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    options: dict[str, Any] = {"jobs": jobs or ctx.config.backup.jobs, "masked": masked, "secret_env": secret_env}
    options |= {"physical": physical, "incremental": incremental}
    console.operate(ctx, env, lambda context: backup.create(context, _folder(ctx), **options), json=json)


@task(name="list", help=ENV | JSON)
def list_(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show the complete backups of an environment, newest first."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: backup.listing(context, _folder(ctx)), json=json)


@task(help=ENV | FILE | JOBS | JSON | {"full": "restore it into a scratch database, and compare"})
def verify(
    ctx: Context,
    env: str | None = None,
    file: str | None = None,
    full: bool = False,
    jobs: str | None = None,
    json: bool = False,
) -> None:
    """Look whether a backup is what was written, or with --full whether it can be restored."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    jobs = jobs or ctx.config.backup.jobs
    console.operate(
        ctx,
        env,
        lambda context: backup.verify(context, _folder(ctx), file=file, full=full, jobs=jobs),
        json=json,
        verbose=True,
    )


KEEP = {
    "daily": "keep the newest of so many days (default: backup.daily in invoke.yaml)",
    "weekly": "keep the newest of so many weeks (default: backup.weekly in invoke.yaml)",
    "monthly": "keep the newest of so many months (default: backup.monthly in invoke.yaml)",
    "apply": "delete; without it, only show what would be deleted",
}


@task(help=ENV | KEEP | JSON)
def prune(
    ctx: Context,
    env: str | None = None,
    daily: str | None = None,
    weekly: str | None = None,
    monthly: str | None = None,
    apply: bool = False,
    json: bool = False,
) -> None:
    """Show which backups would be deleted, and with --apply delete them."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    given = {"daily": daily, "weekly": weekly, "monthly": monthly}
    counts = {name: ctx.config.backup[name] if value is None else value for name, value in given.items()}
    apply = apply and not ctx.config.run.dry  # what it shows without is its plan
    console.operate(ctx, env, lambda context: backup.prune(context, _folder(ctx), **counts, apply=apply), json=json)


RESTORE = {
    "file": "a backup's name or folder, or a dump by pg_dump, plain SQL too (default: the newest backup)",
    "empty": "let a dump without any row replace a database that has some",
}


MOMENT = {
    "to": 'come back to this second, aside: "2026-11-25 14:03:07+05:30", or latest',
    "before": "come back to the moment before the last operation of this name in the journal, aside",
    "keep": "leave the server of then running, to be looked into; backup.stop --kept ends it",
    "take": "take over from then: whole, or the names of tables with commas between",
}


@task(help=ENV | RESTORE | MOMENT | JOBS | CONFIRM | JSON)
def restore(
    ctx: Context,
    env: str | None = None,
    file: str | None = None,
    jobs: str | None = None,
    confirm: str | None = None,
    empty: bool = False,
    to: str | None = None,
    before: str | None = None,
    keep: bool = False,
    take: str | None = None,
    json: bool = False,
) -> None:
    """Make the database what a backup holds: restored aside, compared, and swapped in; or come back to a second, aside."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    options: dict[str, Any] = {"file": file, "jobs": jobs or ctx.config.backup.jobs, "empty": empty}
    options |= {"to": to, "before": before, "keep": keep, "take": take}
    console.operate(
        ctx,
        env,
        lambda context: backup.restore(context, _folder(ctx), **options),
        json=json,
        confirm=confirm,
    )


FOREGROUND = {"foreground": "stay until the process is ended: for systemd, a container or a Windows service"}


@task(help=ENV | FOREGROUND | JSON)
def start(ctx: Context, env: str | None = None, foreground: bool = False, json: bool = False) -> None:
    """Receive the server's WAL as it is written, so that any second can be come back to."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: backup.start(context, _folder(ctx), foreground=foreground), json=json)


STOP = {
    "drop-slot": "the server keeps no WAL for the receiver any longer; one that is started later leaves a gap",
    "kept": "end and delete the servers that backup.restore --keep has left; the receiver goes on",
}


@task(help=ENV | STOP | JSON)
def stop(ctx: Context, env: str | None = None, drop_slot: bool = False, kept: bool = False, json: bool = False) -> None:
    """Stop receiving; what was received stays."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: backup.stop(context, _folder(ctx), drop_slot=drop_slot, kept=kept), json=json)


@task(help=ENV | JSON)
def status(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Show how far the receiver is, what its slot keeps, and when backups were last proved by a drill."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: backup.status(context, _folder(ctx)), json=json)


@task(help=ENV | JSON)
def drill(ctx: Context, env: str | None = None, json: bool = False) -> None:
    """Come back to a random second, aside, and prove what is recovered; keep how long it took."""
    from skinspire_db.operations import backup
    from skinspire_db.terminal import console

    console.operate(ctx, env, lambda context: backup.drill(context, _folder(ctx)), json=json)


def _folder(ctx: Context) -> Path:
    return Path(ctx.config.backup.folder)
