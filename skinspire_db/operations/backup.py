"""The operations of backup.*: make, list, verify, prune and restore backups, and receive the WAL between them."""

from __future__ import annotations

from pathlib import Path

from skinspire_db import steps
from skinspire_db.copies import backup, masked_backup, prove, retention
from skinspire_db.copies import restore as restoring
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.operation import Job, Operation
from skinspire_db.recovery import after_backup, base_backup, continuous
from skinspire_db.recovery import drill as drills
from skinspire_db.recovery import restore as coming_back
from skinspire_db.recovery import retention as base_retention
from skinspire_db.recovery.archive import Archive
from skinspire_db.steps import Context


def create(
    context: Context,
    folder: Path,
    *,
    jobs: str | int = 2,
    masked: bool = False,
    secret_env: str | None = None,
    physical: bool = False,
    incremental: bool = False,
) -> Job:
    """Back the database up, with a manifest of what it holds.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        jobs: how many processes of pg_dump work at once, as it was typed.
        masked: back a masked copy up, which unprotected environments can restore.
        secret_env: the variable with the secret of its pseudonyms.
        physical: back the server's files up, which with the received WAL can be recovered to any second.
        incremental: of these, what has changed since the last time.

    Raises:
        UsageError: a secret is given for a backup that is not masked, or a mask for one of the server's files.
    """
    environment = context.environment
    if physical or incremental:
        base_backup.refuse_options(masked=masked, secret_env=secret_env)
        job = base_backup.create(environment, folder, incremental=incremental)
    elif masked:
        job = masked_backup.create(environment, folder, jobs=jobs, secret_env=secret_env)
    elif secret_env is not None:
        raise UsageError("--secret-env is for a masked backup", remedy="add --masked, or leave --secret-env out")
    else:
        job = backup.create(environment, folder, jobs=jobs, report=context.report)
    return after_backup.followed(job, environment, folder)


def listing(context: Context, folder: Path) -> Job:
    """The complete backups of the environment, newest first, and what cannot be used.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
    """
    return retention.listing(context.environment, folder, *base_backup.listing(Archive.of(context.environment, folder)))


def verify(context: Context, folder: Path, *, file: str | None = None, full: bool = False, jobs: str | int = 2) -> Job:
    """Look whether a backup is what was written.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        file: the backup's folder; None for the newest.
        full: restore it aside and compare, too.
        jobs: how many processes of pg_restore work at once, as it was typed.
    """
    if file and not full and (job := base_backup.verified(context.environment, folder, file)):
        return job
    return prove.verify(context.environment, folder, file=file, full=full, jobs=jobs)


def prune(context: Context, folder: Path, *, apply: bool, **keep: int | str) -> Job:
    """Show which backups are kept and which are not.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        apply: delete those that are not kept.
        keep: how many are kept: `daily`, `weekly`, `monthly`.
    """
    job = retention.prune(context.environment, folder, apply=apply, **keep)
    counts = tuple(int(keep.get(name, default)) for name, default in (("daily", 7), ("weekly", 4), ("monthly", 12)))
    return base_retention.with_base_backups(job, context.environment, folder, counts, apply=apply)


def restore(
    context: Context,
    folder: Path,
    *,
    file: str | None = None,
    jobs: str | int = 2,
    empty: bool = False,
    to: str | None = None,
    before: str | None = None,
    keep: bool = False,
    take: str | None = None,
) -> Operation:
    """Make the environment's database what a backup or a dump made elsewhere holds; or come back to a moment, aside.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        file: the backup's folder, or a dump; None for the newest backup.
        jobs: how many processes of pg_restore work at once, as it was typed.
        empty: take a dump without rows, too.
        to: the moment that is come back to.
        before: an operation of the journal: the moment before it.
        keep: leave the server that is recovered.
        take: what is taken over from it.

    Raises:
        UsageError: the arguments do not go together.
    """
    if to is not None or before is not None:
        if file is not None or empty:
            raise UsageError("--file is a backup, --to and --before a moment", remedy="give one of them")
        return coming_back.restore(context.environment, folder, to=to, before=before, keep=keep, tables=take)
    if keep or take is not None:
        raise UsageError("--keep and --take are for a moment", remedy="add --to=latest, or a time")
    return restoring.restore(context.environment, folder, file=file, jobs=jobs, empty=empty)


def start(context: Context, folder: Path, *, foreground: bool = False) -> Job:
    """Receive the WAL as it is written, so that any second can be come back to.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        foreground: stay in it, for systemd, a container or a Windows service.
    """
    return continuous.start(context.environment, folder, foreground=foreground)


def stop(context: Context, folder: Path, *, drop_slot: bool = False, kept: bool = False) -> Job:
    """Stop the receiver.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        drop_slot: the server keeps no WAL for it any longer.
        kept: delete the servers that backup.restore --keep has left, and let the receiver be.

    Raises:
        UsageError: both are given.
    """
    if kept and drop_slot:
        raise UsageError("--kept is of recovered servers, --drop-slot of the receiver", remedy="give one of the two")
    if kept:
        return continuous.end_kept(context.environment)
    return continuous.stop(context.environment, folder, drop_slot=drop_slot)


def drill(context: Context, folder: Path) -> Job:
    """Prove continuous backups by a recovery to a random second.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
    """
    (step,) = steps.bound(context, steps.verify(writes=False))
    return drills.drill(context.environment, folder, step.run)


def status(context: Context, folder: Path) -> Job:
    """How continuous backups stand.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
    """
    return continuous.report(context.environment, folder)
