"""Making a backup: pg_dump and the fingerprint on one snapshot, then the manifest, then the name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import skinspire_db
from skinspire_db import connections, fingerprint, properties, safety
from skinspire_db.backups import store
from skinspire_db.backups.store import DATA, MANIFEST, TIME, Backup, Manifest
from skinspire_db.client_tools import client_tools, ended, said
from skinspire_db.connections import Target
from skinspire_db.copying import number_of_jobs
from skinspire_db.environment import Environment
from skinspire_db.errors import StepFailed
from skinspire_db.migrations import running
from skinspire_db.pipeline import Pipeline, Report, Step
from skinspire_db.progress import watched
from skinspire_db.settings import write_atomically
from skinspire_db.summary import Summary
from skinspire_db.triggers import ledger

if TYPE_CHECKING:
    from skinspire_db.connections import Connection

COMPRESSION = "zstd:1"  # smaller than gzip's default, in a third of its time


def create(
    environment: Environment, folder: Path | None = None, *, jobs: str | int = 2, report: Report | None = None
) -> Pipeline:
    """Back the environment's database up into a folder of its own."""
    where, count = store.folder_of(environment.project, folder), number_of_jobs(jobs)
    to = connections.target(environment)

    def dump(connection: Connection) -> Summary:
        if safety.read_stamp(connection) is None:
            safety.write_stamp(connection, to.environment)
        made = make(to, where, count, report or Report())
        said_of_it = made.manifest
        return Summary(
            {
                "tables": len(said_of_it.contents.tables), "rows": said_of_it.contents.rows,
                "MB": f"{said_of_it.bytes / 1e6:.1f}",
            },
            lines=[str(made.path)], data={"backup": made.name, "path": str(made.path)},
        )  # fmt: skip

    return Pipeline("backup.create", environment, (Step("dump", dump),))


def make(to: Target, folder: Path, jobs: int, report: Report) -> Backup:
    """Back a database up. Nobody is kept waiting: all is read on one snapshot. Raises StepFailed with what pg_dump said,
    BackupInvalid when the folder cannot be written; nothing is left there then.
    """
    with contextlib.closing(connections.connect(to, "backup.create")) as connection:
        connections.begin(connection, to.policy, brief=True, isolation="REPEATABLE READ READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot(), pg_database_size(current_database())").fetchone()
        assert row
        snapshot, size, at = str(row[0]), int(row[1]), datetime.now(UTC).strftime(TIME)
        name = f"{to.environment}-{at}"
        while (folder / name).exists():
            name += "x"
        with store.unfinished(folder, name) as path, ThreadPoolExecutor(max_workers=1) as pool:
            look = partial(fingerprint.take, to, "backup.create", at=snapshot, jobs=jobs)
            contents = pool.submit(look)
            _dump(to, path / DATA, snapshot, jobs, size, report, connection.info.server_version)
            files = _files(path)
            manifest = Manifest(
                environment=to.environment, database=to.database, created_at=at, tool_version=skinspire_db.__version__,
                server_version=connection.info.server_version,
                dump_version=client_tools(connection.info.server_version).major,
                revisions=running.current(connection), triggers=_triggers(connection), size=size,
                properties=properties.read(connection), fingerprint=contents.result().as_dict(), files=files,
            )  # fmt: skip
            write_atomically(path / MANIFEST, json.dumps(dataclasses.asdict(manifest)))
        connection.rollback()
    return store.read(folder / name)


def _dump(to: Target, data: Path, snapshot: str, jobs: int, size: int, report: Report, server_version: int) -> None:
    tools = client_tools(server_version)
    options = [f"--jobs={jobs}", f"--compress={COMPRESSION}", f"--snapshot={snapshot}", f"--file={data}"]
    former = os.umask(0o077) if os.name == "posix" else None  # patients' data, for its owner's eyes only
    try:
        dump = tools.start("pg_dump", to, "--format=directory", *options, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    finally:
        if former is not None:
            os.umask(former)
    with ended(dump), watched(to, size, report.transfer):
        complaint = dump.communicate()[1]
    if dump.returncode:
        raise StepFailed(
            f"pg_dump failed: {said(complaint)}", remedy="free some space, or correct what it says, and run it again"
        )


def _files(path: Path) -> dict[str, list[str | int]]:
    found = sorted(each for each in (path / DATA).rglob("*") if each.is_file())
    with ThreadPoolExecutor() as pool:
        sums = pool.map(store.checksum, found)
        return {each.relative_to(path).as_posix(): list(sum_) for each, sum_ in zip(found, sums, strict=True)}


def _triggers(connection: Connection) -> dict[str, int]:
    from skinspire_db import bookkeeping

    return {name: entry.version for name, entry in ledger.read(connection).items()} if bookkeeping.exists(connection) else {}
