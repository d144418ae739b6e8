"""The versions of the trigger files: triggers.lock says which text is which version, archive/ keeps the earlier ones."""

from __future__ import annotations

import codecs
import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from skinspire_db.config.project import Project, write_atomically
from skinspire_db.errors import InvalidSetting, TriggerFileInvalid, UsageError
from skinspire_db.objects.files import TriggerFile, folder, read_file, read_files

LOCK_HEADER = (
    "# name version sha256, of every version: an edit without a new version is refused; invoke triggers.bump makes one"
)


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
        versions = locked.get(file.name, {0: ""})
        version = max(versions)
        bump_it = f"invoke triggers.bump --name={file.name}"
        where = f"{file.path}:{file.line('version')}"
        if file.version > version + 1:
            after = f"after version {version}" if version else "for a new file"
            raise TriggerFileInvalid(f"{where}: version {file.version} {after} leaves a gap", remedy=f"write {version + 1}")
        if file.version < version:
            raise TriggerFileInvalid(f"{where}: version {file.version}, but {version} is locked", remedy=f"write {version}")
        if file.version > version:
            raise TriggerFileInvalid(f"{where}: version {file.version} is not in triggers.lock", remedy=bump_it)
        if file.sha256 != versions[version]:
            raise TriggerFileInvalid(f"{where}: edited since version {version} was locked", remedy=bump_it)
        for earlier in range(1, version):
            _check_archived(file, version, earlier, versions.get(earlier))
        if file.attachments and not file.proof.exists():
            raise TriggerFileInvalid(
                f"{file.path}:{file.line('attach')}: there is no verify/{file.name}.sql, and only running proves it",
                remedy="write a proof, as the other files have one",
            )


def _check_archived(file: TriggerFile, version: int, earlier: int, sha256: str | None) -> None:
    where, path = f"{file.path}:{file.line('version')}", archived(file.name, earlier)
    remedy = "restore it from version control"
    if sha256 is None or not path.exists():
        raise TriggerFileInvalid(f"{where}: version {version}, but archive/{path.name} is missing: a gap", remedy=remedy)
    if hashlib.sha256(path.read_bytes().removeprefix(codecs.BOM_UTF8)).hexdigest() != sha256:
        raise TriggerFileInvalid(f"{path}:1: edited since it was frozen", remedy=remedy)


def at(name: str, version: str) -> TriggerFile:
    """The file as it was in an earlier version, or as it is. Raises UsageError for a version that does not exist."""
    locked = read_lock()
    newest = max(locked.get(name, {0: ""}))
    if not re.fullmatch(r"[1-9][0-9]*", version) or int(version) > newest:
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

    A version that was never committed to git is known here only: it is locked anew under its number. A file that was not
    edited gets the next version too, ready to be edited, once: one whose text is still the former version's keeps its number.

    Raises UsageError for an unknown name, TriggerFileInvalid when the former text can be found neither in the file nor in
    git's history; then nothing was written.
    """
    names = sorted({path.stem for path in folder().glob("*.sql")})
    if name not in names:
        raise UsageError(
            f"there is no trigger file {name}" if name else "triggers.bump needs the name of a trigger file",
            remedy=f"invoke triggers.bump --name={names[0]}, or another of {', '.join(names)}",
        )
    file = read_file(folder() / f"{name}.sql")
    versions = read_lock().get(name, {0: ""})
    version = max(versions)
    edited = file.sha256 != versions[version]
    former = None
    if version and (edited or not _is_the_former_text(file, version)):
        former = _former(file, version, versions[version]) if edited else file.text
    now = version if version and former is None else version + 1
    frozen = archived(name, version) if former is not None else None
    text = _numbered(file.text, now)
    if not re.search(rf"^\s*version\s*=\s*{now}\s*(#|$)", text, re.MULTILINE):
        raise TriggerFileInvalid(f"{file.path}:{file.line('version')}: the version is no plain number", remedy=f"write {now}")
    if not dry:
        _write(file.path, text, frozen, former, now)
    return Bumped(name, now, frozen, edited)


def _numbered(text: str, version: int) -> str:
    """The text with this version in its header."""
    return re.sub(r"^(\s*version\s*=\s*)\d+", rf"\g<1>{version}", text, count=1, flags=re.MULTILINE)


def _is_the_former_text(file: TriggerFile, version: int) -> bool:
    """Whether the version is one that was made ready to be edited, and was not."""
    path = archived(file.name, version - 1)
    return path.exists() and _numbered(read_file(path, file.name).text, version) == file.text


def _former(file: TriggerFile, version: int, sha256: str) -> str | None:
    """The text that was locked, from git's history; None when it was never committed, so that it is known here only."""
    path = file.path
    if (text := _committed(path, sha256)) is not None:
        return text
    tracked = (
        _git(path, "ls-files", "--error-unmatch", path.name)
        and _git(path, "rev-parse", "--is-shallow-repository") == "false\n"
    )
    if tracked and not _git(_lock_path(), "log", "--all", "--format=%H", f"-S{sha256}", "--", _lock_path().name):
        return None
    raise TriggerFileInvalid(
        f"{path}:1: the text of version {version} is neither here nor in git's history",
        remedy=f"put version {version} back, run this, and edit it then",
    )


def archived(name: str, version: int) -> Path:
    """Where an earlier version is kept."""
    return folder() / "archive" / f"{name}.{version}.sql"


def read_lock() -> dict[str, dict[int, str]]:
    """name -> version -> sha256 of every version. Raises TriggerFileInvalid with file and line for a damaged line."""
    locked: dict[str, dict[int, str]] = {}
    path = _lock_path()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise TriggerFileInvalid(f"{path}:1: cannot be read", remedy="restore the file from version control") from None
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z_][a-z0-9_]*) ([1-9][0-9]*) ([0-9a-f]{64})", line)
            if match is None:
                raise TriggerFileInvalid(
                    f"{path}:{number}: not name, version and sha256", remedy="restore the file from version control"
                )
            locked.setdefault(match[1], {})[int(match[2])] = match[3]
    return locked


def _lock_path() -> Path:
    return folder().parent / "triggers.lock"


def _write(path: Path, text: str, frozen: Path | None, former: str | None, version: int) -> None:
    """Archive first, lock last: whatever stops it between, the next bump finds what it needs."""
    if frozen is not None and former is not None:
        write_atomically(frozen, former)
    write_atomically(path, text)
    locked = {name: versions for name, versions in read_lock().items() if (path.parent / f"{name}.sql").exists()}
    locked.setdefault(path.stem, {})[version] = hashlib.sha256(text.encode()).hexdigest()
    lines = [f"{name} {number} {sha256}" for name in sorted(locked) for number, sha256 in sorted(locked[name].items())]
    write_atomically(_lock_path(), "\n".join([LOCK_HEADER, *lines]) + "\n")


def _committed(path: Path, sha256: str) -> str | None:
    for commit in _git(path, "log", "--all", "--format=%H", "--", path.name).split():
        text = _git(path, "show", f"{commit}:./{path.name}").removeprefix("\ufeff")
        if hashlib.sha256(text.encode()).hexdigest() == sha256:
            return text
    return None


def _git(path: Path, *arguments: str) -> str:
    """What git answers in the file's folder; empty where it cannot answer."""
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
