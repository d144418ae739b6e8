"""What the tests of hospitals at the application's door share: a clinic with two hospitals, its roles and policies."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from secrets import token_hex

import pytest
from conftest import Project
from service_app import POOL, service  # noqa: F401
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from skinspire_db.config.tenancy import application_role, system_role
from skinspire_db.postgres.cluster import Address

A, B, CLOSED = (uuid.UUID(int=number, version=4) for number in (10, 11, 12))


@pytest.fixture(scope="module")
def tenants(server: Address, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with tenancy whose application signs in with a login that has no rights of its own."""
    root = tmp_path_factory.mktemp("tenants")
    (root / "pyproject.toml").write_text("[tool.skinspire_db]\ntenancy = true\n" + POOL)
    project, database = Project(root, server), f"tenants_{token_hex(4)}"
    prepare(project, database, f"TEMPLATE {template} STRATEGY FILE_COPY")
    yield project
    project.execute(f"DROP DATABASE {database} WITH (FORCE)", "postgres")
    roles = ", ".join((application_role(database), system_role(database), f"{database}_login"))
    project.execute(f"DROP ROLE {roles}", "postgres")
    shutil.rmtree(root)


def prepare(project: Project, database: str, how: str = "") -> None:
    """A database with the core, the rows of rows(), the policies, and a login of the application's without rights of its own."""
    project.env = {"DEV_DATABASE_URL": project.url(database, user=f"{database}_login", password=database)}
    project.env["DEV_ADMIN_URL"] = project.url(database)
    project.execute(f"CREATE ROLE {database}_login LOGIN NOINHERIT PASSWORD '{database}'", "postgres")
    if how:
        project.execute(f"CREATE DATABASE {database} {how}", "postgres")
    made = project.invoke("sql.install" if how else "db.setup")
    assert made.code == 0, made.err
    project.execute(";".join(rows()))


def rows() -> Iterator[str]:
    """Three hospitals, the last of them not active; in each of the others three patients, and users."""
    for number, hospital in enumerate((A, B, CLOSED)):
        active = hospital != CLOSED
        yield f"INSERT INTO hospitals (hospital_id, name, is_active) VALUES ('{hospital}', 't:{number}', {active})"
        yield f"INSERT INTO branches (branch_id, hospital_id, name) VALUES ('{hospital}', '{hospital}', 'Branch {number}')"
        yield (
            "INSERT INTO patients (hospital_id, branch_id, mrn, first_name, personal_info, contact_info)"
            f" SELECT '{hospital}', '{hospital}', 'M' || n, 'P{number}', '{{}}', '{{}}' FROM generate_series(1, 3) n"
        )
        yield (
            f"INSERT INTO users (user_id, hospital_id, entity_type, entity_id) SELECT '900000000{number}', '{hospital}', 'patient',"
            f" patient_id FROM patients WHERE hospital_id = '{hospital}' AND mrn = 'M1'"
        )
        yield f"INSERT INTO user_sessions (user_id, token, expires_at) VALUES ('900000000{number}', 'x{number}', now())"
        yield (
            "INSERT INTO login_history (user_id, session_id, login_time, status) SELECT user_id, session_id, now(), 'failed'"
            f" FROM user_sessions WHERE hospital_id = '{hospital}'"
        )


@pytest.fixture
def app(tenants: Project, service: Callable[[Project], Project]) -> Project:
    """The clinic with hospitals, whose dev environment is this process's."""
    return service(tenants)


def hospitals_of(session: object) -> set[object]:
    """The hospitals of the patients that a session sees, asked without the WHERE of the ORM."""
    return set(session.scalars(text("SELECT hospital_id FROM patients")))  # type: ignore[attr-defined]


@contextlib.contextmanager
def seen(session: Session) -> Iterator[list[str]]:
    """The statements that a session sends, but for those that begin its transaction."""
    session.connection()
    engine, sent = session.connection().engine, []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
