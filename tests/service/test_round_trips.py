"""How many round trips a block takes: a server may be far. A transaction's BEGIN goes together with its first statement."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Project
from far_server import FarServer
from service_app import add, checked_out, names, service  # noqa: F401
from sqlalchemy import select, text
from sqlalchemy.exc import DataError, ProgrammingError

from skinspire_db.clinic.models import Hospital
from skinspire_db.database_service import get_db_engine, get_db_session
from skinspire_db.service import driver

POOL = "[tool.skinspire_db.environments.dev]\npool_size = 1\npool_overflow = 0\npool_timeout = 5\n"


@pytest.fixture
def far(clinic: Project, service: Callable[[Project], Project]) -> Iterator[FarServer]:
    """A proxy that counts, before the database of this process's application; its pool has one connection."""
    with FarServer("127.0.0.1", clinic.address.port, delay=0) as server:
        direct = clinic.env["DEV_DATABASE_URL"]
        clinic.env["DEV_DATABASE_URL"] = direct.replace(f":{clinic.address.port}/", f":{server.port}/")
        (clinic.root / "pyproject.toml").write_text(POOL)
        service(clinic)
        yield server


def _count(server: FarServer, block: Callable[[], object]) -> int:
    block()
    before = len(server.turns)
    block()
    return len(server.turns) - before


def test_a_block_with_one_query_takes_three(far: FarServer, clinic: Project) -> None:
    """The pool's ping; BEGIN, the identity and the query; COMMIT. A query without parameters, and one that fails, too."""

    def with_parameters(**block: Any) -> None:
        with get_db_session(**block) as session:
            session.scalars(select(Hospital).where(Hospital.name == "none")).all()

    def without() -> None:
        with get_db_session() as session:
            assert session.scalar(text("SELECT 'one'")) == "one"

    def failing() -> None:
        with pytest.raises(DataError, match="division by zero"), get_db_session(user="u") as session:
            session.scalar(text("SELECT 1 / :zero"), {"zero": 0})

    assert _count(far, with_parameters) == 3
    assert _count(far, lambda: with_parameters(user="u")) == 3
    assert _count(far, lambda: with_parameters(read_only=True)) == 3
    assert _count(far, without) == 3
    assert _count(far, failing) == 3
    assert _count(far, lambda: add_one(clinic)) == 3
    assert len(names(clinic)) == 2 and checked_out() == 0


def add_one(clinic: Project) -> None:
    """Add a hospital in a block of its own."""
    with get_db_session(user="u") as session:
        add(session, f"{len(names(clinic))}")


@pytest.mark.slow
def test_the_first_statement_is_as_any_other(far: FarServer, clinic: Project) -> None:
    """Several statements in one text, errors in BEGIN's own round trip, what comes after them, savepoints, and COPY."""
    with get_db_session(user="u") as session:
        session.execute(text("INSERT INTO hospitals (name) VALUES ('t:a'); INSERT INTO hospitals (name) VALUES ('t:b')"))
    with pytest.raises(ProgrammingError, match="no_such_table"), get_db_session(user="u") as session:
        session.execute(text("SELECT :one FROM no_such_table"), {"one": 1})
    with get_db_session(user="u") as session:
        with session.begin_nested():
            add(session, "c")
        assert session.scalar(text("SELECT ';'")) == ";"
    with get_db_engine().connect() as connection:
        assert connection.execution_options(isolation_level="SERIALIZABLE").scalar(
            text("SELECT current_setting('transaction_isolation')")
        )
    with get_db_session() as session:
        driver_connection: Any = session.connection().connection.driver_connection
        with driver_connection.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
            assert b"".join(copy) == b"1\n"
    assert names(clinic) == ["t:a", "t:b", "t:c"] and checked_out() == 0


async def _asynchronous(address: str) -> driver.AsyncConnection:
    return await driver.AsyncConnection.connect(address, cursor_factory=driver.AsyncCursor)


@pytest.mark.slow
def test_so_it_is_in_asyncio(far: FarServer, clinic: Project) -> None:
    async def work() -> tuple[int, int]:
        async with await _asynchronous(clinic.env["DEV_DATABASE_URL"]) as connection:
            connection.settings = (b"SET LOCAL app.current_hospital = 'h'",)
            before = len(far.turns)
            cursor = await connection.execute("SELECT current_setting('app.current_hospital'), %s", ("p",))
            assert await cursor.fetchone() == ("h", "p")
            return len(far.turns) - before, connection.transaction_count

    assert asyncio.run(work()) == (1, 1)


@pytest.mark.slow
def test_a_first_statement_that_is_interrupted_leaves_its_connection_usable(far: FarServer, clinic: Project) -> None:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), get_db_session(user="u") as session:
        session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 60})
    for _ in range(2):
        add_one(clinic)
    assert len(names(clinic)) == 2 and checked_out() == 0

    async def cancelled() -> tuple[int] | None:
        async with await _asynchronous(clinic.env["DEV_DATABASE_URL"]) as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.execute("SELECT pg_sleep(60)"), 0.5)
            await connection.rollback()
            return await (await connection.execute("SELECT 1")).fetchone()

    assert asyncio.run(cancelled()) == (1,)
