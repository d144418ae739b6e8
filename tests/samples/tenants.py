"""A suite of an application with tenancy, in each of the plugin's modes."""

import subprocess, sys
from uuid import UUID
import pytest
from sqlalchemy import select, text
from skinspire_db import steps
from skinspire_db.clinic.models import Hospital, Patient
from skinspire_db.database_service import ALL_HOSPITALS, get_db_session, set_current_hospital

ROLE = text("SELECT current_user")


def names():  # of the application
    with get_db_session() as session:
        assert session.scalar(ROLE).endswith("_app")
        return set(session.scalars(text("SELECT first_name FROM patients")))


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")]
)
@pytest.mark.parametrize("time", [1, 2])
def test_a_hospital_of_ones_own(
    db, mode, time, make_hospital, make_patient, make_user, assert_only_changed, assert_no_changes, assert_valid
):
    seeded = names()
    assert len(seeded) > 1
    make_patient(first_name="Ours")
    other = make_hospital()
    theirs = make_patient(first_name="Theirs", hospital=other, user=True)
    make_user(hospital=other, role="Hospital Administrator")
    assert_only_changed(hospitals=1, branches=1, patients=2, users=2, staff=1, user_role_mapping=2)
    assert names() == seeded | {"Ours"}
    with set_current_hospital(other):
        assert names() == {"Theirs"}
    assert db.session.scalar(ROLE).endswith("_app"), "the test's own session sees what the application sees"
    assert db.session.get(Patient, theirs.patient_id) is None and theirs.first_name == "Theirs"
    assert db.session.scalars(select(Patient).where(Patient.first_name == "Ours")).one().hospital_id != other.hospital_id
    with pytest.raises(Exception, match="row-level security"), get_db_session() as session:
        session.add(Patient(hospital_id=other.hospital_id, first_name="x", personal_info={}, contact_info={}))
    with get_db_session(hospital=ALL_HOSPITALS, reason="a test") as session:
        assert {"Ours", "Theirs"} < set(session.scalars(select(Patient.first_name)))
    assert_no_changes()
    assert_valid()
    db.session.rollback()


def test_nothing_is_left(db_session, db_hospital):
    assert str(db_session.scalars(select(Hospital.hospital_id)).one()) == db_hospital
    assert "Ours" not in names() and len(db_session.scalars(select(Hospital)).all()) == 1


@pytest.mark.db("database")
def test_processes_of_the_test(db):
    code = "from test_sample import names; from skinspire_db.database_service import set_current_hospital as s; s(%r); print(len(names()))"
    done = subprocess.run([sys.executable, "-c", code % db.hospital], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(names())


@pytest.mark.db_hospital("00000000-0000-4000-8000-000000000001")
def test_a_marked_hospital(db_session, make_hospital, make_patient):
    assert db_session.scalars(select(Patient)).all() == [], "it is not there yet"
    make_hospital(hospital_id=UUID("00000000-0000-4000-8000-000000000001"))
    make_patient(first_name="First")
    assert names() == {"First"}
