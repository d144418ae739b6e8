"""The embedded PostgreSQL: one server per checkout, started on demand and kept running."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project, append, remove
from skinspire_db.errors import GuardRefused, ServerFailed
from skinspire_db.postgres import added_extensions, data_folders, known_homes
from skinspire_db.postgres.cluster import FILES, REPLICATION, START_SECONDS, SUMMARIES, Address, Cluster, last_line, reason


@dataclass(frozen=True)
class Status:
    """What is known of a server. `pid` is None when it is not running; `port` when it never was."""

    home: Path
    running: bool
    pid: int | None
    port: int | None
    version: str | None

    def as_dict(self) -> dict[str, str | int | bool | None]:
        """The status as `--json` shows it."""
        return {**self.__dict__, "home": str(self.home)}


class EmbeddedServer(Cluster):
    """The server of a cluster: started, asked, stopped, and deleted with it."""

    def start(self) -> Address:
        """Make the cluster when there is none, and start it when it does not run.

        Safe to call at any time and from several processes at once.

        Returns:
            Where it answers.

        Raises:
            ServerFailed: with the reason that the server gave; a cluster that could not be made completely is removed again.
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
        known_homes.note(self.home)
        return address

    def stop(self) -> bool:
        """Stop the server; open transactions are rolled back.

        Returns:
            False when it did not run.
        """
        if not self.exists:
            return False
        with self._lock():
            return self._stop()

    def _stop(self) -> bool:
        if self._postmaster() is None:
            return False
        done = self._pg_ctl("stop", "-m", "fast", "-w", "-t", str(START_SECONDS))
        if done.returncode != 0 or self._postmaster() is not None:
            raise ServerFailed(f"the server did not stop: {last_line(done.stdout)}", remedy=f"look into {self.log}")
        return True

    def allow_replication(self) -> None:
        """Restart the server so that its WAL can be received and base backups be made; its databases stay.

        Raises:
            GuardRefused: sessions use it.
        """
        if users := self.users():
            raise GuardRefused(
                f"the embedded server must restart once, so that it writes WAL to recover from, and sessions use it: {users}",
                remedy="end them, and run it again",
            )
        with self._lock():
            append(self.data / "postgresql.conf", REPLICATION + (SUMMARIES if self.binaries.major >= 17 else ""))
            self._stop()
            self._launch()

    def status(self) -> Status:
        """What is known of the server; nothing is changed."""
        pid = self._postmaster()
        version = self._readable(lambda: (self.data / "PG_VERSION").read_text().strip()) if self.exists else None
        return Status(self.home, pid is not None and self._answers(), pid, self._port(), version)

    def users(self) -> str:
        """The sessions on the server, or why they cannot be known; empty when there are none, or when it does not run."""
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

        Raises:
            ServerFailed: something cannot be deleted.
        """
        try:
            with self._lock():
                self._stop()
                self._delete_cluster()
            remove(self.home / added_extensions.FOLDER)
            for path in (self.home / name for name in FILES if name not in ("data", "data.new", added_extensions.FOLDER)):
                path.unlink(missing_ok=True)
            if not any(self.home.iterdir()):
                self.home.rmdir()
            known_homes.forget(self.home)
        except OSError as error:
            raise ServerFailed(f"cannot delete {self.home}: {error.strerror}", remedy="run as its owner") from None

    def _launch(self) -> None:
        """Run pg_ctl start, and try again after a dead server's leftovers or a port that was taken meanwhile."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._remove_stale_pid_file()
            if self._postmaster() is None:
                added_extensions.clean(self.home, self.binaries)
                self._choose_port()
                offset = self.log.stat().st_size if self.log.exists() else 0
                options = f"-c port={self._port()}{self._room_for_locks()}"
                self._pg_ctl("start", "-w", "-t", str(START_SECONDS), "-l", str(self.log), "-o", options)
                output = self._log_since(offset)
            else:
                output = "it runs but does not answer"  # still recovering, or its connections are used up
            if self._answers():
                return
            retry = "pre-existing shared memory" in output or "could not bind" in output or self._postmaster() is not None
            if not retry or time.monotonic() > deadline:
                full = "No space left" in output  # it recovers by itself as soon as it can write again
                raise ServerFailed(
                    f"the embedded server does not start: {reason(output)}",
                    remedy=f"free some space on the disk of {self.home}" if full else f"look into {self.log}",
                )
            time.sleep(0.2)

    def _answers(self) -> bool:
        """Whether this server answers, and no other on its port: with require_auth it proves that it knows the password."""
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


def project_server(project: Project) -> EmbeddedServer:
    """The embedded server of a checkout. Nothing is started or made.

    Its home is the folder that SKINSPIRE_PG_HOME names, else .skinspire/server in the checkout; as root a folder of its
    own in /var/lib, because the account that PostgreSQL then runs as may not be able to enter the checkout.
    """
    if named := project.setting("SKINSPIRE_PG_HOME").value:
        return EmbeddedServer(Path(named).absolute())
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return EmbeddedServer(project.state / "server")
    return EmbeddedServer(data_folders.ROOT_HOMES / data_folders.identity(project))


def throw_away_server(project: Project) -> EmbeddedServer:
    """The server of a checkout's tests, beside its embedded server. What it holds can be made anew at any time."""
    beside = project_server(project).home
    return EmbeddedServer(beside.with_name(f"{beside.name}-test"), durable=False)


def server_of(environment: Environment) -> EmbeddedServer:
    """The embedded server that holds an environment's database.

    Raises:
        GuardRefused: the environment has a URL.
    """
    if not environment.embedded:
        raise GuardRefused(
            f"{environment.name} is not on the embedded server: {environment.url.name} is set", remedy="invoke env.status"
        )
    return project_server(environment.project)


def every_server() -> list[EmbeddedServer]:
    """The embedded servers of all checkouts of this account, those of tests too."""
    return [EmbeddedServer(home) for home in known_homes.homes()]


def stop_unused(*, dry: bool = False) -> tuple[list[EmbeddedServer], dict[str, str]]:
    """Stop all embedded servers of this account that run and that no session uses; the databases stay.

    Args:
        dry: Stop nothing.

    Returns:
        Those that were stopped, and those that were not: folder -> the sessions, or what went wrong.
    """
    stopped, left = [], {}
    for server in every_server():
        try:
            if server.status().pid is None:
                continue
            if users := server.users():
                left[str(server.home)] = users
            elif dry or server.stop():
                stopped.append(server)
        except ServerFailed as error:
            left[str(server.home)] = error.message
    return stopped, left


def destroy(*servers: EmbeddedServer, confirm: str | None, dry: bool = False) -> list[EmbeddedServer]:
    """Delete servers with all their databases.

    Args:
        servers: those that are meant; only those that exist are deleted.
        confirm: the name of the first one's folder.
        dry: delete nothing.

    Returns:
        Those that exist.

    Raises:
        GuardRefused: none exists, or the confirmation is missing.
    """
    existing = [server for server in servers if server.exists]
    if not existing:
        raise GuardRefused("there is no embedded server to destroy", remedy="invoke server.status")
    if confirm != existing[0].home.name:
        raise GuardRefused(
            f"this deletes every database in {' and '.join(str(server.home) for server in existing)}",
            remedy=f"invoke server.destroy --confirm={existing[0].home.name}",
        )
    for server in existing if not dry else ():
        server.destroy()
    return existing
