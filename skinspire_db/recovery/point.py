"""Which moment is come back to, and what that takes: a base backup, the ones that it needs, and the WAL after it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote

from skinspire_db.errors import UsageError
from skinspire_db.lifecycle import tool_schema
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.recovery import base
from skinspire_db.recovery.archive import Archive, Mark, moment
from skinspire_db.recovery.base import Base
from skinspire_db.recovery.wal import Segment, Wal, clock_went_back

LATEST = "latest"
CATCH_UP_SECONDS = 15
STARTED = """
    SELECT extract(epoch FROM started_at)::float8 FROM skinspire_tools.journal WHERE operation = %s
    ORDER BY started_at DESC LIMIT 1
"""


@dataclass(frozen=True)
class Point:
    """A moment that can be come back to.

    Args:
        at: In seconds since 1970, by the server's clock; None for the end of what was received.
        chain: The base backups, the full one first.
        segments: The files of WAL after them, in order.
        near: How many of these there are up to the first mark from the moment on.
        histories: Of timelines.
        wal: All files of WAL.
        reach: The position that a recovery to the end of the WAL must come to, or the WAL is damaged.
        received: Until when all that was committed was received.
        marks: Of the receiver.
    """

    at: float | None
    chain: list[Base]
    segments: list[Segment]
    near: int
    histories: list[Path]
    wal: Wal
    reach: int
    received: float
    marks: list[Mark]

    @property
    def base(self) -> Base:
        """The base backup that it is recovered from."""
        return self.chain[-1]

    @property
    def text(self) -> str:
        """The moment, as it is shown."""
        return LATEST if self.at is None else moment(self.at)


def parsed(text: str) -> float | None:
    """A time as it was typed, in seconds since 1970; None for `latest`.

    Raises:
        UsageError: it is no time, or its zone is not said.
    """
    if text.strip().lower() == LATEST:
        return None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"--to={text} is no time", remedy=f'write --to="{moment(time.time())}", or --to={LATEST}') from None
    if found.tzinfo is None:
        here, utc = found.astimezone().isoformat(sep=" "), f"{found.isoformat(sep=' ')}+00:00"
        raise UsageError(
            f"--to={text} does not say its zone",
            remedy=f'--to="{here}" is that time on this machine, --to="{utc}" in UTC',
        )
    return found.timestamp()


def before(target: Target, operation: str) -> float:
    """The moment before the last operation of that name in the journal.

    Raises:
        UsageError: the journal has none.
    """
    with contextlib.closing(connections.connect(target, "backup.restore")) as connection:
        connections.begin(connection, target.policy, brief=True)
        rows = connection.execute(STARTED.encode(), (operation,)).fetchall() if tool_schema.exists(connection) else []
    if not rows:
        raise UsageError(
            f"the journal of {target.database} has no operation {operation}",
            remedy=f"invoke db.history --env={target.environment}",
        )
    return float(rows[0][0]) - 1e-6


def find(archive: Archive, at: float | None) -> Point:
    """What coming back to that moment takes. A receiver that is about to reach it is waited for.

    Raises:
        UsageError: the moment is outside of what was received, or came twice.
        BackupInvalid: something that is needed is missing or damaged.
    """
    complete, _ = base.complete(archive)
    newest = base.pick(archive)  # raises UsageError with the remedy
    if at is not None:
        _refuse(archive, min(each.finished for each in complete), at)
        _await(archive, newest, at)
        newest = next(each for each in complete if each.finished <= at)
    wal, marks = Wal.of(archive), archive.marks
    last = marks[-1] if marks else None
    reach = last.lsn if last else 0
    # Up to the first mark from that moment on: a gap after it is no obstacle.
    until = next((mark.lsn for mark in marks if at is not None and mark.at >= at and mark.lsn), None)
    end = max(until, newest.end) if until else None
    segments = wal.needed(newest, end or reach or None, archive)
    near = sum(end is None or each.number <= end // wal.size + 1 for each in segments)
    received = max(last.at if last else 0.0, newest.finished)
    return Point(at, base.chain(archive, newest), segments, near, wal.histories, wal, reach, received, marks)


def _refuse(archive: Archive, begins: float, at: float) -> None:
    command = f"invoke backup.restore --env={archive.environment}"
    if at < begins:
        # Rounded up: the moment that is shown is one that can be come back to.
        raise UsageError(
            f"{moment(at)} is before the first base backup", remedy=f"{command} --to={quote(moment(int(begins) + 1))}"
        )
    if at > time.time() + 1:
        raise UsageError(f"{moment(at)} is in the future", remedy=f"{command} --to={LATEST}")
    for first, second in clock_went_back(archive):
        if first <= at <= second:
            raise UsageError(
                f"{moment(at)} came twice: the server's clock went back from {moment(second)} to {moment(first)}",
                remedy=f"{command} --to={quote(moment(first - 1))}, or a time after {moment(second)}",
            )


def _await(archive: Archive, newest: Base, at: float) -> None:
    """Wait until the receiver has all up to the moment."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        received = max([newest.finished, *(mark.at for mark in archive.marks[-1:])])
        if at <= received:
            return
        if not archive.runs or time.monotonic() > deadline:
            raise UsageError(
                f"all is received up to {moment(received)}, and {moment(at)} is later",
                remedy=f"invoke backup.restore --env={archive.environment} --to={LATEST}",
            )
        time.sleep(0.2)
