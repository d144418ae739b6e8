"""What a get_db_session block costs beside SQLAlchemy's own sessionmaker."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator

from sqlalchemy import select
from sqlalchemy.orm import sessionmaker

from skinspire_db.clinic.models import User
from skinspire_db.database_service import close_db_connections, get_db_engine, get_db_session

from .harness import Bench, Figure, bench

BLOCKS = 4_000


def bench_session() -> list[Figure]:
    """A block with one query by primary key, on one engine, in turns so that the machine's moods reach both."""
    with bench() as project:
        project.invoke("db.setup")
        with _here(project):
            ours, bare = _in_turns(*_blocks())
    return [Figure("a block with one indexed query", ours * 1000, "the bare sessionmaker's", bare * 1000, 1.15, "ms")]


def _blocks() -> tuple[Callable[[], None], Callable[[], None]]:
    session_of = sessionmaker(get_db_engine("dev"))
    with get_db_session("dev") as session:
        user = session.scalars(select(User.user_id)).first()

    def ours() -> None:
        with get_db_session("dev") as session:
            session.scalars(select(User).where(User.user_id == user)).one()

    def bare() -> None:
        with session_of() as session, session.begin():
            session.scalars(select(User).where(User.user_id == user)).one()

    return ours, bare


def _in_turns(*measured: Callable[[], None]) -> list[float]:
    times: list[list[float]] = [[] for _ in measured]
    for turn in range(BLOCKS):
        for work, taken in zip(measured, times, strict=True):
            started = time.perf_counter()
            work()
            if turn >= BLOCKS // 10:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


@contextlib.contextmanager
def _here(project: Bench) -> Iterator[None]:
    """This process's database_service, pointed at the benchmark's server."""
    before = dict(os.environ)
    os.environ |= {name: value for name, value in project.env.items() if name.startswith("SKINSPIRE_")}
    try:
        yield
    finally:
        close_db_connections()
        os.environ.clear()
        os.environ |= before
