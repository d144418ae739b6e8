"""Blocks for one hospital: which rows they see, how they name the hospital, and what is refused."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import pytest
from conftest import Project
from service_app import service  # noqa: F401
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import aliased, joinedload, selectinload
from tenant_app import CLOSED, A, B, app, hospitals_of, seen, tenants  # noqa: F401

from skinspire_db.clinic.models import Branch, Hospital, ParameterSetting, Patient, RoleMaster
from skinspire_db.config.tenancy import application_role, system_role
from skinspire_db.database_service import (
    ALL_HOSPITALS,
    close_db_connections,
    get_db_engine,
    get_db_session,
    set_current_hospital,
)
from skinspire_db.errors import HospitalNotSet, HospitalRefused, PermissionMissing, SessionSpoiled, UsageError

IDENTITY = text("SELECT current_user, current_setting('app.current_user'), current_setting('app.current_hospital')")


def test_a_block_is_one_hospitals(app: Project) -> None:
    """In each of its transactions: after a commit, a rollback, and a COMMIT that the application sends."""
    role = application_role(app.database)
    with pytest.raises(SessionSpoiled), get_db_session(user="9876543210", hospital=A) as session:
        for end in (lambda: None, session.rollback, lambda: session.execute(text("COMMIT"))):
            end()
            assert session.execute(IDENTITY).one() == (role, "9876543210", str(A))
            assert hospitals_of(session) == {A}
        session.rollback()
    with pytest.warns(UserWarning, match="not needed"), get_db_session(hospital=str(B).upper()) as session:
        session.commit()
        assert hospitals_of(session) == {B}
        session.execute(insert(Patient), [{"hospital_id": B, "first_name": "new", "personal_info": {}, "contact_info": {}}])
        session.rollback()
    with get_db_session(hospital=B) as session:  # many rows go through psycopg's pipeline, which begins the transaction
        rows = [{"hospital_id": B, "name": f"t:{n}", "settings": None} for n in range(3)]
        session.connection().exec_driver_sql(
            "INSERT INTO branches (hospital_id, name) VALUES (%(hospital_id)s, %(name)s)", rows
        )
        assert session.execute(IDENTITY).one().current_user == role
        session.rollback()
    with get_db_session(hospital=A, read_only=True) as session:
        assert hospitals_of(session) == {A}
        with pytest.raises(Exception, match="read-only"):
            session.execute(update(Patient).values(first_name="x"))
        session.rollback()
    with pytest.raises(ProgrammingError, match="permission denied"), get_db_engine().connect() as connection:
        connection.execute(text("SELECT FROM patients"))  # nothing is left of the block that had the connection before


def test_no_hospital_is_an_error_before_any_sql(app: Project) -> None:
    """No connection is opened."""
    cases: list[tuple[Any, type[Exception], str]] = [
        (None, HospitalNotSet, "no hospital is set -> call set_current_hospital"),
        ("garbage", HospitalRefused, "'garbage' is no hospital: it is no UUID"),
        ("", HospitalRefused, "'' is no hospital"),
        (7, HospitalRefused, "7 is no hospital"),
        (f"{A}' OR true --", HospitalRefused, "is no UUID"),
    ]
    for hospital, error, words in cases:
        with pytest.raises(error, match=words), get_db_session(hospital=hospital):
            pytest.fail("the block began")
    for hospital, reason in ((ALL_HOSPITALS, None), (ALL_HOSPITALS, " "), (A, "because"), (None, "because")):
        with pytest.raises(UsageError, match="a reason go together"), get_db_session(hospital=hospital, reason=reason):
            pytest.fail("the block began")
    assert "Connections in pool: 0" in get_db_engine().pool.status()


def test_what_has_no_transaction_or_no_role_is_refused(app: Project) -> None:
    with pytest.raises(UsageError, match="would be no hospital's"), get_db_session(hospital=A) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    role, login = application_role(app.database), f"{app.database}_login"
    app.execute(f"REVOKE {role} FROM {login}; REVOKE INSERT ON skinspire_tools.journal FROM {system_role(app.database)}")
    close_db_connections()
    try:
        words = f"cannot take the role {role} -> invoke db.doctor"
        with pytest.raises(PermissionMissing, match=words), get_db_session(hospital=A) as session:
            session.execute(text("SELECT 1"))
        with pytest.raises(PermissionMissing, match=r"may not write the reason into the journal -> invoke sql.install"):
            get_db_session(hospital=ALL_HOSPITALS, reason="a test").__enter__()
    finally:
        app.execute(f"GRANT {role} TO {login}")
        assert app.invoke("sql.install").code == 0


def test_a_hospital_that_is_not_there_or_not_active(app: Project) -> None:
    for hospital, words in ((uuid.uuid4(), "does not exist"), (CLOSED, "is not active")):
        with (
            pytest.raises(HospitalRefused, match=f"hospital {hospital} {words}"),
            get_db_session(hospital=hospital) as session,
        ):
            session.scalars(select(Patient)).all()
            pytest.fail("the statement ran")


def test_over_all_hospitals_with_a_reason(app: Project) -> None:
    """The journal has the reason, also where the block wrote nothing and where it failed."""
    with get_db_session(user="job", hospital=ALL_HOSPITALS, reason="monthly figures", read_only=True) as session:
        assert {A, B, CLOSED} <= hospitals_of(session)
        assert session.execute(IDENTITY).one() == (system_role(app.database), "job", "")
        with get_db_session() as inner:
            assert inner is session
        assert session.scalar(select(func.count()).select_from(Patient)) == session.scalar(
            text("SELECT count(*) FROM patients")
        )
    with pytest.raises(ZeroDivisionError), get_db_session(hospital=ALL_HOSPITALS, reason="a job that fails"):
        _ = 1 / 0
    found = app.query(
        "SELECT db_role, environment, steps -> 0 -> 'summary' ->> 'reason', steps -> 0 -> 'summary' ->> 'user' FROM"
        " skinspire_tools.journal WHERE operation = 'service.all_hospitals' ORDER BY started_at"
    )
    login = f"{app.database}_login"
    assert found == [(login, "dev", "monthly figures", "job"), (login, "dev", "a job that fails", "")]


def test_blocks_inside_blocks(app: Project) -> None:
    """They have the outer one's hospital; every other one is refused, and the outer block goes on."""
    everything: dict[str, Any] = {"hospital": ALL_HOSPITALS, "reason": "a test"}
    with get_db_session(hospital=A, user="one") as session:
        with get_db_session() as inner, get_db_session(hospital=A, user="two"):
            assert inner is session and hospitals_of(session) == {A}
            assert session.execute(IDENTITY).one()[1:] == ("two", str(A))
        refused: list[tuple[dict[str, Any], str]] = [({"hospital": B}, str(B)), (everything, "all hospitals")]
        for wanted, words in refused:
            with pytest.raises(HospitalRefused, match=f"a block for {words} cannot begin inside a block for {A}"):
                get_db_session(**wanted).__enter__()
        with pytest.raises(HospitalRefused, match="cannot begin inside"):
            set_current_hospital(B)
        with pytest.raises(HospitalRefused, match="no UUID"):
            get_db_session(hospital="x").__enter__()
        assert hospitals_of(session) == {A}
        session.add(Branch(hospital_id=A, name="kept"))
    assert app.query("DELETE FROM branches WHERE name = 'kept' RETURNING created_by") == [("one",)]
    with get_db_session(**everything), pytest.raises(HospitalRefused, match="cannot begin inside a block for all hospitals"):
        get_db_session(hospital=A).__enter__()


