"""Hospitals side by side: on few connections, with a server that restarts, and in whatever queries an application sends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, throw_away_home
from service_app import POOL, service  # noqa: F401
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from tenant_app import A, B, app, hospitals_of, prepare, tenants  # noqa: F401

from skinspire_db.clinic.models import Patient, User
from skinspire_db.database_service import close_db_connections, get_db_engine, get_db_session, set_current_hospital
from skinspire_db.errors import SkinspireError
from skinspire_db.postgres.embedded_server import EmbeddedServer


@pytest.fixture
def own_server(
    tmp_path: Path,
    project: Project,
    service: Callable[[Project], Project],
) -> Iterator[tuple[Project, EmbeddedServer]]:
    """A clinic with hospitals on a server of its own, which may be killed."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=True)
    try:
        project.address = server.start()
        (project.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\ntenancy = true\n{POOL}connect_retry = 30\n")
        prepare(project, "app")
        yield service(project), server
    finally:
        close_db_connections()
        project.env = {}
        server.destroy()


@pytest.mark.slow
def test_threads_and_tasks_on_a_pool_of_five(own_server: tuple[Project, EmbeddedServer]) -> None:
    """50 threads, then 100 tasks, for one of two hospitals each, while the server is killed and comes back."""
    project, server = own_server
    lock, done, foreign = threading.Lock(), {A: 0, B: 0}, list[Any]()

    def look(session: Session, hospital: uuid.UUID) -> None:
        seen = hospitals_of(session) | {patient.hospital_id for patient in session.scalars(select(Patient))}
        session.add(Patient(hospital_id=hospital, first_name=f"of {hospital}", personal_info={}, contact_info={}))
        with lock:
            done[hospital] += 1
            foreign.extend(seen - {hospital})

    def thread(number: int) -> None:
        for turn in range(6):
            hospital = (A, B)[(number + turn) % 2]
            try:
                with set_current_hospital(hospital), get_db_session() as session:
                    look(session, hospital)
            except (DBAPIError, SkinspireError):  # of the server that was killed
                time.sleep(0.05)

    async def task(number: int) -> None:
        for turn in range(3):
            hospital = (A, B)[(number + turn) % 2]
            try:
                async with get_db_session(hospital=hospital) as session:
                    await asyncio.sleep(0)
                    look(session, hospital)
                    await asyncio.sleep(0)
            except (DBAPIError, SkinspireError):
                await asyncio.sleep(0.05)

    async def tasks() -> None:
        await asyncio.gather(*(task(number) for number in range(100)))

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(50)]
    for work in (threads, [threading.Thread(target=asyncio.run, args=(tasks(),))]):
        before = sum(done.values())
        for each in work:
            each.start()
        deadline = time.monotonic() + 60
        while sum(done.values()) < before + 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        pid = server.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        server.start()
        for each in work:
            each.join(120)
            assert not each.is_alive()
    assert foreign == [] and min(done.values()) > 100, done
    assert project.query(
        "SELECT count(*) FROM patients WHERE first_name LIKE 'of %' AND first_name <> 'of ' || hospital_id", "app"
    ) == [(0,)]


TABLES = ("patients", "branches", "hospitals", "users", "role_master", "login_history", "named", "nested")


@pytest.mark.slow
def test_queries_of_every_kind_see_one_hospital(app: Project) -> None:
    """Joins, subqueries, functions and views of two layers, on one connection in turn, prepared ones too."""
    app.execute(
        "CREATE VIEW named WITH (security_invoker = true) AS SELECT * FROM patients;"
        "CREATE VIEW nested WITH (security_invoker = true) AS SELECT named.* FROM named JOIN branches USING (hospital_id, branch_id);"
        "CREATE FUNCTION hospitals_seen() RETURNS SETOF uuid LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN QUERY EXECUTE 'SELECT hospital_id FROM patients UNION ALL SELECT hospital_id FROM users'; END $$;"
        f"GRANT SELECT ON named, nested TO {app.database}_app"
    )
    choose = random.Random(1)
    forms = (
        "SELECT {a}.hospital_id FROM {a} {join} JOIN {b} AS b ON {on}",
        "SELECT unnest(array_agg(x.hospital_id)) FROM (SELECT * FROM {a} LIMIT 50) x WHERE EXISTS (SELECT FROM {b} WHERE {b2})",
        "WITH w AS MATERIALIZED (SELECT hospital_id FROM {a} UNION SELECT hospital_id FROM {b}) SELECT * FROM w",
        "SELECT coalesce(x.hospital_id, l.hospital_id) FROM {a} x LEFT JOIN LATERAL (SELECT * FROM {b} LIMIT 3) l ON true",
        "SELECT hospitals_seen() FROM {a}",
        "SELECT (to_jsonb({a}) ->> 'hospital_id')::uuid FROM {a} ORDER BY random()",
        "SELECT DISTINCT max(hospital_id::text) OVER ()::uuid FROM {a} WHERE hospital_id::text LIKE '%{digit}%'",
    )
    for _ in range(60):
        a, b = choose.sample(TABLES, 2)
        join = choose.choice(("LEFT", "RIGHT", "FULL", ""))
        query = text(choose.choice(forms).format(
            a=a, b=b, join=join, on=f"b.hospital_id = {a}.hospital_id", b2="true", digit=choose.randrange(10),
        ))  # fmt: skip
        for hospital in (A, B):
            with get_db_session(hospital=hospital) as session:
                assert set(session.scalars(query)) <= {hospital, None}, query
    for turn in range(12):  # psycopg prepares the statement at the fifth time, PostgreSQL makes a general plan of it
        hospital = (A, B)[turn % 2]
        with get_db_session(hospital=hospital) as session:
            assert hospitals_of(session) == {hospital}
    assert "Connections in pool: 1" in get_db_engine().pool.status(), "all on one connection"


