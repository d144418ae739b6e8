"""Rows of the core know their hospital, and refer to rows of the same hospital: in the models, by the trigger and by the revision."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from conftest import Project
from sqlalchemy import ForeignKey, MetaData, UniqueConstraint, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column

from skinspire_db.clinic.models import LoginHistory, TenantMixin, User, UserRoleMapping, UserSession, same_hospital

Connection = psycopg.Connection[Any]
ROWS = """
    INSERT INTO user_sessions (user_id, token, expires_at) SELECT user_id, 't', now() + interval '1 hour' FROM users;
    INSERT INTO login_history (user_id, session_id, status) SELECT user_id, session_id, 'success' FROM user_sessions;
"""
STRAY = """
    SELECT count(*), count(*) FILTER (WHERE r.hospital_id IS DISTINCT FROM u.hospital_id), count(*) FILTER (WHERE u.hospital_id IS NULL) > 0
    FROM {} AS r JOIN users u USING (user_id)
"""
OF_USERS = ("user_sessions", "login_history", "user_role_mapping")


def test_the_revision_fills_the_rows_and_goes_back(clinic: Project) -> None:
    """Rows of the former schema; the fill changes no other column, and no trigger stays off."""
    assert clinic.invoke("migrate.downgrade").code == 0
    clinic.execute(ROWS)
    query = "SELECT user_id, is_active, updated_at, updated_by FROM user_sessions ORDER BY 1"
    before = clinic.query(query)
    outcome = clinic.invoke("migrate.upgrade")
    assert outcome.code == 0, outcome.err
    for table in OF_USERS:
        [(rows, stray, of_the_system)] = clinic.query(STRAY.format(table))
        assert rows and not stray and of_the_system, table
    assert clinic.query(query) == before
    assert clinic.query("SELECT count(*) FROM pg_trigger WHERE tgenabled <> 'O'") == [(0,)]


def test_code_that_gives_no_hospital_goes_on(connection: Connection) -> None:
    connection.execute(ROWS)
    for table in OF_USERS:
        row = connection.execute(STRAY.format(table).encode()).fetchone()
        assert row and row[0] and not row[1], table


@pytest.mark.parametrize("table", OF_USERS)
def test_a_row_of_a_user_is_not_of_another_hospital(connection: Connection, table: str) -> None:
    connection.execute(ROWS)
    other = connection.execute("INSERT INTO hospitals (name) VALUES ('Other') RETURNING hospital_id").fetchone()
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refusal:
        connection.execute(f"UPDATE {table} SET hospital_id = %s".encode(), other)
    assert refusal.value.diag.constraint_name == f"fk_{table}_hospital_id_user_id"


def test_a_login_is_not_of_another_hospitals_session(connection: Connection) -> None:
    connection.execute(
        ROWS + "INSERT INTO hospitals (hospital_id, name) VALUES ('00000000-0000-0000-0000-00000000000b', 'Other');"
        "INSERT INTO users (user_id, hospital_id, entity_type, entity_id)"
        " VALUES ('other', '00000000-0000-0000-0000-00000000000b', 'staff', gen_random_uuid());"
        "INSERT INTO login_history (user_id, session_id, status)"
        " SELECT 'other', session_id, 'success' FROM user_sessions WHERE hospital_id IS NOT NULL LIMIT 1"
    )
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refusal:
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert refusal.value.diag.constraint_name == "fk_login_history_hospital_id_session_id"


def test_deleting_a_session_keeps_its_login(connection: Connection) -> None:
    connection.execute(ROWS + "DELETE FROM user_sessions; SET CONSTRAINTS ALL IMMEDIATE")
    row = connection.execute("SELECT count(*) > 0, count(session_id), count(hospital_id) > 0 FROM login_history").fetchone()
    assert row == (True, 0, True)


def test_joins_and_relationships_go_on_by_the_user_alone() -> None:
    """SQLAlchemy would call a second foreign key to the same table ambiguous; and a NULL joins nothing."""
    configure_mappers()
    for query in (
        select(User).join(UserSession),
        select(LoginHistory).join(UserSession).join(User),
        select(User).join(User.roles),
    ):
        joined = str(query).partition(" JOIN ")[2]
        assert "user_id" in joined and "hospital_id" not in joined.replace("users.hospital_id", "")
    assert [column.name for column in UserRoleMapping.user.property.local_columns] == ["user_id"]


def test_the_hospital_is_in_the_object_after_the_flush(clinic: Project) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(clinic.env["DEV_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
    try:
        with Session(engine) as session:
            user = session.scalars(select(User).where(User.hospital_id.is_not(None)).limit(1)).one()
            opened = UserSession(user=user, token="t", expires_at=user.created_at)
            session.add(opened)
            session.flush()
            assert opened.hospital_id == user.hospital_id
    finally:
        engine.dispose()


def test_tables_of_an_application_get_the_key_by_the_mixin() -> None:
    class Base(DeclarativeBase):
        metadata = MetaData()

    class Visit(TenantMixin, Base):
        __tablename__ = "visits"
        visit_id: Mapped[int] = mapped_column(primary_key=True)

    class Bill(TenantMixin, Base):
        __tablename__ = "bills"
        __table_args__ = (same_hospital("visit_id", "visits.visit_id"), UniqueConstraint("bill_id", "hospital_id"))
        bill_id: Mapped[int] = mapped_column(primary_key=True)
        visit_id: Mapped[int]

    class Line(TenantMixin, Base):
        __tablename__ = "lines"
        hospital_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("visits.visit_id"), primary_key=True)
        line_id: Mapped[int] = mapped_column(primary_key=True)

    def unique(model: Any) -> list[list[str]]:
        return [each.columns.keys() for each in model.__table__.constraints if isinstance(each, UniqueConstraint)]

    assert unique(Visit) == [["hospital_id", "visit_id"]]
    assert unique(Bill) == [["bill_id", "hospital_id"]], "one that is there in another order is enough"
    assert unique(Line) == [], "the primary key holds the hospital already"
    with pytest.raises(ValueError, match="ON DELETE SET NULL would change"):
        same_hospital("visit_id", "visits.visit_id", ondelete="SET NULL")


@pytest.mark.slow
def test_a_session_that_begins_while_its_user_moves(clinic: Project) -> None:
    """The session waits for the move, and is of the new hospital; or the move waits, and takes the session along."""
    clinic.execute("INSERT INTO users (user_id, entity_type, entity_id) VALUES ('mover', 'staff', gen_random_uuid())")
    move = "UPDATE users SET hospital_id = (SELECT min(hospital_id::text)::uuid FROM hospitals) WHERE user_id = 'mover'"
    begin = "INSERT INTO user_sessions (user_id, token, expires_at) VALUES ('mover', 't', now() + interval '1 hour')"
    import threading

    for first_statement, second_statement in ((move, begin), (begin, move)):
        clinic.execute("UPDATE users SET hospital_id = NULL WHERE user_id = 'mover'; DELETE FROM user_sessions")
        with clinic.connect() as first, clinic.connect() as second:
            for each in (first, second):
                each.execute("SET lock_timeout = '20s'")
            first.execute("BEGIN")
            first.execute(first_statement.encode())
            thread = threading.Thread(target=lambda: second.execute(second_statement.encode()), daemon=True)  # noqa: B023
            thread.start()
            thread.join(0.3)
            first.execute("COMMIT")
            thread.join(30)
            assert not thread.is_alive()
        assert clinic.query(STRAY.format("user_sessions")) == [(1, 0, False)]
