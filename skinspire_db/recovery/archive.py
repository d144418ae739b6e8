"""The folder of an environment's continuous backups: the received WAL, base backups, and what the receiver notes.

The receiver's marks say until when all that was committed has been received: a time of the server's clock, and a position in
the WAL between two records.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import replace, write_atomically
from skinspire_db.copies import backup_folder
from skinspire_db.errors import BackupInvalid

STATE_BYTES = 4096
FIRST = "not connected yet"
MARK_SECONDS = 10  # between two marks that are kept


@dataclass(frozen=True)
class Mark:
    """Until `at`, in seconds since 1970, all that was committed has been received; the WAL is there up to `lsn` at least."""

    at: float
    lsn: int


@dataclass(frozen=True)
class State:
    """What the receiver noted last.

    Args:
        pid: Its process.
        slot: The replication slot that it reads from.
        said: Why it receives nothing at the moment; empty while it does.
        at: As a Mark's; 0 before the first one.
        lsn: As a Mark's.
        kept: How many bytes of WAL the slot keeps on the server.
        limit: `max_slot_wal_keep_size`, as the server says it.
        reach: `wal_status` of the slot.
    """

    pid: int
    slot: str
    said: str = FIRST
    at: float = 0.0
    lsn: int = 0
    kept: int = 0
    limit: str = ""
    reach: str = ""


@dataclass(frozen=True)
class Archive:
    """Where everything is; nothing is made by naming it."""

    folder: Path
    environment: str

    @classmethod
    def of(cls, environment: Environment, given: Path | None) -> Archive:
        """The archive of an environment, in the folder of its backups.

        Raises:
            BackupInvalid: that folder cannot be read.
        """
        folder = backup_folder.folder_of(environment.project, given)
        return cls(folder / f"{environment.name}{backup_folder.CONTINUOUS}", environment.name)

    @property
    def wal(self) -> Path:
        """The folder that WAL is received into."""
        return self.folder / "wal"

    @property
    def lock(self) -> Path:
        """The file whose lock a live receiver holds."""
        return self.folder / "receiver.lock"

    @property
    def stop_file(self) -> Path:
        """Whose presence ends the receiver: also where there are no signals."""
        return self.folder / "receiver.stop"

    @property
    def log(self) -> Path:
        """What a receiver in the background has said."""
        return self.folder / "receiver.log"

    @property
    def runs(self) -> bool:
        """Whether a receiver runs."""
        from filelock import FileLock, Timeout

        if not self.lock.exists():
            return False
        try:
            with FileLock(self.lock, timeout=0):
                return False
        except Timeout:
            return True
        except OSError as error:
            raise self._unusable(error) from None

    @property
    def state(self) -> State | None:
        """What the receiver noted last; None where none ever did, or it cannot be read."""
        try:
            return State(**json.loads((self.folder / "receiver.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def note(self, state: State) -> None:
        """Keep what the receiver notes. It is written several times a second, and not forced to the disk."""
        file, text = self.folder / "receiver.json", json.dumps(asdict(state)).ljust(STATE_BYTES)
        aside = self.folder / "receiver.json.new"
        try:
            aside.write_text(text, encoding="utf-8")
            replace(aside, file)
        except OSError:  # a full disk still has the blocks of the old one, and is what a reader must learn of
            aside.unlink(missing_ok=True)
            with file.open("r+", encoding="utf-8") as opened:
                opened.write(text)

    @property
    def marks(self) -> list[Mark]:
        """The marks that are kept, oldest first, with the receiver's last one at the end."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / "marks").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):  # the last line of a receiver that was killed
                    found.append(Mark(*json.loads(line)))
        if (state := self.state) and state.at and (not found or state.lsn >= found[-1].lsn):
            found.append(Mark(state.at, state.lsn))
        return found

    def keep(self, mark: Mark) -> None:
        """Keep a mark."""
        with (self.folder / "marks").open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps([mark.at, mark.lsn])}\n")

    def rewrite(self, marks: list[Mark]) -> None:
        """Keep these marks in place of those that are kept."""
        write_atomically(self.folder / "marks", "".join(f"{json.dumps([mark.at, mark.lsn])}\n" for mark in marks))

    def belongs_to(self, system: str) -> None:
        """Take the WAL of this server, which its system identifier names, and of no other.

        Raises:
            BackupInvalid: there is another one's, or the folder cannot be written.
        """
        file = self.folder / "system"
        try:
            self.wal.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            if not file.exists():
                write_atomically(file, system)
            if (known := file.read_text(encoding="utf-8").strip()) != system:
                raise BackupInvalid(
                    f"{self.folder} holds the WAL of server {known}, and {self.environment} is on server {system} now",
                    remedy=f"rename {self.folder}, so that it is kept and a new one is begun",
                )
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> BackupInvalid:
        return BackupInvalid(
            f"{self.folder} cannot be used: {error.strerror}", remedy=backup_folder.writable(error, self.folder)
        )


def as_lsn(text: str) -> int:
    """0/1A2B as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def moment(at: float) -> str:
    """A time as it is shown, and as --to takes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds")
