"""What a block must not lose in silence: errors that were caught, and transactions that were ended inside it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from conftest import Project
from service_app import Oops, add, app, checked_out, names, service  # noqa: F401
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, SQLAlchemyError

from skinspire_db.clinic.models import Hospital, User
from skinspire_db.database_service import (
    close_db_connections,
    get_db_engine,
    get_db_session,
    get_detached_copy,
    use_nested_transactions,
)
from skinspire_db.errors import SessionSpoiled


def test_an_error_that_was_caught_is_not_a_success(app: Project) -> None:
    """PostgreSQL answers the COMMIT of a failed transaction with a rollback, and no error."""
    with pytest.raises(SessionSpoiled, match="a statement failed"), get_db_session() as session:
        add(session, "a")
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1 / 0"))
    with pytest.raises(SessionSpoiled), get_db_session() as session:
        add(session, "b")
        with get_db_session() as inner, pytest.raises(DBAPIError):
            inner.execute(text("SELECT 1 / 0"))
    assert names(app) == []
    with get_db_session(user="me") as session:
        add(session, "c")
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(text("SELECT 1 / 0"))
        assert session.scalar(text("SELECT current_setting('app.current_user')")) == "me"
    assert names(app) == ["t:c"], "in a savepoint it may fail"


@pytest.mark.filterwarnings("ignore:session.commit")
def test_commit_after_an_inner_failure_commits_nothing(app: Project) -> None:
    with pytest.raises(SessionSpoiled), get_db_session() as session:
        with pytest.raises(Oops), get_db_session() as inner:
            add(inner, "half")
            raise Oops
        session.commit()
    assert names(app) == []
    with get_db_session() as session:
        with pytest.raises(Oops), get_db_session() as inner:
            add(inner, "half")
            raise Oops
        session.rollback()
        add(session, "fresh")
    assert names(app) == ["t:fresh"]


def raw(session: Any) -> Any:
    """The psycopg connection under a session."""
    return session.connection().connection.driver_connection


def in_a_pipeline(session: Any) -> None:
    with raw(session).pipeline():
        raw(session).execute("SELECT 1")
        raw(session).execute("COMMIT AND CHAIN")


ENDINGS: dict[str, Callable[[Any], Any]] = {
    **{
        sql: partial(lambda sql, session: session.execute(text(sql)), sql)
        for sql in (
            "ROLLBACK", "COMMIT", "ABORT", "END", "rollback work", "/* it is \n late */ COMMIT -- now", "END TRANSACTION;",
            "COMMIT AND CHAIN", "ROLLBACK AND /* a */ CHAIN", "COMMIT; BEGIN", "ROLLBACK; BEGIN; SELECT 1",
            "SELECT 1; COMMIT; SELECT 2", "SELECT 1; ROLLBACK; START TRANSACTION",
        )
    },
    "the driver's commit": lambda session: raw(session).commit(),
    "the driver's rollback": lambda session: raw(session).rollback(),
    "the pool's commit": lambda session: session.connection().connection.commit(),
    "exec_driver_sql": lambda session: session.connection().exec_driver_sql("COMMIT AND CHAIN"),
    "a raw cursor": lambda session: raw(session).cursor().execute("ROLLBACK AND CHAIN"),
    "a client cursor": lambda session: psycopg.ClientCursor(raw(session)).execute("COMMIT"),
    "libpq": lambda session: raw(session).pgconn.exec_(b"COMMIT"),
    "SQLAlchemy's connection": lambda session: session.connection().commit(),
    "its transaction": lambda session: session.connection().get_transaction().rollback(),
    "a pipeline": in_a_pipeline,
}  # fmt: skip


@pytest.mark.parametrize(
    "nested", ["inner", *(pytest.param(each, marks=pytest.mark.slow) for each in ("outermost", "savepoint"))]
)
def test_a_transaction_that_is_ended_inside_its_block_is_noticed(app: Project, nested: str) -> None:
    """Rows would vanish, or stay after an exception, without an error."""
    use_nested_transactions(nested == "savepoint")
    unnoticed = []
    for (how, end), after in itertools.product(ENDINGS.items(), ("nothing", "work", "an error")):
        try:
            with get_db_session() as session:
                add(session, "before")
                with contextlib.suppress(SQLAlchemyError), contextlib.ExitStack() as inner:
                    if nested != "outermost":
                        inner.enter_context(get_db_session())
                    end(session)
                if after == "work":
                    add(session, "work after")
                if after == "an error":
                    raise ValueError("as it was")
            unnoticed.append((how, after))
        except SessionSpoiled as spoiled:
            assert "was ended inside it; what it had done may have left a trace" in str(spoiled)
            assert after != "an error" or spoiled.__context__ is not None
        assert "t:work after" not in names(app)
    assert not unnoticed
    with get_db_session() as session:
        add(session, "z")
    assert names(app)[-1] == "t:z"


def test_what_cannot_be_held_back_is_logged(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C goes on its way."""
    with pytest.raises(KeyboardInterrupt), get_db_session() as session:
        add(session, "a")
        session.execute(text("COMMIT"))
        raise KeyboardInterrupt
    assert names(app) == ["t:a"]
    assert "was ended inside it" in caplog.text


