"""Proving a backup: its files by their checksums, or all of it by a restore into a scratch database."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

from skinspire_db.catalog import fingerprint
from skinspire_db.config.environment import Environment
from skinspire_db.copies import backup, backup_folder, restore
from skinspire_db.copies.backup_folder import Backup
from skinspire_db.copies.backup_folder import folder_of as folder_of
from skinspire_db.copies.copy import number_of_jobs
from skinspire_db.errors import BackupInvalid, ChecksFailed
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.result import Check, Report
from skinspire_db.postgres.client_programs import client_tools
from skinspire_db.postgres.target import Target, target_of


def verify(
    environment: Environment, folder: Path | None = None, *, file: str | None = None, full: bool = False, jobs: str | int = 2
) -> Job:
    """Verify that a backup is what was written.

    Args:
        environment: whose backup it is.
        folder: the folder of backups; by default backups/ in the project.
        file: the backup's name or folder; by default the newest backup of the environment.
        full: also restore it into a scratch database, and compare that with the manifest.
        jobs: how many processes restore at once.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: there is no such backup, or `jobs` is no number.
        BackupInvalid: the backup is not complete.
    """
    backup = backup_folder.pick(backup_folder.folder_of(environment.project, folder), environment.name, file)
    steps = ("files", "restore") if full else ("files",)
    look = partial(_look, backup, full=full)
    work = partial(_verify, backup, full=full, jobs=number_of_jobs(jobs))
    done = f"{backup.name} is as it was written" + (", and can be restored" if full else "")
    return Job("backup.verify", environment, work, steps, keeps=False, writes=True, done=done, look=look, needs_server=full)


def _look(backup: Backup, running: Running, *, full: bool) -> bool:
    """Whether the files are what was written; nothing is noted."""
    if full:
        restore.refuse_elsewhere(backup.manifest.environment, running.target)
    with running.step("files") as summary:
        wrong = backup_folder.damages(backup)
        readable = "" if wrong else _readable(backup, running.target)
        files = f"{len(backup.manifest.files)} as written"
        summary.checks = [Check("files", "fail" if wrong else "pass", "; ".join(wrong[:3]) or files)]
        if not wrong:
            summary.checks.append(Check("archive", "fail" if readable else "pass", readable or "pg_restore can read it"))
        summary.numbers = {"files": len(backup.manifest.files), "MB": f"{backup.manifest.bytes / 1e6:.1f}"}
    return not wrong and not readable


def _verify(backup: Backup, running: Running, *, full: bool, jobs: int) -> None:
    if not _look(backup, running, full=full):
        backup_folder.mark_verified(backup, "")
        return
    if not full:
        backup_folder.mark_verified(backup, "files")
        return
    with running.step("restore") as summary:
        source, tools = restore.Source.of(backup), client_tools(backup.manifest.server_version)
        restore.refuse_by_contents(tools, source, running)
        aside = restore.scratch(tools, source, running)
        restore.fill(source, aside, jobs, running)
        after = fingerprint.take(aside, running.operation, jobs=jobs, kind=backup.manifest.contents.row_hash)
        parts = restore.compared(running)
        found = list(fingerprint.differences(backup.manifest.contents, after, of=parts))
        same = "as in the manifest" + (", but for who owns what and may do what" if "unowned" in parts else "")
        summary.checks = [Check("contents", "fail" if found else "pass", "; ".join(found[:3]) or same)]
        summary.numbers = after.numbers
    backup_folder.mark_verified(backup, "" if found else "restored")


def _readable(backup: Backup, target: Target) -> str:
    """What pg_restore has to say against the archive; empty when it can read its table of contents."""
    tools = client_tools(backup.manifest.server_version)
    archive = str(backup.path / backup_folder.DATA)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    listing = tools.start("pg_restore", target, "--list", archive, connect=False, **streams)
    complaint = listing.communicate()[1]
    return complaint.decode(errors="replace").strip() if listing.returncode else ""


def precaution(environment: Environment, folder: Path | None, report: Report, operation: str) -> str:
    """Take a backup and prove it by a restore, before an operation that could lose data.

    Args:
        environment: what is backed up.
        folder: the folder of backups; by default backups/ in the project.
        report: is told how many bytes are written.
        operation: the operation that follows; the manifest names it.

    Returns:
        A sentence with the backup's path.

    Raises:
        ChecksFailed: the restored backup is not what was backed up.
        BackupInvalid: the backup could not be proved, or the folder cannot be written.
        StepFailed: pg_dump or pg_restore failed.
    """
    target = target_of(environment)
    made = backup.make(target, backup_folder.folder_of(environment.project, folder), 2, report, f"before {operation}")
    try:
        verify(environment, folder, file=str(made.path), full=True).run()
    except ChecksFailed as error:
        error.message = f"the backup that is taken first could not be proved: {error.message}"
        raise
    if backup_folder.read(made.path).verified != "restored":
        raise BackupInvalid(f"the backup that is taken first could not be proved: {made.path}", remedy="run it again")
    return f"a backup was taken first, and proved by a restore: {made.path}"
