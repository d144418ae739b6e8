"""The receiver: pg_receivewal with a slot, started again whenever it or the server has ended, and watched in between."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config import environment as environments
from skinspire_db.config.environment import Environment
from skinspire_db.errors import GuardRefused, SkinspireError, StepFailed
from skinspire_db.postgres import connections, processes
from skinspire_db.postgres.client_programs import ended, physical_tools, said
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.target import Target, target_of
from skinspire_db.recovery import replication
from skinspire_db.recovery.archive import FIRST, MARK_SECONDS, Archive, Mark, State, as_lsn

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

OPERATION = "backup.start"
POLL_SECONDS, RETRY_SECONDS, START_SECONDS, PATIENCE_SECONDS = 0.3, 1.0, 20, 5
BACKGROUND: list[subprocess.Popen[bytes]] = []  # receivers that this process has started, and that outlive it
GONE = b"has already been removed"  # the server no longer has the WAL that comes next
# A standby was promoted that was behind what was received of the former primary.
FORKED = re.compile(rb"history forked from timeline \d+ at ([0-9A-F]+/[0-9A-F]+)")
# A server whose machine is gone closes no connection: without these, the receiver would wait for two hours.
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
PROGRESS = """
    SELECT extract(epoch FROM clock_timestamp())::float8, pg_current_wal_flush_lsn() - '0/0'::pg_lsn,
           pg_current_wal_insert_lsn() - '0/0'::pg_lsn, restart_lsn - '0/0'::pg_lsn,
           greatest(pg_current_wal_lsn() - restart_lsn, 0), wal_status, current_setting('max_slot_wal_keep_size')
    FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass
class Receiver:
    """A receiver in this process; it runs until it is told to stop.

    Args:
        environment: whose server's WAL it receives.
        archive: where to.
        tell: is called with a line whenever it begins or ceases to receive.
    """

    environment: Environment
    archive: Archive
    tell: Callable[[str], object] = lambda _: None
    state: State = field(init=False)

    def __post_init__(self) -> None:
        """Begin with a state that says that nothing was received."""
        self.state = State(os.getpid(), replication.slot_name(self.archive))
        if former := self.archive.state:  # until when all was received stays true while there is no server
            self.state = dataclasses.replace(self.state, at=former.at, lsn=former.lsn)

    def serve(self) -> None:
        """Receive until the stop file is there; whatever ends on either side is started again.

        Raises:
            GuardRefused: another receiver is at work on this folder.
            BackupInvalid: the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        self.archive.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self.archive.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise GuardRefused(
                f"a receiver of {self.environment.name} runs already", remedy="invoke backup.status --env={env}"
            ) from None
        try:
            self.archive.stop_file.unlink(missing_ok=True)
            self._say(FIRST)
            while not self._stopping():
                self._say(self._receive_once())
                deadline = time.monotonic() + RETRY_SECONDS
                while time.monotonic() < deadline and not self._stopping():
                    time.sleep(0.1)
        finally:
            self.archive.stop_file.unlink(missing_ok=True)
            self._say("stopped")
            lock.release()

    def _receive_once(self) -> str:
        """Receive until something ends; returns what did."""
        import psycopg

        try:
            with self.environment.pin.operation():
                target = target_of(self.environment, start=False)
                target = dataclasses.replace(target, parameters=KEEPALIVES | target.parameters)
                return self._receive(target)
        except psycopg.Error as error:
            return sentence(error)
        except SkinspireError as error:
            return str(error)
        except OSError as error:
            return f"{self.archive.folder} cannot be written: {error.strerror}"

    def _receive(self, target: Target) -> str:
        if target.server and not target.server.status().running:  # who stopped it wants it stopped
            return "the embedded server does not run"
        source = replication.look(target, OPERATION, change=False)
        if not source.version:
            return "the server writes no WAL to recover from"
        self.archive.belongs_to(source.system)
        # Not a session of the environment's database, which could then be no template, nor be renamed.
        with contextlib.closing(connections.maintenance(target, OPERATION)) as connection:
            connections.autocommit(connection)
            if note := replication.hold_slot(connection, self.state.slot):
                self.tell(note)
            self._remove_half_made(connection)
            options = [f"--directory={self.archive.wal}", f"--slot={self.state.slot}", "--synchronous", "--no-loop"]
            process = physical_tools(source.version).start(
                "pg_receivewal", target, *options, "--no-password", "--status-interval=1", stderr=subprocess.PIPE
            )
            with ended(process):
                self._watch(connection, process)
                if process.poll() is None:
                    _interrupt(process)
                complaint = process.communicate()[1]
            if forked := FORKED.search(complaint):
                self._forget_after(as_lsn(forked[1].decode()))
            if forked or GONE in complaint:
                self._begin_anew()
            return "" if self._stopping() else f"pg_receivewal ended: {said(complaint)}"

    def _watch(self, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        """Note how far it is, until it ends or the receiver is told to stop."""
        waiting: tuple[float, int] | None = None  # a moment, and what was flushed by then
        boundaries: list[int] = []
        kept, began = time.monotonic() - MARK_SECONDS, self.state.at
        while process.poll() is None and not self._stopping():
            rows = connection.execute(PROGRESS.encode(), (self.state.slot,)).fetchall()
            if not rows:
                raise StepFailed("the slot is gone from the server")
            at, flushed, inserted, received, keeps, reach, limit = rows[0]
            received = int(received or 0)
            boundaries.append(int(inserted))  # the only positions that are known to be between two records
            while len(boundaries) > 1 and boundaries[1] <= received:
                boundaries.pop(0)
            mark = Mark(self.state.at, self.state.lsn)
            if waiting and received >= waiting[1]:
                mark = Mark(waiting[0], max(mark.lsn, boundaries[0] if boundaries[0] <= received else 0))
            if waiting is None or received >= waiting[1]:
                waiting = (float(at), int(flushed))
            if mark.at and time.monotonic() >= kept + MARK_SECONDS:
                self.archive.keep(mark)
                kept = time.monotonic()
            self.state = dataclasses.replace(
                self.state, at=mark.at, lsn=mark.lsn, kept=int(keeps or 0), reach=str(reach), limit=str(limit)
            )
            self._say("" if mark.at > began else self.state.said)
            time.sleep(POLL_SECONDS)

    def _remove_half_made(self, connection: Connection) -> None:
        """Remove a file that a full disk has cut short while it was made: it holds nothing, and pg_receivewal refuses it."""
        row = connection.execute("SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size'").fetchone()
        for file in self.archive.wal.glob("*.partial"):
            if row and file.stat().st_size not in (0, row[0]):
                file.unlink()

    def _forget_after(self, fork: int) -> None:
        """What was received after this position is of no timeline that is left: no mark says that it has to be there."""
        self.archive.rewrite([dataclasses.replace(mark, lsn=min(mark.lsn, fork)) for mark in self.archive.marks])
        self.state = dataclasses.replace(self.state, lsn=min(self.state.lsn, fork))

    def _begin_anew(self) -> None:
        """A gap, or a fork: what was received before is kept aside, so that pg_receivewal begins where the slot does."""
        aside = self.archive.wal / f"before-{time.strftime('%Y%m%dT%H%M%S')}"
        aside.mkdir()
        for file in self.archive.wal.iterdir():
            if file.is_file():
                file.rename(aside / file.name)

    def _say(self, what: str) -> None:
        if what != self.state.said:
            self.tell(what or f"receives into {self.archive.wal}")
        self.state = dataclasses.replace(self.state, said=what)
        with contextlib.suppress(OSError):  # a full disk stops what it notes, and pg_receivewal says so
            self.archive.note(self.state)

    def _stopping(self) -> bool:
        return self.archive.stop_file.exists()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Let pg_receivewal write what it has; where there are no signals, and after a while, it is killed."""
    if sys.platform != "win32":
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return
    process.kill()


