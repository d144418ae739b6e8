"""One get_db_session block: what it keeps, what it undoes, and settings that cannot be used."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import pytest
import sqlalchemy
from conftest import Project
from service_app import add, app, checked_out, names, service  # noqa: F401
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, InternalError

from skinspire_db.clinic.models import User
from skinspire_db.database_service import (
    get_active_env,
    get_database_url,
    get_db_engine,
    get_db_session,
)
from skinspire_db.errors import ConnectionFailed, InvalidSetting, UnknownEnvironment, UsageError


def test_a_block_persists(app: Project) -> None:
    with get_db_session() as session:
        add(session, "a")
        assert names(app) == []
    assert names(app) == ["t:a"]


@pytest.mark.parametrize("env", ["dev", "test", "prod", "staging"])
def test_in_every_environment(clinic: Project, service: Callable[[Project], Project], env: str) -> None:
    (clinic.root / "pyproject.toml").write_text('[tool.skinspire_db.environments.staging]\nextends = "prod"\n')
    url = clinic.env.pop("DEV_DATABASE_URL")
    clinic.env = {f"{env.upper()}_DATABASE_URL": url, "SKINSPIRE_ENV": env}
    service(clinic)
    with get_db_session(env) as session:
        add(session, "named")
    with get_db_session() as session:
        add(session, "active")
    clinic.env["DEV_DATABASE_URL"] = url
    assert names(clinic) == ["t:active", "t:named"]
    assert get_active_env() == env


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_is_raised_persists_nothing(app: Project, error: type[BaseException]) -> None:
    raised = error("as it was")
    with pytest.raises(error) as caught, get_db_session() as session:
        add(session, "a")
        raise raised
    assert caught.value is raised
    assert names(app) == []
    assert checked_out() == 0


def test_a_constraint_that_only_the_commit_sees(app: Project) -> None:
    app.execute(
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$;"
        "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON hospitals DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later()"
    )
    with pytest.raises(DBAPIError, match="too late"), get_db_session() as session:
        add(session, "a")
    assert names(app) == []
    assert checked_out() == 0


def test_a_killed_process_persists_nothing(app: Project) -> None:
    code = (
        "import sys, time; from skinspire_db.database_service import *; from skinspire_db.clinic.models import Hospital\n"
        "with get_db_session() as s:\n s.add(Hospital(name='t:killed')); s.flush(); print('ready', flush=True); time.sleep(60)"
    )
    task = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert task.stdout and task.stdout.readline() == "ready\n"
    task.kill()
    task.communicate()
    assert names(app) == []


def test_the_old_habit_and_the_new_style(app: Project) -> None:
    with get_db_session() as session:
        old = session.query(User).filter_by(entity_type="staff").order_by(User.user_id).first()
        new = session.scalars(select(User).filter_by(entity_type="staff").order_by(User.user_id)).first()
        assert old is new and old is not None
    assert old.user_id and old.is_active, "what was loaded stays readable"


def test_commit_inside_works_and_warns_once(app: Project) -> None:
    def work() -> None:
        with get_db_session(user="me") as session:
            add(session, "a")
            session.commit()
            here.append(names(app))
            add(session, "b")

    here: list[list[str]] = []
    with pytest.warns(UserWarning, match=rf"session.commit\(\) at {re.escape(__file__)}:\d+ is not needed") as seen:
        work()
    assert len(seen) == 1 and seen[0].filename == __file__
    assert here == [["t:a"]] and names(app) == ["t:a", "t:b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app.execute("DELETE FROM hospitals WHERE name LIKE 't:%'")
        work()
    assert app.query("SELECT DISTINCT created_by FROM hospitals WHERE name LIKE 't:%'") == [("me",)], "also after the commit"


def test_rollback_inside(app: Project) -> None:
    with get_db_session(user="me") as session:
        add(session, "a")
        session.rollback()
        add(session, "b")
    assert app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%'") == [("t:b", "me")]


def test_the_user_is_gone_with_the_transaction(app: Project) -> None:
    with get_db_session(user="9876543210", hospital_id="h") as session:
        add(session, "a")
        assert session.scalar(text("SELECT current_setting('app.current_hospital')")) == "h"
    for _ in range(5):
        with get_db_session() as session:
            add(session, f"b{_}")
            assert not session.scalar(text("SELECT current_setting('app.current_user', true)"))
    found = app.query("SELECT created_by, count(*) FROM hospitals WHERE name LIKE 't:%' GROUP BY 1 ORDER BY 1")
    assert found == [("9876543210", 1), ("skinspire", 5)]


def test_read_only_is_enforced_by_postgresql(app: Project) -> None:
    with pytest.raises(InternalError, match="read-only transaction"), get_db_session(read_only=True) as session:
        add(session, "a")
    with pytest.raises(DBAPIError, match="read-write mode must be set before"), get_db_session(read_only=True) as session:
        session.execute(text("SELECT 1"))
        session.execute(text("SET TRANSACTION READ WRITE"))
    with get_db_session() as session:
        add(session, "b")
    assert names(app) == ["t:b"], "and the connection is given back as it was"


def test_a_block_is_entered_once(app: Project) -> None:
    block = get_db_session()
    with block, pytest.raises(UsageError, match="is open already"), block:
        pass


@pytest.mark.parametrize(
    ("env", "setting", "value", "error"),
    [
        ("nonesuch", "DEV_DATABASE_URL", "", UnknownEnvironment),
        ("prod", "DEV_DATABASE_URL", "", InvalidSetting),
        ("dev", "DEV_DATABASE_URL", "mysql://x/y", InvalidSetting),
        ("dev", "DEV_DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:1/nothing", ConnectionFailed),
    ],
)
def test_settings_that_lead_nowhere(
    app: Project, service: Callable[[Project], Project], env: str, setting: str, value: str, error: type[Exception]
) -> None:
    (app.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nconnect_retry = 0.2\n")
    app.env[setting] = value
    service(app)
    with pytest.raises(error) as caught, get_db_session(env) as session:
        session.execute(text("SELECT 1"))
    assert "secret" not in f"{caught.value!r}{caught.value}"


def test_a_wrong_password_is_not_tried_again(app: Project, service: Callable[[Project], Project]) -> None:
    app.env["DEV_DATABASE_URL"] = app.url(app.database, password="wrong")
    service(app)
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match="refuses the password"), get_db_session() as session:
        session.execute(text("SELECT 1"))
    assert time.monotonic() - started < 5


def test_the_url_hides_the_password(app: Project) -> None:
    url = get_database_url()
    assert app.address.password not in f"{url} {url!r} {get_db_engine()!r}" and url.password == app.address.password
    with sqlalchemy.create_engine(url).connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == app.database
    connection.engine.dispose()


def test_what_others_see(app: Project) -> None:
    with get_db_session() as session:
        assert session.scalar(text("SELECT current_setting('application_name')")) == "skinspire dev"
