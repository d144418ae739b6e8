"""The embedded servers of all checkouts of an account: listed, and stopped where no session uses them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Project, throw_away_home

from skinspire_db.postgres import known_homes
from skinspire_db.postgres.embedded_server import EmbeddedServer


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[EmbeddedServer]]:
    """Three servers, alone in a register of their own: two that run, and one that does not."""
    monkeypatch.setattr(known_homes, "folder", lambda: tmp_path / "register")
    made = [EmbeddedServer(throw_away_home(Path(tempfile.mkdtemp())), durable=False) for _ in range(3)]
    try:
        for server in made:
            server.start()
        made[2].stop()
        yield made
    finally:
        for server in made:
            server.destroy()


@pytest.mark.slow
def test_servers_that_are_not_used_are_stopped(servers: list[EmbeddedServer], project: Project) -> None:
    homes = [str(server.home) for server in servers]
    listed = {each["home"]: each["running"] for each in project.invoke("server.status", "--all", "--json").json["servers"]}
    assert listed == dict(zip(homes, (True, True, False), strict=True))
    with psycopg.connect(**servers[1].start().parameters, dbname="postgres", application_name="at work"):
        planned = project.invoke("server.stop", "--all", "--dry", "--json").json
        assert (planned["homes"], planned["left"]) == ([homes[0]], {homes[1]: "at work"})
        assert servers[0].status().running
        done = project.invoke("server.stop", "--all")
        assert done.code == 0 and f"stopped: {homes[0]}" in done.out and f"{homes[1]}: at work" in done.out, done.out
    assert [server.status().running for server in servers] == [False, True, False]
    assert project.invoke("server.stop", "--all", "--json").json["homes"] == [homes[1]]
    assert "stopped: none" in project.invoke("server.stop", "--all").out
    servers[2].destroy()
    assert len(known_homes.homes()) == 2
    assert set(map(str, known_homes.homes())) == set(homes[:2])


def test_notes_that_lead_nowhere_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(known_homes, "folder", lambda: tmp_path / "register")
    (tmp_path / "home" / "data").mkdir(parents=True)
    (tmp_path / "home" / "data" / "PG_VERSION").write_text("17")
    known_homes.note(tmp_path / "home")
    known_homes.note(tmp_path / "gone")
    assert known_homes.homes() == [tmp_path / "home"]
    assert len(list((tmp_path / "register").iterdir())) == 1
    (tmp_path / "register").chmod(0o500)
    known_homes.note(tmp_path / "another")
    known_homes.forget(tmp_path / "home")
    monkeypatch.setattr(known_homes, "folder", lambda: tmp_path / "home/data/PG_VERSION/no folder")
    known_homes.note(tmp_path / "home")
    assert known_homes.homes() == []