def test_statements_outside_of_a_transaction_are_noticed(app: Project) -> None:
    with pytest.raises(SessionSpoiled, match="was ended inside it"), get_db_session() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        add(session, "a")
        raise ValueError
    with pytest.raises(SessionSpoiled, match="was ended inside it"), get_db_session() as session:
        raw(session).autocommit = True
        add(session, "b")


def test_statements_that_do_not_end_the_transaction_are_allowed(app: Project) -> None:
    """Savepoints, also by hand; a BEGIN too many; blocks and procedures that PostgreSQL does not let commit; another connection."""
    with get_db_session() as session:
        add(session, "a")
        session.execute(text("SAVEPOINT mine"))
        add(session, "undone")
        session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        session.execute(text("SELECT 1; SAVEPOINT b; ROLLBACK TO b; RELEASE b"))
        session.execute(text("BEGIN"))
        for sql in ("DO $$ BEGIN COMMIT; END $$", "DO $$ BEGIN ROLLBACK AND CHAIN; END $$"):
            with pytest.raises(DBAPIError, match="invalid transaction termination"), session.begin_nested():
                session.execute(text(sql))
        with raw(session).transaction(), pytest.raises(ZeroDivisionError), raw(session).transaction():
            raise ZeroDivisionError
        with get_db_engine().connect() as other:
            other.execute(text("COMMIT"))
        session.scalars(select(Hospital).execution_options(yield_per=1)).all()
    assert names(app) == ["t:a"]


@pytest.mark.parametrize("verb", ["close", "reset", "invalidate"])
def test_a_session_that_is_closed_inside_its_block(app: Project, verb: str) -> None:
    with pytest.raises(SessionSpoiled, match=f"session.{verb}"), get_db_session() as session:
        add(session, "a")
        with get_db_session() as inner:
            getattr(inner, verb)()
        add(session, "b")
    assert names(app) == [] and checked_out() == 0


def test_a_session_after_its_block(app: Project) -> None:
    with get_db_session() as session:
        add(session, "a")
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        add(session, "b")
    assert checked_out() == 0


def test_rollback_in_an_inner_block_keeps_its_user(app: Project) -> None:
    with get_db_session(user="one") as session:
        add(session, "1")
        with get_db_session(user="two") as inner:
            kept = inner.begin_nested()
        kept.rollback()
        add(session, "1b")
        use_nested_transactions(True)
        with get_db_session(user="two") as inner:
            inner.rollback()
            add(inner, "2")
        with pytest.raises(Oops), get_db_session(user="three"):
            raise Oops
        add(session, "1c")
    found = app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")
    assert found == [("t:1", "one"), ("t:1b", "one"), ("t:1c", "one"), ("t:2", "two")]


def test_begin_in_an_inner_block_commits_nothing(app: Project) -> None:
    with pytest.raises(Oops), get_db_session():
        with get_db_session() as inner, inner.begin():
            add(inner, "a")
        raise Oops
    assert names(app) == []


def test_close_db_connections_inside_a_block(app: Project) -> None:
    with pytest.raises(Oops), get_db_session() as session:
        add(session, "a")
        close_db_connections()
        with get_db_session() as inner:
            assert inner is session
            add(inner, "b")
        raise Oops
    assert names(app) == []


def test_a_generator_that_takes_others_work_along_says_so(app: Project, caplog: pytest.LogCaptureFixture) -> None:
    def stream() -> Iterator[int]:
        with get_db_session():
            yield 1

    for _ in stream():
        with get_db_session() as session:
            add(session, "a")
        break
    gc.collect()
    assert names(app) == [] and f"opened at {__file__}" in caplog.text and "1 blocks that had joined it" in caplog.text


def test_no_error_text_holds_what_was_written(app: Project) -> None:
    with pytest.raises(IntegrityError) as caught, get_db_session() as session:
        session.add(User(user_id="x", entity_type="robot", entity_id=uuid.uuid4(), password_hash="Geheim 123"))
    assert "Geheim" not in str(caught.value) and "[SQL parameters hidden" in str(caught.value)


def test_what_the_triggers_wrote_is_in_the_object(app: Project) -> None:
    with get_db_session(user="one") as session:
        hospital = Hospital(name="t:a")
        session.add(hospital)
        session.flush()
        assert (hospital.created_by, hospital.updated_by) == ("one", "one")
    with get_db_session(user="two") as session:
        session.add(hospital)
        hospital.timezone = "UTC"
        session.flush()
        copy = get_detached_copy(hospital, include=())
    assert (copy.created_by, copy.updated_by, hospital.updated_by) == ("one", "two", "two")
