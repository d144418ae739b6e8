"""A server of its own, aside, that is recovered from a base backup and the WAL after it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skinspire_db.config.project import Project
from skinspire_db.config.server_pin import Pin
from skinspire_db.errors import BackupInvalid, ServerFailed, StepFailed
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.client_programs import ClientTools, physical_tools
from skinspire_db.postgres.cluster import ROLE, Address, reason
from skinspire_db.postgres.data_folders import ROOT_HOMES
from skinspire_db.postgres.embedded_server import EmbeddedServer, project_server
from skinspire_db.postgres.target import Target
from skinspire_db.recovery.base import Base

MARK = "-recovered-"  # in the name of its folder
FOR_EVER = "2000000"  # seconds; PostgreSQL itself ends a recovery that cannot go on
TOO_SHORT = "recovery ended before configured recovery target was reached"
OUR_LOOKS = lazy_regex(r".*(?:the database system is |Hot standby mode is disabled).*\n?")  # refused before it was recovered
CONFIGURATION = """\
# Written by skinspire-db: this server is recovered aside, to be looked into. It is not safe against a power cut.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = {sockets}
unix_socket_permissions = 0700
hot_standby = off
archive_mode = off
autovacuum = off
fsync = off
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
restore_command = {command}
recovery_target_action = 'promote'
"""
# The folder of the socket lets nobody but its owner in.
ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class Socket(Address):
    """A server that answers on a socket in a folder that only its owner can enter."""

    @property
    def parameters(self) -> dict[str, Any]:
        """libpq's parameters to get there, without a database."""
        return {"host": self.host, "port": self.port, "user": self.user, "client_encoding": "UTF8"}


