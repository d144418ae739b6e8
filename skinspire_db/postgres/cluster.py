"""The files of an embedded server: its cluster, password, port, log and lock; and making and deleting them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skinspire_db.config.project import append, make_folder, remove, replace, write_atomically
from skinspire_db.errors import ServerFailed
from skinspire_db.postgres import added_extensions, data_folders, processes
from skinspire_db.postgres.programs import Account, Binaries, find_binaries, unprivileged_account

T = TypeVar("T")

ROLE = "skinspire"
START_SECONDS = 60
# All that a server's home holds.
FILES = ("data", "data.new", "password", "server.json", "server.log", "boot", "lock", added_extensions.FOLDER)

LOCKS = 1024  # times max_connections; 2,000 tables dropped and made anew are 20,000 locks, with indexes and TOAST
DURABLE = ""
THROW_AWAY = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
# From PostgreSQL 16 on. No repetition protects a password of 24 random bytes further, and each connection is 4 ms shorter.
ONE_ITERATION = ["-c", "scram_iterations=1"]
CONFIGURATION = f"""
# Written by skinspire-db when it made this server.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
# There are no replicas: what is loaded into new tables goes to disk once, at the commit, and not through the WAL too.
wal_level = minimal
max_wal_senders = 0
# Thousands of tables in one transaction.
max_locks_per_transaction = {LOCKS}
"""

# What backup.start and backup.create --physical switch on; incremental backups need the summaries.
REPLICATION = """
# Written by skinspire-db for continuous backups.
wal_level = replica
max_wal_senders = 10
max_slot_wal_keep_size = '2GB'
"""
SUMMARIES = "summarize_wal = on\n"


@dataclass(frozen=True)
class Address:
    """Where a server answers, and the password of its role; the password stays out of repr."""

    port: int
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    user: str = ROLE

    @property
    def parameters(self) -> dict[str, Any]:
        """libpq's parameters to get there, without a database. A server that does not prove by SCRAM that it knows the
        password is refused: it is another one that got our port.
        """
        from psycopg import pq

        # libpq reads PGHOSTADDR and the like for whatever is not given here.
        return {
            "host": self.host, "hostaddr": self.host, "port": self.port, "user": self.user, "password": self.password,
            "sslmode": "disable", "gssencmode": "disable", "client_encoding": "UTF8",
        } | ({"require_auth": "scram-sha-256"} if pq.version() >= 160000 else {})  # fmt: skip


class Cluster:
    """What lies in an embedded server's folder; EmbeddedServer is the server that runs on it.

    Args:
        home: The folder: data/, password, server.json (the port), server.log and a lock file.
        binaries: PostgreSQL's programs; None finds them when they are needed.
        durable: False makes a throw-away cluster that loses its data in a power cut.
    """

    def __init__(self, home: Path, *, binaries: Binaries | None = None, durable: bool = True) -> None:
        self.home = home
        self.data = home / "data"
        self.log = home / "server.log"
        self.durable = durable
        self._binaries = binaries
        self.account: Account | None = unprivileged_account(home)

    @property
    def binaries(self) -> Binaries:
        """PostgreSQL's programs.

        Raises:
            ServerFailed: there are none.
        """
        if self._binaries is None or not self._binaries.folder.is_dir():  # a destroyed server takes its links along
            found = find_binaries(self.account)
            self._binaries = added_extensions.with_extensions(found, self.home) if self.home.is_dir() else found
        return self._binaries

    @property
    def exists(self) -> bool:
        """Whether a cluster has been made here.

        Raises:
            ServerFailed: the folder is another user's.
        """
        return self._readable(lambda: (self.data / "PG_VERSION").exists())

    def address(self) -> Address | None:
        """Where the server was last started, whether or not it runs now; None before the first start."""
        if (port := self._port()) is None or not self.exists:
            return None
        return Address(port, self._password())

    def _initialise(self) -> None:
        """Run initdb in a folder aside, then rename it: a cluster that was half made when the power went never counts."""
        half_made = self.home / "data.new"
        shutil.rmtree(half_made, ignore_errors=True)
        if self.data.exists() and any(self.data.iterdir()):  # a cluster of this tool is renamed to it when it is complete
            raise ServerFailed(f"{self.data} is no cluster and not empty", remedy="set SKINSPIRE_PG_HOME to a new folder")
        if self.data.exists():
            self.data.rmdir()
        password_file = self.home / "password"
        self._write_private(password_file, secrets.token_urlsafe(24))
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.binaries.major >= 17 else []
        done = self._run(
            "initdb", "-D", str(half_made), "-U", ROLE, f"--pwfile={password_file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C", *locale, "--no-instructions", *([] if self.durable else ["--no-sync"]),
            *([] if self.durable or self.binaries.major < 16 else ONE_ITERATION),
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(half_made, ignore_errors=True)
            raise ServerFailed(
                f"initdb could not make {self.data}: {reason(done.stdout)}",
                remedy=f"free some space on the disk of {self.home}"
                if "No space left" in done.stdout
                else "set SKINSPIRE_PG_HOME to a folder that the server's account can reach and write",
            )
        append(half_made / "postgresql.conf", CONFIGURATION + (DURABLE if self.durable else THROW_AWAY))
        if not self.durable:
            write_atomically(self.home / "boot", _boot() or "not known", owner=self._owner)
        replace(half_made, self.data)

    def _write_private(self, path: Path, text: str) -> None:
        write_atomically(path, text, mode=0o600, owner=self._owner)

    @property
    def _owner(self) -> tuple[int, int] | None:
        return (self.account.uid, self.account.gid) if self.account else None

    def _room_for_locks(self) -> str:
        """The option for a cluster whose configuration does not say how many locks: an older version made it."""
        files = (self.data / name for name in ("postgresql.conf", "postgresql.auto.conf"))
        configuration = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists())
        set_there = re.search(r"^\s*max_locks_per_transaction\b", configuration, re.MULTILINE)
        return "" if set_there else f" -c max_locks_per_transaction={LOCKS}"

    def _delete_cluster(self) -> None:
        half_deleted = self.home / "data.new"
        remove(half_deleted)
        if self.exists:
            replace(self.data, half_deleted)  # from here on there is no cluster, however far the deleting comes
        if not remove(half_deleted):
            raise ServerFailed(f"not all of {half_deleted} could be deleted", remedy="run as its owner")

    def _same_boot(self) -> bool:
        """Whether the computer has run without a break since the cluster was made. What a throw-away server had not written
        when the power went is lost, and it would not notice.
        """
        try:
            return (self.home / "boot").read_text() == _boot()
        except FileNotFoundError:
            return True  # it was not made to be thrown away

    def _postmaster(self) -> int | None:
        """The pid of this cluster's live server process, None when there is none."""
        lines = self._pid_file()
        try:
            pid = int(lines[0])
        except (ValueError, IndexError):
            return None
        started = float(lines[2]) if len(lines) > 2 and lines[2].isdecimal() else None
        return pid if processes.serves(pid, self.data, started) else None

    def _pid_file(self) -> list[str]:
        """The lines of postmaster.pid: pid, folder, when it started, port and more; none when there is no such file.

        Raises:
            ServerFailed: it is there and cannot be read, so that it is not known whether the server runs.
        """
        path = self.data / "postmaster.pid"
        try:
            return path.read_text(encoding="utf-8", errors="replace").splitlines()  # the folder's name is in any encoding
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise ServerFailed(f"cannot read {path}: {error.strerror}", remedy="run as the user that made it") from None

    def _remove_stale_pid_file(self) -> None:
        """After a reboot the number in postmaster.pid may be another program's, and PostgreSQL would not start."""
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists() and self._postmaster() is None:
            with contextlib.suppress(FileNotFoundError):
                pid_file.unlink()

    def _port(self) -> int | None:
        """Where our server listens, or last did; not what a copied folder remembers of the one that it was copied from."""
        try:
            if self._postmaster() is not None:
                return int(self._pid_file()[3])
            known = json.loads((self.home / "server.json").read_text())
            port = int(known["port"])
            return port if known["home"] == str(self.home.resolve()) and 0 < port < 65536 else None
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError):
            return None

    def _choose_port(self) -> None:
        """Keep the port for as long as it is free; other tools remember it."""
        port = self._port()
        if port is None or not _is_free(port):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            where = json.dumps({"port": port, "home": str(self.home.resolve())})
            write_atomically(self.home / "server.json", f"{where}\n", owner=self._owner)

    def _password(self) -> str:
        try:
            return self._readable(lambda: (self.home / "password").read_text().strip())
        except (OSError, ValueError):
            raise ServerFailed(
                f"the password file of the server in {self.home} is gone", remedy="invoke server.destroy"
            ) from None

    def _log_since(self, offset: int) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(offset)
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            if self.home.parent == data_folders.ROOT_HOMES:
                data_folders.ROOT_HOMES.mkdir(parents=True, exist_ok=True)
                data_folders.ROOT_HOMES.chmod(0o755)  # whatever root's umask is: the account must get through
            make_folder(self.home)
            foreign = {path.name for path in self.home.iterdir()} - set(FILES) - {"lost+found"}
            if foreign and not self.exists:
                raise ServerFailed(
                    f"{self.home} holds other things ({min(foreign)}) and is about to become a server's folder",
                    remedy="set SKINSPIRE_PG_HOME to a new folder",
                )
            if self.account and sys.platform != "win32":
                os.chown(self.home, self.account.uid, self.account.gid)
            self.home.chmod(0o700)
            lock = FileLock(self.home / "lock", timeout=2 * START_SECONDS)
            lock.acquire()
        except Timeout:
            raise ServerFailed(
                f"another task has been starting the server in {self.home} for two minutes", remedy="end that task"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> ServerFailed:
        return ServerFailed(
            f"cannot write to the server's folder {self.home}: {error.strerror or error}",
            remedy="set SKINSPIRE_PG_HOME to a folder that you can write",
        )

    def _readable(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except PermissionError:
            raise ServerFailed(
                f"{self.home} belongs to another user",
                remedy="run as the user that made it, or use a checkout of your own",
            ) from None

    def _pg_ctl(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", verb, "-D", str(self.data), *arguments)

    def _run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.binaries.run(tool, *arguments, account=self.account, folder=self.home)


def _boot() -> str | None:
    """What tells this run of the computer from earlier ones; None where that is not known."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if sys.platform == "darwin":
        answer = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)  # noqa: S607
        return answer.stdout.strip() or None
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # there the option would let us share a port that is taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def reason(text: str) -> str:
    """The line of a server's or a tool's output that says why."""
    reasons = re.findall(r"(?:FATAL|PANIC|error|could not [^\n]*|ERROR):\s*(.+)", text)
    return reasons[-1].strip() if reasons else last_line(text)


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"
