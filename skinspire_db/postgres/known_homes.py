"""The folders of this account's embedded servers, of all checkouts: noted when a server starts, so that all can be listed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from skinspire_db.config.project import write_atomically
from skinspire_db.postgres import data_folders


def folder() -> Path:
    """Where the notes are: a file for each server, with its folder's path."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "skinspire-db" / "servers"
    if os.geteuid() == 0:
        return data_folders.ROOT_HOMES / "servers"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skinspire-db" / "servers"


def note(home: Path) -> None:
    """Note a server's folder; where that cannot be written, the server is listed by its own checkout alone."""
    with contextlib.suppress(OSError, RuntimeError):
        if not (record := _record(home)).exists():
            write_atomically(record, f"{home.resolve()}\n")


def forget(home: Path) -> None:
    """Remove the note of a server that was deleted."""
    with contextlib.suppress(OSError, RuntimeError):
        _record(home).unlink(missing_ok=True)


def homes() -> list[Path]:
    """The folders of all servers that are noted and exist, and for root those beside them; notes of others are removed."""
    found: set[Path] = set()
    with contextlib.suppress(OSError, RuntimeError):
        for record in folder().iterdir():
            home = Path(record.read_text(encoding="utf-8").strip())
            if (home / "data" / "PG_VERSION").exists():
                found.add(home)
            else:
                record.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        beside = data_folders.ROOT_HOMES.iterdir() if folder().parent == data_folders.ROOT_HOMES else ()
        found |= {each.resolve() for each in beside if (each / "data" / "PG_VERSION").exists()}
    return sorted(found)


def _record(home: Path) -> Path:
    return folder() / hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
