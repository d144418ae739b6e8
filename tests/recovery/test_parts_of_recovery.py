"""What needs no server: times as they are typed, the files of WAL, the receiver's marks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from skinspire_db.config.policy import seconds_of
from skinspire_db.errors import BackupInvalid, UsageError
from skinspire_db.postgres.cluster import reason
from skinspire_db.recovery import base, point
from skinspire_db.recovery.archive import Archive, Mark, State
from skinspire_db.recovery.base import Base
from skinspire_db.recovery.server import OUR_LOOKS, TOO_SHORT
from skinspire_db.recovery.wal import HEADER, Wal, clock_went_back

SIZE, SYSTEM = 1 << 20, "4711"


def segment(archive: Archive, timeline: int, number: int, suffix: str = "") -> Path:
    path = archive.wal / f"{timeline:08X}{number >> 12:08X}{number & 0xFFF:08X}{suffix}"
    path.write_bytes(HEADER.pack(0xD116, 2, timeline, number * SIZE, 0, int(SYSTEM), SIZE, 8192).ljust(SIZE, b"\0"))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / "dev.continuous", "dev")
    made.wal.mkdir(parents=True)
    return made


@pytest.fixture
def backup() -> Base:
    settings = {"max_connections": "100"}
    return Base(
        "dev", "d", "20260101T000000Z", None, SYSTEM, 170000, "0", 1, 3 * SIZE + 40, 3 * SIZE + 300, 1000.0, 1, settings
    )


def test_times() -> None:
    assert point.parsed("latest") is None
    assert point.parsed("2026-11-25 14:03:07+05:30") == point.parsed("2026-11-25T08:33:07Z")
    with pytest.raises(UsageError, match="does not say its zone") as caught:
        point.parsed("2026-11-25 14:03:07")
    assert "2026-11-25 14:03:07+00:00" in str(caught.value.remedy) and "on this machine" in str(caught.value.remedy)
    for wrong in ("", "noon", "2026-13-01", "1764000000"):
        with pytest.raises(UsageError, match="is no time"):
            point.parsed(wrong)
    assert [seconds_of(each) for each in ("90s", "15m", "12h", "7d")] == [90, 900, 43200, 604800]


def test_a_gap_matters_only_up_to_the_moment(archive: Archive, backup: Base) -> None:
    for number in (4, 5, 7):
        segment(archive, 1, number)
    segment(archive, 1, 8, ".partial")
    with pytest.raises(BackupInvalid, match="the WAL file 000000010000000000000006 is missing"):
        Wal.of(archive).needed(backup, None, archive)
    assert Wal.of(archive).needed(backup, 5 * SIZE + 9, archive)
    archive.keep(Mark(1500.0, 5 * SIZE + 100))
    with pytest.raises(BackupInvalid) as caught:
        Wal.of(archive).needed(backup, 9 * SIZE, archive)
    assert '--to="1970-01-01 00:25:00+00:00"' in str(caught.value.remedy)
    segment(archive, 1, 6)
    assert [each.number for each in Wal.of(archive).needed(backup, None, archive)] == [4, 5, 6, 7, 8]
    with pytest.raises(BackupInvalid, match="000000010000000000000009 is missing"):  # the newest file, gone
        Wal.of(archive).needed(backup, 9 * SIZE + 1, archive)


def test_files_up_to_the_first_mark_from_the_moment_on_come_first(archive: Archive, backup: Base) -> None:
    for number in range(4, 10):
        segment(archive, 1, number)
    path = base.folder(archive) / "dev-20260101T000000Z-full"
    path.mkdir(parents=True)
    backup.write(path)
    for at, number in ((1100.0, 4), (1500.0, 5), (2000.0, 8)):
        archive.keep(Mark(at, number * SIZE + 100))
    for moment, near in ((1050.0, 2), (1400.0, 3), (1600.0, 6), (None, 6)):
        found = point.find(archive, moment)
        assert (found.near, len(found.segments)) == (near, 6), moment


def test_the_files_of_two_timelines_are_one_row(archive: Archive, backup: Base) -> None:
    for timeline, number, suffix in ((1, 4, ""), (1, 5, ".partial"), (2, 5, ""), (2, 6, ".partial")):
        segment(archive, timeline, number, suffix)
    (archive.wal / "00000002.history").write_text("1\t0/500000\tno recovery target specified\n")
    wal = Wal.of(archive)
    assert [each.name[:8] for each in wal.needed(backup, None, archive)] == ["00000001", "00000001", "00000002", "00000002"]
    assert [path.name for path in wal.histories] == ["00000002.history"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:4] + (3).to_bytes(4, sys.byteorder) + text[8:], "is of another timeline, 3"),
        (lambda text: text[:24] + (9).to_bytes(8, sys.byteorder) + text[32:], "is of another server, 9"),
        (lambda text: text[:9] + b"\7" + text[10:], "is damaged, or another one under this name"),
        (lambda text: text[:1000], "is cut short"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(archive: Archive, backup: Base, change: object, says: str) -> None:
    segment(archive, 1, 4)
    path = segment(archive, 1, 5)
    assert callable(change)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BackupInvalid, match=says):
        Wal.of(archive).needed(backup, None, archive)


def test_marks_of_a_receiver_that_was_killed_and_a_clock_that_jumps(archive: Archive, backup: Base) -> None:
    for at in (1000.0, 2000.0, 1500.0):
        archive.keep(Mark(at, int(at)))
    with (archive.folder / "marks").open("a") as file:
        file.write("[2500.0, 2")
    assert [mark.at for mark in archive.marks] == [1000.0, 2000.0, 1500.0]
    archive.note(State(1, "slot", "", 2600.0, 4000))
    assert archive.marks[-1] == Mark(2600.0, 4000) and archive.state and archive.state.lsn == 4000
    assert list(clock_went_back(archive)) == [(1500.0, 2000.0)]
    segment(archive, 1, 4)
    path = base.folder(archive) / "dev-20260101T000000Z-full"
    path.mkdir(parents=True)
    backup.write(path)
    with pytest.raises(UsageError, match="came twice: the server's clock went back"):
        point.find(archive, 1700.0)
    with pytest.raises(UsageError, match="is before the first base backup"):
        point.find(archive, 900.0)
    (path / "manifest.json").write_text('{"environment": 3}')
    with pytest.raises(BackupInvalid, match="damaged"):
        base.read(path)


def test_the_reason_is_not_what_our_own_looks_were_told() -> None:
    """They go on until the server has ended, after it has said why."""
    log = (
        "FATAL:  recovery ended before configured recovery target was reached\n"
        "FATAL:  the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.\n"
    )
    assert reason(OUR_LOOKS.sub("", log)) == TOO_SHORT
