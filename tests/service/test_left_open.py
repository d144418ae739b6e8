"""Sessions and connections that were left open."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

import pytest
from conftest import Project
from service_app import add, app, checked_out, names, service  # noqa: F401
from sqlalchemy import text

from skinspire_db.database_service import (
    close_db_connections,
    get_db_engine,
    get_db_session,
)


def test_a_session_left_open_is_reported_and_rolled_back(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    def leave() -> int:
        session = get_db_session().__enter__()
        add(session, "left")
        with get_db_session() as other:
            assert other is not session, "a session that was left open takes no other work along"
            add(other, "meanwhile")
        return sys._getframe().f_lineno - 5

    line = leave()
    gc.collect()
    assert f"a session that was opened at {__file__}:{line} is not in a with block" in caplog.text
    assert checked_out() == 0
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
