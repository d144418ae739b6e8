"""Unique tokens in everything that a database can hold: a plain copy brings each of them, a masked one none."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from canaries import Canaries
from conftest import Project, dump, throw_away_home
from support import database

from skinspire_db.postgres.embedded_server import EmbeddedServer

ROWS = 40


def test_the_search_finds_a_token_in_every_encoding() -> None:
    canaries = Canaries(random.Random(7))
    token = canaries.token("here")
    for text in (token, token.upper(), token.title(), token[::-1], token[::-1].upper()):
        for around in range(3):
            data = b"x" * around + text.encode() + b"y"
            for coded in (data, data.hex().encode(), data.hex().upper().encode(), base64.b64encode(data)):
                assert canaries.search(b"some " + coded + b" bytes") or text in (token.title(), token[::-1].upper()), (
                    text,
                    coded,
                )
    assert "here" in canaries.search(token.upper().encode()) and "here" in canaries.search(token.encode().hex().encode())
    other = Canaries(random.Random(8))
    assert not other.search(token.encode()) and not canaries.search(bytes(range(256)) * 100)


@pytest.fixture
def canaries(project: Project) -> Canaries:
    """The canaries in the project's test database."""
    found, test = Canaries(), database(project, "TEST")
    (project.root / "shop.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase\n\n\nclass Base(DeclarativeBase): ...\n"
    )
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:Base"]\n')
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    with psycopg.connect(**project.address.parameters, dbname=test) as connection:
        for statement in found.statements(ROWS):
            connection.execute(statement.encode())
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    assert found.total >= 10_000
    return found


@pytest.fixture
def elsewhere(project: Project, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of its own for the project's dev database, in whose files nothing else is."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        address = server.start()
        location = f"{address.user}:{address.password}@127.0.0.1:{address.port}/{project.database}"
        project.env["DEV_DATABASE_URL"] = f"postgresql://{location}"
        yield server
    finally:
        server.destroy()


def written(server: EmbeddedServer, name: str) -> bytes:
    """The dump of a database; the server is stopped then, and all that it held in memory is in its files."""
    text = dump(server.start(), name, "--large-objects", "--create").encode()
    server.stop()
    return text


@pytest.mark.slow
def test_a_plain_copy_brings_every_canary(project: Project, canaries: Canaries, elsewhere: EmbeddedServer) -> None:
    """That they are found shows that the search works."""
    outcome = project.invoke("db.copy", "--source=test", "--target=dev")
    assert outcome.code == 0, outcome.err
    wanted = set(canaries.places.values()) | set(canaries.exact.values())
    assert wanted - canaries.search_text(written(elsewhere, project.database)) == set()
    inside = set().union(*canaries.search_files(elsewhere.home).values())
    assert set(canaries.places.values()) - inside == set()
    assert {f"{type_}, raw" for type_ in (*canaries.bytes, "bigint", "numeric")} - inside == set()


@pytest.mark.slow
def test_a_masked_copy_brings_none(project: Project, canaries: Canaries, elsewhere: EmbeddedServer) -> None:
    outcome = project.invoke("db.copy", "--source=test", "--target=dev", "--masked")
    assert outcome.code == 0, outcome.err
    assert canaries.search_text(written(elsewhere, project.database)) == set()
    assert canaries.search_files(elsewhere.home) == {}
    assert canaries.search(f"{outcome.out}{outcome.err}".encode()) == set()