class RecoveredServer(EmbeddedServer):
    """A server that is recovered aside; it stays until it is destroyed.

    `stays`: also when the operation has ended. `user`: the role that looks into it.
    """

    stays = False
    user = ROLE

    @classmethod
    def new(cls, project: Project, tools: ClientTools) -> RecoveredServer:
        """One that is yet to be recovered, in a folder beside the project's embedded server."""
        home = project_server(project).home
        return cls(home.with_name(f"{home.name}{MARK}{secrets.token_hex(4)}"), binaries=tools.binaries)

    @classmethod
    def kept(cls, project: Project) -> list[RecoveredServer]:
        """Those of a project that are there."""
        home = project_server(project).home
        return [cls(path) for path in sorted(home.parent.glob(f"{home.name}{MARK}*")) if path.is_dir()]

    @property
    def sockets(self) -> Path | None:
        """The folder of its socket; None on Windows, and before it is recovered."""
        file = self.home / "sockets"
        return Path(file.read_text(encoding="utf-8")) if file.exists() else None

    def address(self) -> Address | None:
        """Where it answers: by TCP, where a role needs its password, and by a socket."""
        if (port := self._port()) is None:
            return None
        if sys.platform == "win32" or self.sockets is None:
            return Address(port, "")
        return Socket(port, "", host=str(self.sockets), user=self.user)

    def target(self, of: Target) -> Target:
        """Its database of that environment."""
        address = self.address()
        assert address
        who = {key: value for key, value in of.parameters.items() if key in ("user", "password", "dbname")}
        there = address.parameters if isinstance(address, Socket) else {"host": "127.0.0.1", "port": address.port}
        return Target(of.environment, of.policy, there | who, pin=Pin(), setting=of.setting)

    def url(self, of: Target) -> str:
        """Its URL, without a password."""
        address = self.address()
        assert address
        user = f"{of.user}@" if of.user else ""
        if isinstance(address, Socket):
            return f"postgresql://{user}/{of.database}?host={address.host}&port={address.port}"
        return f"postgresql://{user}127.0.0.1:{address.port}/{of.database}"

    def fill(self, chain: list[Base], tools: ClientTools, of: Target) -> None:
        """Put a base backup where the server will find it.

        Raises:
            StepFailed: the disk is full, or pg_combinebackup failed.
        """
        with self._writing(sum(each.size for each in chain)):
            self.home.mkdir(mode=0o700)
            if chain[1:]:
                folders = [str(each.data) for each in chain]
                options = ("--no-sync", "--no-manifest", "--manifest-checksums=NONE", f"--output={self.data}")
                tools.run("pg_combinebackup", of, *options, *folders, connect=False)
            else:
                shutil.copytree(chain[0].data, self.data)

    def bring(self, files: dict[str, Path]) -> None:
        """Put files of WAL where the server finds them: a second name, as it only copies them; for another account, a copy.

        Args:
            files: the name that the server knows -> the file.

        Raises:
            StepFailed: the disk is full.
        """
        with self._writing(sum(each.stat().st_size for each in files.values()) if self.account else 0):
            (self.home / "archive").mkdir(mode=0o700, exist_ok=True)
            for name, path in files.items():
                self._bring(path, name)

    @contextlib.contextmanager
    def _writing(self, needed: int) -> Iterator[None]:
        """Write so many bytes into the server's folder."""
        where = self.home.parent
        try:
            where.mkdir(parents=True, exist_ok=True)
            if where == ROOT_HOMES:
                ROOT_HOMES.chmod(0o755)
            if (free := shutil.disk_usage(where).free) < needed * 1.05:
                raise StepFailed(
                    f"it needs about {round(needed / 1e6)} MB, and the disk of {where} has {round(free / 1e6)} MB free",
                    remedy="free some space, and run it again",
                )
            yield
        except (OSError, shutil.Error) as error:
            says = getattr(error, "strerror", None) or "files could not be copied"
            raise StepFailed(
                f"the backup cannot be put into {self.home}: {says}", remedy="free some space, or make it writable"
            ) from None

    def _bring(self, path: Path, name: str) -> None:
        new = self.home / "archive" / name
        if self.account is None:
            with contextlib.suppress(OSError):
                new.hardlink_to(path)
                return
        shutil.copyfile(path, new)

    def recover(self, until: float | None, settings: dict[str, str], log: Path) -> None:
        """Recover, up to a moment in seconds since 1970, or to the end of the WAL; then it takes connections.

        Args:
            until: the moment.
            settings: what the server needs that was backed up.
            log: where the server's log is kept when it cannot be recovered.

        Raises:
            BackupInvalid: it cannot be recovered, with the reason that PostgreSQL gave.
        """
        self._configure(until, settings)
        self._hand_over()
        offset = self.log.stat().st_size if self.log.exists() else 0
        self._pg_ctl("start", "-w", "-t", FOR_EVER, "-l", str(self.log))
        while self._postmaster() is not None:  # pg_ctl waits for a server that replays, not for one that has done so
            if self._answers():
                return
            time.sleep(0.05)
        with contextlib.suppress(OSError):
            shutil.copyfile(self.log, log)
        said = OUR_LOOKS.sub("", self._log_since(offset))
        raise BackupInvalid(f"it cannot be recovered: {reason(said)}", remedy=f"look into {log}")

    def _answers(self) -> bool:
        import psycopg

        address = self.address()
        assert address
        try:
            psycopg.connect(**address.parameters, dbname="postgres", connect_timeout=3).close()
        except psycopg.OperationalError as error:
            return "does not exist" in str(error) or "password" in str(error)  # it has looked for the role or its password
        return True

    def last_transaction(self) -> str:
        """When the last transaction was committed that was recovered, as the server's log has it; empty for none."""
        found = re.findall(r"last completed transaction was at log time (\S+ \S+)", self._log_since(0))
        return found[-1] if found else ""

    def destroy(self) -> None:
        """Stop it and delete all of it."""
        sockets = self.sockets
        with contextlib.suppress(ServerFailed):
            self._stop()
        shutil.rmtree(self.home, ignore_errors=True)
        if sockets:
            shutil.rmtree(sockets, ignore_errors=True)

    def _stop(self) -> bool:
        """At once: it is not kept safe, and recovering nothing is what it is for."""
        if self._postmaster() is None:
            return False
        self._pg_ctl("stop", "-m", "immediate", "-w")
        return True

    def _configure(self, until: float | None, settings: dict[str, str]) -> None:
        if self._port() is None:
            self._choose_port()
        if sys.platform != "win32" and self.sockets is None:
            # A socket's path has at most 107 bytes.
            folder = tempfile.mkdtemp(prefix="skinspire-", dir=None if len(tempfile.gettempdir()) < 70 else "/tmp")  # noqa: S108
            (self.home / "sockets").write_text(folder, encoding="utf-8")
        archive = str(self.home / "archive").replace("%", "%%")
        command = f'copy "{archive}\\%f" "%p"' if sys.platform == "win32" else f'cp {shlex.quote(archive)}/%f "%p"'
        text = CONFIGURATION.format(port=self._port(), sockets=_quoted(str(self.sockets or "")), command=_quoted(command))
        text += "".join(f"{name} = {int(value)}\n" for name, value in settings.items() if str(value).isdecimal())
        if until is not None:
            text += f"recovery_target_time = {_quoted(datetime.fromtimestamp(until, UTC).isoformat(sep=' '))}\n"
        written = {"postgresql.conf": text, "postgresql.auto.conf": "", "pg_hba.conf": ACCESS, "pg_ident.conf": ""}
        for name, content in (written | {"recovery.signal": ""}).items():
            (self.data / name).unlink(missing_ok=True)
            (self.data / name).write_text(content, encoding="utf-8")
        (self.data / "standby.signal").unlink(missing_ok=True)
        self.data.chmod(0o700)

    def _hand_over(self) -> None:
        """Give everything to the account that the server runs as, where that is another one."""
        if self.account is None or sys.platform == "win32":
            return
        for top in filter(None, (self.home, self.sockets)):
            for folder, _, files in os.walk(top):
                for path in (Path(folder), *(Path(folder) / name for name in files)):
                    os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


@contextlib.contextmanager
def recovered(project: Project, version: int) -> Iterator[RecoveredServer]:
    """A server that is gone at the end of the block, unless the block has set `stays`.

    Args:
        project: whose.
        version: the version number of the server that the backup is of.
    """
    probe = RecoveredServer.new(project, physical_tools(version))
    server = RecoveredServer(probe.home, binaries=physical_tools(version, probe.account).binaries)
    try:
        yield server
    finally:
        if not server.stays:
            server.destroy()


def _quoted(text: str) -> str:
    """A value in postgresql.conf."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
