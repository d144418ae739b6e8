"""What PostgreSQL itself lets end a transaction: PREPARE TRANSACTION, COMMIT AND CHAIN and procedures that commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from conftest import Project, throw_away_home
from service_app import service  # noqa: F401
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from skinspire_db.database_service import get_db_session
from skinspire_db.errors import SessionSpoiled
from skinspire_db.postgres.embedded_server import EmbeddedServer

PROCEDURE = """
    CREATE TABLE written (what text);
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO written VALUES ('by the procedure');
        COMMIT;
    END $$;
    CREATE PROCEDURE quiet() LANGUAGE plpgsql AS $$
    BEGIN
        CALL commits();
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END $$
"""
ENDS = ("COMMIT AND CHAIN", "COMMIT WORK AND CHAIN; SELECT 1", "PREPARE TRANSACTION 'mine'")


@pytest.fixture(scope="module")
def prepares(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose server has room for prepared transactions; its dev database is set up."""
    root = tmp_path_factory.mktemp("ends")
    (root / "pyproject.toml").write_text(
        '[tool.skinspire_db]\nmetadata = ["skinspire_db.clinic.models:Base"]\nmigrations = "migrations"\n'
        "[tool.skinspire_db.environments.dev]\nlock_timeout = 0.2\noperation_wait = 0.2\n"
    )
    (root / "migrations" / "versions").mkdir(parents=True)
    server = EmbeddedServer(throw_away_home(root))
    try:
        project = Project(root, server.start())
        project.execute("ALTER SYSTEM SET max_prepared_transactions = 5", "postgres")
        server.stop()
        project.address = server.start()
        project.env = {"DEV_DATABASE_URL": project.url("clinic"), "TEST_DATABASE_URL": project.url("test")}
        outcome = project.invoke("db.setup")
        assert outcome.code == 0, outcome.err
        project.execute(PROCEDURE, "clinic")
        yield project
    finally:
        server.destroy()


@pytest.fixture
def app(prepares: Project, service: Callable[[Project], Project]) -> Iterator[Project]:
    """The application's process is this one. Nothing prepared is left."""
    yield service(prepares)
    for (name,) in prepares.query("SELECT quote_literal(gid) FROM pg_prepared_xacts", "clinic"):
        with psycopg.connect(prepares.url("clinic"), autocommit=True) as connection:
            connection.execute(f"ROLLBACK PREPARED {name}".encode())
    prepares.execute("TRUNCATE written", "clinic")


def written(project: Project) -> list[Any]:
    return [what for (what,) in project.query("SELECT what FROM written ORDER BY 1", "clinic")]


def write(session: Any, what: str) -> None:
    session.execute(text("INSERT INTO written VALUES (:what)"), {"what": what})


SENT: dict[str, Callable[[Any, str], Any]] = {
    "the session": lambda session, sql: session.execute(text(sql)),
    "the driver": lambda session, sql: session.connection().connection.driver_connection.execute(sql),
}


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("sql", ENDS)
@pytest.mark.parametrize("after", ["nothing", "work", "an error"])
@pytest.mark.parametrize("inner", [False, True])
def test_a_unit_of_work_notices_its_end(app: Project, sent: str, sql: str, after: str, inner: bool) -> None:
    with pytest.raises(SessionSpoiled, match="was ended inside it"), get_db_session() as session:
        write(session, "before")
        if inner:
            with get_db_session() as same:
                SENT[sent](same, sql)
        else:
            SENT[sent](session, sql)
        if after == "work":
            write(session, "after")
        if after == "an error":
            raise ValueError
    assert "after" not in written(app)


@pytest.mark.parametrize("sent", SENT)
def test_a_procedure_that_commits_fails_in_a_unit_of_work(app: Project, sent: str) -> None:
    """PostgreSQL refuses it, and nothing is kept; where its author has caught that, nothing was committed either."""
    with pytest.raises((DBAPIError, psycopg.Error), match="invalid transaction termination"), get_db_session() as session:
        write(session, "before")
        SENT[sent](session, "CALL commits()")
    with pytest.raises(SessionSpoiled, match="a statement failed"), get_db_session() as session:
        write(session, "before")
        with pytest.raises((DBAPIError, psycopg.Error)):
            SENT[sent](session, "CALL commits()")
    assert written(app) == []
    with pytest.raises(ValueError), get_db_session() as session:
        write(session, "before")
        SENT[sent](session, "CALL quiet()")
        raise ValueError
    assert written(app) == []
    with pytest.raises(SessionSpoiled, match="was ended inside it"), get_db_session() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        SENT[sent](session, "CALL commits()")
    assert written(app) == ["by the procedure"], "outside of a transaction it commits, and that is noticed"


