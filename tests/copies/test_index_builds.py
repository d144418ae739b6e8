"""Index builds of restores and copies share the processors with each other."""

from __future__ import annotations

import os

import psycopg
import pytest
from conftest import Project

from skinspire_db.config.policy import Policy
from skinspire_db.postgres.index_builds import quick
from skinspire_db.postgres.target import Target

WORKERS = "max_parallel_maintenance_workers"


def test_workers_are_for_processors_that_jobs_leave_idle(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("dev", Policy(), clinic.address.parameters | {"dbname": clinic.database})
    for cores, jobs, workers in ((2, 2, "1"), (1, 2, "0"), (2, 1, "2"), (16, 2, "2"), (None, 2, "0")):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        with psycopg.connect(**target.parameters, options=quick(target, jobs)) as connection:
            assert connection.execute(f"SHOW {WORKERS}".encode()).fetchone() == (workers,), (cores, jobs)
    assert WORKERS not in quick(Target("prod", Policy(), {"host": "db.example.org,127.0.0.1", "dbname": "d"}), 2)


@pytest.mark.slow
def test_restores_and_streams_build_indexes_with_them(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated column, which is computed when rows are loaded, says what the loading session's setting is."""
    clinic.execute(
        f"""
        CREATE FUNCTION workers(integer) RETURNS text IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
            AS $$ BEGIN RETURN current_setting('{WORKERS}'); END $$;
        CREATE TABLE filled (id integer PRIMARY KEY, workers text GENERATED ALWAYS AS (workers(id)) STORED);
        SET {WORKERS} = 1; INSERT INTO filled VALUES (1)
        """
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert clinic.invoke("backup.create").code == 0
    restored = clinic.invoke("backup.restore")
    assert restored.code == 0, restored.err
    copied = clinic.invoke("db.copy", "--source=dev", "--target=test", "--method=stream")
    assert copied.code == 0, copied.err
    assert clinic.query("SELECT workers FROM filled", clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]) == [("1",)]
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert "filled" in clinic.invoke("backup.restore").err
