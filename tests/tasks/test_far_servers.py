"""How often commands wait for their server, counted by a proxy before it: what a query more in a loop costs a far user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Project
from far_server import FarServer

DELAY = 0.003  # seconds: what is sent together arrives together
# Each command and the most round trips that it may take, of which five open a connection and begin a transaction.
LIMITS = {"triggers.status": 8, "db.verify": 13, "db.prepare": 15, "db.setup": 160, "db.drift": 80}


@pytest.fixture
def far(project: Project) -> Iterator[FarServer]:
    with FarServer(project.address.host, project.address.port, DELAY) as proxy:
        project.env["DEV_DATABASE_URL"] = project.url(project.database, port=proxy.port)
        yield proxy


def round_trips(project: Project, far: FarServer, command: str) -> int:
    before = len(far.turns)
    done = project.invoke(command)
    assert done.code == 0, done.err
    return len(far.turns) - before


@pytest.mark.slow
def test_no_command_waits_more_often_than_it_has_to(project: Project, far: FarServer) -> None:
    round_trips(project, far, "db.setup")
    for command, limit in LIMITS.items():
        before = len(far.turns)
        took = round_trips(project, far, command)
        assert took <= limit, f"{command}: {took} round trips, not {limit}:\n" + "\n".join(far.statements[before:])


@pytest.mark.slow
def test_more_tables_are_no_more_round_trips(project: Project, far: FarServer) -> None:
    """Forty more tables with sequences, keys, and the columns that triggers go by: some go in messages of 20 tables."""
    round_trips(project, far, "db.setup")
    commands = ("triggers.status", "db.verify", "db.prepare")
    few = {command: round_trips(project, far, command) for command in commands}
    project.execute(
        ";".join(
            f"CREATE TABLE more_{number} (id serial PRIMARY KEY, hospital_id uuid REFERENCES hospitals, created_by text,"
            f" updated_by text, created_at timestamptz, updated_at timestamptz)"
            for number in range(40)
        )
    )
    assert project.invoke("triggers.install").code == 0
    many = {command: round_trips(project, far, command) for command in commands}
    assert all(many[command] <= few[command] + 6 for command in commands), (few, many)
