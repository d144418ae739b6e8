"""Making a backup: pg_dump and the fingerprint on one snapshot, then the manifest, then the name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import skinspire_db
from skinspire_db.catalog import fingerprint
from skinspire_db.catalog.row_security import require_all_rows
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import write_atomically
from skinspire_db.copies import backup_folder, copied_tables, dump_files, restorable
from skinspire_db.copies.backup_folder import DATA, MANIFEST, TIME, Backup, Manifest
from skinspire_db.copies.copy import number_of_jobs
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle import guard, journal, stamp
from skinspire_db.lifecycle.failures import translated
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.read_only import present, read_only_connection
from skinspire_db.lifecycle.result import Report
from skinspire_db.migrations import version_table
from skinspire_db.objects import ledger
from skinspire_db.postgres import connections, database_settings
from skinspire_db.postgres.client_programs import client_tools, ended, remedy_of, said
from skinspire_db.postgres.progress import watched
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

COMPRESSION = "zstd:1"  # smaller than gzip's default, in a third of its time
SMALL = 32_000_000  # bytes: of a smaller database pg_dump reads less long than its further processes take to begin


def create(environment: Environment, folder: Path | None = None, *, jobs: str | int = 2, report: Report | None = None) -> Job:
    """Back an environment's database up into a new folder.

    Args:
        environment: what is backed up.
        folder: the folder of backups; by default backups/ in the project.
        jobs: how many tables pg_dump reads at once.
        report: is told how many bytes are written.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: `jobs` is no number.
        BackupInvalid: the folder cannot be read.
    """
    where, count = backup_folder.folder_of(environment.project, folder), number_of_jobs(jobs)

    def work(running: Running) -> None:
        target = running.target
        with contextlib.closing(connections.connect(target, running.operation)) as holder:
            with translated(target, running.operation, "preparation", holder):
                connections.begin(holder, target.policy)
                guard.admit(holder, target, running.operation, "", None, writes=False)
            with running.step("dump") as summary, fingerprint.meanwhile({holder}) as pool:
                # Before the dump: a backup that is there and an operation that failed do not go together.
                can_record = pool.submit(_can_write_journal, holder, running)
                made = make(target, where, count, running.report, note=running.note, ready=can_record.result)
                contents = made.manifest.contents
                megabytes = f"{made.manifest.bytes / 1e6:.1f}"
                summary.numbers = contents.numbers | {"MB": megabytes}
                summary.lines = [str(made.path)]
                summary.data = {"backup": made.name, "path": str(made.path)}
            if not can_record.result():
                running.note("the backup is not in the database's journal: the server only reads, as a standby does")
                return
            # Write the journal after pg_dump has ended: our row locks would block it, and its table locks us.
            with translated(target, running.operation, "journal", holder):
                stamp.write(holder, target.environment)
                journal.record(
                    holder, running.operation, target.environment, 0.0, [each.as_dict() for each in running.result.steps]
                )
                holder.commit()

    def look(running: Running) -> None:
        with read_only_connection(present(environment), running.operation) as connection:
            guard.admit(connection, running.target, running.operation, "", None, hold=False, writes=False)
            client_tools(connection.info.server_version)
        running.note(f"the backup would be in {where}")

    return Job("backup.create", environment, work, ("dump",), done="complete", look=look)


def _can_write_journal(holder: Connection, running: Running) -> bool:
    """Whether the database takes writes at all; where it does, the journal's line is written on trial.

    Raises SkinspireError when it cannot be written, because the role lacks a right for one.
    """
    with translated(running.target, running.operation, "preparation", holder):
        if holder.execute("SHOW transaction_read_only; SAVEPOINT trial").fetchone() == ("on",):
            return False
        stamp.write(holder, running.target.environment)
        journal.record(holder, running.operation, running.target.environment, 0.0, [])
        holder.execute("ROLLBACK TO trial; RELEASE trial")  # gives back its locks, for which pg_dump would wait
        return True


def make(
    target: Target,
    folder: Path,
    jobs: int,
    report: Report,
    reason: str = "asked for",
    note: Callable[[str], object] = lambda _: None,
    ready: Callable[[], object] = lambda: None,
) -> Backup:
    """Back a database up, on one snapshot; no other session waits for it. The operation has been on its server before.

    Args:
        target: the database.
        folder: the folder of backups.
        jobs: how many tables pg_dump reads at once.
        report: is told how many bytes are written.
        reason: why the backup is taken; the manifest keeps it.
        note: is called with a sentence when it is unknown whether something can be restored.
        ready: is called before pg_dump begins.

    Raises:
        StepFailed: with what pg_dump said, or with what a restore could not compute.
        PermissionMissing: row security hides rows from the role.
        BackupInvalid: the folder cannot be written. In both cases nothing is left there.
    """
    sessions: fingerprint.Sessions = set()
    with contextlib.ExitStack() as stack, fingerprint.meanwhile(sessions, workers=2) as pool:
        trial = pool.submit(restorable.check, target, sessions)
        connection = stack.enter_context(contextlib.closing(connections.connect(target, "backup.create")))
        snapshot = copied_tables.hold(connection, target)
        under = require_all_rows(connection)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row
        size, at = int(row[0]), datetime.now(UTC).strftime(TIME)
        name = f"{target.environment}-{at}"
        while (folder / name).exists():
            name += "x"
        for unknown in trial.result():
            note(unknown)
        ready()
        with backup_folder.unfinished(folder, name) as path:
            look = partial(fingerprint.take, target, "backup.create", at=snapshot, jobs=jobs, watched=(sessions,))
            contents, described = pool.submit(look), pool.submit(_described, connection)
            at_once = jobs if size > SMALL else 1
            _dump(target, path / DATA, snapshot, at_once, size, report, connection.info.server_version, under)
            sequences = dump_files.sequences(client_tools(connection.info.server_version), path / DATA, target)
            files = _files(path)
            found = dataclasses.replace(contents.result(), sequences=sequences)
            manifest = Manifest(
                environment=target.environment, database=target.database, created_at=at,
                tool_version=skinspire_db.__version__,
                server_version=connection.info.server_version,
                dump_version=client_tools(connection.info.server_version).major,
                size=size, fingerprint=found.as_dict(), files=files, reason=reason, **described.result(),
            )  # fmt: skip
            write_atomically(path / MANIFEST, json.dumps(dataclasses.asdict(manifest)))
    return backup_folder.read(folder / name)


def _dump(
    target: Target, data: Path, snapshot: str, jobs: int, size: int, report: Report, server_version: int, under: bool
) -> None:
    """Run pg_dump. One that was built without our compression refuses it before it connects, and runs again with gzip."""
    for compression in (COMPRESSION, "gzip"):
        options = [f"--compress={compression}", *(["--enable-row-security"] if under else [])]
        code, complaint = _run_pg_dump(target, data, snapshot, jobs, size, report, server_version, options)
        if code and b"build does not support compression" in complaint:
            continue
        if code:
            raise StepFailed(f"pg_dump failed: {said(complaint)}", remedy=remedy_of(complaint))
        return


def _run_pg_dump(
    target: Target, data: Path, snapshot: str, jobs: int, size: int, report: Report, server_version: int, options: list[str]
) -> tuple[int, bytes]:
    tools = client_tools(server_version)
    options = [f"--jobs={jobs}", f"--snapshot={snapshot}", f"--file={data}", *options]
    options += ["--format=directory", f"--lock-wait-timeout={round(target.policy.lock_timeout * 1000)}"]
    former = os.umask(0o077) if os.name == "posix" else None  # patients' data, for its owner's eyes only
    try:
        dump = tools.start("pg_dump", target, *options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    finally:
        if former is not None:
            os.umask(former)
    with ended(dump), watched(target, size, report.transfer):
        complaint = dump.communicate()[1]
    return dump.returncode, complaint


def _files(path: Path) -> dict[str, list[str | int]]:
    found = sorted(each for each in (path / DATA).rglob("*") if each.is_file())
    with ThreadPoolExecutor() as pool:
        sums = pool.map(backup_folder.checksum, found)
        return {each.relative_to(path).as_posix(): list(sum_) for each, sum_ in zip(found, sums, strict=True)}


def _described(connection: Connection) -> dict[str, Any]:
    """What of the manifest the database's own tables and properties say, asked while pg_dump is at work."""
    triggers = {name: entry.version for name, entry in ledger.read(connection).items()}
    return {
        "revisions": version_table.noted(connection),
        "triggers": triggers,
        "properties": database_settings.read(connection),
    }
