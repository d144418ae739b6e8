"""PostgreSQL's client programs: new enough for the server, no secret on a command line, their errors in one sentence."""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from skinspire_db.config import server_pin
from skinspire_db.errors import StepFailed
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections, error_text, processes, programs
from skinspire_db.postgres.target import Target, libpq_parameters

SETTINGS = {"transaction_timeout": 17}  # that pg_restore sets, and the version that has brought them
UNKNOWN = lazy_regex(rb'unrecognized configuration parameter "(%s)"' % "|".join(SETTINGS).encode())
PROGRAM = lazy_regex(r"^(psql|pg_[a-z]+)(:[^ ]*)?: ")
ERROR = lazy_regex(r"\b(error|ERROR|FATAL|fatal|PANIC)\b:?")
WARNING = lazy_regex(r"(warning|WARNING|NOTICE|INFO|LOG|DEBUG): ")
BESIDE = lazy_regex(r"(detail|DETAIL|hint|HINT|CONTEXT|QUERY|STATEMENT|LOCATION|LINE \d+): ")
# The server, or the connection to it, ended while the program was at work.
LOST = lazy_regex(
    rb"crash of another server process|closed the connection unexpectedly|connection to server was lost"
    rb"|database system is (in recovery|shutting down|starting up)|terminating connection due to"
)
LIVE: set[Any] = set()  # the programs that are running


