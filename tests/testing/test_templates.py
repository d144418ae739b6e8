"""The template that a test run's databases are cloned from: made once, made anew, and dropped."""

from __future__ import annotations

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from conftest import url
from sample_project import PYPROJECT, Sample, app, status_line  # noqa: F401

from skinspire_db.config import project as settings
from skinspire_db.content.seeding import Options
from skinspire_db.postgres.cluster import Address
from skinspire_db.testing import hosting, templates

TEMPLATE = "def test_one(db_session): pass\n"


def template_of_run(app: Sample) -> str:
    """The template that a run of the sample says that it made or found."""
    app.write("test_sample", TEMPLATE)
    result = app.run()
    result.assert_outcomes(passed=1)
    return status_line(result).partition("template ")[2].rpartition(", ")[0]


@pytest.mark.slow
def test_a_half_made_template_is_made_anew(app: Sample) -> None:
    name = template_of_run(app).split()[0]
    app.query(f"ALTER DATABASE {name} IS_TEMPLATE false ALLOW_CONNECTIONS true")
    app.query("DELETE FROM patients", name)
    assert template_of_run(app) == f"{name} made"
    app.drop(name)
    app.query(f"CREATE DATABASE {name}")
    assert template_of_run(app) == f"{name} made", "the database alone was there"
    app.drop(name)
    app.query(f"CREATE DATABASE {name}")
    app.query("CREATE TABLE other_table (x int)", name)
    result = app.run()
    result.assert_outcomes(errors=1)
    assert "holds 1 object and no stamp: it may be in use for something else" in status_line(result)
    assert app.query("SELECT count(*) FROM other_table", name) == [(0,)]


@pytest.mark.slow
def test_another_template_for_whatever_shapes_it(app: Sample) -> None:
    first = template_of_run(app)
    assert template_of_run(app) == first.replace("made", "reused")
    (app.pytester.path / "models.py").write_text(
        "from skinspire_db import Base\nfrom sqlalchemy.orm import Mapped, mapped_column\n"
        "class Appointment(Base):\n    __tablename__ = 'appointments'\n    appointment_id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    seen = {first}
    for more, ini in (
        ('[tool.skinspire_db]\nmetadata = ["models:Base"]\n', ""),
        ('[tool.skinspire_db]\ndisabled_triggers = ["session_management"]\n', ""),
        ("", 'db_patients = "3"\n'),
    ):
        text = PYPROJECT.replace("[tool.skinspire_db]\n", more or "[tool.skinspire_db]\n") + ini
        (app.pytester.path / "pyproject.toml").write_text(f"{text}[tool.skinspire_db.unused]\nword = '{app.own}'\n")
        now = template_of_run(app)
        assert now.endswith(" made") and now not in seen
        seen.add(now)


@pytest.mark.slow
def test_two_runs_at_once_make_it_once(app: Sample) -> None:
    app.write("test_sample", "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_one(db_session, n): pass\n")
    runs = [app.start("-n", "2") for _ in range(3)]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    words = [line for text in said for line in text.splitlines() if line.startswith("skinspire-db: ")]
    assert len(words) == 3 and sum(" made, " in line for line in words) <= 1, words
    assert len(app.databases()) == 1


def test_the_first_process_makes_the_template_and_the_others_wait(
    server: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unique = secrets.token_hex(6)
    monkeypatch.setattr(templates, "fingerprint", lambda *_: unique)
    host = hosting.given(settings.Project(tmp_path, {}), url(server, "postgres"), "the test")

    def ensure(_: int) -> str:
        with psycopg.connect(**server.parameters, dbname="postgres", autocommit=True) as watch:
            return templates.ensure(host, watch, Options()).how

    try:
        with ThreadPoolExecutor(max_workers=5) as pool:
            assert sorted(pool.map(ensure, range(5))) == ["made", *["waited for"] * 4]
        assert ensure(0) == "reused"
    finally:
        with psycopg.connect(**server.parameters, dbname="postgres", autocommit=True) as watch:
            templates.drop(watch, templates.PREFIX + unique)


@pytest.mark.slow
def test_templates_that_were_not_used_for_a_week_are_dropped(app: Sample) -> None:
    name = template_of_run(app).split()[0]
    old = f"skinspire_template_{app.own}0000"
    kept, others = f"skinspire_kept_{app.own}", f"skinspire_template_{app.own}1111"
    long_ago = (datetime.now(UTC) - timedelta(days=8)).isoformat(timespec="seconds")
    for each in (old, kept, others):
        app.query(f"CREATE DATABASE {each}")
    for each in (old, kept):
        note = json.dumps({"made by": "skinspire-db tests", "used": long_ago})
        app.query(f"COMMENT ON DATABASE {each} IS '{note}'")
    app.query(f"ALTER DATABASE {old} IS_TEMPLATE true ALLOW_CONNECTIONS false")
    assert template_of_run(app) == f"{name} reused"
    assert app.databases() & {old, kept, others} == {others}, "what does not say that it is ours stays"


@pytest.mark.slow
def test_a_checkout_keeps_a_few_templates(app: Sample) -> None:
    name = template_of_run(app).split()[0]
    root = str(app.pytester.path)
    for number in range(6):
        each = f"skinspire_template_{app.own}000{number}"
        app.query(f"CREATE DATABASE {each}")
        note = json.dumps({"made by": "skinspire-db tests", "used": f"2999-01-0{number + 1}T00:00:00+00:00", "project": root})
        app.query(f"COMMENT ON DATABASE {each} IS '{note}'")
    assert template_of_run(app) == f"{name} reused"
    assert app.databases() == {name, *(f"skinspire_template_{app.own}000{number}" for number in range(1, 6))}


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing_behind(app: Sample) -> None:
    app.copy("killed_worker")
    result = app.run("-n", "2")
    result.assert_outcomes(passed=11, failed=1)
    again = app.run("-n", "2")
    again.assert_outcomes(passed=12)
    assert " reused, " in status_line(again)
    deadline = time.monotonic() + 10
    while left := [row for row in app.query(LEFT_BEHIND) if row[1]]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


# The run's databases whose process is gone: no session holds the lock of their name.
LEFT_BEHIND = """
    SELECT datname, NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND (classid::bigint << 32 | objid::bigint) = hashtextextended(datname, 0)) FROM pg_database
    WHERE datname LIKE 'skinspire\\_pytest\\_scratch\\_%'
"""
