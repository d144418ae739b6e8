"""The received WAL: which files there are, and whether those that a recovery needs are there, and of this server."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from skinspire_db.errors import BackupInvalid
from skinspire_db.patterns import lazy_regex
from skinspire_db.recovery.archive import Archive, moment
from skinspire_db.recovery.base import Base

NAME = lazy_regex(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
HISTORY = lazy_regex(r"[0-9A-F]{8}\.history")
# xlp_magic, info, tli, pageaddr, rem_len, sysid, seg_size and xlog_blcksz, in the byte order of the server's machine.
HEADER = struct.Struct("=HHIQI4xQII")


@dataclass(frozen=True)
class Segment:
    """A file of WAL. `name` is as the server calls it; the last one that was received is not `whole` yet."""

    path: Path
    name: str
    timeline: int
    number: int
    whole: bool


@dataclass(frozen=True)
class Wal:
    """The files that there are, in order, the histories of timelines, and the size of a file in bytes."""

    segments: list[Segment]
    histories: list[Path]
    size: int

    @classmethod
    def of(cls, archive: Archive) -> Wal:
        """What an archive holds, also what was put aside at a gap."""
        files = [path for path in archive.wal.rglob("*") if path.is_file()]
        named = [(path, match) for path in files if (match := NAME.fullmatch(path.name))]
        size = max((path.stat().st_size for path, _ in named), default=16 << 20)
        in_a_log = (1 << 32) // size
        found: dict[str, Segment] = {}
        for path, match in sorted(named, key=lambda each: (bool(each[1][4]), str(each[0]))):  # whole ones first
            timeline, log, part = (int(match[group], 16) for group in (1, 2, 3))
            name = match[1] + match[2] + match[3]
            found.setdefault(name, Segment(path, name, timeline, log * in_a_log + part, not match[4]))
        order = sorted(found.values(), key=lambda each: (each.number, each.timeline))
        return cls(order, [path for path in files if HISTORY.fullmatch(path.name)], size)

    def needed(self, base: Base, until: int | None, archive: Archive) -> list[Segment]:
        """The files that follow a base backup.

        Args:
            base: the backup.
            until: the position up to which they must be there; None for all.
            archive: for the marks, of which the last one before a gap is the remedy.

        Raises:
            BackupInvalid: one is missing, of another server, or not what its name says.
        """
        first = (base.end - 1) // self.size + 1  # the server begins a new file when a base backup ends
        there = [each for each in self.segments if each.number >= first - 1]
        last = max((each.number for each in there), default=first - 1)
        if until is not None:
            last = max(last if not there else min(last, until // self.size), until // self.size)
        numbers = {each.number for each in there}
        for number in range(first, last + 1):
            if number not in numbers:
                raise self._missing(number, base, archive)
        for each in there:
            if each.number <= last and (wrong := self._wrong(each, base.system)):
                raise BackupInvalid(f"the WAL file {each.name} {wrong}", remedy=_earlier(archive, each.number * self.size))
        return there

    def name_at(self, position: int, timeline: int) -> str:
        """The name of the file that holds a position."""
        number, in_a_log = position // self.size, (1 << 32) // self.size
        return f"{timeline:08X}{number // in_a_log:08X}{number % in_a_log:08X}"

    def _missing(self, number: int, base: Base, archive: Archive) -> BackupInvalid:
        before = [each.timeline for each in self.segments if each.number < number]
        name = self.name_at(number * self.size, max(before, default=base.timeline))
        return BackupInvalid(f"the WAL file {name} is missing", remedy=_earlier(archive, number * self.size))

    def _wrong(self, segment: Segment, system: str) -> str:
        with segment.path.open("rb") as file:
            header = file.read(HEADER.size)
        if not segment.whole and not any(header):
            return ""  # nothing has been received into it yet
        if len(header) < HEADER.size or segment.path.stat().st_size != self.size:
            return "is cut short"
        _, _, timeline, address, _, of_system, size, _ = HEADER.unpack(header)
        if size != self.size or address != segment.number * self.size:
            return "is damaged, or another one under this name"
        if str(of_system) != system:
            return f"is of another server, {of_system}"
        # The first file of a timeline begins with what is of the one before.
        return f"is of another timeline, {timeline}" if timeline > segment.timeline else ""


def _earlier(archive: Archive, position: int) -> str:
    marks = [mark for mark in archive.marks if mark.lsn and mark.lsn <= position]
    if not marks:
        return "put it back; or make a new base backup: invoke backup.create --env={env} --physical"
    return f'put it back, or come back to a time before it: invoke backup.restore --env={{env}} --to="{moment(marks[-1].at)}"'


def clock_went_back(archive: Archive) -> Iterator[tuple[float, float]]:
    """The times, from and to, that the server's clock went through twice."""
    marks = archive.marks
    for before, after in pairwise(marks):
        if after.at < before.at - 1:
            yield after.at, before.at
