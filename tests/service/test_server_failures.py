"""A server that fails while blocks are open."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project, throw_away_home
from service_app import add, app, checked_out, names, service  # noqa: F401
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from skinspire_db.database_service import (
    close_db_connections,
    get_db_session,
)
from skinspire_db.postgres.embedded_server import EmbeddedServer


@pytest.fixture
def own_server(
    tmp_path: Path, project: Project, service: Callable[[Project], Project]
) -> Iterator[tuple[Project, EmbeddedServer]]:
    """A clinic on a durable server of its own, which may be killed."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=True)
    try:
        project.address = server.start()
        project.execute("CREATE DATABASE app", "postgres")
        project.env = {"DEV_DATABASE_URL": project.url("app")}
        project.execute("CREATE TABLE written (who text, turn int)", "app")
        yield service(project), server
    finally:
        close_db_connections()
        project.env = {}
        server.destroy()


def test_the_server_is_killed_and_restarted_in_the_middle(own_server: tuple[Project, EmbeddedServer]) -> None:
    """The blocks that were open fail, those that come later wait for the server, and what was reported done is there."""
    project, server = own_server
    done: list[tuple[str, int]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                with get_db_session() as session:
                    session.execute(text("INSERT INTO written VALUES (:who, :turn)"), {"who": str(number), "turn": turn})
                done.append((str(number), turn))
            except DBAPIError as error:
                failed.append(error)
            time.sleep(0.002)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    before = len(done)
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    server.start()
    after = len(done)
    deadline = time.monotonic() + 10
    while len(done) < after + 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert before > 0 and len(done) >= after + 50, "the service recovers by itself"
    written = set(project.query("SELECT who, turn FROM written", "app"))
    assert set(done) <= written
    assert checked_out() == 0


def test_a_failure_inside_a_block_is_not_tried_again(app: Project) -> None:
    with pytest.raises(DBAPIError, match="terminating connection"), get_db_session() as session:
        add(session, "a")
        [backend] = session.execute(text("SELECT pg_backend_pid()")).one()
        app.execute(f"SELECT pg_terminate_backend({backend}, 2000)")
        add(session, "b")
    assert names(app) == []
    with get_db_session() as session:
        add(session, "c")
    assert names(app) == ["t:c"]
