"""The embedded PostgreSQL: one server per checkout, started on demand and kept running."""

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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project, append, make_folder, remove, replace, write_atomically
from skinspire_db.errors import GuardRefused, ServerFailed
from skinspire_db.postgres import processes
from skinspire_db.postgres.data_folders import ROOT_HOMES, Abandoned, abandoned, forget, identity
from skinspire_db.postgres.programs import Account, Binaries, find_binaries, unprivileged_account

T = TypeVar("T")

ROLE = "skinspire"
START_SECONDS = 60
FILES = ("data", "data.new", "password", "server.json", "server.log", "boot", "lock")  # all that a server's home holds

LOCKS = 1024  # times max_connections; 2,000 tables dropped and made anew are 20,000 locks, with indexes and TOAST
DURABLE = ""
THROW_AWAY = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
CONFIGURATION = f"""
# Written by skinspire-db when it made this server.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
# Nobody replicates from it: what is loaded into new tables goes to disk once, at the commit, and not through the WAL too.
wal_level = minimal
max_wal_senders = 0
# Thousands of tables in one transaction.
max_locks_per_transaction = {LOCKS}
"""


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


@dataclass(frozen=True)
class Status:
    """What is known of a server. `pid` is None when it is not running; `port` when it never was."""

    home: Path
    running: bool
    pid: int | None
    port: int | None
    version: str | None

    def as_dict(self) -> dict[str, str | int | bool | None]:
        return {**self.__dict__, "home": str(self.home)}


