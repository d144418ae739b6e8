"""Lints of db.advise for what only a server with other settings has: replication slots, and the costliest statements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, throw_away_home

from skinspire_db.postgres.embedded_server import EmbeddedServer

SETTINGS = """
wal_level = replica
max_wal_senders = 2
max_replication_slots = 4
shared_preload_libraries = 'pg_stat_statements'
"""
SECRET = "Asha-9876543210"


@pytest.fixture
def observed(tmp_path: Path) -> Iterator[Project]:
    """A project whose dev database is on a server of its own, with these settings."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        server.start()
        server.stop()
        with (server.home / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write(SETTINGS)
        project = Project(tmp_path, server.start())
        (tmp_path / "pyproject.toml").write_text("[tool.skinspire_db]\n")
        project.env = {"DEV_DATABASE_URL": project.url("observed")}
        project.execute("CREATE DATABASE observed", "postgres")
        yield project
    finally:
        server.destroy()


@pytest.mark.slow
def test_slots_that_lag_and_costly_statements(observed: Project) -> None:
    """Of a statement no value is shown; one whose text PostgreSQL keeps as it is typed is left out."""
    observed.execute(
        "CREATE EXTENSION pg_stat_statements; CREATE TABLE patients (id int PRIMARY KEY, name text);"
        "SELECT pg_create_physical_replication_slot('lags', true); SELECT pg_create_physical_replication_slot('waits');"
    )
    lint = observed.root / "sql" / "advice" / "lagging_slots.sql"
    lint.parent.mkdir(parents=True)
    ours = Path(__file__).parents[2] / "sql" / "advice" / "lagging_slots.sql"
    lint.write_text(ours.read_text().replace("limit  = 1024", "limit = 1"))
    with observed.connect() as connection:
        connection.execute("INSERT INTO patients SELECT n, repeat('x', 500) FROM generate_series(1, 20000) AS n")
        for statement in (
            f"SELECT name FROM patients WHERE name = '{SECRET}' /* {SECRET} */ LIMIT 5",
            f"SELECT name FROM patients WHERE id = 1 -- {SECRET}\n",
            f"DO $$ BEGIN PERFORM '{SECRET}'; END $$",
            f"COMMENT ON TABLE patients IS '{SECRET}'",
        ):
            connection.execute(statement.encode())
    outcome = observed.invoke("db.advise", "--json", "--fail-on=info")
    assert outcome.code == 3 and SECRET not in outcome.out + outcome.err and "9876543210" not in outcome.out, outcome.out
    found: dict[str, list[dict[str, str]]] = {}
    for each in outcome.json["findings"]:
        found.setdefault(each["lint"], []).append(each)
    assert [each["object"] for each in found["lagging_slots"]] == ["slot lags"], "a slot that keeps no WAL does not lag"
    texts = [each["detail"] for each in found["costly_statements"]]
    assert 1 < len(texts) <= 10 and any("FROM patients WHERE name = $1" in text for text in texts), texts
    assert not any("COMMENT ON" in text or "DO " in text for text in texts)
    lint.unlink()
    assert "lagging_slots" not in {each["lint"] for each in observed.invoke("db.advise", "--json").json["findings"]}
