"""An application with more tables than a server's usual room for locks allows: all commands finish, or name the setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Project, throw_away_home

from skinspire_db.postgres.cluster import LOCKS
from skinspire_db.postgres.embedded_server import EmbeddedServer

pytestmark = pytest.mark.slow
MODELS = """
from sqlalchemy import Column, ForeignKey, Identity, Integer, MetaData, Table, Text
metadata = MetaData()
for n in range({tables}):
    former = ForeignKey(f"many_{{n - 1:04}}.id") if n else None
    Table(f"many_{{n:04}}", metadata, Column("id", Integer, Identity(), primary_key=True),
          Column("what", Text, index=True), Column("former", Integer, *([former] if former is not None else [])))
"""
LOOKS = ("db.verify", "db.drift", "db.inspect", "db.activity", "triggers.status", "migrate.check", "db.doctor")
# In the order in which each has something to do; all but the resets, which drop everything in one transaction.
FINISH = (
    *(f"{task} --env=test" for task in LOOKS),
    "db.copy --method=template",
    "db.copy --method=stream",
    "backup.create --env=test",
    "backup.verify --env=test --full",
    "backup.restore --env=test",
    "db.undo --env=test",
    "triggers.install --env=test",
    "db.create --env=test --update-only",
    "db.prepare --env=test",
)


@pytest.fixture
def alone(make_project: Callable[..., Project], tmp_path: Path) -> Iterator[tuple[Project, EmbeddedServer]]:
    """A project on an embedded server of its own."""
    home = throw_away_home(tmp_path)
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "models:metadata"]\n')
    project.env = {"SKINSPIRE_PG_HOME": str(home)}
    server = EmbeddedServer(home, durable=False)
    try:
        server.start()
        yield project, server
    finally:
        server.destroy()


def room(server: EmbeddedServer, locks: int | None, connections: int = 100) -> int:
    """Start the server anew with so much room for locks in its configuration, None for nothing said; returns what it has."""
    server.stop()
    file = server.data / "postgresql.conf"
    text = re.sub(r"^max_(locks_per_transaction|connections).*\n", "", file.read_text(), flags=re.MULTILINE)
    said = "" if locks is None else f"max_locks_per_transaction = {locks}\n"
    file.write_text(f"{text}max_connections = {connections}\n{said}")
    with psycopg.connect(**server.start().parameters, dbname="postgres") as connection:
        row = connection.execute("SELECT current_setting('max_locks_per_transaction')::int").fetchone()
    assert row
    return int(row[0])


def test_an_existing_server_gets_room_at_its_next_start(alone: tuple[Project, EmbeddedServer]) -> None:
    _, server = alone
    with psycopg.connect(**server.start().parameters, dbname="postgres") as connection:
        assert connection.execute("SHOW max_locks_per_transaction").fetchone() == (str(LOCKS),)
    assert room(server, None) == LOCKS
    assert room(server, 77) == 77, "what its owner has written stays"


def test_a_server_with_little_room(alone: tuple[Project, EmbeddedServer]) -> None:
    """As 2,000 tables are to a server with PostgreSQL's default, so are these 400 to this one."""
    project, server = alone
    (project.root / "models.py").write_text(MODELS.format(tables=400))
    assert project.invoke("db.setup", "--env=test").code == 0
    assert project.invoke("db.setup", "--env=dev").code == 0
    room(server, 16, 40)
    for command in FINISH:
        outcome = project.invoke(*command.split())
        assert outcome.code == 0, f"{command}: {outcome.err}"
    for command in ("db.setup", "db.reset"):
        outcome = project.invoke(command, "--env=test")
        assert outcome.code == 1 and "max_locks_per_transaction is too small" in outcome.err
        assert "the database is as it was -> invoke server.stop" in outcome.err
    assert project.invoke("db.verify", "--env=test").code == 0
    assert project.invoke("server.stop").code == 0
    room(server, None)
    assert project.invoke("db.reset", "--env=test").code == 0


@pytest.mark.timeout(3600)
def test_two_thousand_tables(alone: tuple[Project, EmbeddedServer]) -> None:
    project, _ = alone
    (project.root / "models.py").write_text(MODELS.format(tables=2000))
    for command in ("db.setup --env=test", "db.setup --env=test", *FINISH, "db.reset --env=test"):
        outcome = project.invoke(*command.split())
        assert outcome.code == 0, f"{command}: {outcome.err}"