def start(environment: Environment, archive: Archive) -> None:
    """Start a receiver in the background, and wait until it receives.

    Raises:
        StepFailed: it did not within 20 seconds; with what it said.
        BackupInvalid: the folder cannot be written.
    """
    command = [sys.executable, "-m", __name__, environment.name, str(archive.folder.parent)]
    away: dict[str, Any] = {} if sys.platform == "win32" else {"start_new_session": True}
    with archive.log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=environment.project.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **away,
            **processes.options(stays=True),
        )  # fmt: skip
    BACKGROUND.append(process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        state = archive.state
        if state and state.pid == process.pid:
            if not state.said and state.at:
                return
            if state.said != FIRST:  # some of it passes: a slot that a dead receiver's pg_receivewal still holds
                deadline = min(deadline, time.monotonic() + PATIENCE_SECONDS)
        time.sleep(0.1)
    state = archive.state
    says = state.said if state and state.pid == process.pid else "it ended at once"
    stop(archive)
    raise StepFailed(f"the receiver does not receive: {says}", remedy=f"look into {archive.log}")


def stop(archive: Archive) -> bool:
    """Stop the receiver of this folder; what it has received stays.

    Returns:
        Whether one ran.

    Raises:
        StepFailed: it did not end within 20 seconds.
    """
    if not archive.runs:
        return False
    archive.stop_file.touch()
    deadline = time.monotonic() + START_SECONDS
    while archive.runs:
        if time.monotonic() > deadline:
            state = archive.state
            raise StepFailed(
                f"the receiver has not ended within {START_SECONDS} s",
                remedy=f"end the process {state.pid if state else 'that holds the lock of ' + str(archive.lock)}",
            )
        time.sleep(0.05)
    return True


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("environment")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    environment = environments.resolve(given.environment)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Receiver(environment, Archive.of(environment, given.folder), _log).serve()


def _log(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk, which the receiver outlives
        print(time.strftime("%Y-%m-%d %H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    _main()
