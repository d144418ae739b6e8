"""No test reaches another test's rows or a real database."""

from __future__ import annotations

import itertools
import os
import secrets

import pytest
from conftest import url
from far_server import FarServer
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


@pytest.mark.slow
def test_what_is_sent_for_a_session_test(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round trip for a test that uses its database not at all; its transaction begins together with its first statement."""
    app.write(
        "test_sample",
        """
        import pytest
        from skinspire_db.database_service import get_db_session
        from sqlalchemy import text

        @pytest.mark.db
        @pytest.mark.parametrize("number", range(5))
        def test_nothing(number):
            pass

        @pytest.mark.parametrize("number", range(2))
        def test_something(db_session, number):
            with get_db_session() as session:
                session.execute(text("DELETE FROM parameter_settings"))
            assert db_session.scalar(text("SELECT count(*) FROM parameter_settings")) == 0
        """,
    )
    with FarServer(app.server.host, app.server.port, delay=0) as proxy:
        monkeypatch.setenv("TEST_DATABASE_URL", url(app.server, "nobody_made_this", port=proxy.port))
        app.run("-p", "no:randomly").assert_outcomes(passed=7)
    ends = [at for at, turn in enumerate(proxy.turns) if b"EXECUTE skinspire_traces" in turn]
    assert len(ends) == 7
    between = [proxy.turns[one + 1 : other] for one, other in itertools.pairwise(ends)]
    assert [len(each) for each in between[:4]] == [0, 0, 0, 0]
    [begin] = [turn for turn in between[-1] if b"SAVEPOINT skinspire_test" in turn]
    assert begin.startswith(b"Q") and b"BEGIN; " in begin and b"now(); SAVEPOINT skinspire_" in begin
    assert [b"SAVEPOINT skinspire_check" in turn for turn in between[-1]].count(True) >= 1
    assert len(between[-1]) == 6, proxy.statements[-12:]


@pytest.mark.slow
def test_a_connection_that_was_ended_between_two_tests(app: Sample) -> None:
    """The next test's first statement would fail; it gets a database anew."""
    app.write(
        "test_sample",
        """
        import psycopg
        import pytest
        from sqlalchemy import text

        names = []

        @pytest.mark.db
        def test_before(db):
            names.append(db.name)

        def test_ending(db_server):
            where = dict(host=db_server.host, port=db_server.port, user=db_server.user, password=db_server.password)
            with psycopg.connect(**where, dbname="postgres", autocommit=True) as connection:
                query = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = %s"
                assert (True,) in connection.execute(query, names).fetchall()

        def test_after(db_session):
            assert db_session.scalar(text("SELECT 1")) == 1
        """,
    )
    app.run("-p", "no:randomly").assert_outcomes(passed=3)
