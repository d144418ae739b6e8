"""psql in an environment's database, and the database's URL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import IO

from skinspire_db.config.environment import Environment, hide_password
from skinspire_db.config.project import expanded, write_atomically
from skinspire_db.config.urls import SEVERAL, split_hosts
from skinspire_db.errors import InvalidSetting, StepFailed, UsageError
from skinspire_db.lifecycle import stamp
from skinspire_db.lifecycle.read_only import present, read_only_connection
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.programs import find_client_programs
from skinspire_db.postgres.scripts import private_folder
from skinspire_db.postgres.target import Target, libpq_parameters, target_of

OPERATION = "db.shell"
SECRET = ("password", "sslpassword")
QUIT = lazy_regex(rb"\s*\\q(uit)?\s*")
RED, PLAIN = "%[%033[1;31m%]", "%[%033[0m%]"


@dataclass(frozen=True)
class Psql:
    """psql as it is to be run; `env` holds the password."""

    command: list[str]
    env: dict[str, str] = field(repr=False)


def url(environment: Environment, *, reveal: bool, terminal: bool) -> str:
    """The database's URL.

    Args:
        environment: whose database is meant.
        reveal: with the password as it is, in place of ***.
        terminal: whether it is shown on a terminal.

    Raises:
        UsageError: a password would be shown elsewhere than on a terminal: in a log, in a file.
    """
    from sqlalchemy import URL, make_url

    if reveal and not terminal:
        raise UsageError(
            "a password is shown on a terminal only, and this is none", remedy=f"invoke db.url --env={environment.name}"
        )
    target = target_of(environment, application=True)
    hosts = ""
    if target.server:
        made = URL.create(
            "postgresql", target.user, target.parameters["password"], target.host, int(target.port), target.database
        )
    else:
        single, hosts = split_hosts(str(environment.url.value))
        made = make_url(single)
        made = made.set(drivername="postgresql", database=target.database if environment.branch else made.database)
        if "sslmode" in target.parameters:  # the policy's, where the URL has none
            made = made.update_query_dict({"sslmode": target.parameters["sslmode"]})
    text = made.render_as_string(hide_password=False).replace(SEVERAL, hosts, 1)
    return text if reveal else hide_password(text)


def shell(environment: Environment) -> None:
    """Become psql on a terminal; from a pipe run what comes, up to the first error.

    Does not return on a terminal, except on Windows.

    Args:
        environment: whose database psql is connected with.

    Raises:
        ToolMissing: there is no psql as new as the server.
        StepFailed: a piped statement failed, or psql did not come to the last line; what it did before stays.
        SkinspireError: what read_only_connection() raises.
    """
    terminal = sys.stdin.isatty()
    psql = prepare(environment, terminal=terminal)
    if terminal and sys.platform != "win32":  # where exec would come back to the caller's prompt at once
        os.execve(psql.command[0], psql.command, psql.env)  # noqa: S606
    if terminal:
        subprocess.run(psql.command, env=psql.env, check=False)
    else:
        _run(psql, sys.stdin.buffer)


def _run(psql: Psql, source: IO[bytes]) -> None:
    """Run a script to its last line. psql gets it as a file: Windows' psql would read a pipe to the first 0x1A byte."""
    with private_folder() as folder:
        script, end = folder / "standard-input", folder / "end"
        with script.open("wb") as file:
            last = _spool(source, file)
            # \w is the one command that leaves a pending statement as it is. Among a COPY's rows that have no end, what is
            # behind the name is an error, as text and as CSV.
            file.write(f"\n\\w '{end.as_posix()}\\0\"'\n".encode())
        command = [*psql.command, f"--file={script}"]
        if subprocess.run(command, env=psql.env, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            raise StepFailed("psql stopped at the first error", remedy="correct that statement; those before it were run")
        if not end.exists() and not QUIT.fullmatch(last):
            raise StepFailed(
                "psql ended before the script's last line", remedy="close what is open in it, or end it where its \\q is"
            )


def _spool(source: IO[bytes], file: IO[bytes]) -> bytes:
    """Write the script into the file. Returns its last line that says anything. Raises UsageError for what is no text."""
    last = b""
    for line in source:
        if b"\0" in line:  # psql would pass over the rest of the line in silence
            raise UsageError("the script holds a NUL byte: it is UTF-16, or no text", remedy="save it as UTF-8")
        last = line if line.strip() else last
        file.write(line)
    return last


def prepare(environment: Environment, *, terminal: bool) -> Psql:
    """Make sure that the database can be reached, and say how to run psql there. The password is in the environment only.

    Args:
        environment: whose database is meant.
        terminal: a person types; otherwise a script is run.

    Raises:
        InvalidSetting: a script is run through a pooler, whose sessions would keep what it sets.
        ToolMissing: there is no psql as new as the server.
        SkinspireError: what read_only_connection() raises.
    """
    from psycopg.conninfo import make_conninfo

    target = present(environment)
    with read_only_connection(target, OPERATION) as connection:
        if not terminal:
            connections.require_direct(target, OPERATION, writes=False)
        stamped = stamp.read(connection)
        program = str(find_client_programs(connection.info.server_version, "psql").tool("psql"))
    parameters = libpq_parameters(target, f"skinspire-db {OPERATION}")
    command = [program, "-d", make_conninfo(**{key: value for key, value in parameters.items() if key not in SECRET})]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env |= {"PGPASSWORD": str(target.parameters["password"])} if "password" in target.parameters else {}
    if not terminal:
        proof = target.pin.proof(target.database, moves=target.server is not None)
        return Psql([*command, "-X", "-q", "-v", "ON_ERROR_STOP=1", f"--command={proof}"], env)
    startup = environment.project.state / "psqlrc"
    try:
        write_atomically(startup, _startup(_prompt(target, stamped.environment if stamped else None)))
    except OSError as error:
        raise InvalidSetting(f"cannot write {startup}: {error.strerror}", remedy="run as the checkout's owner") from None
    return Psql(command, env | {"PSQLRC": str(startup)})


def _prompt(target: Target, stamped: str | None) -> str:
    """Which environment this is, in red where it is protected or the database says that it is another one."""
    label, red = target.environment, target.policy.protected
    if stamped not in (None, target.environment):
        # It stands in the database, and psql would run what is between backquotes.
        label, red = f"{label}, stamped {re.sub(r'[^a-z0-9_-]', '?', stamped or '')}", True
    return f"{RED if red else ''}{label}{PLAIN if red else ''} %/%R%x%# "


def _startup(prompt: str) -> str:
    """psql's startup file: the user's own first, so that it cannot hide where one is."""
    own = expanded(os.environ.get("PSQLRC") or "~/.psqlrc")
    include = "\\i '" + str(own).replace("\\", "\\\\").replace("'", "''") + "'\n" if own.is_file() else ""
    return f"{include}\\set PROMPT1 '{prompt}'\n\\set PROMPT2 '{prompt}'\n"
