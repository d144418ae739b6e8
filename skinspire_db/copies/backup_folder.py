"""The folder of backups: which there are, whether their files are what was written, and which are kept.

A backup is a folder ENVIRONMENT-TIME with the dump in `data`, and `manifest.json`, written last. What is being made, or was
given up, has a name that begins with a dot and never counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from skinspire_db.catalog.fingerprint import Fingerprint
from skinspire_db.catalog.row_hash import KINDS
from skinspire_db.config.project import Project, expanded, replace, write_atomically
from skinspire_db.errors import BackupInvalid, UsageError

MANIFEST, DATA, VERIFIED = "manifest.json", "data", "verified.json"
CONTINUOUS = ".continuous"  # the end of a folder's name: base backups and WAL, of skinspire_db.recovery
FORMAT = 2  # 1 had the former kind of hashes alone
TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself. `size` and `bytes` are the database's and the backup's, in bytes."""

    environment: str
    database: str
    created_at: str
    tool_version: str
    server_version: int
    dump_version: int
    revisions: list[str]
    triggers: dict[str, int]
    size: int
    properties: list[list[str]]
    fingerprint: dict[str, Any]
    files: dict[str, list[Any]] = field(repr=False)  # path -> [sha256, bytes]
    format: int = FORMAT
    reason: str = ""  # why it was taken

    @property
    def bytes(self) -> int:
        """The size of the backup's files, in bytes."""
        return sum(size for _, size in self.files.values())

    @property
    def taken(self) -> datetime:
        """When the backup was begun, in UTC."""
        return datetime.strptime(self.created_at, TIME).replace(tzinfo=UTC)

    @property
    def contents(self) -> Fingerprint:
        """The fingerprint of the database on the dump's snapshot."""
        return Fingerprint(**self.fingerprint)


@dataclass(frozen=True)
class Backup:
    """A complete backup. `verified` is how it was proved: "restored", "files", or "" for not yet."""

    path: Path
    manifest: Manifest
    verified: str

    @property
    def name(self) -> str:
        """The name of the backup's folder."""
        return self.path.name

    @property
    def taken(self) -> datetime:
        """When it was begun, in UTC."""
        return self.manifest.taken


class Kept(Protocol):
    """What is asked of a backup to decide whether it is kept, of whichever kind."""

    @property
    def name(self) -> str:
        """Its folder's name."""

    @property
    def taken(self) -> datetime:
        """When it was begun, in UTC."""

    @property
    def verified(self) -> str:
        """How it was proved."""


def folder_of(project: Project, given: Path | None) -> Path:
    """Where backups are: `given`, in the project unless it is an absolute path; by default backups/.

    Raises:
        BackupInvalid: for a link to what is not there: a disk that is not mounted is no empty folder.
    """
    folder = project.root / (given or Path("backups"))
    if folder.is_symlink() and not folder.exists():
        raise BackupInvalid(
            f"{folder} cannot be read: it leads to what is not there", remedy="set backup.folder in invoke.yaml"
        )
    return folder.resolve()


def read(path: Path) -> Backup:
    """The backup in that folder.

    Raises:
        BackupInvalid: for one that is not complete or whose manifest cannot be read.
    """
    try:
        said = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if said["format"] > FORMAT:
            raise BackupInvalid(f"{path.name} was made by a newer version of the tools", remedy="update skinspire-db")
        manifest = Manifest(**said)
        _check(manifest)
    except FileNotFoundError:
        raise BackupInvalid(f"{path} has no {MANIFEST}: it is no complete backup", remedy="invoke backup.list") from None
    except OSError as error:
        raise BackupInvalid(f"{path} cannot be read: {error.strerror}", remedy="correct its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupInvalid(
            f"the manifest of {path.name} is damaged", remedy="use another one of invoke backup.list"
        ) from None
    verified = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        verified = str(json.loads((path / VERIFIED).read_text(encoding="utf-8"))["how"])
    return Backup(path, manifest, verified)


def _check(manifest: Manifest) -> None:
    """Raise ValueError, TypeError, KeyError or AttributeError when a manifest is not what making one writes."""
    _ = manifest.taken, manifest.bytes, manifest.contents.rows
    numbers = (manifest.server_version, manifest.dump_version, manifest.size, manifest.contents.major)
    if not all(isinstance(each, int) for each in numbers) or not isinstance(manifest.environment, str):
        raise TypeError
    if manifest.contents.row_hash not in KINDS:
        raise ValueError
    if not all(isinstance(value, str) for each in manifest.properties for value in each):
        raise TypeError
    _ = [(name, *value) for part in (manifest.contents.sequences, manifest.files) for name, value in part.items()]
    _ = list(manifest.contents.definitions.items())


def complete(folder: Path, environment: str | None = None) -> tuple[list[Backup], list[str]]:
    """The complete backups of an environment, or of all, newest first, and sentences on those that cannot be used.

    Raises:
        BackupInvalid: for a folder that cannot be read; one that does not exist yet has none.
    """
    found, broken = [], []
    try:
        there = sorted(folder.iterdir()) if folder.exists() else []
        folders = [path for path in there if path.is_dir()]
    except OSError as error:
        raise BackupInvalid(
            f"{folder} cannot be read: {error.strerror}",
            remedy="set backup.folder in invoke.yaml, or correct its permissions",
        ) from None
    for path in folders:
        if not path.name.startswith(".") and not path.name.endswith(CONTINUOUS):
            try:
                found.append(read(path))
            except BackupInvalid as error:
                broken.append(error.message)
    mine = [each for each in found if environment in (None, each.manifest.environment)]
    return sorted(mine, key=lambda each: (each.manifest.taken, each.name), reverse=True), broken


