"""Tests that try to reach the next test, or another database."""

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
        for statement in (
            "/* c */ INSERT INTO login_history SELECT",
            "WITH x AS (DELETE FROM login_history) SELECT 1",
            "DO $$BEGIN END$$",
        ):
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


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")]
)
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
    return subprocess.run(
        [sys.executable, "-c", "from application import *; " + code],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(__file__),
    )


def test_a_process_of_a_test_without_a_database():
    assert "in a test run the database is reached only" in run("print(patients())").stderr


def test_a_process_that_asks_for_dev(db_database):
    assert "stands for test, and dev was asked for" in run("get_db_engine('dev')").stderr
    assert run("print(patients())").stdout == "20\n"
