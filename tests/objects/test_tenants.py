"""Nothing of one hospital leads to another one, and a hospital keeps an administrator: also under snapshots, and by TRUNCATE."""

from __future__ import annotations

import psycopg
import pytest
from conftest import Project

TWO_HOSPITALS = """
    INSERT INTO hospitals (hospital_id, name) VALUES ('00000000-0000-0000-0000-00000000000a', 'A'), ('00000000-0000-0000-0000-00000000000b', 'B');
    INSERT INTO role_master (role_id, hospital_id, role_name) OVERRIDING SYSTEM VALUE VALUES (-1, '00000000-0000-0000-0000-00000000000a', 'Of A');
    INSERT INTO users (user_id, hospital_id, entity_type, entity_id) SELECT name, '00000000-0000-0000-0000-00000000000a', 'staff', gen_random_uuid()
        FROM unnest(ARRAY['first', 'second']) AS name;
    INSERT INTO user_role_mapping (user_id, role_id) SELECT 'first', role_id FROM role_master WHERE role_name = 'Hospital Administrator';
"""
TO_B = "hospital_id = '00000000-0000-0000-0000-00000000000b'"
CROSSED = """
    SELECT (SELECT count(*) FROM user_role_mapping m JOIN users u USING (user_id) JOIN role_master r USING (role_id)
            WHERE r.hospital_id IS NOT NULL AND r.hospital_id IS DISTINCT FROM u.hospital_id)
         + (SELECT count(*) FROM hospitals h WHERE h.name = 'A' AND h.is_active AND NOT EXISTS (
               SELECT FROM users u JOIN user_role_mapping m USING (user_id) WHERE u.hospital_id = h.hospital_id AND u.is_active AND m.is_active))
"""
GIVE_ROLE = "INSERT INTO user_role_mapping (user_id, role_id) VALUES ('second', -1)"
LEAVE = "DELETE FROM user_role_mapping WHERE user_id = 'first'"
IDLE = "UPDATE hospitals SET is_active = false WHERE name = 'A'"


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    ("prepare", "one", "other"),
    [
        ("", GIVE_ROLE, f"UPDATE users SET {TO_B} WHERE user_id = 'second'"),
        ("", f"UPDATE users SET {TO_B} WHERE user_id = 'second'", GIVE_ROLE),
        ("", GIVE_ROLE, "UPDATE users SET hospital_id = NULL WHERE user_id = 'second'"),
        ("", GIVE_ROLE, f"UPDATE role_master SET {TO_B} WHERE role_id = -1"),
        ("", f"UPDATE role_master SET {TO_B} WHERE role_id = -1", GIVE_ROLE),
        (IDLE, LEAVE, "UPDATE hospitals SET is_active = true WHERE name = 'A'"),
        (IDLE, "UPDATE hospitals SET is_active = true WHERE name = 'A'", LEAVE),
        (IDLE, "UPDATE hospitals SET is_active = true WHERE name = 'A'", "UPDATE users SET is_active = false WHERE user_id = 'first'"),
    ],
)  # fmt: skip
def test_two_transactions_do_not_do_together_what_neither_may(
    clinic: Project, level: str, prepare: str, one: str, other: str
) -> None:
    """Both began before either has committed; the second one fails, or the first one did."""
    clinic.execute(TWO_HOSPITALS + prepare)
    with clinic.connect() as first, clinic.connect() as second:
        for each in (first, second):
            each.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
            each.execute("SELECT count(*) FROM users")
        failed = []
        for connection, statement in ((first, one), (second, other)):
            try:
                connection.execute(statement.encode())
                connection.execute("COMMIT")
            except psycopg.Error as error:
                failed.append(error.sqlstate)
                connection.execute("ROLLBACK")
    assert clinic.query(CROSSED) == [(0,)]
    assert len(failed) == 1


@pytest.mark.parametrize("table", ["users", "user_role_mapping", "role_master", "hospitals"])
def test_the_last_administrator_does_not_go_by_truncate(clinic: Project, table: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="the last administrators"):
        clinic.execute(f"TRUNCATE {table} CASCADE")
    clinic.execute("TRUNCATE login_history, user_sessions")


@pytest.mark.parametrize("back", ["is_active = true", "is_deleted = false"])
def test_the_last_administrator_does_not_go_while_the_hospital_is_out_of_use(clinic: Project, back: str) -> None:
    clinic.execute(TWO_HOSPITALS)
    clinic.execute(
        f"UPDATE hospitals SET {'is_active = false' if 'active' in back else 'is_deleted = true'} WHERE name = 'A'"
    )
    clinic.execute(LEAVE)
    with pytest.raises(psycopg.errors.RestrictViolation, match="has no administrator"):
        clinic.execute(f"UPDATE hospitals SET {back} WHERE name = 'A'")
    clinic.execute("INSERT INTO user_role_mapping (user_id, role_id) SELECT 'first', role_id FROM role_master"
                   f" WHERE role_name = 'Hospital Administrator'; UPDATE hospitals SET {back} WHERE name = 'A'")  # fmt: skip


def test_sessions_that_change_their_user_count_as_that_users(clinic: Project) -> None:
    session = "INSERT INTO user_sessions (user_id, token, expires_at) SELECT user_id, n::text, now() + interval '1 hour'"
    clinic.execute(f"{TWO_HOSPITALS}; {session} FROM users, generate_series(1, 5) AS n WHERE user_id IN ('first', 'second')")
    clinic.execute("UPDATE user_sessions SET user_id = 'first' WHERE user_id = 'second'")
    assert clinic.query("SELECT count(*) FROM user_sessions WHERE user_id = 'first' AND is_active") == [(5,)]
