"""Base backups: which there are, the chain that an incremental one needs, and whether their files are what was written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from skinspire_db.config.project import write_atomically
from skinspire_db.copies.backup_folder import DATA, MANIFEST, TIME, VERIFIED
from skinspire_db.errors import BackupInvalid, StepFailed, UsageError
from skinspire_db.postgres.client_programs import physical_tools
from skinspire_db.postgres.target import Target
from skinspire_db.recovery.archive import Archive

OTHERS = "invoke backup.list --env={env} shows others"


@dataclass(frozen=True)
class Base:
    """A base backup, as its manifest.json has it.

    Args:
        environment: Whose server it is of.
        database: The environment's database on it.
        created_at: When it was begun, in UTC.
        parent: The name of the base backup that an incremental one builds on; None for a full one.
        system: The server's system identifier.
        server_version: The server's version number.
        tool_version: Of these tools.
        timeline: The server's timeline.
        start: The position in the WAL from which it is recovered.
        end: The position from which on it is consistent.
        finished: When it was complete, in seconds since 1970 by the server's clock; it can be recovered to from then on.
        size: The bytes of its files.
        settings: What a server must have that recovers it.
        path: Where it is.
    """

    environment: str
    database: str
    created_at: str
    parent: str | None
    system: str
    server_version: int
    tool_version: str
    timeline: int
    start: int
    end: int
    finished: float
    size: int
    settings: dict[str, str]
    path: Path = field(default=Path(), compare=False)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.name

    @property
    def data(self) -> Path:
        """The folder with the server's files."""
        return self.path / DATA

    @property
    def taken(self) -> datetime:
        """When it was begun, in UTC."""
        return datetime.strptime(self.created_at, TIME).replace(tzinfo=UTC)

    @property
    def verified(self) -> str:
        """How it was proved: "restored" by a drill, "files" when it was made."""
        return "restored" if (self.path / VERIFIED).exists() else "files"

    @property
    def row(self) -> dict[str, object]:
        """A line of backup.list."""
        return {
            "name": self.name,
            "why": f"incremental on {self.parent}" if self.parent else "physical, full",
            "taken": f"{self.taken:%Y-%m-%d %H:%M} UTC",
            "rows": "",
            "MB": f"{self.size / 1e6:.1f}",
            "verified": "by a drill" if self.verified == "restored" else "its files",
        }

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder of a base backup."""
        said_of_it = {name: value for name, value in asdict(self).items() if name != "path"}
        write_atomically(folder / MANIFEST, json.dumps(said_of_it))


def folder(archive: Archive) -> Path:
    """Where the base backups of an archive are."""
    return archive.folder / "base"


def read(path: Path) -> Base:
    """The base backup in a folder.

    Raises:
        BackupInvalid: it is not complete, or its manifest is damaged.
    """
    try:
        found = Base(**json.loads((path / MANIFEST).read_text(encoding="utf-8")), path=path)
        _ = found.taken, found.start + found.end + found.size, found.finished + 1, dict(found.settings), found.timeline + 1
    except FileNotFoundError:
        raise BackupInvalid(f"{path} has no {MANIFEST}: it is no complete backup", remedy=OTHERS) from None
    except OSError as error:
        raise BackupInvalid(f"{path} cannot be read: {error.strerror}", remedy="correct its permissions") from None
    except (ValueError, TypeError, AttributeError):
        raise BackupInvalid(f"the manifest of {path.name} is damaged", remedy=OTHERS) from None
    return found


def complete(archive: Archive) -> tuple[list[Base], list[str]]:
    """The complete base backups, newest first, and sentences on those that cannot be used."""
    found, broken = [], []
    for path in sorted(folder(archive).glob("[!.]*")):
        if path.is_dir():
            try:
                found.append(read(path))
            except BackupInvalid as error:
                broken.append(error.message)
    return sorted(found, key=lambda each: (each.created_at, each.name), reverse=True), broken


def chain(archive: Archive, last: Base) -> list[Base]:
    """What is needed to recover a base backup: the full one first, itself at the end.

    Raises:
        BackupInvalid: one of them is not there, or not complete.
    """
    needed = [last]
    while (parent := needed[0].parent) is not None:
        if len(Path(parent).parts) != 1 or any(each.name == parent for each in needed):
            raise BackupInvalid(f"the manifest of {needed[0].name} is damaged", remedy=OTHERS)
        if not (folder(archive) / parent).is_dir():
            raise BackupInvalid(f"{last.name} needs {parent}, which is not there", remedy=OTHERS)
        needed.insert(0, read(folder(archive) / parent))
    return needed


def verify(target: Target, found: Base, data: Path | None = None) -> None:
    """Compare the files of a base backup, and its WAL, with what the server said that it sent.

    Args:
        target: the server, for pg_verifybackup's surroundings; it is not connected to.
        found: the backup.
        data: its files, where they are not at their place yet.

    Raises:
        BackupInvalid: something is missing, altered, or beside what was written.
    """
    files = str(data or found.data)
    try:
        tools = physical_tools(found.server_version)
        tools.run("pg_verifybackup", target, "--exit-on-error", "--quiet", files, connect=False)
    except StepFailed as error:
        says = error.message.removeprefix("pg_verifybackup failed: ").removeprefix("error: ")
        raise BackupInvalid(f"{found.name or 'the base backup'} is not what was written: {says}", remedy=OTHERS) from None


def pick(archive: Archive, name: str | None = None) -> Base:
    """The base backup of that name; the newest where none is given.

    Raises:
        UsageError: there is none.
        BackupInvalid: it cannot be used.
    """
    found, broken = complete(archive)
    if name and (folder(archive) / name).is_dir():
        return read(folder(archive) / name)
    if not found:
        raise UsageError(
            f"there is no base backup of {archive.environment} in {folder(archive)}{': ' + broken[0] if broken else ''}",
            remedy=f"invoke backup.create --env={archive.environment} --physical",
        )
    return found[0]
