"""Tests that fail in every mode, each after it has written a patient called Kept."""

import pytest
from application import *


def test_in_a_transaction(db_session, make_patient):
    make_patient(first_name="Kept")
    assert patients() == 0


def test_in_a_failed_transaction(db_session, make_patient):
    make_patient(first_name="Kept")
    db_session.execute(text("SELECT 1/0"))


def test_with_commits(db_database, make_patient):
    make_patient(first_name="Kept")
    assert patients() == 0


@pytest.mark.db("clone")
def test_in_a_clone(make_patient):
    make_patient(first_name="Kept")
    assert patients() == 0


@pytest.fixture
def broken(make_patient):
    make_patient(first_name="Kept")
    raise RuntimeError("in a fixture")


def test_of_a_broken_fixture(db_session, broken):
    pass


@pytest.mark.xfail
def test_that_is_known(db_session, make_patient):
    assert patients() == 0


def test_that_passes(db_session):
    assert patients() == 20
