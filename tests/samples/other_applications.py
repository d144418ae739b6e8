"""What applications do whose sessions are theirs, and whose endpoints run in a worker thread, as under a TestClient."""

import threading
from concurrent.futures import ThreadPoolExecutor
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from skinspire_db.clinic.models import Patient
from application import *


def in_a_worker(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def in_a_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


def test_the_database_came_before_the_application(app, db_session):
    assert app == "made with 20 patients"


def test_an_endpoint_sees_what_is_pending_and_the_test_what_it_did(db_session, make_hospital):
    hospital = make_hospital()
    patient = Patient(hospital_id=hospital.hospital_id, personal_info={}, contact_info={}, first_name="A")
    db_session.add(patient)
    assert in_a_worker(patients) == 21, "without a flush or commit"
    in_a_worker(rename, patient.patient_id, "Zed")
    assert patient.first_name == "Zed"
    in_a_thread(rename, patient.patient_id, "Ypsilon")
    assert patient.first_name == "Ypsilon"


def test_an_open_session_of_the_applications_own(db_session, make_patient):
    key = make_patient(first_name="Asha").patient_id
    with Session(get_db_engine()) as own:
        patient = own.get(Patient, key)
        in_a_worker(rename, key, "Usha")
        own.refresh(patient)
        assert patient.first_name == "Usha"
        in_a_worker(rename, key, "Uma")
        patient.last_name = "Rao"
        own.commit()
        own.refresh(patient)
        assert (patient.first_name, patient.last_name) == ("Uma", "Rao")
        own.rollback()
        assert in_a_worker(patients) == 21
    assert patients() == 21


def test_a_block_that_has_read_goes_on_beside_an_endpoint(db_session, make_patient):
    key = make_patient(first_name="Asha").patient_id
    with get_db_session() as session:
        assert session.scalar(select(func.count()).select_from(Patient)) == 21
        in_a_worker(rename, key, "Usha")
        session.get(Patient, key).last_name = "Rao"
    with pytest.raises(ValueError), get_db_session() as session:
        session.scalar(text("SELECT 1"))
        in_a_worker(rename, key, "Uma")
        session.get(Patient, key).last_name = "lost"
        session.flush()
        raise ValueError
    db_session.expire_all()
    patient = db_session.get(Patient, key)
    assert (patient.first_name, patient.last_name) == ("Uma", "Rao")


def test_two_threads_that_write_are_still_refused(db_session, make_patient):
    key = make_patient(first_name="Asha").patient_id
    with Session(get_db_engine()) as own:
        own.get(Patient, key).last_name = "Rao"
        own.flush()
        with pytest.raises(Exception, match="two threads work at the same time"):
            in_a_worker(rename, key, "Usha")
        own.commit()
    with get_db_engine().connect() as connection:
        connection.connection.cursor().execute("UPDATE patients SET last_name = 'raw'")
        with pytest.raises(Exception, match="two threads work at the same time"):
            in_a_worker(rename, key, "Usha")
