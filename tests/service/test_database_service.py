"""The application's door to its database: sessions and how they nest, threads, tasks, forks, failures, replicas, copies."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from conftest import CHECKOUT, Project, throw_away_home
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from skinspire_db.clinic.models import Hospital, RoleMaster, User, UserRoleMapping
from skinspire_db.config import project as settings
from skinspire_db.database_service import (
    close_db_connections,
    get_active_env,
    get_database_url,
    get_db_engine,
    get_db_session,
    get_detached_copy,
    use_nested_transactions,
)
from skinspire_db.errors import ConnectionFailed, InvalidSetting, NotCopied, SessionSpoiled, UnknownEnvironment, UsageError
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.service import engines, ownership, test_override, unit_of_work

POOL = "[tool.skinspire_db.environments.dev]\npool_size = 5\npool_overflow = 0\npool_timeout = 20\n"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Project], Project]]:
    """Point this process's database_service at a project."""

    def use(project: Project) -> Project:
        for name, value in ({"SKINSPIRE_PROJECT": str(project.root)} | project.env).items():
            monkeypatch.setenv(name, value)
        settings._tool_table.cache_clear()
        settings._dotenv.cache_clear()
        close_db_connections()
        return project

    monkeypatch.delenv(test_override.TOLD, raising=False)
    monkeypatch.setattr(test_override, "guarding", False)  # these tests are of the door itself
    unit_of_work._warned.clear()
    yield use
    gc.collect()
    ownership.restore_nested_transactions((False, None))
    close_db_connections()
    settings._tool_table.cache_clear()


@pytest.fixture
def app(clinic: Project, service: Callable[[Project], Project]) -> Project:
    """A clinic whose dev environment is this process's, with a pool of five."""
    (clinic.root / "pyproject.toml").write_text(POOL)
    return service(clinic)


def names(clinic: Project) -> list[str]:
    """The hospitals that the tests made, read back from another connection."""
    return [name for (name,) in clinic.query("SELECT name FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")]


def add(session: Any, name: str) -> None:
    session.add(Hospital(name=f"t:{name}"))
    session.flush()


# One block


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
    assert get_db_engine().pool.checkedout() == 0


def test_a_constraint_that_only_the_commit_sees(app: Project) -> None:
    app.execute(
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$;"
        "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON hospitals DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later()"
    )
    with pytest.raises(DBAPIError, match="too late"), get_db_session() as session:
        add(session, "a")
    assert names(app) == []
    assert get_db_engine().pool.checkedout() == 0


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


# Nesting


def test_an_inner_block_is_on_the_same_connection(app: Project) -> None:
    with get_db_session() as outer, get_db_session() as inner:
        assert inner is outer
        add(inner, "a")
        assert get_db_engine().pool.checkedout() == 1
        assert names(app) == []


def test_another_environment_is_another_unit_of_work(
    app: Project, service: Callable[[Project], Project], template: str
) -> None:
    other = app.env["TEST_DATABASE_URL"].rpartition("/")[2]
    app.execute(f'CREATE DATABASE "{other}" TEMPLATE {template}', "postgres")
    with pytest.raises(ValueError), get_db_session("dev") as dev:
        add(dev, "dev")
        with get_db_session("test") as test, get_db_session("dev") as again:
            add(test, "test")
            assert again is dev and test is not dev
        raise ValueError
    assert names(app) == []
    assert app.query("SELECT name FROM hospitals WHERE name LIKE 't:%'", other) == [("t:test",)]


