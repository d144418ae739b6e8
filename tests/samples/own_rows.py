"""The application's own rows: in the template, for a run, and for a module."""

import pytest
from sqlalchemy import text
from application import *


def codes():
    with get_db_session(read_only=True) as session:
        query = "SELECT string_agg(param_code, ' ' ORDER BY param_code) FROM parameter_settings WHERE param_code LIKE 'T_%'"
        return session.scalar(text(query))


def adding(code):
    def add(session):
        session.execute(text("INSERT INTO parameter_settings (param_code, param_value) VALUES (:code, 'x')"), {"code": code})
        return code

    return add


@pytest.fixture(scope="module")
def of_the_module(db_module_rows):
    return db_module_rows(adding("T_MODULE"))


@pytest.fixture(scope="session")
def of_the_run(db_run_rows):
    return db_run_rows(adding("T_RUN"))


def test_the_template_has_them(db_session):
    assert codes() == "T_TEMPLATE"


@pytest.mark.parametrize("time", [1, 2])
def test_of_the_module(of_the_module, db_session, time):
    assert of_the_module == "T_MODULE" and codes() == "T_MODULE T_TEMPLATE"
    db_session.execute(text("DELETE FROM parameter_settings"))


def test_with_real_commits(of_the_module, db_database):
    with get_db_session() as session:
        session.execute(text("DELETE FROM parameter_settings WHERE param_code = 'T_MODULE'"))
    assert codes() == "T_TEMPLATE"


@pytest.mark.parametrize("time", [1, 2])
def test_what_needs_a_new_clone(of_the_module, db_database, time):
    assert codes() == "T_MODULE T_TEMPLATE"
    db_database.connection.execute("CREATE TABLE more (id int)")


def test_of_the_run_asked_for_later(of_the_run, db_session):
    assert codes() == "T_MODULE T_RUN T_TEMPLATE"


def test_in_a_clone(of_the_run, db_clone):
    assert codes() == "T_MODULE T_RUN T_TEMPLATE"


def test_too_late(db_session, request):
    request.getfixturevalue("db_run_rows")(adding("T_LATE"))
