"""What hospitals cost: queries under a policy beside the same ones by hand, blocks, and policies onto many tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from skinspire_db.clinic.models import Patient
from skinspire_db.database_service import get_db_engine, get_db_session

from .bench_service import _here, _in_turns
from .harness import Bench, Figure, bench, medians

HOSPITALS, PATIENTS, TABLES, FEW = 500, 400_000, 2_000, 80
DATABASE = "skinspire_dev"
ROUNDS = 3_000
QUERIES = {
    "point": "SELECT * FROM patients WHERE hospital_id = %(hospital)s AND patient_id = %(patient)s",
    "list of 20": "SELECT * FROM patients WHERE hospital_id = %(hospital)s ORDER BY mrn LIMIT 20",
    "count of 800": "SELECT count(*) FROM patients WHERE hospital_id = %(hospital)s",
    "join": "SELECT p.*, b.name FROM patients p JOIN branches b ON b.hospital_id = p.hospital_id AND b.branch_id = p.branch_id"
    " WHERE p.hospital_id = %(hospital)s AND b.hospital_id = %(hospital)s AND p.patient_id = %(patient)s",
}
FILL = f"""
    SET session_replication_role = replica;
    INSERT INTO hospitals (hospital_id, name) SELECT md5('h' || n)::uuid, 'Clinic ' || n FROM generate_series(1, {HOSPITALS}) n;
    INSERT INTO branches (branch_id, hospital_id, name) SELECT hospital_id, hospital_id, 'Main' FROM hospitals WHERE name ~ '^Clinic';
    INSERT INTO patients (hospital_id, branch_id, mrn, first_name, personal_info, contact_info)
    SELECT h.hospital_id, h.hospital_id, 'M' || n, 'P' || n, '{{"gender": "F"}}', '{{}}'
    FROM generate_series(1, {PATIENTS // HOSPITALS}) n, hospitals h WHERE h.name ~ '^Clinic';
    ANALYZE
"""


def bench_tenancy() -> list[Figure]:
    """As the application's role, with the WHERE that the ORM adds, beside a superuser with the same WHERE and no policy."""
    with bench() as project:
        (project.root / "pyproject.toml").write_text("[tool.skinspire_db]\ntenancy = true\n")
        project.invoke("db.setup")
        with project.connect(DATABASE) as connection:
            connection.execute(FILL.encode())
            row = connection.execute("SELECT hospital_id, patient_id FROM patients WHERE mrn = 'M7' LIMIT 1").fetchone()
            assert row
        values = {"hospital": row[0], "patient": row[1]}
        figures = _queries(project, values)
        with _here(project):
            ours, bare = _in_turns(*_blocks(values))
        block = "a `get_db_session(hospital=...)` block with one query"
        figures.append(
            Figure(block, ours * 1000, "the bare `sessionmaker`'s, same settings and WHERE", bare * 1000, 1.15, "ms")
        )
    return figures


def bench_many_tables() -> list[Figure]:
    """Whole processes: a verification of a database of 80 tables, and policies onto tables that have none."""
    with bench() as project:
        (project.root / "pyproject.toml").write_text("[tool.skinspire_db]\ntenancy = true\n")
        project.invoke("db.setup")
        return _many_tables(project)


def _queries(project: Bench, values: dict[str, Any]) -> list[Figure]:
    with project.connect(DATABASE) as limited, project.connect(DATABASE) as free:
        limited.execute(f"SET app.current_hospital = '{values['hospital']}'; SET ROLE {DATABASE}_app".encode())
        figures = []
        for name, query in QUERIES.items():
            ours, peer = _in_turns_of(lambda: _fetch(limited, query, values), lambda: _fetch(free, query, values))  # noqa: B023
            figures.append(
                Figure(f"{name}, {PATIENTS:,} patients", ours * 1e6, "the WHERE by hand, no policy", peer * 1e6, 1.1, "us")
            )
    return figures


def _fetch(connection: psycopg.Connection[Any], query: str, values: dict[str, Any]) -> None:
    connection.execute(query.encode(), values, prepare=True).fetchall()


def _in_turns_of(*measured: Callable[[], None]) -> list[float]:
    """The best of many short calls: what else the machine does only adds to them."""
    times: list[list[float]] = [[] for _ in measured]
    for _ in range(ROUNDS):
        for work, taken in zip(measured, times, strict=True):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
    return [min(taken) for taken in times]


def _blocks(values: dict[str, Any]) -> tuple[Callable[[], None], Callable[[], None]]:
    session_of = sessionmaker(get_db_engine("dev"), expire_on_commit=False)
    settings = text(
        "SELECT set_config('role', :role, true), set_config('app.current_user', :user, true),"
        " set_config('app.current_hospital', :hospital, true)"
    )
    given = {"role": f"{DATABASE}_app", "user": "me", "hospital": str(values["hospital"])}
    patient = select(Patient).where(Patient.patient_id == values["patient"])

    def read(session: Session, statement: Any) -> None:
        session.scalars(statement).one()

    def ours() -> None:
        with get_db_session("dev", user="me", hospital=values["hospital"]) as session:
            read(session, patient)

    def bare() -> None:
        with session_of() as session, session.begin():
            session.execute(settings, given)
            read(session, patient.where(Patient.hospital_id == values["hospital"]))

    return ours, bare


def _many_tables(project: Bench) -> list[Figure]:
    add = "CREATE TABLE extra_{0} (id int, hospital_id uuid NOT NULL REFERENCES hospitals, PRIMARY KEY (hospital_id, id));"
    with project.connect(DATABASE) as connection:
        connection.execute("".join(add.format(number) for number in range(FEW - 12)).encode())
        project.invoke("sql.install")
        [verified] = medians(lambda: project.invoke("db.verify"), rounds=5)
        for begin in range(FEW, TABLES, 200):
            connection.execute("".join(add.format(number) for number in range(begin, begin + 200)).encode())
        installed = project.invoke("sql.install")
    return [
        Figure(f"policies onto {TABLES:,} more tables, `sql.install`", installed, "a fixed five seconds", 5, 1),
        Figure(f"`db.verify` of {FEW} tables", verified, "a fixed second", 1, 1),
    ]