def pick(folder: Path, environment: str, name: str | None, otherwise: str = "invoke backup.create --env={env}") -> Backup:
    """The backup that is called so, or is at that path; the environment's newest when none is named.

    Raises:
        UsageError: there is no such backup.
    """
    if name:
        path = folder / name if (folder / name).is_dir() else expanded(name)
        if not path.is_dir():
            raise UsageError(
                f"there is no backup {name}", remedy=f"choose one that invoke backup.list --env={environment} shows"
            )
        return read(path)
    found, _ = complete(folder, environment)
    if not found:
        raise UsageError(f"there is no backup of {environment} in {folder}", remedy=otherwise.replace("{env}", environment))
    return found[0]


def damages(backup: Backup) -> list[str]:
    """What is wrong with the backup's files: missing, altered, or beside what was written; a sentence each."""
    beside = {path.name for path in backup.path.iterdir()} - {MANIFEST, VERIFIED, DATA}
    links = [path for path in (backup.path, *backup.path.rglob("*")) if path.is_symlink()]
    present = {
        str(path.relative_to(backup.path).as_posix()): path
        for path in sorted((backup.path / DATA).rglob("*"))
        if path.is_file()
    }
    wrong = [f"{name} is missing" for name in backup.manifest.files.keys() - present.keys()]
    wrong += [f"{path.name} is a symbolic link" for path in links]
    wrong += [f"{name} is not of this backup" for name in beside]
    wrong += [f"{name} is not of this backup" for name in present.keys() - backup.manifest.files.keys()]
    both = sorted(backup.manifest.files.keys() & present.keys())
    with ThreadPoolExecutor() as pool:
        for name, (sha256, size) in zip(both, pool.map(lambda name: checksum(present[name]), both), strict=True):
            expected, length = backup.manifest.files[name]
            if size != length:
                wrong.append(f"{name} has {size} bytes, not {length}")
            elif sha256 != expected:
                wrong.append(f"{name} was altered")
    return sorted(wrong)


def checksum(path: Path) -> tuple[str, int]:
    """A file's sha256, and its length in bytes."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def mark_verified(backup: Backup, how: str) -> None:
    """Note how the backup was proved, "" for not at all; "files" does not take the place of "restored"."""
    if not (how == "files" and backup.verified == "restored"):
        try:
            write_atomically(backup.path / VERIFIED, json.dumps({"how": how, "at": datetime.now(UTC).strftime(TIME)}))
            (backup.path / VERIFIED).chmod(0o600)
        except OSError as error:
            says = f"that {backup.name} was looked at cannot be noted: {error.strerror}"
            raise BackupInvalid(says, remedy=writable(error, backup.path)) from None


@contextlib.contextmanager
def unfinished(folder: Path, name: str) -> Iterator[Path]:
    """A folder for a backup that is being made; it is `name` when the block ends well, and gone when it does not.

    Those that were given up by processes that died are removed first.

    Raises:
        BackupInvalid: the folder cannot be written.
    """
    from filelock import FileLock

    partial = folder / f".{name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        remove_given_up(folder)
        partial.mkdir(mode=0o700)
        lock = FileLock(folder / f"{partial.name}.lock")
        lock.acquire(timeout=0)
    except OSError as error:
        raise BackupInvalid(f"{folder} cannot be written: {error.strerror}", remedy=writable(error, folder)) from None
    try:
        yield partial
        for path in partial.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        _to_disk(partial)
        replace(partial, folder / name)
        _to_disk(folder)
    except OSError as error:
        says = f"the backup cannot be written: {error.strerror}"
        raise BackupInvalid(says, remedy=writable(error, folder)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        lock.release()
        (folder / f"{partial.name}.lock").unlink(missing_ok=True)


def writable(error: OSError, folder: Path) -> str:
    """What lets a folder be written that could not be."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"free some space on the disk of {folder}, and run it again"
    return f"make {folder} writable for the account that runs this, or set backup.folder in invoke.yaml to another one"


def remove_given_up(folder: Path) -> None:
    """Remove what a process that died has left: unfinished backups, and those that were being deleted."""
    from filelock import FileLock, Timeout

    for path in folder.glob(".*.partial"):
        lock = FileLock(folder / f"{path.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # another process is at work on it
        shutil.rmtree(path, ignore_errors=True)
        lock.release()
        (folder / f"{path.name}.lock").unlink(missing_ok=True)


def delete(backup: Backup) -> None:
    """Delete a backup; killed in between, what is left does not count as one."""
    away = backup.path.with_name(f".{backup.name}.partial")
    replace(backup.path, away)
    shutil.rmtree(away, ignore_errors=True)


def kept(backups: Sequence[Kept], daily: int, weekly: int, monthly: int) -> dict[str, str]:
    """Which are kept, name -> why: the newest of each of the last so many days, weeks and months that have any, and always
    the newest one that is verified, and the newest of all. `backups` are complete ones of one environment, newest first.
    """
    reasons: dict[str, str] = {}
    for count, unit, key in ((daily, "day", "%Y-%m-%d"), (weekly, "week", "%G-W%V"), (monthly, "month", "%Y-%m")):
        newest: dict[str, Kept] = {}
        for each in backups:
            newest.setdefault(each.taken.strftime(key), each)
        for of, each in list(newest.items())[:count]:
            reasons.setdefault(each.name, f"{unit} {of}")
    if verified := next((each for each in backups if each.verified == "restored"), None):
        reasons.setdefault(verified.name, "newest that a restore has proved")
    if verified := next((each for each in backups if each.verified), None):
        reasons.setdefault(verified.name, "newest that is verified")
    if backups:
        reasons.setdefault(backups[0].name, "newest")
    return reasons


def _to_disk(folder: Path) -> None:
    """Make what is in the folder survive a power cut; pg_dump has seen to its own files."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    for path in (*folder.glob("*.json"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
