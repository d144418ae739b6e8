"""Every fixture and marker of the plugin, in one suite of 22 tests."""

import os, subprocess, sys, uuid
import psycopg, pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from skinspire_db.clinic.models import Patient, UserRoleMapping
from application import *


def test_without_a_database():
    with pytest.raises(Exception, match="in a test run the database is reached only from a test that has one"):
        patients()


@pytest.mark.parametrize("time", [1, 2])
def test_rolled_back(db_session, make_patient, assert_only_changed, assert_no_changes, assert_valid, time):
    assert patients() == 20 and get_active_env() == "test"
    assert_no_changes()
    patient = make_patient(age=7, user=True)
    assert patients() == 21
    assert_only_changed(patients=1, users=1, user_role_mapping=1)
    rename(patient.patient_id, "Zed", user="9876543210")
    assert (patient.first_name, patient.updated_by) == ("Zed", "9876543210"), "what the application did is seen"
    rename(patient.patient_id, "Ypsilon")
    assert patient.updated_by == "skinspire", "the last one's name is not the next one's"
    with pytest.raises(RuntimeError):
        fail_after_renaming(patient.patient_id, "Xaver")
    assert patient.first_name == "Ypsilon" and patients() == 21, "the application's rollback undoes its own"
    assert_only_changed(patients=1)
    assert_valid()


def test_what_the_test_adds_is_there(db_session, make_hospital):
    hospital = make_hospital()
    db_session.add(Patient(hospital_id=hospital.hospital_id, personal_info={}, contact_info={}, first_name="A"))
    assert patients() == 21, "without a flush or commit"


def test_refused_inside(db_session):
    with pytest.raises(IntegrityError), get_db_session() as session:
        session.execute(text("INSERT INTO branches (name) VALUES ('nobodys')"))
    assert patients() == 20, "the transaction of the test goes on"
    with pytest.raises(DBAPIError), get_db_engine().connect() as connection:
        connection.exec_driver_sql("SELECT 1/0")
    with pytest.raises(Exception, match="read-only"), get_db_session(read_only=True) as session:
        session.execute(text("DELETE FROM login_history"))
    with get_db_session() as session:
        session.execute(text("DELETE FROM login_history"))


@pytest.mark.db
@pytest.mark.parametrize("time", [1, 2])
def test_sequences(db, time):
    with get_db_session() as session:
        number = session.scalar(text("INSERT INTO role_master (role_name) VALUES ('X') RETURNING role_id"))
    assert number == db.connection.execute("SELECT max(role_id) FROM role_master WHERE role_name <> 'X'").fetchone()[0] + 1


def test_sql_of_the_tests_own(db, db_session):
    db.connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('A', 'b')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('A', 'b')")
    assert db_session.scalar(text("SELECT param_value FROM parameter_settings WHERE param_code = 'A'")) == "b"


@pytest.mark.parametrize("time", [1, 2])
def test_what_a_session_forgets(db_session, time):
    db_session.execute(text("DEALLOCATE ALL"))
    assert patients() == 20


def test_autocommit(db_session):
    with get_db_engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("INSERT INTO parameter_settings (param_code, param_value) VALUES ('A', 'b')")
    assert db_session.scalar(text("SELECT count(*) FROM parameter_settings WHERE param_code = 'A'")) == 1


@pytest.mark.parametrize("time", [1, 2])
def test_real_commits(db_database, make_patient, make_user, assert_only_changed, assert_valid, time):
    patient = make_patient()
    rename(patient.patient_id, "Zed")
    with db_database.connect() as connection:
        assert connection.execute(
            "SELECT first_name FROM patients WHERE patient_id = %s", (patient.patient_id,)
        ).fetchone() == ("Zed",)
    user = make_user(role="Nurse")
    assert_only_changed(patients=1, users=1, user_role_mapping=1, staff=1)
    assert_valid()
    with get_db_session() as session:
        session.execute(text("TRUNCATE login_history, user_sessions, role_module_access RESTART IDENTITY"))
        session.execute(text("SELECT nextval('role_master_role_id_seq')"))


@pytest.mark.db("database")
def test_real_commits_are_put_back(db, assert_valid):
    assert patients() == 20
    assert_valid()


def test_processes(db_database):
    code = "from application import patients, get_active_env; print(get_active_env(), patients())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.path.dirname(__file__)
    )
    assert done.stdout == "test 20\n"


@pytest.mark.parametrize("time", [1, 2])
def test_definitions(db_clone, time):
    db_clone.connection.execute("DROP TABLE login_history CASCADE; CREATE TABLE mine (x int)")
    assert patients() == 20


def test_environments(db_session):
    assert patients() == 20 and get_db_session("test") and get_database_url().database.startswith("skinspire_pytest_")
    for env in ("dev", "prod"):
        with pytest.raises(Exception, match=f"a test's database stands for test, and {env} was asked for"):
            with get_db_session(env):
                pass


class TestOfClass:
    pytestmark = pytest.mark.db("clone")

    def test_marked_by_its_class(self, db):
        assert db.mode == "clone" and patients() == 20


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")]
)
async def test_async(db, make_patient, mode):
    patient = make_patient()
    await rename_async(patient.patient_id, "Zed")
    assert db.observer.execute("SELECT count(*) FROM patients WHERE first_name = 'Zed'").fetchone() == (1,)
