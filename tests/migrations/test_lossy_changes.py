"""What a revision cuts, rounds or drops is said with the number of rows, never done in passing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Project
from migration_support import at, head, revision

from skinspire_db.migrations import losses

PROTECTED = "[tool.skinspire_db.environments.dev]\nprotected = true\ntest_data = false\n"


@pytest.fixture
def app(make_project: Callable[..., Project], template: str) -> Project:
    project = make_project('migrations = "migrations"\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    return project


def files(project: Project) -> list[str]:
    return [path.name for path in (project.root / "migrations" / "versions").glob("*.py")]


def test_what_does_not_fit_is_refused_and_not_cut(app: Project) -> None:
    """The models say varchar(10), the database text, with a value over 10 characters in one row."""
    app.execute(
        "ALTER TABLE staff ALTER title TYPE text; UPDATE staff SET title = 'abcdefghijklmn' WHERE ctid = (SELECT min(ctid) FROM staff)"
    )
    [(rows,)] = app.query("SELECT count(*) FROM staff")
    refused = app.invoke("migrate.new", "-m", "narrower")
    hit = f"values over 10 characters are refused: 1 of {rows} rows"
    assert refused.code == 1 and hit in refused.err and "--keep" in refused.err and files(app) == []
    kept = app.invoke("migrate.new", "-m", "narrower", "--keep", "--json")
    assert kept.code == 0 and any(hit in each for each in kept.json["warnings"]) and len(files(app)) == 1
    text = (app.root / kept.json["file"]).read_text()
    assert "TYPE character varying(10)'" in text and "USING" not in text, "PostgreSQL knows the way itself"
    upgrade = app.invoke("migrate.upgrade")
    assert upgrade.code == 1 and hit in upgrade.err
    assert app.query("SELECT count(*) FROM staff WHERE title = 'abcdefghijklmn'") == [(1,)]
    app.execute("UPDATE staff SET title = 'Dr' WHERE title = 'abcdefghijklmn'")
    assert app.invoke("migrate.upgrade").code == 0 and app.invoke("db.drift").code == 0
    widened = app.invoke("migrate.downgrade")
    assert widened.code == 0 and "refused" not in widened.out, "the way back is wider"


def test_a_protected_environment_asks_before_a_loss(app: Project) -> None:
    app.execute(
        "CREATE TABLE kept (n numeric, t timestamptz, s varchar(9)); INSERT INTO kept VALUES (2.675, now(), 'x'), (3, NULL, NULL)"
    )
    revision(app, "wider", head(), "ALTER TABLE kept ALTER s TYPE varchar(20), ADD more int")
    revision(app, "rounds", "wider", "ALTER TABLE kept ALTER n TYPE integer", "ALTER TABLE kept ALTER n TYPE numeric")
    block = "DO $$ BEGIN IF EXISTS (SELECT FROM kept) THEN ALTER TABLE kept DROP COLUMN t; END IF; END $$"
    revision(app, "drops", "rounds", f"{block}; DROP TABLE IF EXISTS nonesuch")
    (app.root / "pyproject.toml").write_text((app.root / "pyproject.toml").read_text() + PROTECTED)
    refused = app.invoke("migrate.upgrade", "--json")
    assert refused.code == 2 and at(app) == ["wider"], "what loses nothing needs no word"
    error = refused.json["error"]
    assert "column kept.n: numeric becomes integer: fractions are rounded away: 1 of 2 rows" in error["message"]
    assert f"migrate.upgrade --env=dev --confirm={app.database}" in error["remedy"]
    done = app.invoke("migrate.upgrade", f"--confirm={app.database}")
    assert done.code == 0 and at(app) == ["drops"], done.err
    assert (
        "fractions are rounded away: 1 of 2 rows" in done.out
        and "column kept.t: its values are lost: 1 of 2 rows" in done.out
    )


@pytest.mark.slow
def test_what_nobody_can_say_beforehand_is_asked_for(app: Project) -> None:
    """A revision that reads the database has no SQL without it."""
    path = app.root / "migrations" / "versions" / "reads.py"
    revision(app, "reads", head())
    path.write_text(
        path.read_text().replace("def upgrade():\n    pass", "def upgrade():\n    op.get_bind().execute(None).one()")
    )
    (app.root / "pyproject.toml").write_text((app.root / "pyproject.toml").read_text() + PROTECTED)
    refused = app.invoke("migrate.upgrade")
    assert refused.code == 2 and "cannot be told beforehand" in refused.err and at(app) == [head()]


# statement -> what it says; the table has (v varchar(10), n numeric, i int, big bigint, f float8, z timestamptz, t timestamp, x text)
SAID: dict[str, str | None] = {
    "ALTER TABLE said ALTER v TYPE varchar(20)": None,
    "ALTER TABLE said ALTER v TYPE text": None,
    "ALTER TABLE said ALTER i TYPE bigint": None,
    "ALTER TABLE said ALTER i TYPE numeric(12, 2)": None,
    "ALTER TABLE said ALTER n TYPE text": None,
    "ALTER TABLE said ALTER t TYPE timestamptz": None,
    "ALTER TABLE said ADD CONSTRAINT more CHECK (i > 0), ALTER v SET DEFAULT 'a, DROP COLUMN v'": None,
    "ALTER TABLE nonesuch ALTER v TYPE int": None,
    "ALTER TABLE said DROP CONSTRAINT nonesuch": None,
    "SELECT 'ALTER TABLE said DROP v'; -- DROP TABLE said": None,
    "alter table only public.said alter column v set data type varchar(5)": "over 5 characters are refused: 1 of 2",
    "ALTER TABLE said ALTER v TYPE varchar(5) USING v::varchar(5)": "over 5 characters are cut: 1 of 2",
    "ALTER TABLE said ALTER v TYPE char(5) USING left(v, 5)": "over 5 characters are cut: 1 of 2",
    "ALTER TABLE said ALTER x TYPE varchar(4)": "over 4 characters are refused: 1 of 2",
    "ALTER TABLE said ALTER i TYPE varchar(1)": "over 1 characters are refused: 1 of 2",
    "ALTER TABLE said ALTER n TYPE numeric(6, 1)": "more than 1 decimals are rounded: 1 of 2",
    "ALTER TABLE said ALTER n TYPE int": "fractions are rounded away: 1 of 2",
    "ALTER TABLE said ALTER f TYPE bigint": "fractions are rounded away: 1 of 2",
    "ALTER TABLE said ALTER f TYPE numeric(9, 1)": "more than 1 decimals are rounded: 1 of 2",
    "ALTER TABLE said ALTER big TYPE float8": "do not come back the same: 1 of 2",
    "ALTER TABLE said ALTER f TYPE real": "do not come back the same: 1 of 2",
    "ALTER TABLE said ALTER z TYPE date": "times of day are dropped: 1 of 2",
    "ALTER TABLE said ALTER t TYPE timestamp(0)": "fractions of seconds are rounded: 1 of 2",
    "ALTER TABLE said ALTER t TYPE time": "dates are dropped: 2 of 2",
    "ALTER TABLE said ALTER z TYPE timestamp": "time zones are dropped: 2 of 2",
    "ALTER TABLE said ALTER x TYPE numeric(4, 1) USING x::numeric(4, 1)": "not known (invalid input syntax",
    "ALTER TABLE said ALTER i TYPE smallint, DROP v, DROP COLUMN IF EXISTS n CASCADE": "column said.v: its values are lost: 2 of 2",
    "/* it's */ -- so\n ALTER TABLE said /* DROP i */ DROP big": "column said.big: its values are lost",
    'DROP TABLE IF EXISTS "said", nonesuch': 'table "said": its rows are lost: 2 of 2',
    "TRUNCATE said": "its rows are lost: 2 of 2",
    "DO $$ BEGIN PERFORM 1; TRUNCATE said; END $$": "its rows are lost: 2 of 2",
    "DO $$ BEGIN EXECUTE format('DROP TABLE %I', 'said'); END $$": "what that loses is not known",
}  # fmt: skip


def test_each_loss_is_counted(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "CREATE TABLE said (v varchar(10), n numeric, i int, big bigint, f float8, z timestamptz, t timestamp, x text);"
        "INSERT INTO said VALUES ('abcdefgh', 2.675, 10, 9007199254740993, 0.12, '2026-01-01 10:00', '2026-01-01 10:00:00.5', 'abcdef'),"
        " ('a', 2, 1, 1, 2, '2026-01-01 00:00', '2026-01-01 10:00', '1.5')"
    )
    for statement, expected in SAID.items():
        found = losses.of(connection, statement)
        assert (found == []) if expected is None else any(expected in each for each in found), (statement, found)
