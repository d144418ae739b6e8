"""Root's checkouts and the folders of their embedded servers, which lie elsewhere and outlive them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skinspire_db.config.project import STATE_FOLDER, Project, write_atomically
from skinspire_db.errors import ServerFailed
from skinspire_db.patterns import lazy_regex

ROOT_HOMES = Path("/var/lib/skinspire-db")  # root's checkouts may lie where no other account can enter
HOME = lazy_regex("([0-9a-f]{12})(-test)?")  # the folder of a checkout's server, and that of the server of its tests
POINTER = "server-id"  # in the checkout's own folder: the name of its server's folder, and which checkout it was written in
State = Literal["gone", "not mounted", "not known"]


@dataclass(frozen=True)
class Abandoned:
    """The folder of a server that no checkout is known for. `state` is "gone" when the checkout does not exist any more, else
    why that cannot be said; `checkout` is where it was, None where nothing says so; `size` is in bytes.
    """

    home: Path
    checkout: str | None
    state: State

    @property
    def size(self) -> int:
        """The bytes that its files take."""
        return sum(path.lstat().st_size for path in self.home.rglob("*") if not path.is_dir())


def identity(project: Project) -> str:
    """The name of the server of a checkout of root's: not its path, for a clone made where another was deleted is new.

    Raises:
        ServerFailed: the checkout's file with it can be neither read nor written.
    """
    pointer, path = project.state / POINTER, str(project.root.resolve())
    try:
        name, made_for = (*pointer.read_text().split("\n"), "", "")[:2]
        if re.fullmatch("[0-9a-f]{12}", name):
            original = Path(made_for) / pointer.relative_to(project.root)
            if made_for == path:
                return _recorded(name, pointer)
            if not original.exists():  # the checkout was moved, and its server comes along; a copy gets one of its own
                write_atomically(pointer, f"{name}\n{path}\n")
                return _recorded(name, pointer)
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    except OSError as error:
        raise ServerFailed(f"cannot read {pointer}: {error.strerror}", remedy=f"remove {pointer}") from None
    name = secrets.token_hex(6)
    try:
        write_atomically(pointer, f"{name}\n{path}\n")
    except OSError as error:
        raise ServerFailed(f"cannot write {pointer}: {error.strerror}", remedy="set SKINSPIRE_PG_HOME") from None
    return _recorded(name, pointer)


def abandoned() -> list[Abandoned]:
    """The servers' folders whose checkouts are gone, or of which that is not known; changes nothing."""
    try:
        folders = sorted(folder for folder in ROOT_HOMES.iterdir() if HOME.fullmatch(folder.name) and folder.is_dir())
    except OSError:  # there are none, or another account's
        return []
    servers = []
    for home in folders:
        name = home.name.partition("-")[0]
        checkout, mount, alone = _read(ROOT_HOMES / f"{name}.checkout")
        if checkout is None:
            servers.append(Abandoned(home, None, "not known"))
        elif mount and not os.path.ismount(mount):
            servers.append(Abandoned(home, checkout, "not mounted"))
        elif alone and (state := _state(Path(checkout), name)):
            servers.append(Abandoned(home, checkout, state))
    return servers


def forget() -> None:
    """Remove the records of servers that do not exist any more; a checkout that does writes its own anew."""
    for record in ROOT_HOMES.glob("*.checkout"):
        if not any((ROOT_HOMES / f"{record.stem}{suffix}").exists() for suffix in ("", "-test")):
            record.unlink(missing_ok=True)


def _recorded(name: str, pointer: Path) -> str:
    """Note beside the server's folder which checkout it belongs to; returns the name.

    The note is the checkout's own file under a second name: that file has two for as long as the checkout exists, wherever it
    is moved to. On another file system, where there can be no second name, it is a copy that says where that one is mounted.
    """
    record = ROOT_HOMES / f"{name}.checkout"
    with contextlib.suppress(OSError):  # not noted is not known, and not taken away
        if record.exists() and (record.samefile(pointer) or _read(record)[0] == str(pointer.parent.parent.resolve())):
            return name
        ROOT_HOMES.mkdir(parents=True, exist_ok=True)
        ROOT_HOMES.chmod(0o755)  # whatever root's umask is: the server's account must get through
        record.unlink(missing_ok=True)
        try:
            record.hardlink_to(pointer)
        except OSError:
            mount = pointer.resolve()
            while not os.path.ismount(mount):
                mount = mount.parent
            write_atomically(record, f"{pointer.read_text().strip()}\n{mount}\n")
    return name


def _read(record: Path) -> tuple[str | None, str, bool]:
    """What a record says: the checkout, where its file system is mounted if that is another one, and whether the file has
    one name.
    """
    try:
        _, checkout, mount = (*record.read_text().split("\n"), "", "")[:3]
        return checkout or None, mount, record.stat().st_nlink == 1
    except (OSError, UnicodeDecodeError, ValueError):
        return None, "", False


def _state(checkout: Path, name: str) -> State | None:
    """What became of the checkout; None when it is there, and its server is the one of that name."""
    try:
        name_there = (checkout / STATE_FOLDER / POINTER).read_text().split("\n")[0]
        return None if name_there == name else "gone"  # another one was made where it was
    except (FileNotFoundError, NotADirectoryError):
        return "not known" if checkout.is_dir() else "gone"
    except (OSError, UnicodeDecodeError):
        return "not known"
