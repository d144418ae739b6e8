"""Functions that read side by side on one connection: one message for all of them, and the errors of each alone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from far_server import FarServer

from skinspire_db.postgres import search_path, side_by_side
from skinspire_db.postgres.cluster import Address


@pytest.fixture(scope="module")
def far(server: Address) -> Iterator[FarServer]:
    with FarServer(server.host, server.port, delay=0) as proxy:
        yield proxy


@pytest.fixture
def connection(server: Address, far: FarServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**server.parameters | {"port": far.port}, dbname="postgres") as opened:
        opened.execute("SELECT 1")
        yield opened
        opened.rollback()


def value(connection: Any, query: str, parameters: Any = None) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return row and row[0]


def test_what_is_asked_at_the_same_time_is_one_round_trip(connection: psycopg.Connection[Any], far: FarServer) -> None:
    def chain(length: int, reader: Any) -> list[Any]:
        return [value(reader, "SELECT %s + 1 -- a comment", (number,)) for number in range(length)]

    def names(reader: Any) -> Any:
        return search_path.rows(reader, "SELECT relname FROM pg_class WHERE relname = %s", ("pg_class",))

    before = len(far.turns)
    work: list[Any] = [
        partial(chain, 1),
        partial(chain, 3),
        names,
        lambda reader: side_by_side.run(reader, partial(chain, 2), names),
    ]
    found = side_by_side.run(connection, *work)
    assert found == [[1], [1, 2, 3], [("pg_class",)], [[1, 2], [("pg_class",)]]]
    assert len(far.turns) - before == 3, far.statements[before:]


def test_an_answer_is_read_as_a_cursors_is(connection: psycopg.Connection[Any]) -> None:
    query = "SELECT n, 'a;b' FROM generate_series(1, 3) AS n"

    def parts(reader: Any) -> Any:
        cursor = reader.execute(query)
        return cursor.fetchone(), cursor.fetchall(), cursor.fetchone(), cursor.rowcount, cursor.statusmessage

    def several(reader: Any) -> Any:
        cursor = reader.execute(f"SET LOCAL search_path = pg_catalog; {query}; SELECT 'last'")
        first = cursor.statusmessage
        return first, cursor.nextset(), list(cursor), cursor.nextset(), cursor.fetchall(), cursor.nextset()

    beside = side_by_side.run(connection, parts, several)
    assert beside == [parts(connection), several(connection)]


@pytest.mark.parametrize("fails", ["SELECT 1 / 0", "SELECT FROM absent"])
def test_the_error_is_that_of_the_function_alone(connection: psycopg.Connection[Any], fails: str) -> None:
    connection.execute("CREATE TEMP TABLE kept (n int)")
    answered: list[str] = []

    def good(reader: Any) -> None:
        answered.append(value(reader, "SELECT 'good'"))

    with pytest.raises(psycopg.Error) as alone, connection.transaction():
        connection.execute(fails.encode())
    with pytest.raises(psycopg.Error) as beside, connection.transaction():
        side_by_side.run(connection, good, lambda reader: value(reader, fails), good)
    assert str(beside.value) == str(alone.value)
    assert answered == ["good"], "those before it have run, those after it have not"
    assert value(connection, "SELECT count(*) FROM kept") == 0, "the transaction goes on"


@pytest.mark.parametrize("alone", [False, True])
def test_ctrl_c_ends_all_of_them(connection: psycopg.Connection[Any], alone: bool) -> None:
    def slow(reader: Any) -> None:
        with search_path.application(reader) if alone else contextlib.nullcontext():
            value(reader, "SELECT pg_sleep(60)")

    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        side_by_side.run(connection, slow, lambda reader: value(reader, "SELECT 1"))
    timer.join()
    connection.rollback()
    assert value(connection, "SELECT 1") == 1, "the statement was ended, and the connection is free"


def test_what_is_no_sql_undoes_nothing(connection: psycopg.Connection[Any]) -> None:
    """The server runs no statement of such a message, not the savepoint either: there is none to go back to."""
    side_by_side.run(connection, *[lambda reader: value(reader, "SELECT 1")] * 2)
    connection.execute("CREATE TEMP TABLE kept (n int); SAVEPOINT before")
    with pytest.raises(psycopg.errors.SyntaxError):
        side_by_side.run(connection, *[lambda reader: value(reader, "no SQL at all")] * 2)
    connection.execute("ROLLBACK TO SAVEPOINT before")
    assert value(connection, "SELECT count(*) FROM kept") == 0


def test_an_error_of_a_functions_own_ends_the_others(connection: psycopg.Connection[Any]) -> None:
    def wrong(reader: Any) -> None:
        value(reader, "SELECT 1")
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        side_by_side.run(connection, lambda reader: value(reader, "SELECT 2"), wrong)
    assert value(connection, "SELECT 3") == 3


def test_a_function_that_changes_the_session_is_alone_meanwhile(connection: psycopg.Connection[Any]) -> None:
    def application(reader: Any) -> Any:
        with search_path.application(reader):
            return value(reader, "SELECT current_setting('search_path')")

    def others(reader: Any) -> list[Any]:
        return [value(reader, "SELECT current_setting('search_path')") for _ in range(3)]

    connection.execute("SET LOCAL search_path = pg_catalog")
    within, outside = side_by_side.run(connection, application, others)
    assert within.startswith("public") and set(outside) == {"pg_catalog"}


def test_a_function_that_waits_for_what_another_holds_does_not_wait_for_ever(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two functions that read one cached_property, which has a lock in Python 3.11."""
    monkeypatch.setattr(side_by_side, "STUCK_SECONDS", 0.1)
    lock = threading.Lock()

    def both(number: int, reader: Any) -> Any:
        with lock:
            return value(reader, "SELECT %s", (number,))

    def slow(reader: Any) -> Any:
        with side_by_side.alone(reader):
            return value(reader, "SELECT 3 FROM pg_sleep(0.2)")

    def within(reader: Any) -> Any:
        return side_by_side.run(reader, partial(both, 4), partial(both, 5))

    found = side_by_side.run(connection, partial(both, 1), slow, partial(both, 2), within)
    assert found == [1, 3, 2, [4, 5]]
    assert side_by_side.run(connection, slow, slow) == [3, 3], "waiting for the server is not being stuck"