@pytest.mark.parametrize("savepoints", [False, True])
def test_who_in_an_inner_block(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with get_db_session(user="one") as session:
        session.add(Hospital(name="t:1"))
        with get_db_session(user="two"):
            session.add(Hospital(name="t:2"))
            with get_db_session():
                session.add(Hospital(name="t:2b"))
        session.add(Hospital(name="t:1b"))
    found = app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")
    assert found == [("t:1", "one"), ("t:1b", "one"), ("t:2", "two"), ("t:2b", "two")]


@pytest.mark.parametrize("savepoints", [False, True])
def test_commit_and_rollback_of_an_inner_block_spare_the_outer_one(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with pytest.raises(ValueError), pytest.warns(UserWarning, match="not needed"), get_db_session() as session:
        add(session, "outer")
        with get_db_session() as inner:
            add(inner, "inner")
            inner.commit()
        assert names(app) == []
        raise ValueError
    assert names(app) == []

    def undo() -> None:
        with get_db_session() as session:
            add(session, "outer")
            with get_db_session() as inner:
                add(inner, "undone")
                inner.rollback()
                add(inner, "inner")
            add(session, "end")

    if savepoints:
        undo()
        assert names(app) == ["t:end", "t:inner", "t:outer"]
    else:
        with pytest.raises(SessionSpoiled):
            undo()
        assert names(app) == []


@pytest.mark.parametrize("savepoints", [False, True])
def test_a_read_only_block_inside_a_writing_one_is_refused(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with get_db_session() as session:
        add(session, "a")
        refused = pytest.raises(UsageError, match=r"read_only=True\) block cannot begin inside a block that writes")
        with refused as caught, get_db_session(read_only=True):
            pass
        assert "\n" not in str(caught.value) and "leave out read_only=True" in str(caught.value)
        add(session, "b")
    assert names(app) == ["t:a", "t:b"], "the refusal undoes nothing"
    with pytest.raises(UsageError, match="cannot begin inside"), get_db_session() as session:
        add(session, "c")
        with get_db_session(read_only=True):
            pass
    assert names(app) == ["t:a", "t:b"], "an error that was let through undoes the outer block"


@pytest.mark.parametrize("savepoints", [False, True])
def test_a_block_inside_a_read_only_one_is_part_of_it(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with get_db_session(read_only=True) as session, get_db_session(user="me", read_only=True) as inner:
        assert inner is session
        assert inner.scalar(text("SELECT current_setting('app.current_user')")) == "me"
    with pytest.raises(InternalError, match="read-only"), get_db_session(read_only=True), get_db_session() as inner:
        add(inner, "refused")
    with get_db_session("dev", read_only=True), get_db_session("dev", read_only=True), get_db_session("dev") as inner:
        assert inner.scalar(select(func.count()).where(Hospital.name == "t:refused")) == 0


def test_blocks_that_end_in_the_wrong_order_keep_nothing(app: Project) -> None:
    outer, inner = get_db_session(), get_db_session()
    add(outer.__enter__(), "a")
    inner.__enter__()
    with pytest.raises(UsageError, match="reverse order"):
        outer.__exit__(None, None, None)
    with pytest.raises(UsageError, match="reverse order"):
        inner.__exit__(None, None, None)
    assert names(app) == [] and get_db_engine().pool.checkedout() == 0
    with get_db_session() as session:
        add(session, "b")
    assert names(app) == ["t:b"]


class Oops(Exception):
    """What the random blocks raise."""


Tree = tuple[bool, str, list[Any]]  # is the block's error caught by the one around it; does it fail, and how; what is inside
LEAVES = st.sampled_from(["", "raise", "constraint"])
TREES = st.recursive(
    st.tuples(st.booleans(), LEAVES, st.just([])),
    lambda inner: st.tuples(st.booleans(), LEAVES, st.lists(inner, max_size=3)),
    max_leaves=8,
)


def play(tree: Tree, label: str) -> None:
    """Run a tree of blocks for real. Each writes a row before and after what is inside it."""
    caught, failure, inside = tree
    try:
        with get_db_session() as session:
            add(session, f"{label}<")
            for number, each in enumerate(inside):
                play(each, f"{label}.{number}")
            add(session, f"{label}>")
            if failure == "raise":
                raise Oops
            if failure == "constraint":
                session.execute(text("INSERT INTO hospitals (name) VALUES (NULL)"))
    except (Oops, IntegrityError):
        if not caught:
            raise


def model(tree: Tree, label: str, savepoints: bool) -> tuple[list[str], bool, bool]:
    """The rules: the rows that stay, whether the block raises out of itself, and whether it has spoiled those around it."""
    caught, failure, inside = tree
    rows, failed, spoiled = [f"t:{label}<"], False, False
    for number, each in enumerate(inside):
        inner, raised, spoils = model(each, f"{label}.{number}", savepoints)
        rows += inner
        spoiled = spoiled or spoils
        if raised:
            failed = True
            break
    else:
        rows.append(f"t:{label}>")
    failed = failed or failure != ""
    if failed:
        rows = []
    return rows, failed and not caught, not savepoints and (spoiled or failed)


@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("savepoints", [False, True])
def test_random_nestings_against_the_rules(app: Project, savepoints: bool, count: int) -> None:
    use_nested_transactions(savepoints)

    @examples(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inside=st.lists(TREES, max_size=3))
    def check(inside: list[Tree]) -> None:
        app.execute("DELETE FROM hospitals WHERE name LIKE 't:%'")
        rows, raised, spoiled = model((False, "", inside), "o", savepoints)
        expected: list[str] = rows
        outcome: type[BaseException] | None = None
        try:
            play((False, "", inside), "o")
        except (Oops, IntegrityError, DBAPIError, SessionSpoiled) as error:
            outcome = type(error)
        if raised or spoiled:
            expected = []
            assert outcome is not None
        else:
            assert outcome is None
        assert names(app) == sorted(expected)
        assert get_db_engine().pool.checkedout() == 0

    check()


@pytest.mark.parametrize("savepoints", [False, True])
def test_three_deep(app: Project, savepoints: bool) -> None:
    """The block at one depth fails, the code around the block at another catches."""
    use_nested_transactions(savepoints)
    everything = ["t:r.0.0<", "t:r.0.0>", "t:r.0<", "t:r.0>", "t:r<", "t:r>"]
    for failing, catching in itertools.product([0, 1, 2, None], repeat=2):
        app.execute("DELETE FROM hospitals WHERE name LIKE 't:%'")
        work: Tree = (catching == 2, "raise" if failing == 2 else "", [])
        for depth in (1, 0):
            work = (catching == depth, "raise" if failing == depth else "", [work])
        try:
            play(work, "r")
            outcome = None
        except (Oops, SessionSpoiled) as error:
            outcome = type(error)
        if failing is None:
            expected: tuple[list[str], Any] = (everything, None)
        elif catching is None or catching > failing:
            expected = ([], Oops)
        elif catching == 0:
            expected = ([], None)
        elif savepoints:
            expected = ([name for name in everything if name.count(".") < catching], None)
        else:
            expected = ([], SessionSpoiled)
        assert (names(app), outcome) == expected, (failing, catching)


# What must not be lost in silence


def test_an_error_that_was_caught_is_not_a_success(app: Project) -> None:
    """PostgreSQL answers the COMMIT of a failed transaction with a rollback, and no error."""
    with pytest.raises(SessionSpoiled, match="a statement failed"), get_db_session() as session:
        add(session, "a")
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1 / 0"))
    with pytest.raises(SessionSpoiled), get_db_session() as session:
        add(session, "b")
        with get_db_session() as inner, pytest.raises(DBAPIError):
            inner.execute(text("SELECT 1 / 0"))
    assert names(app) == []
    with get_db_session() as session:
        add(session, "c")
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(text("SELECT 1 / 0"))
    assert names(app) == ["t:c"], "in a savepoint it may fail"


@pytest.mark.filterwarnings("ignore:session.commit")
def test_commit_after_an_inner_failure_commits_nothing(app: Project) -> None:
    with pytest.raises(SessionSpoiled), get_db_session() as session:
        with pytest.raises(Oops), get_db_session() as inner:
            add(inner, "half")
            raise Oops
        session.commit()
    assert names(app) == []
    with get_db_session() as session:
        with pytest.raises(Oops), get_db_session() as inner:
            add(inner, "half")
            raise Oops
        session.rollback()
        add(session, "fresh")
    assert names(app) == ["t:fresh"]


def raw(session: Any) -> Any:
    """The psycopg connection under a session."""
    return session.connection().connection.driver_connection


def in_a_pipeline(session: Any) -> None:
    with raw(session).pipeline():
        raw(session).execute("SELECT 1")
        raw(session).execute("COMMIT AND CHAIN")


ENDINGS: dict[str, Callable[[Any], Any]] = {
    **{
        sql: partial(lambda sql, session: session.execute(text(sql)), sql)
        for sql in (
            "ROLLBACK", "COMMIT", "ABORT", "END", "rollback work", "/* it is \n late */ COMMIT -- now", "END TRANSACTION;",
            "COMMIT AND CHAIN", "ROLLBACK AND /* a */ CHAIN", "COMMIT; BEGIN", "ROLLBACK; BEGIN; SELECT 1",
            "SELECT 1; COMMIT; SELECT 2", "SELECT 1; ROLLBACK; START TRANSACTION",
        )
    },
    "the driver's commit": lambda session: raw(session).commit(),
    "the driver's rollback": lambda session: raw(session).rollback(),
    "the pool's commit": lambda session: session.connection().connection.commit(),
    "exec_driver_sql": lambda session: session.connection().exec_driver_sql("COMMIT AND CHAIN"),
    "a raw cursor": lambda session: raw(session).cursor().execute("ROLLBACK AND CHAIN"),
    "a client cursor": lambda session: psycopg.ClientCursor(raw(session)).execute("COMMIT"),
    "libpq": lambda session: raw(session).pgconn.exec_(b"COMMIT"),
    "SQLAlchemy's connection": lambda session: session.connection().commit(),
    "its transaction": lambda session: session.connection().get_transaction().rollback(),
    "a pipeline": in_a_pipeline,
}  # fmt: skip


@pytest.mark.parametrize(
    "nested", ["inner", *(pytest.param(each, marks=pytest.mark.slow) for each in ("outermost", "savepoint"))]
)
def test_whoever_ends_the_transaction_is_noticed(app: Project, nested: str) -> None:
    """Rows would vanish, or stay after an exception, without an error."""
    use_nested_transactions(nested == "savepoint")
    unnoticed = []
    for (how, end), after in itertools.product(ENDINGS.items(), ("nothing", "work", "an error")):
        try:
            with get_db_session() as session:
                add(session, "before")
                with contextlib.suppress(SQLAlchemyError), contextlib.ExitStack() as inner:
                    if nested != "outermost":
                        inner.enter_context(get_db_session())
                    end(session)
                if after == "work":
                    add(session, "work after")
                if after == "an error":
                    raise ValueError("as it was")
            unnoticed.append((how, after))
        except SessionSpoiled as spoiled:
            assert "was ended inside it; what it had done may have left a trace" in str(spoiled)
            assert after != "an error" or spoiled.__context__ is not None
        assert "t:work after" not in names(app)
    assert not unnoticed
    with get_db_session() as session:
        add(session, "z")
    assert names(app)[-1] == "t:z"


def test_what_cannot_be_held_back_is_logged(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C goes on its way."""
    with pytest.raises(KeyboardInterrupt), get_db_session() as session:
        add(session, "a")
        session.execute(text("COMMIT"))
        raise KeyboardInterrupt
    assert names(app) == ["t:a"]
    assert "was ended inside it" in caplog.text


def test_statements_outside_of_a_transaction_are_noticed(app: Project) -> None:
    with pytest.raises(SessionSpoiled, match="was ended inside it"), get_db_session() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        add(session, "a")
        raise ValueError
    with pytest.raises(SessionSpoiled, match="was ended inside it"), get_db_session() as session:
        raw(session).autocommit = True
        add(session, "b")


def test_what_ends_no_transaction_of_ours_is_none_of_our_business(app: Project) -> None:
    """Savepoints, also by hand; a BEGIN too many; blocks and procedures that PostgreSQL does not let commit; another connection."""
    with get_db_session() as session:
        add(session, "a")
        session.execute(text("SAVEPOINT mine"))
        add(session, "undone")
        session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        session.execute(text("SELECT 1; SAVEPOINT b; ROLLBACK TO b; RELEASE b"))
        session.execute(text("BEGIN"))
        for sql in ("DO $$ BEGIN COMMIT; END $$", "DO $$ BEGIN ROLLBACK AND CHAIN; END $$"):
            with pytest.raises(DBAPIError, match="invalid transaction termination"), session.begin_nested():
                session.execute(text(sql))
        with raw(session).transaction(), pytest.raises(ZeroDivisionError), raw(session).transaction():
            raise ZeroDivisionError
        with get_db_engine().connect() as other:
            other.execute(text("COMMIT"))
        session.scalars(select(Hospital).execution_options(yield_per=1)).all()
    assert names(app) == ["t:a"]


@pytest.mark.parametrize("verb", ["close", "reset", "invalidate"])
def test_a_session_that_is_closed_inside_its_block(app: Project, verb: str) -> None:
    with pytest.raises(SessionSpoiled, match=f"session.{verb}"), get_db_session() as session:
        add(session, "a")
        with get_db_session() as inner:
            getattr(inner, verb)()
        add(session, "b")
    assert names(app) == [] and get_db_engine().pool.checkedout() == 0


def test_a_session_after_its_block(app: Project) -> None:
    with get_db_session() as session:
        add(session, "a")
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        add(session, "b")
    assert get_db_engine().pool.checkedout() == 0


def test_rollback_in_an_inner_block_keeps_its_user(app: Project) -> None:
    with get_db_session(user="one") as session:
        add(session, "1")
        with get_db_session(user="two") as inner:
            kept = inner.begin_nested()
        kept.rollback()
        add(session, "1b")
        use_nested_transactions(True)
        with get_db_session(user="two") as inner:
            inner.rollback()
            add(inner, "2")
        with pytest.raises(Oops), get_db_session(user="three"):
            raise Oops
        add(session, "1c")
    found = app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")
    assert found == [("t:1", "one"), ("t:1b", "one"), ("t:1c", "one"), ("t:2", "two")]


def test_begin_in_an_inner_block_commits_nothing(app: Project) -> None:
    with pytest.raises(Oops), get_db_session():
        with get_db_session() as inner, inner.begin():
            add(inner, "a")
        raise Oops
    assert names(app) == []


def test_close_db_connections_inside_a_block(app: Project) -> None:
    with pytest.raises(Oops), get_db_session() as session:
        add(session, "a")
        close_db_connections()
        with get_db_session() as inner:
            assert inner is session
            add(inner, "b")
        raise Oops
    assert names(app) == []


def test_a_generator_that_takes_others_work_along_says_so(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    def stream() -> Iterator[int]:
        with get_db_session():
            yield 1

    for _ in stream():
        with get_db_session() as session:
            add(session, "a")
        break
    gc.collect()
    assert names(app) == [] and f"opened at {__file__}" in caplog.text and "1 blocks that had joined it" in caplog.text


def test_no_error_text_holds_what_was_written(app: Project) -> None:
    with pytest.raises(IntegrityError) as caught, get_db_session() as session:
        session.add(User(user_id="x", entity_type="robot", entity_id=uuid.uuid4(), password_hash="Geheim 123"))
    assert "Geheim" not in str(caught.value) and "[SQL parameters hidden" in str(caught.value)


def test_what_the_triggers_wrote_is_in_the_object(app: Project) -> None:
    with get_db_session(user="one") as session:
        hospital = Hospital(name="t:a")
        session.add(hospital)
        session.flush()
        assert (hospital.created_by, hospital.updated_by) == ("one", "one")
    with get_db_session(user="two") as session:
        session.add(hospital)
        hospital.timezone = "UTC"
        session.flush()
        copy = get_detached_copy(hospital, include=())
    assert (copy.created_by, copy.updated_by, hospital.updated_by) == ("one", "two", "two")


# Threads, tasks, forks


def test_32_threads_on_a_pool_of_five(app: Project) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            with get_db_session(user=f"thread {number}") as session:
                add(session, f"{number}/{turn}")
                with get_db_session() as inner:
                    assert inner is session

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert app.query("SELECT count(*), count(*) FILTER (WHERE 'thread ' || split_part(substr(name, 3), '/', 1) = created_by)"
                     " FROM hospitals WHERE name LIKE 't:%'") == [(320, 320)]  # fmt: skip
    assert get_db_engine().pool.checkedout() == 0


def test_200_tasks_on_a_pool_of_five(app: Project) -> None:
    async def work(number: int) -> None:
        async with get_db_session(user=f"task {number}") as session:
            add(session, f"{number}")
            await asyncio.sleep(0)
            async with get_db_session() as inner:
                assert inner is session
                await asyncio.sleep(0.001)
                add(session, f"{number}'")

    async def together() -> None:
        await asyncio.gather(*(work(number) for number in range(200)))

    asyncio.run(together())
    assert app.query("SELECT count(*), count(*) FILTER (WHERE 'task ' || rtrim(substr(name, 3), '''') = created_by)"
                     " FROM hospitals WHERE name LIKE 't:%'") == [(400, 400)]  # fmt: skip
    assert get_db_engine().pool.checkedout() == 0


def test_200_tasks_in_threads_and_without_an_await(app: Project) -> None:
    def write(number: int) -> None:
        with get_db_session(user=f"task {number}") as session:
            add(session, f"{number}")

    async def work(number: int) -> None:
        if number % 2:
            await asyncio.to_thread(write, number)
        else:
            write(number)

    async def together() -> None:
        await asyncio.gather(*(work(number) for number in range(200)))

    asyncio.run(together())
    assert app.query("SELECT count(*) FROM hospitals WHERE 't:' || substr(created_by, 6) = name") == [(200,)]


def test_a_task_started_inside_a_block_has_a_unit_of_its_own(app: Project) -> None:
    async def child() -> None:
        with get_db_session() as session:
            add(session, "child")

    async def parent() -> None:
        async with get_db_session() as session:
            add(session, "parent")
            await asyncio.create_task(child())
            await asyncio.to_thread(lambda: asyncio.run(child()))
            raise Oops

    with pytest.raises(Oops):
        asyncio.run(parent())
    assert names(app) == ["t:child", "t:child"]


def test_waiting_in_a_coroutine_for_tasks_of_the_same_loop_is_refused(app: Project) -> None:
    async def hold(ready: asyncio.Semaphore, go: asyncio.Event) -> None:
        with get_db_session() as session:
            session.execute(text("SELECT 1"))
            ready.release()
            await go.wait()

    async def main() -> None:
        ready, go = asyncio.Semaphore(0), asyncio.Event()
        holders = [asyncio.create_task(hold(ready, go)) for _ in range(5)]
        for _ in holders:
            await ready.acquire()
        with pytest.raises(UsageError, match="would stop it"), get_db_session():
            pass
        go.set()
        await asyncio.gather(*holders)
        with get_db_session() as session:
            add(session, "after")

    asyncio.run(main())
    assert names(app) == ["t:after"]


def test_the_choice_of_savepoints_is_each_threads_own(app: Project) -> None:
    use_nested_transactions(True)
    seen: list[bool] = []

    def other(choice: bool | None) -> None:
        if choice is not None:
            use_nested_transactions(choice)
        seen.append(ownership.nested_transactions())

    for choice in (None, False):
        thread = threading.Thread(target=other, args=(choice,))
        thread.start()
        thread.join()
    assert seen == [True, False] and ownership.nested_transactions()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_use(app: Project) -> None:
    """A pre-fork web server: the child gets connections of its own, the parent keeps its."""
    engine = get_db_engine()
    with get_db_session() as session:
        [backend] = session.execute(text("SELECT pg_backend_pid()")).one()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, as servers do
            child = os.fork()
        if child == 0:
            try:
                with get_db_session(user="child") as own:
                    add(own, "child")
                    assert own.execute(text("SELECT pg_backend_pid()")).one() != (backend,)
                with engine.connect() as connection:
                    assert connection.scalar(text("SELECT 1")) == 1
                gc.collect()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert session.execute(text("SELECT pg_backend_pid()")).one() == (backend,)
        add(session, "parent")
    assert names(app) == ["t:child", "t:parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("how", ["falls through", "raises", "commits"])
def test_a_child_leaves_its_parents_block(app: Project, how: str) -> None:
    block: Any = get_db_session(user="parent")
    with block as session:
        add(session, "before")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(2)
            try:
                with contextlib.ExitStack() as stack:
                    stack.push(block.__exit__)
                    if how == "raises":
                        raise SystemExit
                    if how == "commits":
                        session.commit()
            finally:
                gc.collect()
                os._exit(0)
        os.waitpid(child, 0)
        assert names(app) == [], "nothing is committed by the child"
        add(session, "after")
    found = app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")
    assert found == [("t:after", "parent"), ("t:before", "parent")]


@pytest.mark.slow
def test_tasks_and_threads_that_share_a_pool(app: Project) -> None:
    """A thread may take the connection that a task has just seen free."""
    stop = threading.Event()

    def thread() -> None:
        while not stop.is_set():
            with get_db_session() as session:
                session.execute(text("SELECT 1"))

    async def task(number: int) -> None:
        for _ in range(3):
            async with get_db_session(user=f"task {number}") as session:
                add(session, f"{number}")
                await asyncio.sleep(0)

    async def together() -> None:
        await asyncio.gather(*(task(number) for number in range(60)))

    threads = [threading.Thread(target=thread) for _ in range(8)]
    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for each in threads:
            each.start()
        asyncio.run(together())
    finally:
        sys.setswitchinterval(former)
        stop.set()
        for each in threads:
            each.join(20)
    assert len(names(app)) == 180 and engines.service("dev").units_in_loops.total() == 0


def test_waiting_for_ever_in_a_task_is_refused_in_words(app: Project, service: Callable[[Project], Project]) -> None:
    (app.root / "pyproject.toml").write_text(POOL.replace("pool_timeout = 20", "pool_timeout = 0.2"))
    service(app)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await asyncio.create_task(hold(stack))
            with pytest.raises(ConnectionFailed, match=r"no connection to dev came free in 0.2 s"):
                await asyncio.create_task(hold(stack))

    async def hold(stack: contextlib.AsyncExitStack) -> None:
        await stack.enter_async_context(get_db_session())

    asyncio.run(main())
    assert get_db_engine().pool.checkedout() == 0


def test_blocks_that_are_closed_elsewhere_do_not_pile_up(app: Project) -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        for _ in range(50):
            block = get_db_session()
            block.__enter__()
            elsewhere.submit(block.__exit__, None, None, None).result()
    assert ownership.innermost() is None


# What was left open


def test_a_session_left_open_is_reported_and_rolled_back(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    def leave() -> int:
        session = get_db_session().__enter__()
        add(session, "left")
        with get_db_session() as other:
            assert other is not session, "what nobody will commit takes nothing along"
            add(other, "meanwhile")
        return sys._getframe().f_lineno - 5

    line = leave()
    gc.collect()
    assert f"a session that was opened at {__file__}:{line} is not in a with block" in caplog.text
    assert get_db_engine().pool.checkedout() == 0
    assert names(app) == ["t:meanwhile"]


def test_a_connection_not_given_back_is_reported(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    connection, line = get_db_engine().connect(), sys._getframe().f_lineno
    assert connection.scalar(text("SELECT 1")) == 1
    del connection
    gc.collect()
    assert f"opened at {__file__}:{line} was never given back" in caplog.text
    held, line = get_db_engine().connect(), sys._getframe().f_lineno
    close_db_connections()
    assert f"opened at {__file__}:{line} is still open" in caplog.text
    assert held.scalar(text("SELECT 1")) == 1
    held.close()


def test_nothing_is_reported_where_the_policy_says_so(
    app: Project, service: Callable[[Project], Project], caplog: pytest.LogCaptureFixture
) -> None:
    (app.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nreport_unclosed = false\n")
    service(app)
    get_db_session().__enter__().execute(text("SELECT 1"))
    gc.collect()
    assert caplog.text == ""


def test_close_db_connections_closes_our_own_alone(app: Project) -> None:
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'skinspire dev' AND datname = current_database()"
    with app.connect() as others:
        with get_db_session() as session:
            session.execute(text("SELECT 1"))
        assert app.query(mine) == [(1,)]
        close_db_connections()
        deadline = time.monotonic() + 5
        while app.query(mine) != [(0,)] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert app.query(mine) == [(0,)]
        assert others.execute("SELECT 1").fetchone() == (1,)
    with get_db_session() as session:
        assert session.scalar(text("SELECT 1")) == 1


# Failures of the server


@pytest.fixture
def own_server(
    tmp_path: Path, project: Project, service: Callable[[Project], Project]
) -> Iterator[tuple[Project, EmbeddedServer]]:
    """A clinic on a durable server of its own, which may be killed."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=True)
    try:
        project.address = server.start()
        project.execute("CREATE DATABASE app", "postgres")
        project.env = {"DEV_DATABASE_URL": project.url("app")}
        project.execute("CREATE TABLE written (who text, turn int)", "app")
        yield service(project), server
    finally:
        close_db_connections()
        project.env = {}
        server.destroy()


def test_the_server_is_killed_and_restarted_in_the_middle(own_server: tuple[Project, EmbeddedServer]) -> None:
    """The blocks that were open fail, those that come later wait for the server, and what was reported done is there."""
    project, server = own_server
    done: list[tuple[str, int]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def work(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                with get_db_session() as session:
                    session.execute(text("INSERT INTO written VALUES (:who, :turn)"), {"who": str(number), "turn": turn})
                done.append((str(number), turn))
            except DBAPIError as error:
                failed.append(error)
            time.sleep(0.002)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    before = len(done)
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
    server.start()
    after = len(done)
    deadline = time.monotonic() + 10
    while len(done) < after + 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert before > 0 and len(done) >= after + 50, "the service recovers by itself"
    written = set(project.query("SELECT who, turn FROM written", "app"))
    assert set(done) <= written
    assert get_db_engine().pool.checkedout() == 0


def test_a_failure_inside_a_block_is_not_tried_again(app: Project) -> None:
    with pytest.raises(DBAPIError, match="terminating connection"), get_db_session() as session:
        add(session, "a")
        [backend] = session.execute(text("SELECT pg_backend_pid()")).one()
        app.execute(f"SELECT pg_terminate_backend({backend}, 2000)")
        add(session, "b")
    assert names(app) == []
    with get_db_session() as session:
        add(session, "c")
    assert names(app) == ["t:c"]


# Replica and pooler


def test_a_replica_serves_what_only_reads(
    app: Project, service: Callable[[Project], Project], template: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another database stands for the replica here: one can see which of the two answered."""
    replica = app.env["TEST_DATABASE_URL"].rpartition("/")[2]
    app.execute(f'CREATE DATABASE "{replica}" TEMPLATE {template}', "postgres")
    app.env["DEV_REPLICA_URL"] = app.url(replica)
    service(app)

    def answers(read_only: bool) -> str:
        with get_db_session(read_only=read_only) as session:
            return str(session.scalar(text("SELECT current_database()")))

    assert (answers(True), answers(False)) == (replica, app.database)
    with pytest.raises(InternalError, match="read-only"), get_db_session(read_only=True) as session:
        add(session, "a")
    app.execute(f'ALTER DATABASE "{replica}" ALLOW_CONNECTIONS false', "postgres")
    app.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{replica}'", "postgres")
    assert [answers(True) for _ in range(3)] == [app.database] * 3
    assert caplog.text.count("the replica of dev does not answer, the primary serves") == 1
    app.execute(f'ALTER DATABASE "{replica}" ALLOW_CONNECTIONS true', "postgres")
    assert answers(True) == app.database, "it is left alone for a while"
    engines.service("dev").replica_down_until = 0.0
    assert answers(True) == replica and "answers again" in caplog.text
    assert get_db_engine().pool.checkedout() == 0


PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@pytest.mark.skipif(not PGBOUNCER, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)")
def test_through_pgbouncer_in_transaction_mode(app: Project, service: Callable[[Project], Project], tmp_path: Path) -> None:
    """Two server connections for eight threads: each transaction may land on either."""
    port = free_port()
    (tmp_path / "users.txt").write_text(f'"{app.address.user}" "{app.address.password}"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={app.address.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = plain\nauth_file = {tmp_path}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\n"
        "unix_socket_dir =\n"
    )
    command = [str(PGBOUNCER), str(tmp_path / "pgbouncer.ini")]
    if os.geteuid() == 0:
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        command[1:1] = ["-u", "nobody"]
        shutil.chown(tmp_path / "users.txt", "nobody")
    bouncer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        (app.root / "pyproject.toml").write_text(POOL + "transaction_pooler = true\n")
        direct = dict(app.env)
        app.env["DEV_DATABASE_URL"] = app.url(app.database, port=port)
        service(app)

        def work(number: int) -> None:
            for turn in range(20):
                with get_db_session(user=f"thread {number}") as session:
                    add(session, f"{number}/{turn}")
                with get_db_session(read_only=True) as session:
                    session.scalars(select(Hospital).where(Hospital.name == f"t:{number}/{turn}")).one()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        close_db_connections()
        app.env = direct
        assert app.query(
            "SELECT count(*) FROM hospitals WHERE 'thread ' || split_part(substr(name, 3), '/', 1) = created_by"
        ) == [(160,)]
    finally:
        bouncer.terminate()
        bouncer.communicate()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Detached copies


def test_a_copy_outlives_its_session(app: Project) -> None:
    with get_db_session() as session:
        user = session.scalars(select(User).join(UserRoleMapping).order_by(User.user_id)).first()
        assert user is not None
        columns = {key: getattr(user, key) for key in sqlalchemy.inspect(User).column_attrs.keys()}  # noqa: SIM118
        copy = get_detached_copy(user)
        assert copy is not user and sqlalchemy.inspect(copy).session is None
        assert sqlalchemy.inspect(user).session is session and all(role in session for role in user.roles)
        assert not session.dirty and not session.new
        roles = [role.role_name for role in user.roles]
    assert {key: getattr(copy, key) for key in columns} == columns
    assert [role.role_name for role in copy.roles] == roles and isinstance(copy, User)
    assert all(type(role) is RoleMaster for role in copy.roles)
    for name in ("sessions", "logins", "role_mappings"):
        with pytest.raises(NotCopied, match=f"User.{name} was not copied"):
            getattr(copy, name)
    again = pickle.loads(pickle.dumps(copy))
    assert again.user_id == copy.user_id and [role.role_name for role in again.roles] == roles
    with pytest.raises(NotCopied):
        _ = again.sessions


def test_a_copy_of_a_list_with_circles(app: Project) -> None:
    with get_db_session() as session:
        users = list(session.scalars(select(User).join(UserRoleMapping).order_by(User.user_id).limit(3)).unique())
        before = [list(user.role_mappings) for user in users]
        copies = get_detached_copy(users, include=("role_mappings", "user", "role"))
        assert [list(user.role_mappings) for user in users] == before
    for copy in copies:
        for mapping in copy.role_mappings:
            assert mapping.user is copy
            assert mapping.role.role_name
    shared = {id(m.role) for c in copies for m in c.role_mappings}
    assert len(shared) == len({m.role_id for c in copies for m in c.role_mappings}), "one copy of each role"


def test_a_copy_of_an_expired_and_of_a_new_entity(app: Project) -> None:
    with get_db_session() as session:
        hospital = Hospital(name="t:new")
        session.add(hospital)
        session.flush()
        session.expire(hospital)
        copy = get_detached_copy(hospital)
    assert copy.name == "t:new" and copy.created_by == "skinspire"
    assert get_detached_copy(None) is None and get_detached_copy([]) == []
    pending = get_detached_copy(Hospital(name="t:pending"), include=())
    with get_db_session() as session:
        session.add(pending)
    assert names(app) == ["t:new", "t:pending"], "a copy of what was never stored can be"


def test_a_copy_shares_nothing_and_can_come_back(app: Project) -> None:
    with get_db_session() as session:
        user = session.scalars(select(User)).first()
        assert user is not None
        user.ui_preferences = {"theme": {"colour": "green"}}
        session.flush()
        copy = get_detached_copy(user)
        copy.ui_preferences["theme"]["colour"] = "red"
        assert user.ui_preferences == {"theme": {"colour": "green"}} and not session.dirty
    with get_db_session() as session:
        merged = session.merge(copy)
        assert merged in session and merged.sessions == [] and merged.ui_preferences["theme"]["colour"] == "red"


def test_a_copy_of_a_long_chain(app: Project) -> None:
    """Longer than Python's stack is deep."""

    class Base(DeclarativeBase):
        pass

    class Node(Base):
        __tablename__ = "nodes"
        key: Mapped[int] = mapped_column(primary_key=True)
        next_key: Mapped[int | None] = mapped_column(ForeignKey("nodes.key"))
        next: Mapped[Node | None] = relationship(remote_side=[key])

    Node.__annotations__["next"] = Mapped[Node | None]
    app.execute("CREATE TABLE nodes (key int PRIMARY KEY, next_key int REFERENCES nodes)")
    app.execute("INSERT INTO nodes SELECT n, nullif(n, 1) - 1 FROM generate_series(1, 1500) AS n")
    with get_db_session() as session:
        nodes = list(session.scalars(select(Node)))
        copy = get_detached_copy(nodes[-1], include=("next",))
    length = 0
    while copy is not None:
        copy, length = copy.next, length + 1
    assert length == 1500


@pytest.mark.parametrize(
    ("what", "include", "says"),
    [
        ("text", ("roles",), "str is no entity"),
        (User, ("roles",), "is no entity"),
        (None, ("rolls",), "'rolls' is no relationship of User"),
    ],
)
def test_what_cannot_be_copied(app: Project, what: Any, include: tuple[str, ...], says: str) -> None:
    with get_db_session() as session:
        entity = what or session.scalars(select(User)).first()
        with pytest.raises(UsageError, match=says):
            get_detached_copy(entity, include=include)


# The package


def test_importing_costs_nothing() -> None:
    code = (
        "import sys; import skinspire_db; from skinspire_db import database_service;"
        "from skinspire_db.database_service import get_db_session; database_service.close_db_connections();"
        "print([m for m in ('sqlalchemy', 'psycopg', 'decouple', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_here_depends_on_flask() -> None:
    for path in (CHECKOUT / "skinspire_db").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) flask", path.read_text(), re.MULTILINE), path


def test_logging_is_ours(app: Project) -> None:
    assert engines.log is logging.getLogger("skinspire_db")
