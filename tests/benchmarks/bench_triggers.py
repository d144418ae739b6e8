"""What triggers cost: beside contrib's own, beside the same work written by hand, and to install."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from psycopg import Connection

from skinspire_db.config import project as settings
from skinspire_db.objects import versions
from skinspire_db.objects.install import install

from .harness import Bench, Figure, bench, medians

ROWS = 100_000
LOGINS = 1_000
CONTRIB = """
    DROP TRIGGER _100_timestamps ON patients; DROP TRIGGER _110_user_tracking ON patients;
    CREATE EXTENSION moddatetime; CREATE EXTENSION insert_username;
    ALTER TABLE patients ALTER updated_by TYPE text;
    CREATE TRIGGER _100 BEFORE UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION moddatetime(updated_at);
    CREATE TRIGGER _110 BEFORE INSERT OR UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION insert_username(updated_by)
"""


def bench_update() -> list[Figure]:
    """Timestamps and user tracking on every row of a table of patients."""
    with bench() as project:
        project.invoke("db.setup", f"--patients={ROWS}")
        project.clone("skinspire_dev", "contrib")
        with project.connect("contrib") as connection:
            connection.execute(CONTRIB.encode())
        for database in ("skinspire_dev", "contrib"):
            project.psql(database, "-c", "VACUUM ANALYZE")
        ours, contrib = medians(lambda: _update(project, "skinspire_dev"), lambda: _update(project, "contrib"), rounds=7)
    return [Figure(f"update {ROWS:,} patients", ours, "contrib's moddatetime and insert_username", contrib, 1.5)]


def _update(project: Bench, template: str) -> float:
    project.clone(template, "measured")
    with project.connect("measured") as connection:
        connection.execute("CHECKPOINT")
        return _timed(lambda: connection.execute("UPDATE patients SET title = 'Dr.'"))


def bench_login() -> list[Figure]:
    """A failed login, a good one, a session and its end, each statement from the client, each login one transaction."""
    with bench() as project:
        project.invoke("db.setup")
        project.clone("skinspire_dev", "by_hand")
        with project.connect("by_hand") as connection:
            for table in ("users", "login_history", "user_sessions"):
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        with_triggers, by_hand = medians(
            lambda: _logins(project, "skinspire_dev", TRIGGERED), lambda: _logins(project, "by_hand", BY_HAND)
        )
    return [Figure(f"{LOGINS:,} logins", with_triggers, "the same by hand, no triggers", by_hand, 1.3)]


def bench_install() -> list[Figure]:
    """Onto a database with 100 more tables that have the audit columns."""
    files = versions.current(settings.current_project())
    with bench() as project:
        project.invoke("db.setup")
        with project.connect("skinspire_dev") as connection:
            for number in range(100):
                audit = "created_at timestamptz, updated_at timestamptz, created_by varchar(50), updated_by varchar(50)"
                connection.execute(f"CREATE TABLE extra_{number} (id int PRIMARY KEY, {audit})".encode())

        def attach() -> float:
            with project.connect("skinspire_dev") as connection, connection.transaction(force_rollback=True):
                seconds = _timed(lambda: install(connection, files))
                [(attached,)] = connection.execute(
                    "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relname ~ '^extra_'"
                ).fetchall()
                assert attached == 200
                return seconds

        [seconds] = medians(attach)
    return [Figure("triggers onto 100 more tables", seconds, "a fixed second", 1.0, 1)]


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


LIMIT = "coalesce((SELECT param_value::int FROM parameter_settings WHERE param_code = '{}'), {})"
TOUCH = "updated_at = now(), updated_by = session_user"
AUDIT = "now(), now(), session_user, session_user"
TRIGGERED = [
    "INSERT INTO login_history (user_id, status) VALUES (%(user)s, 'failed')",
    "INSERT INTO user_sessions (session_id, user_id, token, expires_at)"
    " VALUES (%(session)s, %(user)s, %(token)s, now() + interval '1 hour')",
    "INSERT INTO login_history (user_id, session_id, status) VALUES (%(user)s, %(session)s, 'success')",
    "UPDATE user_sessions SET is_active = false WHERE session_id = %(session)s",
]
BY_HAND = [
    "INSERT INTO login_history (user_id, status, created_at, updated_at, created_by, updated_by)"
    f" VALUES (%(user)s, 'failed', {AUDIT})",
    "UPDATE users SET failed_login_attempts = CASE WHEN locked_until <= now() THEN 1 ELSE failed_login_attempts + 1 END,"
    " locked_until = CASE WHEN locked_until > now() THEN locked_until"
    "  WHEN (CASE WHEN locked_until <= now() THEN 1 ELSE failed_login_attempts + 1 END)"
    f"  >= {LIMIT.format('MAX_LOGIN_ATTEMPTS', 5)} THEN now() + {LIMIT.format('LOCKOUT_MINUTES', 30)} * interval '1 minute' END,"
    f" {TOUCH} WHERE user_id = %(user)s",
    "INSERT INTO user_sessions (session_id, user_id, token, expires_at, created_at, updated_at, created_by, updated_by)"
    f" VALUES (%(session)s, %(user)s, %(token)s, now() + interval '1 hour', {AUDIT})",
    "SELECT FROM users WHERE user_id = %(user)s FOR NO KEY UPDATE",
    f"UPDATE user_sessions SET is_active = false, {TOUCH} WHERE session_id IN (SELECT session_id FROM user_sessions"
    " WHERE user_id = %(user)s AND is_active ORDER BY expires_at > now() DESC, created_at DESC, session_id"
    f" OFFSET {LIMIT.format('MAX_ACTIVE_SESSIONS', 5)})",
    "INSERT INTO login_history (user_id, session_id, status, created_at, updated_at, created_by, updated_by)"
    f" VALUES (%(user)s, %(session)s, 'success', {AUDIT})",
    f"UPDATE users SET failed_login_attempts = 0, locked_until = NULL, last_login = now(), {TOUCH}"
    " WHERE user_id = %(user)s AND (locked_until IS NULL OR locked_until <= now())",
    f"UPDATE user_sessions SET is_active = false, {TOUCH} WHERE session_id = %(session)s",
    f"UPDATE login_history SET logout_time = now(), {TOUCH} WHERE session_id = %(session)s AND logout_time IS NULL",
]


def _logins(project: Bench, template: str, statements: list[str]) -> float:
    project.clone(template, "measured")
    with project.connect("measured") as connection:
        users = [user for (user,) in connection.execute("SELECT user_id FROM users ORDER BY 1").fetchall()]
        connection.execute("SET synchronous_commit = off")  # the disk's share is the same in both, and hides the rest
        seconds = _timed(lambda: _log_in(connection, users, statements))
        query = (
            "SELECT (SELECT count(*) FROM login_history WHERE logout_time IS NOT NULL), sum(failed_login_attempts) FROM users"
        )
        assert connection.execute(query).fetchone() == (LOGINS, 0)
        return seconds


def _log_in(connection: Connection[Any], users: list[str], statements: list[str]) -> None:
    for number in range(LOGINS):
        session = uuid.uuid4()
        values = {"user": users[number % len(users)], "session": session, "token": session.hex}
        with connection.transaction():
            for statement in statements:
                connection.execute(statement.encode(), values)
