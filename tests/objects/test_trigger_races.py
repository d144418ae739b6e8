"""Races of two transactions that overlap, again and again, under the core's triggers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Project

Connection = psycopg.Connection[Any]

ROUNDS = 25  # without any lock half of the rounds lose an update, and 12 in a row at the most did not


def race(clinic: Project, prepare: str, one: str, other: str, check: Callable[[Connection, list[str]], None]) -> None:
    """Run both statements at the same moment, each in a transaction of its own; `check` gets the errors they met."""
    gate = threading.Barrier(2)
    errors: list[str] = []

    def run(connection: Connection, statement: str) -> None:
        connection.execute("BEGIN")
        gate.wait(20)
        try:
            connection.execute(statement.encode())
            connection.execute("COMMIT")
        except psycopg.Error as error:
            connection.execute("ROLLBACK")
            errors.append(error.diag.message_primary or "")

    with clinic.connect() as first, clinic.connect() as second, clinic.connect() as judge:
        for _ in range(ROUNDS):
            judge.execute(prepare.encode())
            errors.clear()
            threads = [threading.Thread(target=run, args=pair) for pair in ((first, one), (second, other))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            check(judge, errors)


def test_race_of_failed_logins(clinic: Project) -> None:
    """Five failures at once with five more: every one is counted, and the account is locked."""
    prepare = (
        "DELETE FROM users WHERE user_id = 'racer';"
        "INSERT INTO users (user_id, entity_type, entity_id) VALUES ('racer', 'staff', gen_random_uuid())"
    )
    failures = "INSERT INTO login_history (user_id, status) SELECT 'racer', 'failed' FROM generate_series(1, 5)"

    def check(judge: Connection, errors: list[str]) -> None:
        found = judge.execute("SELECT failed_login_attempts, locked_until > now() FROM users WHERE user_id = 'racer'")
        assert (found.fetchone(), errors) == ((10, True), [])

    race(clinic, prepare, failures, failures, check)


def test_race_for_the_last_session(clinic: Project) -> None:
    """Three sessions at once with three more: five stay, and they are the newest."""
    prepare = (
        "DELETE FROM users WHERE user_id = 'racer';"
        "INSERT INTO users (user_id, entity_type, entity_id) VALUES ('racer', 'staff', gen_random_uuid())"
    )
    sessions = (
        "INSERT INTO user_sessions (session_id, user_id, token, expires_at)"
        " SELECT id, 'racer', id::text, now() + interval '1 hour' FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 4)) AS s"
    )

    def check(judge: Connection, errors: list[str]) -> None:
        found = judge.execute("SELECT count(*) FILTER (WHERE is_active), count(*) FROM user_sessions WHERE user_id = 'racer'")
        assert (found.fetchone(), errors) == ((5, 8), [])

    race(clinic, prepare, sessions, sessions, check)


WAYS_OUT = [
    "DELETE FROM user_role_mapping WHERE user_id = '{}'",
    "UPDATE user_role_mapping SET is_active = false WHERE user_id = '{}'",
    "UPDATE users SET is_active = false WHERE user_id = '{}'",
    "UPDATE users SET is_deleted = true WHERE user_id = '{}'",
    "DELETE FROM users WHERE user_id = '{}'",
    "UPDATE users SET hospital_id = NULL WHERE user_id = '{}'",
]


@pytest.mark.parametrize(("one", "other"), list(zip(WAYS_OUT, WAYS_OUT[1:] + WAYS_OUT[:1], strict=True)))
def test_race_of_the_last_two_administrators(clinic: Project, one: str, other: str) -> None:
    """Each leaves in a way of its own: one may, the other is refused."""
    prepare = (
        "SET session_replication_role = replica; DELETE FROM users WHERE user_id IN ('first', 'second');"
        "DELETE FROM user_role_mapping WHERE user_id IN ('first', 'second'); DELETE FROM hospitals WHERE name = 'race';"
        "SET session_replication_role = origin;"
        "WITH h AS (INSERT INTO hospitals (name) VALUES ('race') RETURNING hospital_id),"
        " u AS (INSERT INTO users (user_id, hospital_id, entity_type, entity_id)"
        " SELECT id, hospital_id, 'staff', gen_random_uuid() FROM h, unnest(ARRAY['first', 'second']) AS id RETURNING user_id)"
        " SELECT count(*) FROM u; INSERT INTO user_role_mapping (user_id, role_id) SELECT user_id, role_id FROM users, role_master"
        " WHERE role_name = 'Hospital Administrator' AND user_id IN ('first', 'second')"
    )

    def check(judge: Connection, errors: list[str]) -> None:
        found = judge.execute(
            "SELECT count(*) FROM users u JOIN hospitals h USING (hospital_id) JOIN user_role_mapping m ON m.user_id = u.user_id"
            " WHERE h.name = 'race' AND u.is_active AND NOT u.is_deleted AND m.is_active"
        )
        assert found.fetchone() == (1,)
        assert len(errors) == 1 and "is the last administrator of its hospital" in errors[0]

    race(clinic, prepare, one.format("first"), other.format("second"), check)


def administrators(clinic: Project, second_is: str) -> None:
    """A hospital with two holders of the administrator's role: 'first', who is one, and 'second', who is ..."""
    clinic.execute(
        "WITH h AS (INSERT INTO hospitals (name) VALUES ('race') RETURNING hospital_id) INSERT INTO users (user_id, hospital_id,"
        " entity_type, entity_id) SELECT id, hospital_id, 'staff', gen_random_uuid() FROM h, unnest(ARRAY['first', 'second']) AS id;"
        "INSERT INTO user_role_mapping (user_id, role_id) SELECT user_id, role_id FROM users, role_master"
        " WHERE role_name = 'Hospital Administrator' AND user_id IN ('first', 'second');"
        f"UPDATE users SET {second_is} WHERE user_id = 'second'"
    )


