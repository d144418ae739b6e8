"""The operations backup.start, backup.stop and backup.status."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path

from skinspire_db.config.environment import Environment
from skinspire_db.errors import SkinspireError
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.postgres import connections
from skinspire_db.recovery import receiver, replication, status
from skinspire_db.recovery.archive import Archive
from skinspire_db.recovery.server import RecoveredServer

UNLIMITED = "the server keeps WAL without limit while no receiver runs: max_slot_wal_keep_size = '10GB' protects its disk"


def start(environment: Environment, folder: Path | None = None, *, foreground: bool = False) -> Job:
    """Start the receiver of an environment's WAL.

    Args:
        environment: whose server's WAL is received.
        folder: the folder of backups; by default backups/ in the project.
        foreground: stay in it until the process is told to end.

    Returns:
        The operation, to be run.

    Raises:
        BackupInvalid: the folder cannot be read.
    """
    archive = Archive.of(environment, folder)

    def work(running: Running) -> None:
        with running.step("receiver") as summary:
            source = replication.look(running.target, running.operation)
            archive.belongs_to(source.system)
            summary.data = {"folder": str(archive.folder), "slot": replication.slot_name(archive)}
            summary.lines = [str(archive.folder)]
            if foreground:
                with contextlib.suppress(KeyboardInterrupt):
                    receiver.Receiver(environment, archive, lambda line: print(line, file=sys.stderr, flush=True)).serve()
            elif archive.runs:
                running.note("a receiver runs already")
            else:
                receiver.start(environment, archive)
        if (state := archive.state) and state.limit == "-1":
            running.note(UNLIMITED)

    def look(running: Running) -> None:
        replication.look(running.target, running.operation, change=False)

    done = "stopped" if foreground else "it receives"
    return Job("backup.start", environment, work, ("receiver",), done=done, look=look)


def stop(environment: Environment, folder: Path | None = None, *, drop_slot: bool = False) -> Job:
    """Stop the receiver; what it has received stays.

    Args:
        environment: whose receiver.
        folder: the folder of backups; by default backups/ in the project.
        drop_slot: the server keeps no WAL for it any longer, so that one that is started later leaves a gap.

    Returns:
        The operation, to be run.
    """
    archive = Archive.of(environment, folder)

    def work(running: Running) -> None:
        with running.step("receiver") as summary:
            summary.numbers = {"stopped": int(receiver.stop(archive))}
            if drop_slot:
                with contextlib.closing(connections.connect(running.target, running.operation)) as connection:
                    connections.autocommit(connection)
                    replication.drop_slot(connection, replication.slot_name(archive))
        state = archive.state
        if not drop_slot and state and state.reach:
            limit = "without limit" if state.limit == "-1" else f"up to {state.limit}"
            running.note(
                f"the slot {state.slot} keeps WAL on the server, {limit}, until the next backup.start;"
                f" invoke backup.stop --env={environment.name} --drop-slot ends that"
            )

    done = "no receiver runs"
    return Job("backup.stop", environment, work, ("receiver",), done=done, needs_server=drop_slot)


def end_kept(environment: Environment) -> Job:
    """End and delete the servers that were recovered and kept.

    Args:
        environment: of whose project they are.

    Returns:
        The operation, to be run.
    """

    def work(running: Running) -> None:
        with running.step("servers") as summary:
            servers = RecoveredServer.kept(environment.project)
            for server in servers:
                server.destroy()
            summary.numbers = {"deleted": len(servers)}
            summary.lines = [str(server.home) for server in servers]

    return Job("backup.stop", environment, work, ("servers",), done="no recovered server is left", needs_server=False)


def report(environment: Environment, folder: Path | None = None) -> Job:
    """Say how continuous backups stand; exit code 3 when there is something to complain of.

    Args:
        environment: whose they are.
        folder: the folder of backups; by default backups/ in the project.

    Returns:
        The operation, to be run.
    """
    archive = Archive.of(environment, folder)

    def show(running: Running) -> None:
        with running.step("status") as summary, contextlib.ExitStack() as stack:
            connection, more = None, []
            try:
                connection = stack.enter_context(contextlib.closing(connections.connect(running.target, running.operation)))
                connections.begin(connection, running.target.policy, brief=True)
            except SkinspireError as error:
                more = [status.Finding("server", error.message, error.remedy or status.DOCTOR)]
            found = [*more, *status.findings(environment, archive, connection)]
            if servers := RecoveredServer.kept(environment.project):
                says = f"{', '.join(str(each.home) for each in servers)}: invoke backup.stop --kept ends and deletes them"
                found.append(status.Finding("recovered servers", says))
            bad, state = [each for each in found if each.remedy], archive.state
            summary.numbers = {"looked_at": len(found), "complaints": len(bad)}
            summary.rows = [each.row for each in found]
            summary.data = {
                "folder": str(archive.folder),
                "receiver": state and asdict(state),
                "findings": [each.row | {"remedy": each.remedy} for each in found],
            }
            if bad:
                summary.drift, summary.remedy = f"{bad[0].what}: {bad[0].detail}", bad[0].remedy

    return Job(
        "backup.status", environment, show, ("status",), keeps=False, done="nothing to complain of", needs_server=False
    )
