"""What only a commit would refuse."""

import pytest
from sqlalchemy.exc import IntegrityError
from application import *

DEFERRED = "ALTER TABLE patients ADD CONSTRAINT later UNIQUE (mrn, first_name) DEFERRABLE INITIALLY DEFERRED"
TWICE = "UPDATE patients SET mrn = '%s', first_name = 'x', hospital_id = hospital_id WHERE mrn IN ('T000001')"


def test_at_the_end(db_session):
    db_session.execute(text("CREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    db_session.execute(text("INSERT INTO a VALUES (1), (1)"))


def test_at_the_applications_commit(db_session):
    db_session.execute(text("CREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    with pytest.raises(IntegrityError):
        with get_db_session() as session:
            session.execute(text("INSERT INTO a VALUES (1), (1)"))
    assert db_session.scalar(text("SELECT count(*) FROM a")) == 0


def test_mended_before(db_session):
    db_session.execute(text("CREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    db_session.execute(text("INSERT INTO a VALUES (1), (1)"))
    db_session.execute(text("DELETE FROM a"))
