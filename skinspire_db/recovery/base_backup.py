"""Making a base backup: pg_basebackup into a folder aside, pg_verifybackup, the manifest, then the name."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import skinspire_db
from skinspire_db.config.environment import Environment
from skinspire_db.copies import backup_folder
from skinspire_db.copies.backup_folder import DATA, TIME
from skinspire_db.errors import GuardRefused, StepFailed, UsageError
from skinspire_db.lifecycle import guard, journal, stamp
from skinspire_db.lifecycle.failures import translated
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres import connections, progress
from skinspire_db.postgres.client_programs import ended, physical_tools, remedy_of, said
from skinspire_db.postgres.target import Target
from skinspire_db.recovery import base, replication
from skinspire_db.recovery.archive import Archive, as_lsn
from skinspire_db.recovery.base import Base
from skinspire_db.recovery.status import NOW

FULL = "invoke backup.create --env={env} --physical"
ALONE = (
    "no receiver runs: this backup can be recovered as of its end only; invoke backup.start --env={env} receives what follows"
)
SIZE = "SELECT sum(pg_database_size(oid))::int8 FROM pg_database"


def create(environment: Environment, given: Path | None = None, *, incremental: bool = False) -> Job:
    """Back all of an environment's server up, file by file.

    Args:
        environment: whose server.
        given: the folder of backups; by default backups/ in the project.
        incremental: only what has changed since the newest base backup, which it then needs.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: there is none to build on.
        BackupInvalid: that one cannot be used.
    """
    archive = Archive.of(environment, given)
    parent = base.pick(archive) if incremental else None
    if parent:
        base.chain(archive, parent)

    def work(running: Running) -> None:
        source = replication.look(running.target, running.operation)
        archive.belongs_to(source.system)
        if incremental and source.version < 170_000:
            major = source.version // 10_000
            raise GuardRefused(f"an incremental backup is of PostgreSQL 17 and newer; the server is {major}", remedy=FULL)
        if incremental and not source.summaries:
            raise GuardRefused(
                "the server keeps no summaries of its WAL, which an incremental backup is made from",
                remedy="ask the administrator for: ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf(); then "
                + FULL,
            )
        with running.step("base") as summary:
            _make(archive, source, parent, running, summary)
        if not archive.runs:
            running.note(ALONE.format(env=environment.name))
        record(running)

    def look(running: Running) -> None:
        replication.look(running.target, running.operation, change=False)
        running.note(f"the backup would be in {base.folder(archive)}")

    return Job("backup.create", environment, work, ("base",), done="complete", look=look)


def record(running: Running) -> None:
    """Write the operation into the journal, in a transaction of its own."""
    target = running.target
    with (
        contextlib.closing(connections.connect(target, running.operation)) as holder,
        translated(target, running.operation, "journal", holder),
    ):
        connections.begin(holder, target.policy)
        guard.admit(holder, target, running.operation, "", None)
        stamp.write(holder, target.environment)
        steps = [each.as_dict() for each in running.result.steps]
        journal.record(holder, running.operation, target.environment, 0.0, steps)
        holder.commit()


def _make(archive: Archive, source: replication.Source, parent: Base | None, running: Running, summary: Summary) -> None:
    target, at = running.target, datetime.now(UTC).strftime(TIME)
    name = f"{target.environment}-{at}-{'incremental' if parent else 'full'}"
    with backup_folder.unfinished(base.folder(archive), name) as path:
        with contextlib.closing(connections.connect(target, running.operation)) as connection:
            connections.autocommit(connection)
            size = connection.execute(SIZE).fetchone()
            _send(target, path / DATA, parent, source, int(size[0]) if size else 0, running)
            now = connection.execute(NOW).fetchone()
        timeline, start, end = _range(path / DATA)
        found = Base(
            environment=target.environment, database=target.database, created_at=at, parent=parent.name if parent else None,
            system=source.system, server_version=source.version, tool_version=skinspire_db.__version__, timeline=timeline,
            start=start, end=end, finished=float(now[0]) if now else 0.0, size=_size(path), settings=source.settings,
        )  # fmt: skip
        base.verify(target, found, path / DATA)
        found.write(path)
    found = base.read(base.folder(archive) / name)
    summary.numbers = {"kind": "incremental" if parent else "full", "MB": f"{found.size / 1e6:.1f}"}
    summary.lines = [str(found.path), *([f"what has changed since {parent.name}"] if parent else [])]
    summary.data = {"backup": name, "path": str(found.path)}


def _send(target: Target, data: Path, parent: Base | None, source: replication.Source, size: int, running: Running) -> None:
    # Without a fast checkpoint the server waits for its next one, which can be minutes away.
    options = [f"--pgdata={data}", "--checkpoint=fast", "--wal-method=stream", "--no-password"]
    options += [f"--incremental={parent.data / 'backup_manifest'}"] if parent else []
    options += ["--sync-method=syncfs"] if _syncs_at_once(source.version) else []
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = physical_tools(source.version).start("pg_basebackup", target, *options, **streams)
    with ended(process), progress.sent(target, size, running.report.transfer):
        complaint = process.communicate()[1]
    if process.returncode:
        says = said(complaint)
        raise StepFailed(f"pg_basebackup failed: {says}", remedy=FULL if "ummaries" in says else remedy_of(complaint))


def _syncs_at_once(version: int) -> bool:
    """Whether one call makes all files durable: one for each of thousands takes longer than sending what has changed.

    Linux before 5.8 does not say there that writing has failed (PostgreSQL manual, appendix O.4).
    """
    kernel = re.match(r"(\d+)\.(\d+)", platform.release()) if sys.platform == "linux" else None
    return version >= 170_000 and kernel is not None and (int(kernel[1]), int(kernel[2])) >= (5, 8)


def _range(data: Path) -> tuple[int, int, int]:
    """The timeline, and where in the WAL the backup begins and ends."""
    try:
        found = json.loads((data / "backup_manifest").read_text(encoding="utf-8"))["WAL-Ranges"]
        ends = [(int(each["Timeline"]), as_lsn(each["Start-LSN"]), as_lsn(each["End-LSN"])) for each in found]
        return ends[-1][0], min(start for _, start, _ in ends), max(end for _, _, end in ends)
    except (OSError, ValueError, LookupError, TypeError):
        raise StepFailed("pg_basebackup has written no manifest that can be read", remedy="run it again") from None


def _size(path: Path) -> int:
    return sum(os.lstat(Path(folder) / name).st_size for folder, _, names in os.walk(path) for name in names)


def listing(archive: Archive) -> tuple[list[dict[str, object]], list[str]]:
    """The lines of backup.list for base backups, newest first, and what cannot be used."""
    found, broken = base.complete(archive)
    return [each.row for each in found], broken


def refuse_options(**given: Any) -> None:
    """Refuse what goes with a logical backup alone.

    Raises:
        UsageError: one of them is set.
    """
    for name, value in given.items():
        if value:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is for a logical backup", remedy=f"leave --{flag} or --physical out")


def verified(environment: Environment, given: Path | None, name: str) -> Job | None:
    """The operation that verifies a base backup and all that it needs; None where none has that name."""
    archive = Archive.of(environment, given)
    path = base.folder(archive) / name
    if len(Path(name).parts) != 1 or not path.is_dir():
        return None
    needed = base.chain(archive, base.read(path))

    def work(running: Running) -> None:
        with running.step("files") as summary:
            for each in needed:
                base.verify(running.target, each)
            summary.numbers = {"backups": len(needed), "MB": f"{sum(each.size for each in needed) / 1e6:.1f}"}
            summary.lines = [each.name for each in needed]

    done = f"{name} and what it needs are as they were written"
    return Job("backup.verify", environment, work, ("files",), keeps=False, done=done, needs_server=False)
