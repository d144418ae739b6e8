"""The operations of backup.*: make, list, verify, prune and restore backups."""

from __future__ import annotations

from pathlib import Path

from skinspire_db.copies import backup, prove, retention
from skinspire_db.copies import restore as restoring
from skinspire_db.lifecycle.operation import Job
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.steps import Context


def create(context: Context, folder: Path, *, jobs: str | int = 2) -> Job:
    """Back the database up, with a manifest of what it holds."""
    return backup.create(context.environment, folder, jobs=jobs, report=context.report)


def listing(context: Context, folder: Path) -> Job:
    """The complete backups of the environment, newest first, and what cannot be used."""
    return retention.listing(context.environment, folder)


def verify(context: Context, folder: Path, *, file: str | None = None, full: bool = False, jobs: str | int = 2) -> Job:
    """Look whether a backup is what was written; with `full`, restore it aside and compare."""
    return prove.verify(context.environment, folder, file=file, full=full, jobs=jobs)


def prune(context: Context, folder: Path, *, apply: bool, **keep: int | str) -> Job:
    """Which backups are kept (`daily`, `weekly`, `monthly`), and with `apply` delete the others."""
    return retention.prune(context.environment, folder, apply=apply, **keep)


def restore(
    context: Context, folder: Path, *, file: str | None = None, jobs: str | int = 2, empty: bool = False
) -> Replacement:
    """Make the environment's database what a backup holds, or a dump by others; with `empty`, one without rows too."""
    return restoring.restore(context.environment, folder, file=file, jobs=jobs, empty=empty)
