"""The project's folder and its settings, each with the place it came from."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from skinspire_db.errors import InvalidSetting

PATIENCE = 5.0 if sys.platform == "win32" else 0.0  # seconds; elsewhere what may not be renamed now may not be later
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # for os.open(): a symbolic link is refused; Windows has no such flag
STATE_FOLDER = ".skinspire"  # beside pyproject.toml, git-ignored: the active environment and the embedded server


BUILT_IN = ("dev", "test", "prod")  # the environments that every project has


@dataclass(frozen=True)
class Setting:
    """A value and where it came from. `value` is None when nothing sets it; it may be secret and stays out of repr."""

    name: str
    value: str | None = field(repr=False)
    source: str


@dataclass(frozen=True)
class Project:
    """A folder with settings: `root`, `config`, the table [tool.skinspire_db] of its pyproject.toml, and how it was found."""

    root: Path
    config: dict[str, Any]
    found_by: str = "given"

    @property
    def state(self) -> Path:
        """Where the tools keep what belongs to this checkout alone. The folder may not exist yet."""
        return self.root / STATE_FOLDER

    @property
    def environments(self) -> tuple[str, ...]:
        """The names of all environments: the built-in ones, then what pyproject.toml declares."""
        declared = self.config.get("environments", {})
        return tuple(dict.fromkeys((*BUILT_IN, *(declared if isinstance(declared, dict) else ()))))

    def setting(self, name: str) -> Setting:
        """Look `name` up in the process environment, then in .env, as python-decouple reads it.

        An empty value counts as not set: `DEV_DATABASE_URL=` in a .env means "none".

        Raises:
            InvalidSetting: for a line of .env that means one of our settings and cannot be taken as it is written.
        """
        if value := os.environ.get(name):
            return Setting(name, value, "process environment")
        if value := _dotenv(self.root / ".env", self.environments).get(name):
            return Setting(name, value, ".env")
        return Setting(name, None, "not set")


def current_project() -> Project:
    """Find the project of the current folder.

    It is the folder that SKINSPIRE_PROJECT names, else the nearest one upwards whose pyproject.toml has a table
    [tool.skinspire_db], else the checkout that this package is imported from.

    Raises:
        InvalidSetting: SKINSPIRE_PROJECT names no folder or a pyproject.toml cannot be parsed.
    """
    if named := os.environ.get("SKINSPIRE_PROJECT"):
        root = Path(named).resolve()
        if not root.is_dir():
            raise InvalidSetting(f"SKINSPIRE_PROJECT names {named}, which is no folder", remedy="unset SKINSPIRE_PROJECT")
        return Project(root, _tool_table(root / "pyproject.toml") or {}, "SKINSPIRE_PROJECT")
    try:
        project = Path.cwd()
    except FileNotFoundError:
        raise InvalidSetting("the current folder does not exist any more", remedy="cd to the project's folder") from None
    for folder in (project, *project.parents):
        if (table := _tool_table(folder / "pyproject.toml")) is not None:
            return Project(folder, table, "the current folder")
    checkout = Path(__file__).resolve().parent.parent.parent
    found = checkout if (checkout / "sql").is_dir() else project
    return Project(found, _tool_table(found / "pyproject.toml") or {}, "where the package lies")


def write_atomically(path: Path, text: str, *, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never half of it.

    Args:
        path: The file; folders above it that are missing are made.
        text: What will be in it.
        mode: Its permissions; None leaves those of the file that is there, and gives a new one 0644.
        owner: The ids of the account and group that it will belong to.
    """
    make_folder(path.parent)
    if mode is None:
        mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() and not path.is_symlink() else 0o644
    # Not to be guessed: an account that may write into the folder could have put a link there.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.new")
    try:
        with opened_new(temporary, mode, owner) as file:
            file.write(text)
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def opened_new(path: Path, mode: int, owner: tuple[int, int] | None = None) -> Iterator[TextIO]:
    """A new file, for writing, with this mode whatever the umask.

    Raises:
        OSError: there is one of that name already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        if sys.platform != "win32":
            if owner:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
        yield file


def append(path: Path, text: str) -> None:
    """Write at the end of a file.

    Raises:
        OSError: it is a link.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | NO_LINK), "a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, which other accounts may read and not write, whatever the umask."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o755)


def expanded(path: str) -> Path:
    """The path with ~ written out, where the account has a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def replace(old: Path, new: Path) -> None:
    """Rename, and on Windows try again for a while: what a virus scanner or an indexer has open cannot be renamed there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            old.replace(new)
            return
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def remove(folder: Path) -> bool:
    """Delete a folder with all that is in it, trying again on Windows as replace() does.

    Returns:
        Whether it is gone.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() >= deadline:
            return not folder.exists()
        time.sleep(0.05)


@cache
def _tool_table(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            tool = tomllib.load(file).get("tool", {})
    except OSError:  # not there, or a folder above that we may not look into
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path} is not valid TOML: {error}", remedy=f"correct {path}") from None
    table = tool.get("skinspire_db")
    if table is not None and not isinstance(table, dict):
        raise InvalidSetting(f"tool.skinspire_db in {path} is no table", remedy="write it as [tool.skinspire_db]")
    return table


@cache
def _dotenv(path: Path, environments: tuple[str, ...]) -> dict[str, str]:
    if not path.exists():  # before decouple is loaded: most commands run without
        return {}
    from skinspire_db.config import dotenv

    return dotenv.read(path, environments)
