"""No test reaches another test's rows or a real database."""

from __future__ import annotations

import os
import secrets

import pytest
from conftest import url
from sample_project import PYPROJECT, Sample, app, status_line  # noqa: F401

from skinspire_db.service import test_override
from skinspire_db.testing.modes import ClinicDatabase


@pytest.mark.parametrize(
    "environment", ["prod", *(pytest.param(each, marks=pytest.mark.slow) for each in ("dev", "staging"))]
)
def test_a_real_database_is_refused_whatever_it_is_called(
    app: Sample, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test_{app.own}"
    app.query(f"CREATE DATABASE {name}")
    try:
        app.query("CREATE SCHEMA skinspire_tools", name)
        app.query("CREATE TABLE skinspire_tools.stamp (environment text, identity uuid DEFAULT gen_random_uuid())", name)
        app.query(f"INSERT INTO skinspire_tools.stamp VALUES ('{environment}')", name)
        monkeypatch.setenv("TEST_DATABASE_URL", url(app.server, name))
        app.write("test_sample", "def test_one(db_session): pass\ndef test_two(db_clone): pass\n")
        result = app.run()
        result.assert_outcomes(errors=2)
        assert f"{name} on 127.0.0.1:{app.server.port} is stamped {environment}: no tests are run where it is" in status_line(
            result
        )
        assert app.databases() == {name}
    finally:
        app.query(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_would_escape_a_test(app: Sample) -> None:
    app.copy("escapes")
    result = app.run("-p", "no:randomly")
    result.assert_outcomes(passed=14, xfailed=1)


def test_what_an_import_opens_before_any_test_is_refused(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    app.write("conftest", "from skinspire_db.database_service import get_db_engine\nget_db_engine()\n")
    app.write("test_sample", "def test_one(): pass\n")
    result = app.run()
    assert result.ret != 0 and "in a test run the database is reached only" in result.stdout.str() + result.stderr.str()


def test_other_projects_and_other_fixtures_are_left_alone(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    app.copy("other_projects_conftest", "conftest")
    (app.pytester.path / "test_file.yaml").write_text("x")
    app.write("test_sample", "def test_own(db):\n    assert db == {}\n")
    result = app.run()
    result.assert_outcomes(passed=2)
    assert "skinspire-db:" not in result.stdout.str()
    (app.pytester.path / "pyproject.toml").write_text(PYPROJECT.replace("[tool.skinspire_db]\n", ""))
    app.write("conftest", "")
    app.write("test_sample", "def test_own(request):\n    assert '_skinspire_db' not in request.fixturenames\n")
    app.run().assert_outcomes(passed=1)


def test_an_inner_run_leaves_the_outer_one_as_it_was(pytester: pytest.Pytester, db: ClinicDatabase) -> None:
    pytester.makepyfile("def test_one(): pass")
    before = test_override.state()
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)
    assert test_override.state() == before and before[1] is db


def test_a_url_that_leads_elsewhere(app: Sample) -> None:
    app.write("test_sample", "def test_one(db_clone): pass\n")
    result = app.run(f"--db-server={url(app.server, '')}?dbname=skinspire_dev".replace(app.server.password, "x"))
    result.assert_outcomes(errors=1)
    assert "--db-server has dbname among its options, which would send every test there" in status_line(result)


def test_the_guard_can_be_left_off(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_DATABASE_URL", url(app.server, "nobody_made_this"))
    app.settings("", "db_guard = false\n")
    app.write(
        "test_sample",
        """
        import pytest
        from application import *

        def test_plain():
            with pytest.raises(Exception, match="nobody_made_this does not exist"):
                patients()
        """,
    )
    app.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("count", "workers"),
    [
        ("8", "0"),
        pytest.param("30", "0", marks=pytest.mark.slow),
        pytest.param("500", "0", marks=pytest.mark.slow),
        pytest.param("500", "2", marks=pytest.mark.slow),
    ],
)
def test_no_state_leaks(app: Sample, monkeypatch: pytest.MonkeyPatch, count: str, workers: str) -> None:
    monkeypatch.setenv("LEAKS", count)
    monkeypatch.setenv("ORDER", str(secrets.randbelow(10**6) if workers == "0" else 1))
    app.copy("leaks")
    result = app.run("-n", workers, "-q")
    assert result.parseoutcomes().get("passed") == int(count), f"ORDER={os.environ['ORDER']}\n{result.stdout.str()[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["_sequence_values", "_counts", "put_back"])
def test_a_leak_would_be_found(app: Sample, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The test above fails when what undoes the tests' doings is broken."""
    monkeypatch.setenv("LEAKS", "60")
    monkeypatch.setenv("ORDER", "1")
    app.write("conftest", f"from skinspire_db.testing.seeded import Seeded\nSeeded.{broken} = lambda self: {{}}\n")
    app.copy("leaks")
    assert app.run("-q", "-x").parseoutcomes().get("failed", 0) > 0
