"""What a person can get wrong."""

import threading
import psycopg, pytest
from application import *


def test_two(db_session, db_clone):
    pass


@pytest.mark.db("clone")
def test_other(db_session):
    pass


@pytest.mark.db("transaction")
def test_unknown(db):
    pass


def test_ends_it(db_session):
    db_session.execute(text("COMMIT"))


def test_ends_a_block(db_session):
    for end in ("commit", "rollback"):
        with pytest.raises(Exception, match="was ended inside it"), get_db_session() as session:
            session.execute(text("SELECT 1"))
            getattr(session.connection().connection.driver_connection, end)()


def test_ends_a_block_and_the_test(db_session):
    with pytest.raises(Exception, match="was ended inside it"), get_db_session() as session:
        session.execute(text("ROLLBACK"))


def test_late(request):
    request.getfixturevalue("db_session")


@pytest.fixture(scope="module")
def wide(db_session):
    return db_session


def test_wide(wide):
    pass


@pytest.fixture(scope="module")
def reaching():
    with get_db_session() as session:
        return session.execute(text("SELECT 1")).scalar()


def test_reaching(reaching, db_session):
    pass


def test_age(make_patient):
    make_patient(age=200)


def test_role(make_user):
    make_user(role="Wizard")


def test_twice(make_user, make_doctor):
    make_user(of=make_doctor(user=True))


def test_kind(make_staff):
    make_staff("wizard")


def test_table(assert_only_changed):
    assert_only_changed(patient=1)


def test_counts(db_session, make_patient, assert_only_changed):
    patient = make_patient(first_name="Asha")
    with get_db_session() as session:
        session.execute(text("UPDATE parameter_settings SET param_value = '6' WHERE param_code = 'MAX_LOGIN_ATTEMPTS'"))
        session.execute(
            text(
                "DELETE FROM user_role_mapping WHERE user_id = (SELECT max(user_id) FROM users WHERE entity_type = 'patient')"
            )
        )
    assert_only_changed(patients=2)


def test_validity(db_database, assert_valid):
    db_database.connection.execute("DELETE FROM role_module_access WHERE role_id = 1")
    assert_valid()


def test_two_at_once(db_session):
    with get_db_session() as session:
        session.execute(text("SELECT 1"))

        def other():
            with get_db_session() as inner:
                inner.execute(text("DELETE FROM login_history"))
                started.set(), stop.wait(10)

        started, stop = threading.Event(), threading.Event()
        thread = threading.Thread(target=other)
        thread.start()
        started.wait(10)
        try:
            session.execute(text("DELETE FROM login_history"))
        finally:
            stop.set()
            thread.join()


def test_afterwards_all_is_well(db_session, assert_valid):
    assert patients() == 20
    assert_valid()