MADE = ["is_active = true", "hospital_id = (SELECT hospital_id FROM hospitals WHERE name = 'race')"]


@pytest.mark.parametrize(("second_is", "made"), list(zip(["is_active = false", "hospital_id = NULL"], MADE, strict=True)))
@pytest.mark.parametrize("leaves", [WAYS_OUT[0], WAYS_OUT[2]])
def test_one_is_made_administrator_while_the_role_is_taken_away(
    clinic: Project, second_is: str, made: str, leaves: str
) -> None:
    """The one transaction counts on the second administrator, whom the other one takes the role from."""
    administrators(clinic, second_is)
    taken: list[str] = []

    def take() -> None:
        with clinic.connect() as other:
            try:
                other.execute("DELETE FROM user_role_mapping WHERE user_id = 'second'")
            except psycopg.Error as error:
                taken.append(str(error))

    with clinic.connect() as one:
        one.execute("BEGIN")
        one.execute(f"UPDATE users SET {made} WHERE user_id = 'second'".encode())
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.5)
        try:
            one.execute(leaves.format("first").encode())
            one.execute("COMMIT")
        except psycopg.errors.RestrictViolation:
            one.execute("ROLLBACK")
        thread.join(20)
    left = clinic.query(
        "SELECT count(*) FROM users u JOIN user_role_mapping m USING (user_id) JOIN hospitals h ON h.hospital_id = u.hospital_id"
        " WHERE h.name = 'race' AND u.is_active AND m.is_active"
    )
    assert left >= [(1,)], taken


def test_two_administrators_leave_under_snapshots(clinic: Project) -> None:
    administrators(clinic, "is_active = true")
    with clinic.connect() as one, clinic.connect() as other:
        for each in (one, other):
            each.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            each.execute("SELECT count(*) FROM users")
        one.execute("UPDATE users SET is_active = false WHERE user_id = 'first'")
        one.execute("COMMIT")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("DELETE FROM user_role_mapping WHERE user_id = 'second'")
        other.execute("ROLLBACK")


def test_two_sessions_begin_under_snapshots(clinic: Project) -> None:
    clinic.execute("UPDATE parameter_settings SET param_value = '1' WHERE param_code = 'MAX_ACTIVE_SESSIONS';"
                   "INSERT INTO users (user_id, entity_type, entity_id) VALUES ('racer', 'staff', gen_random_uuid())")  # fmt: skip
    begin = "INSERT INTO user_sessions (user_id, token, expires_at) VALUES ('racer', 'x', now() + interval '1 hour')"
    with clinic.connect() as one, clinic.connect() as other:
        for each in (one, other):
            each.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            each.execute("SELECT count(*) FROM users")
        one.execute(begin.encode())
        one.execute("COMMIT")
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute(begin.encode())
        other.execute("ROLLBACK")
