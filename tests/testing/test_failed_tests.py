"""What the plugin does with tests that fail: the database is kept, and what a commit would refuse fails."""

from __future__ import annotations

import json
import re

import pytest
from sample_project import Sample, app  # noqa: F401


@pytest.mark.parametrize("workers", ["0", *(pytest.param(number, marks=pytest.mark.slow) for number in "12")])
def test_a_failed_tests_database_is_kept(app: Sample, workers: str) -> None:
    app.copy("failing_tests")
    result = app.run("--keep-failed-db", "-n", workers)
    result.assert_outcomes(failed=4, errors=1, passed=1, xfailed=1)
    kept = re.findall(
        r"^\S*psql postgresql://skinspire@127\.0\.0\.1:\d+/(skinspire_kept_\w+)$", result.stdout.str(), re.MULTILINE
    )
    assert len(kept) == 5 and set(kept) < app.databases()
    for name in kept:
        assert app.query("SELECT count(*) FROM patients WHERE first_name = 'Kept'", name) == [(1,)], name
        [(note,)] = app.query(f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'")
        assert json.loads(note)["test"].startswith("test_sample.py::test_")


def test_what_a_commit_would_refuse_fails(app: Sample) -> None:
    app.copy("deferred_constraints")
    result = app.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*a deferred constraint is violated: duplicate key value violates unique constraint*a_x_key* Key (x)=(1) already exists."
        ]
    )


def test_a_failed_test_that_cannot_be_kept_or_runs_again(app: Sample) -> None:
    app.write(
        "test_sample",
        """
        from application import *

        def test_deferred(db_session):
            db_session.execute(text("CREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
            db_session.execute(text("INSERT INTO a VALUES (1), (1)"))
            assert 0

        def test_after(db_session):
            assert patients() == 20
        """,
    )
    result = app.run("--keep-failed-db")
    result.assert_outcomes(failed=1, passed=1, errors=1)
    assert "its database could not be kept: duplicate key value violates unique constraint" in result.stdout.str()
