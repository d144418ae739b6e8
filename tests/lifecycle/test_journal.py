"""The journal by itself: an entry lives and dies with its operation, and a second connection says what became of it."""

import dataclasses
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import environment
from skinspire_db.config.server_pin import Pin
from skinspire_db.lifecycle import journal, lock, tool_schema
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, target_of

Connection = psycopg.Connection[Any]
WAITING = """
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def dev(project: Project, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The project's dev, an empty database, for the library inside this process."""
    for name, value in (project.env | {"SKINSPIRE_PROJECT": str(project.root)}).items():
        monkeypatch.setenv(name, value)
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    return target_of(environment.resolve("dev"))


@pytest.fixture
def connection(dev: Target) -> Iterator[Connection]:
    """A connection of an operation, in a transaction."""
    connection = connections.connect(dev, "db.mine")
    connections.begin(connection, dev.policy)
    yield connection
    connection.close()


def record(connection: Connection) -> journal.Entry:
    tool_schema.ensure(connection)
    return journal.record(connection, "db.mine", "dev", 1.5, [{"name": "one"}])


def waits_for(dev: Target, seconds: float) -> Target:
    return dataclasses.replace(dev, policy=dataclasses.replace(dev.policy, operation_wait=seconds))


def test_an_entry_says_who_did_what(project: Project, connection: Connection) -> None:
    record(connection)
    connection.commit()
    columns = "operation, environment, seconds, os_user <> '', host <> '', tool_version <> '', steps"
    assert project.query(f"SELECT {columns} FROM skinspire_tools.journal") == [
        ("db.mine", "dev", 1.5, True, True, True, [{"name": "one"}])
    ]


def test_recorded_is_true_only_for_what_was_committed(dev: Target, connection: Connection) -> None:
    assert journal.recorded(dev, "db.mine", uuid.uuid4()) is False  # there is no journal yet
    entry = record(connection)
    assert journal.recorded(dev, "db.mine", entry) is False
    connection.commit()
    assert journal.recorded(dev, "db.mine", entry) is True
    rolled_back = record(connection)
    connection.rollback()
    assert journal.recorded(dev, "db.mine", rolled_back) is False and journal.recorded(dev, "db.mine", entry) is True


def test_recorded_is_none_where_the_server_cannot_be_asked(dev: Target, connection: Connection) -> None:
    entry = record(connection)
    connection.commit()
    unreachable = dataclasses.replace(dev, parameters=dev.parameters | {"port": 1}, pin=Pin())
    assert journal.recorded(unreachable, "db.mine", entry) is None


def test_recorded_waits_for_an_operation_that_may_still_commit(project: Project, dev: Target, connection: Connection) -> None:
    assert lock.try_take(connection)
    entry = record(connection)
    assert journal.recorded(waits_for(dev, 0.1), "db.mine", entry, wait=True) is None  # it is still at work: not known
    answers: list[bool | None] = []
    asking = threading.Thread(
        target=lambda: answers.append(journal.recorded(waits_for(dev, 60), "db.mine", entry, wait=True))
    )
    asking.start()
    try:
        deadline = time.monotonic() + 30
        while not project.query(WAITING):
            assert time.monotonic() < deadline and asking.is_alive()
            time.sleep(0.02)
    finally:
        connection.commit()
        asking.join(60)
    assert answers == [True]
