"""The versions of the trigger files: triggers.lock says which text is which version, archive/ keeps the earlier ones."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from skinspire_db.errors import InvalidSetting, TriggerFileInvalid, UsageError
from skinspire_db.settings import Project, write_atomically
from skinspire_db.triggers.files import TriggerFile, folder, read_file, read_files

LOCK_HEADER = "# name version sha256: an edit without a new version is refused; invoke triggers.bump makes one"


@dataclass(frozen=True)
class Bumped:
    """What `bump` did: the file's version now, and the earlier one's path in archive/ if it was frozen."""

    name: str
    version: int
    frozen: Path | None
    edited: bool


def current(project: Project) -> list[TriggerFile]:
    """The trigger files that this project installs, in firing order: all but those that its pyproject.toml leaves out.

    Raises TriggerFileInvalid with file and line for one that cannot be used or was edited without a new version, and
    InvalidSetting when pyproject.toml leaves out what does not exist.
    """
    files = read_files(folder())
    check(files)
    return [file for file in files if file.name not in left_out(project, files)]


def left_out(project: Project, files: list[TriggerFile]) -> list[str]:
    """The names in `disabled_triggers` of pyproject.toml."""
    names = project.config.get("disabled_triggers", [])
    known = [file.name for file in files]
    if not isinstance(names, list) or [name for name in names if name not in known]:
        raise InvalidSetting(
            f"disabled_triggers = {names!r} in pyproject.toml is no list of trigger files",
            remedy=f"choose from {', '.join(sorted(known))}",
        )
    return names


def check(files: list[TriggerFile]) -> None:
    """Make sure that each file is the text that triggers.lock has for its version, and that no earlier version is missing."""
    locked = read_lock()
    for file in files:
        version, sha256 = locked.get(file.name, (0, ""))
        bump_it = f"invoke triggers.bump --name={file.name}"
        where = f"{file.path}:{file.line('version')}"
        if file.version > version + 1:
            after = f"after version {version}" if version else "for a new file"
            raise TriggerFileInvalid(f"{where}: version {file.version} {after} leaves a gap", remedy=f"write {version + 1}")
        if file.version < version:
            raise TriggerFileInvalid(f"{where}: version {file.version}, but {version} is locked", remedy=f"write {version}")
        if file.version > version:
            raise TriggerFileInvalid(f"{where}: version {file.version} is not in triggers.lock", remedy=bump_it)
        if file.sha256 != sha256:
            raise TriggerFileInvalid(f"{where}: edited since version {version} was locked", remedy=bump_it)
        for earlier in range(1, version):
            if not archived(file.name, earlier).exists():
                raise TriggerFileInvalid(
                    f"{where}: version {version}, but archive/{file.name}.{earlier}.sql is missing: a gap",
                    remedy="restore it from version control",
                )


def at(name: str, version: str) -> TriggerFile:
    """The file as it was in an earlier version, or as it is. Raises UsageError for a version that does not exist."""
    locked = read_lock()
    newest = locked.get(name, (0, ""))[0]
    if not version.isdecimal() or not 1 <= int(version) <= newest:
        raise UsageError(
            f"{name} has no version {version}; it has 1 to {newest}", remedy=f"invoke triggers.install --name={name}"
        )
    path = folder() / f"{name}.sql" if int(version) == newest else archived(name, int(version))
    return read_file(path, name)


def pick(files: list[TriggerFile], name: str) -> TriggerFile:
    """The file of that name. Raises UsageError when there is none."""
    for file in files:
        if file.name == name:
            return file
    raise UsageError(
        f"this project has no trigger file {name}", remedy=f"choose from {', '.join(sorted(f.name for f in files))}"
    )


def bump(name: str | None, *, dry: bool = False) -> Bumped:
    """Give an edited file its next version: its former text goes to archive/, its new one into triggers.lock.

    A version that was never committed is nobody's but yours: it is locked anew under its number. A file that was not edited
    gets the next version too, ready to be edited. Raises UsageError for an unknown name, TriggerFileInvalid when the former
    text can be found neither in the file nor in git's history; then nothing was written.
    """
    names = sorted({path.stem for path in folder().glob("*.sql")})
    if name not in names:
        raise UsageError(
            f"there is no trigger file {name}" if name else "triggers.bump needs the name of a trigger file",
            remedy=f"invoke triggers.bump --name=..., one of {', '.join(names)}",
        )
    file = read_file(folder() / f"{name}.sql")
    version, sha256 = read_lock().get(name, (0, ""))
    former, edited = (file.text, False) if file.sha256 == sha256 else (_committed(file, sha256) if version else None, True)
    if former is None and version and not _in_git(file.path):
        raise TriggerFileInvalid(
            f"{file.path}:1: the text of version {version} is neither here nor in git's history",
            remedy=f"put version {version} back, run this, and edit it then",
        )
    now = version + 1 if former is not None or not version else version
    frozen = archived(name, version) if former is not None else None
    text = re.sub(r"^(version\s*=\s*)\d+", rf"\g<1>{now}", file.text, count=1, flags=re.MULTILINE)
    if not dry:
        _write(file.path, text, frozen, former, now)
    return Bumped(name, now, frozen, edited)


def archived(name: str, version: int) -> Path:
    """Where an earlier version is kept."""
    return folder() / "archive" / f"{name}.{version}.sql"


def read_lock() -> dict[str, tuple[int, str]]:
    """name -> version and sha256 of the locked files. Raises TriggerFileInvalid with file and line for a damaged line."""
    locked = {}
    path = _lock_path()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            found = re.fullmatch(r"(\S+) ([1-9]\d*) ([0-9a-f]{64})", line)
            if found is None:
                raise TriggerFileInvalid(f"{path}:{number}: not name, version and sha256", remedy="restore the file from git")
            locked[found[1]] = (int(found[2]), found[3])
    return locked


def _lock_path() -> Path:
    return folder().parent / "triggers.lock"


def _write(path: Path, text: str, frozen: Path | None, former: str | None, version: int) -> None:
    """Archive first, lock last: whatever stops it between, the next bump finds what it needs."""
    if frozen is not None and former is not None:
        write_atomically(frozen, former)
    write_atomically(path, text)
    locked = {name: entry for name, entry in read_lock().items() if (path.parent / f"{name}.sql").exists()}
    locked[path.stem] = (version, hashlib.sha256(text.encode()).hexdigest())
    lines = [LOCK_HEADER, *(f"{name} {number} {sha256}" for name, (number, sha256) in sorted(locked.items()))]
    write_atomically(_lock_path(), "\n".join(lines) + "\n")


def _committed(file: TriggerFile, sha256: str) -> str | None:
    """The text of this path with this fingerprint, from git's history."""
    for commit in _git(file.path, "log", "--all", "--format=%H", "--", file.path.name).split():
        text = _git(file.path, "show", f"{commit}:./{file.path.name}")
        if hashlib.sha256(text.encode()).hexdigest() == sha256:
            return text
    return None


def _in_git(path: Path) -> bool:
    return bool(_git(path, "rev-parse", "--git-dir"))


def _git(path: Path, *arguments: str) -> str:
    """What git answers in the file's folder; empty where it cannot answer."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