class EmbeddedServer:
    """A PostgreSQL cluster under `home`: data/, password, server.json (its port), server.log and a lock file.

    `durable` False makes a throw-away server that loses its data in a power cut. `account` is who it runs as, None for
    the caller.
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
        if self._binaries is None:
            self._binaries = find_binaries(self.account)
        return self._binaries

    @property
    def exists(self) -> bool:
        return self._readable(lambda: (self.data / "PG_VERSION").exists())

    def address(self) -> Address | None:
        """Where the server was last started, whether or not it runs now; None before the first start."""
        if (port := self._port()) is None or not self.exists:
            return None
        return Address(port, self._password())

    def start(self) -> Address:
        """Make the cluster when there is none, start it when it does not run, and return where it answers.

        Safe to call at any time and from several processes at once. Raises ServerFailed with the reason that the server
        gave; a cluster that could not be made completely is removed again.
        """
        with self._lock():
            if not self.durable and self.exists and self._postmaster() is None and not self._same_boot():
                self._delete_cluster()
            if not self.exists:
                self._initialise()
            if not self._answers():
                self._launch()
            address = self.address()
        assert address is not None
        return address

    def stop(self) -> bool:
        """Stop the server; open transactions are rolled back. Returns False when it did not run."""
        if not self.exists:
            return False
        with self._lock():
            return self._stop()

    def _stop(self) -> bool:
        if self._postmaster() is None:
            return False
        done = self._pg_ctl("stop", "-m", "fast", "-w", "-t", str(START_SECONDS))
        if done.returncode != 0 or self._postmaster() is not None:
            raise ServerFailed(f"the server did not stop: {_last_line(done.stdout)}", remedy=f"look into {self.log}")
        return True

    def status(self) -> Status:
        """Look, and change nothing."""
        pid = self._postmaster()
        version = self._readable(lambda: (self.data / "PG_VERSION").read_text().strip()) if self.exists else None
        return Status(self.home, pid is not None and self._answers(), pid, self._port(), version)

    def users(self) -> str:
        """Who is connected to it, or why that cannot be known; empty when nobody is, or when it does not run."""
        import psycopg

        if self._postmaster() is None:
            return ""
        address = self.address()
        try:
            if address is None:
                return "it runs, and nothing says where"
            with psycopg.connect(**address.parameters, dbname="postgres", connect_timeout=3) as connection:
                row = connection.execute(
                    "SELECT string_agg(coalesce(nullif(application_name, ''), usename, 'a session'), ', ')"
                    " FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                ).fetchone()
        except psycopg.Error:
            return "it runs, and does not answer"
        return str(row[0] or "") if row else ""

    def destroy(self) -> None:
        """Stop the server and delete it with every database it holds; files that are not its own stay.

        What cannot be deleted raises ServerFailed.
        """
        try:
            with self._lock():
                self._stop()
                self._delete_cluster()
            for path in (self.home / name for name in FILES if name not in ("data", "data.new")):
                path.unlink(missing_ok=True)
            if not any(self.home.iterdir()):
                self.home.rmdir()
        except OSError as error:
            raise ServerFailed(f"cannot delete {self.home}: {error.strerror}", remedy="run as its owner") from None

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

    # Making a cluster

    def _initialise(self) -> None:
        """initdb into a folder aside, then rename: a cluster that was half made when the power went never counts."""
        half_made = self.home / "data.new"
        shutil.rmtree(half_made, ignore_errors=True)
        if self.data.exists() and any(self.data.iterdir()):  # ours comes by rename, whole
            raise ServerFailed(f"{self.data} is no cluster and not empty", remedy="set SKINSPIRE_PG_HOME to a new folder")
        if self.data.exists():
            self.data.rmdir()
        password_file = self.home / "password"
        self._write_private(password_file, secrets.token_urlsafe(24))
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.binaries.major >= 17 else []
        done = self._run(
            "initdb", "-D", str(half_made), "-U", ROLE, f"--pwfile={password_file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C", *locale, *([] if self.durable else ["--no-sync"]), "--no-instructions",
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(half_made, ignore_errors=True)
            raise ServerFailed(
                f"initdb could not make {self.data}: {_reason(done.stdout)}",
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

    # Starting it

    def _launch(self) -> None:
        """pg_ctl start, around what may be in the way: a dead server's leftovers, a port that was taken meanwhile."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._remove_stale_pid_file()
            if self._postmaster() is None:
                self._choose_port()
                offset = self.log.stat().st_size if self.log.exists() else 0
                options = f"-c port={self._port()}{self._room_for_locks()}"
                self._pg_ctl("start", "-w", "-t", str(START_SECONDS), "-l", str(self.log), "-o", options)
                said = self._log_since(offset)
            else:
                said = "it runs but does not answer"  # still recovering, or its connections are used up
            if self._answers():
                return
            retry = "pre-existing shared memory" in said or "could not bind" in said or self._postmaster() is not None
            if not retry or time.monotonic() > deadline:
                full = "No space left" in said  # it recovers by itself as soon as it can write again
                raise ServerFailed(
                    f"the embedded server does not start: {_reason(said)}",
                    remedy=f"free some space on the disk of {self.home}" if full else f"look into {self.log}",
                )
            time.sleep(0.2)

    def _room_for_locks(self) -> str:
        """The option for a cluster whose configuration does not say how many locks: one that was made before ours did."""
        files = (self.data / name for name in ("postgresql.conf", "postgresql.auto.conf"))
        said = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists())
        set_there = re.search(r"^\s*max_locks_per_transaction\b", said, re.MULTILINE)
        return "" if set_there else f" -c max_locks_per_transaction={LOCKS}"

    def _remove_stale_pid_file(self) -> None:
        """After a reboot the number in postmaster.pid may be another program's, and PostgreSQL would not start."""
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists() and self._postmaster() is None:
            with contextlib.suppress(FileNotFoundError):
                pid_file.unlink()

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
            ServerFailed: it is there and cannot be read, so that nobody can say whether the server runs.
        """
        path = self.data / "postmaster.pid"
        try:
            return path.read_text(encoding="utf-8", errors="replace").splitlines()  # the folder's name is in any encoding
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise ServerFailed(f"cannot read {path}: {error.strerror}", remedy="run as the user that made it") from None

    def _choose_port(self) -> None:
        """Keep the port for as long as it is free; other tools remember it."""
        port = self._port()
        if port is None or not _is_free(port):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            where = json.dumps({"port": port, "home": str(self.home.resolve())})
            write_atomically(self.home / "server.json", f"{where}\n", owner=self._owner)

    def _answers(self) -> bool:
        """Whether OUR server answers: the password proves it to us, require_auth proves us that it knows the password."""
        import psycopg

        address = self.address()
        if address is None:
            return False
        try:
            psycopg.connect(**address.parameters, dbname="postgres", connect_timeout=3).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error) and self._postmaster() is not None:
                raise ServerFailed(
                    f"the server refuses the password in {self.home / 'password'}",
                    remedy=f"put the right one back, or invoke server.destroy --confirm={self.home.name}",
                ) from None
            return False
        return True

    # Plumbing

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            if self.home.parent == ROOT_HOMES:
                ROOT_HOMES.mkdir(parents=True, exist_ok=True)
                ROOT_HOMES.chmod(0o755)  # whatever root's umask is: the account must get through
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

    def _pg_ctl(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", verb, "-D", str(self.data), *arguments)

    def _run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.binaries.run(tool, *arguments, account=self.account, folder=self.home)


def project_server(project: Project) -> EmbeddedServer:
    """The embedded server of a checkout. Nothing is started or made.

    Its home is the folder that SKINSPIRE_PG_HOME names, else .skinspire/server in the checkout; as root a folder of its
    own in /var/lib, because the account that PostgreSQL then runs as may not be able to enter the checkout.
    """
    if named := project.setting("SKINSPIRE_PG_HOME").value:
        return EmbeddedServer(Path(named).absolute())
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return EmbeddedServer(project.state / "server")
    return EmbeddedServer(ROOT_HOMES / identity(project))


def throw_away_server(project: Project) -> EmbeddedServer:
    """The server of a checkout's tests, beside its embedded server. What it holds can be made anew at any time."""
    beside = project_server(project).home
    return EmbeddedServer(beside.with_name(f"{beside.name}-test"), durable=False)