def test_the_current_hospital(app: Project) -> None:
    """One call for a thread or task; inside a task it is inherited, a new thread has none."""
    seen: list[Any] = []

    def look() -> None:
        try:
            with get_db_session() as session:
                seen.append(hospitals_of(session))
        except HospitalNotSet:
            seen.append(None)

    async def tasks() -> None:
        async def task(hospital: object) -> None:
            set_current_hospital(hospital)
            await asyncio.sleep(0)
            look()

        await asyncio.gather(task(B), task(A))
        await asyncio.to_thread(look)
        look()

    set_current_hospital(A)
    try:
        with set_current_hospital(B):
            look()
        look()
        with get_db_session(hospital=B) as session:
            assert hospitals_of(session) == {B}, "a block says otherwise"
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        asyncio.run(tasks())
    finally:
        set_current_hospital(None)
    look()
    assert seen == [{B}, {A}, None, {B}, {A}, {A}, {A}, None]
    with pytest.raises(UsageError, match="would give no reason"):
        set_current_hospital(ALL_HOSPITALS)
    with pytest.raises(HospitalRefused):
        set_current_hospital("x")


def test_flask_ends_it_with_the_request(app: Project) -> None:
    """Flask's threads serve request after request in one context."""
    from flask import Flask

    flask = Flask("clinic")

    @flask.get("/<hospital>")
    def page(hospital: str) -> str:
        if hospital != "none":
            set_current_hospital(hospital)
        with get_db_session() as session:
            return str(hospitals_of(session) == {uuid.UUID(hospital)})

    client = flask.test_client()
    assert client.get(f"/{A}").text == "True"
    with pytest.raises(HospitalNotSet):
        get_db_session().__enter__()
    flask.testing = True
    with pytest.raises(HospitalNotSet):
        client.get("/none")


