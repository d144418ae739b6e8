"""The operations of backup.*: make, list, verify, prune and restore backups, and receive the WAL between them."""

from __future__ import annotations

from pathlib import Path

from skinspire_db.copies import backup, masked_backup, prove, retention
from skinspire_db.copies import restore as restoring
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.operation import Job
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.recovery import continuous
from skinspire_db.steps import Context


def create(
    context: Context, folder: Path, *, jobs: str | int = 2, masked: bool = False, secret_env: str | None = None
) -> Job:
    """Back the database up, with a manifest of what it holds.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        jobs: how many processes of pg_dump work at once, as it was typed.
        masked: back a masked copy up, which unprotected environments can restore.
        secret_env: the variable with the secret of its pseudonyms.

    Raises:
        UsageError: a secret is given for a backup that is not masked.
    """
    if masked:
        return masked_backup.create(context.environment, folder, jobs=jobs, secret_env=secret_env)
    if secret_env is not None:
        raise UsageError("--secret-env is for a masked backup", remedy="add --masked, or leave --secret-env out")
    return backup.create(context.environment, folder, jobs=jobs, report=context.report)


def listing(context: Context, folder: Path) -> Job:
    """The complete backups of the environment, newest first, and what cannot be used.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
    """
    return retention.listing(context.environment, folder)


def verify(context: Context, folder: Path, *, file: str | None = None, full: bool = False, jobs: str | int = 2) -> Job:
    """Look whether a backup is what was written.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        file: the backup's folder; None for the newest.
        full: restore it aside and compare, too.
        jobs: how many processes of pg_restore work at once, as it was typed.
    """
    return prove.verify(context.environment, folder, file=file, full=full, jobs=jobs)


def prune(context: Context, folder: Path, *, apply: bool, **keep: int | str) -> Job:
    """Show which backups are kept and which are not.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        apply: delete those that are not kept.
        keep: how many are kept: `daily`, `weekly`, `monthly`.
    """
    return retention.prune(context.environment, folder, apply=apply, **keep)


def restore(
    context: Context, folder: Path, *, file: str | None = None, jobs: str | int = 2, empty: bool = False
) -> Replacement:
    """Make the environment's database what a backup or a dump made elsewhere holds.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        file: the backup's folder, or a dump; None for the newest backup.
        jobs: how many processes of pg_restore work at once, as it was typed.
        empty: take a dump without rows, too.
    """
    return restoring.restore(context.environment, folder, file=file, jobs=jobs, empty=empty)


def start(context: Context, folder: Path, *, foreground: bool = False) -> Job:
    """Receive the WAL as it is written, so that any second can be come back to.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        foreground: stay in it, for systemd, a container or a Windows service.
    """
    return continuous.start(context.environment, folder, foreground=foreground)


def stop(context: Context, folder: Path, *, drop_slot: bool = False) -> Job:
    """Stop the receiver.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
        drop_slot: the server keeps no WAL for it any longer.
    """
    return continuous.stop(context.environment, folder, drop_slot=drop_slot)


def status(context: Context, folder: Path) -> Job:
    """How continuous backups stand.

    Args:
        context: the environment, and the report.
        folder: where backups are kept.
    """
    return continuous.report(context.environment, folder)