RAW = "raw = op.get_bind().connection.dbapi_connection; raw.execute('CREATE TABLE t1 (id int)'); "


@pytest.mark.parametrize(
    ("up", "said", "trace"),
    [
        (RAW + "op.execute('COMMIT AND CHAIN')", "it says COMMIT", False),
        (RAW + "op.execute(\"PREPARE TRANSACTION 'mine'\")", "it says PREPARE TRANSACTION", False),
        (RAW + "op.execute('CALL commits()')", "invalid transaction termination", False),
        (RAW + "raw.execute('COMMIT AND CHAIN')", "it ends the transaction", True),
        (RAW + "raw.execute(\"PREPARE TRANSACTION 'mine'\")", "it ends the transaction", True),
        (RAW + "raw.execute(\"PREPARE TRANSACTION 'mine'\"); raw.execute('SELECT 1')", "it ends the transaction", True),
        (RAW + "raw.execute(\"PREPARE TRANSACTION 'mine'\"); raise ValueError", "ValueError", True),
        (RAW + "raw.execute('CALL commits()')", "invalid transaction termination", False),
    ],
)
def test_a_revision_cannot_end_its_transaction(app: Project, up: str, said: str, trace: bool) -> None:
    file = app.root / "migrations" / "versions" / "ends.py"
    [(head,)] = app.query("SELECT version_num FROM alembic_version", "clinic")
    file.write_text(
        f"from alembic import op\nrevision = 'ends'\ndown_revision = {head!r}\nbranch_labels = None\ndepends_on = None\n"
        f"def upgrade():\n    {up}\ndef downgrade():\n    pass\n"
    )
    try:
        outcome = app.invoke("migrate.upgrade")
        assert outcome.code in (1, 2) and "committed" not in outcome.out, outcome
        assert said in outcome.err and ("may have left a trace" in outcome.err) == trace, outcome.err
        assert app.query("SELECT version_num FROM alembic_version", "clinic") == [(head,)]
        assert written(app) == []
    finally:
        file.unlink()
        app.execute("DROP TABLE IF EXISTS t1", "clinic") if "CHAIN" in up else None


def test_what_a_prepared_transaction_holds_is_said_with_its_name(app: Project) -> None:
    """It has no session, and is not in pg_stat_activity."""
    with psycopg.connect(app.url("clinic"), autocommit=True) as connection:
        connection.execute("BEGIN; LOCK TABLE hospitals; PREPARE TRANSACTION 'it''s mine'")
        outcome = app.invoke("db.reset")
        assert outcome.code == 1 and "prepared transaction 'it''s mine'" in outcome.err, outcome.err
        assert "ROLLBACK PREPARED" in outcome.err
        assert "ROLLBACK PREPARED 'it''s mine' ends it" in app.invoke("db.activity").out
        connection.execute("ROLLBACK PREPARED 'it''s mine'")
        connection.execute("BEGIN; SELECT pg_advisory_xact_lock(%s); PREPARE TRANSACTION 'held'" % lock_key())  # noqa: UP031
        outcome = app.invoke("db.reset")
        assert "prepared transaction 'held'" in outcome.err and "ROLLBACK PREPARED" in outcome.err, outcome.err


def test_a_prepared_transaction_keeps_its_database_from_being_replaced(app: Project) -> None:
    app.execute("CREATE DATABASE test", "postgres")
    outcome = app.invoke("db.setup", "--env=test", "--reference-only")
    assert outcome.code == 0, outcome.err
    with psycopg.connect(app.url("clinic"), autocommit=True) as connection:
        connection.execute("BEGIN; INSERT INTO written VALUES ('x'); PREPARE TRANSACTION 'held'")
    outcome = app.invoke("db.copy", "--source=test", "--target=dev", "--method=stream")
    assert outcome.code == 1 and "it has the prepared transaction 'held'" in outcome.err, outcome.err
    assert app.query("SELECT gid FROM pg_prepared_xacts", "clinic") == [("held",)]


def lock_key() -> int:
    from skinspire_db.lifecycle import lock

    return lock.KEY
