"""What client programs complain of, in one line: the cause and not what came before it, with a remedy for that cause."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Project, throw_away_home, url

from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.errors import StepFailed
from skinspire_db.postgres import client_programs, connections, target
from skinspire_db.postgres.embedded_server import EmbeddedServer

CRASH = b"""psql:<stdin>:3: WARNING:  terminating connection because of crash of another server process
DETAIL:  The postmaster has commanded this server process to roll back the current transaction and exit, an error of memory.
HINT:  In a moment you should be able to reconnect to the database and repeat your command.
psql:<stdin>:3: server closed the connection unexpectedly
\tThis probably means the server terminated abnormally
\tbefore or while processing the request.
psql:<stdin>:3: error: connection to server was lost
"""
SAID = [
    (CRASH, "the server ended the connection: one of its processes crashed", "server's log"),
    (b"psql: WARNING:  terminating connection because of crash of another server process\n",
     "the server ended the connection: one of its processes crashed", "server's log"),
    (b"pg_dump: error: query failed: server closed the connection unexpectedly\n\tThis probably means\n"
     b"pg_dump: detail: Query was: SELECT 1\n", "query failed: server closed the connection unexpectedly", "server's log"),
    (b'psql: error: connection to server at "127.0.0.1", port 5 failed: FATAL:  the database system is in recovery mode\n',
     'connection to server at "127.0.0.1", port 5 failed: FATAL:  the database system is in recovery mode', "server's log"),
    (b"psql:<stdin>:1: WARNING:  there was an ERROR before\nNOTICE:  table \"a\" does not exist\n"
     b"psql:<stdin>:2: ERROR:  could not extend file \"base/5/1\": No space left on device\nHINT:  Check free disk space.\n",
     "could not extend file \"base/5/1\": No space left on device", "free some space"),
    (b"pg_dump: error: could not write to output file: No space left on device\n", "could not write to output file", "free some space"),
    (b"psql:<stdin>:2: WARNING:  odd\nDETAIL:  error in Mr. Who\npsql:<stdin>:2: ERROR:  relation \"x\" does not exist\n",
     "relation \"x\" does not exist", "correct what it says"),
    (b"pg_restore: warning: errors are near\npg_restore: error: could not execute query: ERROR:  syntax error\nCommand was: x",
     "syntax error", "correct what it says"),
    (b"pg_restore: warning: only this\n", "warning: only this", "correct what it says"),
    (b"DETAIL:  Key (phone)=(0815) is an error.\n", "no reason given", "correct what it says"),
    (b"pg_dump: last built-in OID is 16383\n", "last built-in OID is 16383", "correct what it says"),
]  # fmt: skip


@pytest.mark.parametrize(("err", "says", "remedy"), SAID)
def test_the_cause_is_said_whatever_came_before_it(err: bytes, says: str, remedy: str) -> None:
    assert client_programs.said(err).startswith(says)
    assert remedy in client_programs.remedy_of(err)


@pytest.fixture
def reached(make_project: Callable[..., Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[target.Target]:
    """A database of a server of its own, which may crash."""
    project = make_project()
    own = EmbeddedServer(throw_away_home(tmp_path))
    try:
        monkeypatch.setenv("SKINSPIRE_PROJECT", str(project.root))
        address = own.start()
        Project(project.root, address).execute("CREATE DATABASE victim", "postgres")
        monkeypatch.setenv("DEV_DATABASE_URL", url(address, "victim"))
        settings._tool_table.cache_clear()
        yield target.target_of(environment.resolve("dev"))
    finally:
        own.start()  # it may still be recovering, when it does not stop
        own.destroy()


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_server_that_crashes_under_psql(reached: target.Target) -> None:
    """For real: the first line of the other session's program is a WARNING."""
    psql = client_programs.client_tools(170000)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(psql.run, "psql", reached, "-X", "--command", "SELECT pg_sleep(30)")
        with contextlib.closing(connections.connect(reached, "look")) as connection:
            for _ in range(100):
                if connection.execute("SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'").fetchone():
                    break
                connection.rollback()  # within a transaction pg_stat_activity stays as it was
                time.sleep(0.1)
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(StepFailed) as raised:
            waiting.result()
    assert "server" in raised.value.message and "WARNING" not in raised.value.message
    assert "server's log" in (raised.value.remedy or "")