@dataclass(frozen=True)
class ClientTools:
    """pg_dump, pg_restore and psql of one major version."""

    binaries: programs.Binaries

    @property
    def major(self) -> int:
        """Their major version."""
        return self.binaries.major

    @property
    def restricts(self) -> bool:
        r"""Whether psql knows \restrict (PostgreSQL 17.6, 16.10, 15.14 and newer majors)."""
        return _restricts(self.binaries)

    def start(
        self, name: str, target: Target, *arguments: str, connect: bool = True, **streams: Any
    ) -> subprocess.Popen[bytes]:
        """Start a program that connects to the target; without `connect` it only reads a file. The password is in its
        environment. psql proves first that it is on the server, and in the database, that the operation is on.
        """
        environment, conninfo = _surroundings(target, name)
        # pg_restore writes to its output unless it is told a database; the environment's variables say the rest.
        database = [f"--dbname={conninfo}"] if connect else []
        proof = target.pin.proof(target.database, moves=target.server is not None) if name == "psql" else ""
        first = [f"--command={proof}"] if proof else []
        command = [str(self.binaries.tool(name)), *database, *first, *arguments]
        process: Any = subprocess.Popen(
            command, env=environment, **({"stdin": subprocess.DEVNULL} | streams), **processes.options()
        )
        LIVE.add(process)
        return cast("subprocess.Popen[bytes]", process)

    def run(self, name: str, target: Target, *arguments: str, stdin: IO[bytes] | None = None, connect: bool = True) -> str:
        """Run a program to its end.

        Returns:
            What it printed.

        Raises:
            StepFailed: it failed; with what it said.
        """
        process = self.start(
            name,
            target,
            *arguments,
            connect=connect,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with ended(process):
            out, err = process.communicate()
        if process.returncode:
            raise StepFailed(f"{name} failed: {said(err)}", remedy=remedy_of(err))
        return out.decode(errors="surrogateescape")  # a dump's own encoding, which goes back to a program as it came

    def restore(self, target: Target, *arguments: str) -> None:
        """Run pg_restore into the target, up to the first error.

        A server that is older than the programs does not know every setting that they begin with, and pg_restore cannot be
        told to leave one out: there it goes on after errors, and none but those may have been.

        Raises:
            StepFailed: it failed; with what it said.
        """
        if not self._sets_too_much(target):
            self.run("pg_restore", target, "--exit-on-error", *arguments)
            return
        process = self.start("pg_restore", target, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with ended(process):
            err = process.communicate()[1]
        wrong = [line for line in err.splitlines(keepends=True) if b" error: " in line and not UNKNOWN.search(line)]
        if process.returncode and (wrong or b"errors ignored on restore" not in err):
            raise StepFailed(f"pg_restore failed: {said(b''.join(wrong) or err)}", remedy=remedy_of(b"".join(wrong) or err))

    def _sets_too_much(self, target: Target) -> bool:
        with contextlib.closing(connections.connect(target, "lookup")) as connection:
            server = connection.info.server_version // 10_000
        return any(server < since <= self.major for since in SETTINGS.values())


@functools.cache
def _restricts(binaries: programs.Binaries) -> bool:
    version = re.search(r"\) (\d+)\.(\d+)", binaries.run("psql", "--version").stdout)
    return version is not None and int(version[2]) >= {17: 6, 16: 10, 15: 14}.get(int(version[1]), 0)


def client_tools(server_version: int) -> ClientTools:
    """The programs for a server of that version number (170010), never older than it.

    Raises:
        ToolMissing: There are none; both versions are named.
    """
    return ClientTools(programs.find_client_programs(server_version, "pg_dump", "pg_restore", "psql"))


def physical_tools(server_version: int, account: programs.Account | None = None) -> ClientTools:
    """The programs for the server's own files, of its own major version: base backups, WAL, and a server to recover with.

    Args:
        server_version: The server's version number (170010).
        account: Who is to run them, where that is another one.

    Raises:
        ToolMissing: There are none.
    """
    names = ("pg_basebackup", "pg_receivewal", "pg_verifybackup", "pg_waldump", "pg_ctl", "postgres")
    return ClientTools(programs.find_client_programs(server_version, *names, exact=True, account=account))


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever happens in the block, Ctrl-C too, the processes do not outlive it."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            LIVE.discard(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()


def end_all() -> None:
    """End every program that is running; the code that waits for one sees it fail."""
    for process in list(LIVE):
        if process.poll() is None:
            process.kill()


def remedy_of(err: bytes) -> str:
    """What to do about a program's complaint."""
    if setting := error_text.short_of_locks(err.decode(errors="replace")):
        return error_text.more_locks(setting)
    if server_pin.ELSEWHERE.encode() in err:
        return server_pin.REMEDY
    if b"No space left" in err or b"Check free disk space" in err:
        return "free some space, and run it again"
    if LOST.search(err):
        return "look into the server's log for what ended it, and run it again when the server is back"
    if match := re.search(r'role "([^"]+)" does not exist', err.decode(errors="replace")):
        return f'CREATE ROLE "{match[1]}" on that server, and run it again'
    if remedy := error_text.install_extension(err.decode(errors="replace")):
        return remedy
    return "correct what it says, and run it again"


def said(err: bytes) -> str:
    """What a program complained of first, in a line without the program's name.

    An error goes before whatever was only a warning or a notice. DETAIL and CONTEXT are left out: they can hold patients'
    data.
    """
    lines = [PROGRAM.sub("", line).strip() for line in err.decode(errors="replace").splitlines() if not line.startswith("\t")]
    lines = [line for line in lines if line and not BESIDE.match(line)]
    important = [line for line in lines if not WARNING.match(line)]
    errors = [line for line in important if ERROR.search(line)]
    if any("crash of another" in line for line in lines) and all(LOST.search(line.encode()) for line in errors):
        return "the server ended the connection: one of its processes crashed"
    first = next(iter(errors or important or lines), "no reason given")
    return re.sub(r"^(error: )?(could not execute query: )?(ERROR|FATAL|PANIC): +", "", re.sub(r"^error: ", "", first))


def _surroundings(target: Target, name: str) -> tuple[dict[str, str], str]:
    """The environment that leads libpq to the target, and for what has no variable, a conninfo without secrets."""
    import psycopg

    variables = {
        option.keyword.decode(): option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar
    }
    parameters = libpq_parameters(target, f"skinspire-db {name}")
    environment = programs.environment()
    environment |= {variables[key]: str(value) for key, value in parameters.items() if key in variables and value != ""}
    rest = {key: value for key, value in parameters.items() if key not in variables and value != "" and key != "sslpassword"}
    return environment, psycopg.conninfo.make_conninfo(dbname=target.database, **rest)