@pytest.mark.slow
def test_errors_tell_nothing_of_other_hospitals(app: Project) -> None:
    """What is another hospital's and what does not exist make the same error, in each column that refers to a row."""
    keys = app.query(
        "SELECT k.conrelid::regclass::text, k.confrelid::regclass::text, a.attname, f.attname"
        " FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[cardinality(k.conkey)]"
        " JOIN pg_attribute f ON f.attrelid = k.confrelid AND f.attnum = k.confkey[cardinality(k.confkey)]"
        " WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND cardinality(k.conkey) = 2 ORDER BY 1, 3"
    )
    assert {"patients", "staff", "login_history"} <= {key[0] for key in keys}
    checked, told = set(), set()
    for table, other, column, key in keys:
        [theirs] = app.query(f"SELECT {key} FROM {other} WHERE hospital_id = '{B}' LIMIT 1") or [(None,)]
        if theirs[0] is not None and app.query(f"SELECT FROM {table} WHERE hospital_id = '{A}'"):
            absent = uuid.uuid4() if isinstance(theirs[0], uuid.UUID) else "0000000000"
            errors = [refused(table, column, value) for value in (theirs[0], absent)]
            checked.add((table, column))
            if errors[0] != errors[1]:
                told.add((table, column, *errors))
    assert {("patients", "branch_id"), ("user_sessions", "user_id"), ("login_history", "session_id")} <= checked
    # Rows of the whole system need a foreign key by the session alone too; a session's key is random, and cannot be guessed.
    assert {each[:2] for each in told} <= {("login_history", "session_id")}, "another hospital's row is told from none"
    with pytest.raises(IntegrityError) as caught, get_db_session(hospital=A) as session:
        session.add(User(user_id="9000000001", hospital_id=A, entity_type="patient", entity_id=uuid.uuid4()))
    assert "9000000001" not in str(caught.value.orig), "a user's key is the phone number, one for all hospitals"


def refused(table: str, column: str, value: Any) -> str:
    with pytest.raises(DBAPIError) as caught, get_db_session(hospital=A) as session:
        session.execute(text(f"UPDATE {table} SET {column} = :value"), {"value": value})
    return str(caught.value.orig).replace(str(value), "?")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_replica_and_a_forked_process(
    app: Project, service: Callable[[Project], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only reads is the hospital's on the replica too; a child has the current hospital, and connections of its own."""
    primary = app.env["DEV_ADMIN_URL"].rpartition("/")[2]
    replica = f"{primary}_replica"
    app.execute(f"CREATE DATABASE {replica} TEMPLATE {primary}", "postgres")
    try:
        login = {"user": f"{primary}_login", "password": primary}
        monkeypatch.setitem(app.env, "DEV_REPLICA_URL", app.url(replica, **login))
        service(app)
        with set_current_hospital(A):
            with get_db_session(read_only=True) as session:
                assert session.scalar(text("SELECT current_database()")) == replica and hospitals_of(session) == {A}
            with get_db_session() as session:
                assert session.scalar(text("SELECT current_database()")) == primary and hospitals_of(session) == {A}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, as servers do
                    child = os.fork()
                if child == 0:
                    with get_db_session() as own:
                        os._exit(0 if hospitals_of(own) == {A} else 1)
                assert os.waitpid(child, 0)[1] == 0 and hospitals_of(session) == {A}
    finally:
        close_db_connections()
        app.execute(f"DROP DATABASE {replica} WITH (FORCE)", "postgres")