def _boot() -> str | None:
    """What tells this run of the computer from earlier ones; None where that is not known."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False)  # noqa: S607
        return asked.stdout.strip() or None
    return None


def server_of(environment: Environment) -> EmbeddedServer:
    """The embedded server that holds an environment's database. Raises GuardRefused when the environment has a URL."""
    if not environment.embedded:
        raise GuardRefused(
            f"{environment.name} is not on the embedded server: {environment.url.name} is set", remedy="invoke env.status"
        )
    return project_server(environment.project)


def destroy(*servers: EmbeddedServer, confirm: str | None, dry: bool = False) -> list[EmbeddedServer]:
    """Delete those of these servers that exist, with all their databases, and return them; with `dry` delete nothing.

    Raises GuardRefused when none does, and unless `confirm` is the name of the first one's folder.
    """
    there = [server for server in servers if server.exists]
    if not there:
        raise GuardRefused("there is no embedded server to destroy", remedy="invoke server.status")
    if confirm != there[0].home.name:
        raise GuardRefused(
            f"this deletes every database in {' and '.join(str(server.home) for server in there)}",
            remedy=f"invoke server.destroy --confirm={there[0].home.name}",
        )
    for server in there if not dry else ():
        server.destroy()
    return there


def orphans(confirm: str | None) -> list[Abandoned]:
    """The servers whose checkouts are gone, to be deleted; changes nothing.

    Args:
        confirm: the names of their folders, with commas between; of some of them for these only.

    Raises:
        GuardRefused: there are none, `confirm` does not name them, or one of them is in use.
    """
    gone = {each.home.name: each for each in abandoned() if each.state == "gone"}
    if not gone:
        raise GuardRefused("there is no server whose checkout is gone", remedy="invoke server.status")
    named = [name.strip() for name in (confirm or "").split(",") if name.strip()]
    if others := sorted(set(named) - gone.keys()):
        raise GuardRefused(f"{others[0]} is no server whose checkout is gone", remedy="invoke server.status")
    if not named:
        listed = ", ".join(f"{each.home} (of {each.checkout})" for each in gone.values())
        remedy = f"invoke server.destroy --orphans --confirm={','.join(gone)}"
        raise GuardRefused(f"this deletes every database in {listed}", remedy=remedy)
    chosen = [gone[name] for name in dict.fromkeys(named)]
    for each in chosen:
        if users := EmbeddedServer(each.home).users():
            raise GuardRefused(f"the server in {each.home} is in use: {users}", remedy="end that, and run it again")
    return chosen


def destroy_orphans(confirm: str | None) -> list[Abandoned]:
    """Delete what orphans() gives, with all databases, and return it. Raises what that raises, and ServerFailed."""
    chosen = orphans(confirm)
    for each in chosen:
        EmbeddedServer(each.home).destroy()
    forget()
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # there the option would let us share a port that is taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _reason(text: str) -> str:
    """The line of a server's or a tool's output that says why."""
    found = re.findall(r"(?:FATAL|PANIC|error|could not [^\n]*|ERROR):\s*(.+)", text)
    return found[-1].strip() if found else _last_line(text)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"