def test_the_orm_names_the_hospital_itself(app: Project) -> None:
    """In every SELECT, UPDATE and DELETE of a mapped class, so that the index and, on a distributed server, the shard is found."""
    other = aliased(Patient)
    statements: list[Any] = [
        select(Patient),
        select(func.count()).select_from(Patient),
        select(Branch.name).join(Patient, Patient.branch_id == Branch.branch_id),
        select(Hospital.name),
        select(Patient.mrn).join(other, other.mrn == Patient.mrn),
        select(Branch).where(Branch.branch_id.in_(select(Patient.branch_id))),
        update(Patient).values(title="Dr"),
        delete(Patient).where(Patient.mrn == "M1"),
    ]
    with get_db_session(hospital=A) as session, seen(session) as sent:
        for statement in statements:
            session.execute(statement)
        assert (
            sent[2].count("hospital_id = ") == 2
            and sent[4].count("hospital_id = ") == 2
            and sent[5].count("hospital_id = ") == 2
        )
        assert sent[6].count("hospital_id = ") == sent[7].count("hospital_id = ") == 1
        sent.clear()
        [branch] = session.scalars(select(Branch).options(joinedload(Branch.hospital))).all()
        session.expire(branch)
        assert branch.name and branch.hospital.branches == [branch]
        session.scalars(select(Hospital).options(selectinload(Hospital.branches))).all()
        assert len(sent) >= 4 and all("hospital_id = " in sql for sql in sent)
        roles = session.scalars(select(RoleMaster)).all()
        assert roles and {role.hospital_id for role in roles} <= {A, None}, "rows of the whole system stay readable"
        assert session.scalars(select(ParameterSetting)).first() is not None, "a table without hospitals has no such WHERE"
        key = session.scalar(select(Patient.patient_id))
        others: list[Any] = [
            select(Patient.hospital_id).union(select(Branch.hospital_id)),
            select(Patient).from_statement(text("SELECT * FROM patients")),
            select(select(Patient.hospital_id).cte("c").c.hospital_id),
        ]
        for statement in others:
            assert {getattr(row, "hospital_id", row) for row in session.scalars(statement)} == {A}
        assert session.query(Patient).count() == session.query(Patient).update({"title": "Mr"}) == 2
        assert session.get(Patient, key) is not None and session.query(Patient).filter_by(patient_id=key).one().title == "Mr"
        session.execute(
            update(Patient), [{"patient_id": key, "title": "Ms"} for key in session.scalars(select(Patient.patient_id))]
        )
        session.rollback()
    with get_db_session(hospital=ALL_HOSPITALS, reason="a test") as session, seen(session) as sent:
        session.scalars(select(Patient)).all()
        assert "WHERE" not in sent[0]
