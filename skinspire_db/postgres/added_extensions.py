"""Extensions that the embedded server offers beside those of its build: its programs then run from a folder of links.

PostgreSQL 17 looks for extensions in one folder only, which it finds from where its program lies, symbolic links followed.
So the programs that look are hard links or copies there, and everything else is a link to the installed files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from skinspire_db.config.project import remove
from skinspire_db.postgres.programs import Binaries

OURS = Path(__file__).parent / "extensions"
FOLDER = "programs"  # in a server's home; what it holds are folders, one for each state of what is installed
PROGRAMS = ("postgres", "initdb", "pg_ctl")


def with_extensions(binaries: Binaries, home: Path) -> Binaries:
    """The same programs, run from the server's home where they find our extensions too.

    Args:
        binaries: the installed programs.
        home: the server's folder.

    Returns:
        The programs as they were where the build has these extensions itself, is not laid out as a folder that can be moved,
        or no links can be made: the extensions are not offered then.
    """
    install = binaries.folder.parent
    installed = next(
        (each for each in (install / "share/extension", install / "share/postgresql/extension") if each.is_dir()), None
    )
    if installed is None or all((installed / control.name).exists() for control in OURS.glob("*.control")):
        return binaries
    folder = home / FOLDER / _state(binaries)
    try:
        if not folder.exists():
            _make(folder, binaries, installed)
    except OSError:
        return binaries
    linked = replace(binaries, folder=folder / binaries.folder.name)
    return linked if linked.run("postgres", "--version").returncode == 0 else binaries


def clean(home: Path, binaries: Binaries) -> None:
    """Delete the folders of links to what was installed before; no server of this home may run."""
    for folder in (home / FOLDER).glob("*"):
        if folder not in binaries.folder.parents:
            remove(folder)


def _state(binaries: Binaries) -> str:
    """A name for what is installed, and what of ours is added to it."""
    hashed = hashlib.sha256(f"{binaries.folder}:{binaries.tool('postgres').stat().st_mtime_ns}".encode())
    for file in sorted(OURS.iterdir()):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


def _make(folder: Path, binaries: Binaries, installed: Path) -> None:
    """Make it aside and rename it: half a folder never counts."""
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.new")
    try:
        _link_all(binaries.folder.parent, aside, {binaries.folder, installed})
        for file in OURS.iterdir():
            if not (aside / installed.relative_to(binaries.folder.parent) / file.name).exists():
                shutil.copyfile(file, aside / installed.relative_to(binaries.folder.parent) / file.name)
        for made in (folder.parent, aside, *(each for each in aside.rglob("*") if each.is_dir() and not each.is_symlink())):
            made.chmod(0o755)  # as root, the server's account must get through, whatever root's umask is
        aside.rename(folder)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not folder.exists():  # and it was not another task that won the race
            raise


def _link_all(source: Path, target: Path, opened: set[Path]) -> None:
    """Link what is in a folder; the folders `opened`, and those above them, are made anew, and their files linked each."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        inside = {each for each in opened if entry == each or entry in each.parents}
        if entry.is_dir() and (inside or sys.platform == "win32"):  # where making a symbolic link is a privilege
            _link_all(entry, target / entry.name, inside)
        elif entry.stem in PROGRAMS or sys.platform == "win32":
            _link_hard(entry, target / entry.name)
        else:
            (target / entry.name).symlink_to(entry)


def _link_hard(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # another file system, or another user's file
        os.link(source, target)
        return
    shutil.copy2(source, target)
