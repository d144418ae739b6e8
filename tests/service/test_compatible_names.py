"""The names that applications know from the module which database_service replaces."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Project
from service_app import app, checked_out, names, service  # noqa: F401
from sqlalchemy import select, text

from skinspire_db.clinic.models import Hospital
from skinspire_db.database_service import (
    get_active_env,
    get_db_session,
    get_detached_copy,
    get_entity_dict,
    initialize_database,
    manage_database_connections,
    set_debug_mode,
)
from skinspire_db.errors import DatabaseMissing, UsageError
from skinspire_db.service import CONNECTION_TYPES


def test_an_entity_as_a_dict(app: Project) -> None:
    with get_db_session() as session:
        session.add(Hospital(name="t:a"))
    with get_db_session() as session:
        hospital = session.scalars(select(Hospital).where(Hospital.name == "t:a")).one()
        inside = get_entity_dict(hospital)
        several = get_entity_dict([hospital, None])
        copied = get_detached_copy(hospital)
    assert inside == get_entity_dict(hospital) == get_entity_dict(copied) == several[0]
    assert set(inside) == {attribute.key for attribute in Hospital.__mapper__.column_attrs}
    assert type(inside) is dict and inside["name"] == "t:a" and several[1] is None and get_entity_dict(None) is None
    for wrong in (object(), Hospital, "text", {"name": 1}):
        with pytest.raises(UsageError, match="no entity"):
            get_entity_dict(wrong)


@pytest.mark.parametrize("kind", CONNECTION_TYPES)
def test_the_old_first_argument_warns_and_means_nothing(app: Project, kind: str) -> None:
    old: Any
    for old in ({"env": kind}, {"connection_type": kind}):
        with pytest.warns(DeprecationWarning, match="leave it out") as caught, get_db_session(**old) as session:
            session.add(Hospital(name=f"t:{kind}"))
        assert caught[0].filename == __file__, "the warning names the caller"
    assert names(app) == [f"t:{kind}"] * 2
    with warnings.catch_warnings(), get_db_session(get_active_env()) as session:
        warnings.simplefilter("error")
        session.execute(text("SELECT 1"))
    with pytest.raises(UsageError, match="is none of auto"):
        get_db_session(connection_type="wsgi")


def test_an_environment_of_that_name_is_the_environment(clinic: Project, service: Callable[[Project], Project]) -> None:
    (clinic.root / "pyproject.toml").write_text('[tool.skinspire_db.environments.standalone]\nextends = "dev"\n')
    clinic.env["STANDALONE_DATABASE_URL"] = clinic.env.pop("DEV_DATABASE_URL")
    service(clinic)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with get_db_session("standalone") as session:
            session.add(Hospital(name="t:a"))
    clinic.env["DEV_DATABASE_URL"] = clinic.env["STANDALONE_DATABASE_URL"]
    assert names(clinic) == ["t:a"]


def test_initialize_database(clinic: Project, service: Callable[[Project], Project]) -> None:
    there = clinic.env["DEV_DATABASE_URL"]
    clinic.env["DEV_DATABASE_URL"] = f"{there}_missing"
    service(clinic)
    with pytest.raises(DatabaseMissing):
        initialize_database()
    clinic.env["DEV_DATABASE_URL"] = there
    service(clinic)
    assert initialize_database() is True and initialize_database(force=True) is True
    assert checked_out() == 0


def test_connections_are_shown_closed_and_renewed(app: Project) -> None:
    assert manage_database_connections() == {}, "nothing is opened to look"
    with get_db_session() as session:
        session.add(Hospital(name="t:a"))
        session.flush()
        (shown,) = manage_database_connections("status").values()
        assert (shown["in_use"], shown["idle"]) == (1, 0) and app.address.password not in str(shown)
        for action in ("close", "dispose", "cleanup", "reset"):
            with pytest.raises(UsageError, match="in use"):
                manage_database_connections(action)
        assert manage_database_connections("close", force=True) == {}
    assert names(app) == ["t:a"], "a connection that is in use ends its block first"
    renewed = manage_database_connections("reset")
    assert [(pool["in_use"], pool["idle"]) for pool in renewed.values()] == [(0, 1)]
    with pytest.raises(UsageError, match="is no action"):
        manage_database_connections("explode")


def test_debug_mode_shows_statements_and_no_values(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    loggers = [logging.getLogger(name) for name in ("skinspire_db", "sqlalchemy.engine")]
    levels = [logger.level for logger in loggers]
    try:
        set_debug_mode()
        set_debug_mode(True)
        with get_db_session() as session:
            session.add(Hospital(name="t:secret"))
        assert "INSERT INTO hospitals" in caplog.text and "t:secret" not in caplog.text
    finally:
        set_debug_mode(False)
    assert [logger.level for logger in loggers] == levels
    caplog.clear()
    with get_db_session() as session:
        session.execute(text("SELECT 1"))
    assert "SELECT 1" not in caplog.text
