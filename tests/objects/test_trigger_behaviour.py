"""What the installed triggers do, alone and under concurrency, and the proofs that would tell if they did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.objects import files, versions
from skinspire_db.objects.install import install
from skinspire_db.objects.proofs import prove

Connection = psycopg.Connection[Any]
CURRENT = versions.current(settings.Project(Path(), {}))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_timestamps(connection: Connection, zone: str) -> None:
    connection.execute(f"SET TimeZone = '{zone}'".encode())
    row = "SELECT created_at, updated_at, now() FROM hospitals WHERE name = 'T'"
    connection.execute("INSERT INTO hospitals (name, created_at, updated_at) VALUES ('T', '2020-01-01Z', NULL)")
    created, updated, now = connection.execute(row.encode()).fetchall()[0]
    assert created == updated and created.year in (2019, 2020)
    connection.execute("UPDATE hospitals SET name = name WHERE name = 'T'")
    assert connection.execute(row.encode()).fetchone() == (created, updated, now), "nothing changed, so nothing moves"
    connection.execute("UPDATE hospitals SET created_at = '2000-01-01', default_currency = 'EUR' WHERE name = 'T'")
    assert connection.execute(row.encode()).fetchone() == (created, now, now)
    connection.execute("INSERT INTO hospitals (name, created_at) VALUES ('U', NULL)")
    assert connection.execute("SELECT created_at = now() FROM hospitals WHERE name = 'U'").fetchone() == (True,)


def test_timestamps_on_a_table_with_json(connection: Connection) -> None:
    """json has no equality; comparing whole rows with = would raise."""
    connection.execute("CREATE TABLE j (a json, created_at timestamptz, updated_at timestamptz)")
    install(connection, CURRENT)
    connection.execute("INSERT INTO j (a, updated_at) VALUES ('{}', '2020-01-01'); UPDATE j SET a = a")
    assert connection.execute("SELECT updated_at = '2020-01-01' FROM j").fetchone() == (True,)
    connection.execute("UPDATE j SET a = '{\"b\": 1}'")
    assert connection.execute("SELECT updated_at = now() FROM j").fetchone() == (True,)


def test_user_tracking(connection: Connection) -> None:
    def who() -> tuple[Any, ...] | None:
        return connection.execute("SELECT created_by, updated_by FROM hospitals WHERE name = 'T'").fetchone()

    connection.execute("INSERT INTO hospitals (name) VALUES ('T')")
    assert who() == ("skinspire", "skinspire")
    connection.execute("UPDATE hospitals SET timezone = 'UTC', created_by = 'forged', updated_by = 'app' WHERE name = 'T'")
    assert who() == ("skinspire", "app")
    connection.execute("UPDATE hospitals SET timezone = 'UTC' WHERE name = 'T'")
    assert who() == ("skinspire", "app"), "nothing changed"
    connection.execute("SELECT set_config('app.current_user', %s, true)", ("9876543210" + "x" * 60,))
    connection.execute("UPDATE hospitals SET timezone = 'Asia/Tokyo', updated_by = 'ignored' WHERE name = 'T'")
    assert who() == ("skinspire", ("9876543210" + "x" * 60)[:50])
    connection.execute(
        "SELECT set_config('app.current_user', '', true); UPDATE hospitals SET timezone = 'UTC' WHERE name = 'T'"
    )
    assert who() == ("skinspire", "skinspire")


def test_every_file_that_attaches_something_has_a_proof_and_all_pass(connection: Connection) -> None:
    assert [file.name for file in CURRENT if file.attachments and not file.proof.exists()] == []
    before = connection.execute("SELECT count(*) FROM users").fetchone()
    assert {check.status for check in prove(connection, CURRENT)} == {"pass"}
    assert connection.execute("SELECT count(*) FROM users").fetchone() == before


# file, what is broken in it: each must make its proof fail
BREAKS = [
    ("timestamps", "        IF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN", "        IF true THEN"),
    ("timestamps", "NEW.created_at := OLD.created_at;", ""),
    ("timestamps", "NEW.updated_at := now();", "NULL;"),
    ("timestamps", "coalesce(NEW.created_at, now())", "now()"),
    ("timestamps", "coalesce(NEW.updated_at, NEW.created_at)", "coalesce(NEW.updated_at, now())"),
    ("user_tracking", "NEW.created_by := OLD.created_by;", ""),
    ("user_tracking", "        IF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN", "        IF true THEN"),
    ("user_tracking", ":= coalesce(nullif(current_setting('app.current_user', true), '')::varchar(50),\n                                       nullif(NEW.updated_by::text, OLD.updated_by::text)", ":= coalesce(nullif(NEW.updated_by::text, OLD.updated_by::text), nullif(current_setting('app.current_user', true), '')::varchar(50)"),
    ("user_tracking", "NEW.created_by, session_user::varchar(50));\n        NEW", "session_user::varchar(50));\n        NEW"),
    ("user_tracking", "nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.created_by", "current_setting('app.current_user', true)::varchar(50), NEW.created_by"),
    ("user_tracking", "nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.created_by", "nullif(current_setting('app.current_user', true), ''), NEW.created_by"),
    ("user_tracking", "CASE TG_OP WHEN 'UPDATE' THEN OLD.created_by ELSE", "CASE WHEN false THEN OLD.created_by ELSE"),
    ("user_tracking", "ELSE coalesce(\n        nullif(current_setting('app.current_user', true), '')::varchar(50), NEW.created_by", "ELSE coalesce(NEW.created_by"),
    ("user_tracking", "ELSIF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN", "ELSE"),
    ("user_tracking", "NEW.updated_by, session_user::varchar(50));\n    ELSIF", "session_user::varchar(50));\n    ELSIF"),
    ("user_tracking", "\n                                   nullif(NEW.updated_by::text, OLD.updated_by::text), session_user::varchar(50)", "session_user::varchar(50)"),
    ("timestamps", "ELSIF NOT (NEW OPERATOR(pg_catalog.*=) OLD) AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV) THEN", "ELSE"),
    ("timestamps", "NEW.updated_at := coalesce(NEW.updated_at, now());", "NEW.updated_at := now();"),
    ("timestamps", "- TG_ARGV) THEN\n        NEW.updated_at := now();", "- TG_ARGV) THEN NULL;"),
    ("parameters", "BETWEEN lowest AND highest", "> 0"),
    ("parameters", "{1,9}", "+"),
    ("password_hashing", "IF NEW.password_hash IS NULL OR public.is_password_hash(NEW.password_hash) THEN", "IF NEW.password_hash IS NULL THEN"),
    ("password_hashing", "NOT BETWEEN 1 AND 72 THEN\n        -- bcrypt", "NOT BETWEEN 0 AND 72 THEN\n        -- bcrypt"),
    ("password_hashing", "NOT BETWEEN 1 AND 72 THEN\n        -- bcrypt", "NOT BETWEEN 1 AND 73 THEN\n        -- bcrypt"),
    ("password_hashing", "octet_length(NEW.password_hash) NOT", "length(NEW.password_hash) NOT"),
    ("password_hashing", "stored := '$2a$' || substr(stored, 5);", ""),
    ("password_hashing", "{53}$'", "{53}'"),
    ("login_tracking", "coalesce(u.failed_login_attempts, 0) + 1 END,", "coalesce(u.failed_login_attempts, 0) + 2 END,"),
    ("login_tracking", ">= public.integer_parameter('MAX_LOGIN_ATTEMPTS'", "> public.integer_parameter('MAX_LOGIN_ATTEMPTS'"),
    ("login_tracking", "CASE WHEN u.locked_until <= now() THEN 1 ELSE coalesce(u.failed_login_attempts, 0) + 1 END,", "u.failed_login_attempts + 1,"),
    ("login_tracking", "WHEN u.locked_until > now() THEN u.locked_until", ""),
    ("login_tracking", " AND (u.locked_until IS NULL OR u.locked_until <= now())", ""),
    ("login_tracking", ", last_login = greatest(u.last_login, NEW.login_time)", ""),
    ("session_management", "NEW.is_active AND NEW.expires_at <= clock_timestamp()", "false"),
    ("session_management", "created_at DESC", "created_at"),
    ("session_management", "WHERE user_id = NEW.user_id AND is_active", "WHERE is_active"),
    ("session_management", "WHERE session_id = NEW.session_id AND logout_time IS NULL", "WHERE session_id = NEW.session_id"),
    ("session_management", "WHERE session_id = OLD.session_id AND logout_time IS NULL", "WHERE false"),
    ("session_management", "EXISTS (SELECT FROM public.users WHERE user_id = OLD.user_id)", "true"),
    ("session_management", "WHERE is_active AND expires_at <= clock_timestamp()", "WHERE is_active"),
    ("role_assignment", "role.hospital_id IS DISTINCT FROM home", "false"),
    ("role_assignment", "NOT (role.is_active AND role.status IS NOT DISTINCT FROM 'active')", "false"),
    ("role_assignment", "AND NOT (u.user_id = coalesce(leaving, u.user_id) AND m.role_id = coalesce(lost_role, m.role_id))", ""),
    ("role_assignment", " AND m.role_id = coalesce(lost_role, m.role_id)", ""),
    ("role_assignment", "AND r.is_active AND r.status = 'active'\n        WHERE", "WHERE"),
    ("role_assignment", "IF in_use IS NOT TRUE OR NOT EXISTS", "IF NOT EXISTS"),
    ("role_assignment", "PERFORM public.keep_an_administrator(home, NULL::text, OLD.role_id)", "NULL"),
    ("role_assignment", "NEW.role_name = OLD.role_name AND NEW.is_active", "NEW.is_active"),
    ("role_assignment", "NEW.hospital_id IS DISTINCT FROM OLD.hospital_id AND EXISTS", "false AND EXISTS"),
    ("role_assignment", "(NEW.role_id, NEW.user_id, NEW.is_active) = (OLD.role_id, OLD.user_id, OLD.is_active)", "false"),
    ("timestamps", " SET TimeZone = 'UTC'", ""),
    ("timestamps", " AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV)", ""),
    ("user_tracking", " AND (TG_NARGS = 0 OR to_jsonb(NEW) - TG_ARGV <> to_jsonb(OLD) - TG_ARGV)", ""),
    ("session_management", "AFTER INSERT OR UPDATE", "AFTER INSERT"),
    ("session_management", "session_id = coalesce(newest, NEW.session_id) DESC, ", ""),
    ("session_management", "coalesce(newest, NEW.session_id)", "NEW.session_id"),
    ("password_hashing", "IF stored !~ '^", "IF candidate <> '' AND stored !~ '^"),
    ("login_tracking", "greatest(u.last_login, NEW.login_time)", "NEW.login_time"),
    ("parameters", "'^[ \\t\\r\\n]*[0-9]", "'^\\s*[0-9]"),
    ("role_assignment", "TG_OP = 'DELETE' OR NOT NEW.is_active OR NEW.role_id", "NOT NEW.is_active OR NEW.role_id"),
    ("role_assignment", "OR NOT NEW.is_active OR NEW.role_id <> OLD.role_id", "OR NEW.role_id <> OLD.role_id"),
    ("role_assignment", "NOT NEW.is_active OR NEW.is_deleted OR NEW.hospital_id", "NOT NEW.is_active OR NEW.hospital_id"),
    ("role_assignment", 'name = "user_deletion"\nwhen = "BEFORE DELETE"', 'name = "user_deletion"\nwhen = "AFTER DELETE"'),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "right", "wrong"), BREAKS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BREAKS)])
def test_a_broken_function_fails_its_proof(connection: Connection, tmp_path: Path, name: str, right: str, wrong: str) -> None:
    text = (files.folder() / f"{name}.sql").read_text()
    assert right in text
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / f"{name}.sql").write_text((files.folder() / "verify" / f"{name}.sql").read_text())
    (tmp_path / f"{name}.sql").write_text(text.replace(right, wrong))
    [broken] = files.read_files(tmp_path)
    # Without the file that moves rows with their user, which refuses some of the same.
    changed = [broken if file.name == name else file for file in CURRENT if file.name != "hospital_of_user"]
    install(connection, changed)
    assert {check.name: check.status for check in prove(connection, [broken])} == {name: "fail"}


def test_a_status_that_is_not_known_is_neither_counted_nor_a_success(connection: Connection) -> None:
    connection.execute(
        "ALTER TABLE login_history DROP CONSTRAINT ck_login_history_status, ALTER status DROP NOT NULL;"
        "INSERT INTO users (user_id, entity_type, entity_id, failed_login_attempts) VALUES ('odd', 'staff', gen_random_uuid(), 2);"
        "INSERT INTO login_history (user_id, status) VALUES ('odd', 'locked'), ('odd', NULL), ('odd', 'Success'), ('odd', '')"
    )
    found = connection.execute("SELECT failed_login_attempts, locked_until, last_login FROM users WHERE user_id = 'odd'")
    assert found.fetchone() == (2, None, None)
    assert {check.name: check.status for check in prove(connection, CURRENT)}["login_tracking"] == "pass"


def test_an_application_that_counts_itself_leaves_the_file_out_and_nothing_counts_twice(connection: Connection) -> None:
    own = versions.current(settings.Project(Path(), {"disabled_triggers": ["login_tracking"]}))
    install(connection, own)
    connection.execute(
        "INSERT INTO users (user_id, entity_type, entity_id) VALUES ('own', 'staff', gen_random_uuid());"
        "INSERT INTO login_history (user_id, status) VALUES ('own', 'failed');"
        "UPDATE users SET failed_login_attempts = failed_login_attempts + 1 WHERE user_id = 'own'"
    )
    assert connection.execute("SELECT failed_login_attempts FROM users WHERE user_id = 'own'").fetchone() == (1,)


def test_six_sessions_in_one_insert_end_as_one_by_one(connection: Connection) -> None:
    """The oldest ends; and where the clocks go back, the one that came last stays."""
    connection.execute(
        "INSERT INTO users (user_id, entity_type, entity_id) SELECT u, 'staff', gen_random_uuid() FROM unnest('{a,b,c,d}'::text[]) u"
    )
    rows = "SELECT '{}', 't' || n, now() + interval '1 hour', now() - make_interval(hours => {}) FROM generate_series(1, 8) n"
    for at_once, each, clock in (("a", "b", "0 * n"), ("c", "d", "n")):
        into = "INSERT INTO user_sessions (user_id, token, expires_at, created_at) "
        connection.execute((into + rows.format(at_once, clock)).encode())
        for n in range(1, 9):
            connection.execute((into + rows.format(each, clock).replace("(1, 8)", f"({n}, {n})")).encode())
        active = "SELECT array_agg(token ORDER BY token) FROM user_sessions WHERE user_id = %s AND is_active"
        [left, right] = [connection.execute(active, (user,)).fetchone() for user in (at_once, each)]
        assert left == right and left and len(left[0]) == 5


# Restores, upserts, deletions


def test_nothing_is_hashed_twice(clinic: Project) -> None:
    """By ON CONFLICT DO UPDATE, by a COPY of what another database has, and by a dump put back with the triggers on."""
    with clinic.connect() as connection:
        connection.execute(
            "UPDATE parameter_settings SET param_value = '4' WHERE param_code = 'PASSWORD_HASH_COST';"
            "UPDATE users SET password_hash = 'plain text 1' WHERE user_id = (SELECT min(user_id) FROM users)"
        )
        before = connection.execute("SELECT user_id, password_hash FROM users ORDER BY 1").fetchall()
        connection.execute(
            "INSERT INTO users SELECT * FROM users ON CONFLICT (user_id) DO UPDATE SET password_hash = EXCLUDED.password_hash"
        )
        assert connection.execute("SELECT user_id, password_hash FROM users ORDER BY 1").fetchall() == before
        connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM users; CREATE TEMP TABLE back (LIKE users)")
        [function] = connection.execute("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname ~ 'password'").fetchall()
        connection.execute(function[0].replace("public.users", "back").encode())
        with connection.cursor() as cursor:
            with cursor.copy("COPY kept TO STDOUT") as out:
                rows = b"".join(bytes(data) for data in out)
            with cursor.copy("COPY back FROM STDIN") as into:
                into.write(rows)
        assert connection.execute("SELECT user_id, password_hash FROM back ORDER BY 1").fetchall() == before
    assert any(hashed.startswith("$2a$04$") for _, hashed in before)


def test_deleting_a_user_with_roles_sessions_and_history(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO users (user_id, hospital_id, entity_type, entity_id)"
        " SELECT 'leaving', hospital_id, 'staff', gen_random_uuid() FROM hospitals LIMIT 1;"
        "INSERT INTO user_role_mapping (user_id, role_id)"
        " SELECT 'leaving', role_id FROM role_master WHERE hospital_id IS NULL;"
        "INSERT INTO user_sessions (session_id, user_id, token, expires_at)"
        " SELECT gen_random_uuid(), 'leaving', 't' || n, now() + interval '1 hour' FROM generate_series(1, 3) AS n;"
        "INSERT INTO login_history (user_id, status, session_id) SELECT 'leaving', 'success', session_id FROM user_sessions"
        " WHERE user_id = 'leaving'; DELETE FROM users WHERE user_id = 'leaving'"
    )
    for table in ("users", "user_role_mapping", "user_sessions", "login_history"):
        found = connection.execute(f"SELECT count(*) FROM {table} WHERE user_id = 'leaving'".encode()).fetchone()
        assert found == (0,), table


@pytest.mark.parametrize("nonsense", ["", "many", "-3", "0", "99999999999999999999", "5.5", None])
def test_a_nonsensical_parameter_is_its_default(connection: Connection, nonsense: str | None) -> None:
    connection.execute("DELETE FROM parameter_settings WHERE param_code = 'MAX_LOGIN_ATTEMPTS'")
    if nonsense is not None:
        connection.execute(
            "INSERT INTO parameter_settings (param_code, param_value) VALUES ('MAX_LOGIN_ATTEMPTS', %s)", (nonsense,)
        )
    connection.execute("INSERT INTO users (user_id, entity_type, entity_id) VALUES ('guest', 'staff', gen_random_uuid())")
    for attempt in range(1, 6):
        connection.execute("INSERT INTO login_history (user_id, status) VALUES ('guest', 'failed')")
        locked = connection.execute("SELECT locked_until IS NOT NULL FROM users WHERE user_id = 'guest'").fetchone()
        assert locked == (attempt == 5,)


def test_functions_run_with_the_rights_of_the_caller(connection: Connection) -> None:
    """None is SECURITY DEFINER: a role that may write a table may write what its triggers write."""
    found = connection.execute(
        "SELECT count(*) FILTER (WHERE prosecdef), count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')"
    ).fetchone()
    assert found == (0, 37)


def test_an_expiry_is_a_change_that_the_timestamps_see(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO user_sessions (user_id, token, expires_at, updated_at)"
        " SELECT user_id, 'stale', clock_timestamp() + interval '20 ms', '2020-01-01' FROM users LIMIT 1;"
        "SELECT pg_sleep(0.03); UPDATE user_sessions SET token = token"
    )
    assert connection.execute("SELECT is_active, updated_at = now() FROM user_sessions").fetchone() == (False, True)


@pytest.mark.slow
def test_a_restore_with_an_empty_search_path(clinic: Project) -> None:
    """pg_dump --data-only begins with one, and a role may have any."""
    with clinic.connect() as connection:
        connection.execute("SET search_path = ''")
        connection.execute("UPDATE public.users SET password_hash = 'a plain one' WHERE entity_type = 'staff'")
        connection.execute(
            "INSERT INTO public.login_history (user_id, status) SELECT user_id, 'failed' FROM public.users LIMIT 1;"
            "INSERT INTO public.user_sessions (user_id, token, expires_at)"
            " SELECT user_id, 't', now() + '1 hour' FROM public.users LIMIT 1;"
            "UPDATE public.user_role_mapping SET is_active = is_active; UPDATE public.patients SET title = 'Dr.'"
        )
        query = (
            "SELECT bool_and(public.verify_password(user_id, 'a plain one')) FROM public.users WHERE entity_type = 'staff'"
        )
        assert connection.execute(query.encode()).fetchone() == (True,)


def test_a_temporary_table_does_not_stand_before_ours(clinic: Project) -> None:
    with clinic.connect() as connection:
        connection.execute("CREATE TEMP TABLE users AS SELECT * FROM public.users WHERE false")
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute("DELETE FROM user_role_mapping m USING role_master r WHERE r.role_id = m.role_id"
                               " AND r.role_name = 'Hospital Administrator'")  # fmt: skip


def test_a_table_with_a_generated_column(connection: Connection) -> None:
    """Not computed yet in a BEFORE trigger, it makes every row look changed."""
    connection.execute(
        "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c json, created_at timestamptz, updated_at timestamptz,"
        " created_by text, updated_by text)"
    )
    install(connection, CURRENT)
    connection.execute(
        "INSERT INTO g (a, c, updated_at, updated_by) VALUES (1, '{}', '2020-01-01', 'old'); UPDATE g SET a = 1"
    )
    assert connection.execute("SELECT updated_at = '2020-01-01', updated_by FROM g").fetchone() == (True, "old")
    connection.execute("UPDATE g SET a = 2")
    assert connection.execute("SELECT updated_at = now(), updated_by FROM g").fetchone() == (True, "skinspire")


@pytest.mark.parametrize("schema", ["later", 'Of the "extension"'])
def test_passwords_where_pgcrypto_was_moved(connection: Connection, schema: str) -> None:
    """The extension is looked up at each call; functions of its names elsewhere are not called."""
    connection.execute("UPDATE users SET password_hash = 'Secret 1' WHERE user_id = (SELECT min(user_id) FROM users)")
    quoted = psycopg.sql.Identifier(schema)
    connection.execute(psycopg.sql.SQL("CREATE SCHEMA {0}; ALTER EXTENSION pgcrypto SET SCHEMA {0}").format(quoted))
    for function in ("crypt(text, text)", "gen_salt(text, integer)"):
        connection.execute(f"CREATE FUNCTION public.{function} RETURNS text LANGUAGE sql AS $$SELECT 'stolen'$$".encode())
    opens = "SELECT verify_password(user_id, %s) FROM users WHERE user_id = (SELECT min(user_id) FROM users)"
    assert connection.execute(opens.encode(), ("Secret 1",)).fetchone() == (True,)
    connection.execute("UPDATE users SET password_hash = 'Secret 2' WHERE user_id = (SELECT min(user_id) FROM users)")
    assert connection.execute(opens.encode(), ("Secret 2",)).fetchone() == (True,)


@pytest.mark.parametrize("value", ["on", "off"])
def test_password_hashing_leaves_the_settings_of_its_installer(connection: Connection, value: str) -> None:
    connection.execute(f"SET check_function_bodies = {value}".encode())
    connection.execute((settings.Project(Path(), {}).root / "sql/triggers/password_hashing.sql").read_bytes())
    assert connection.execute("SHOW check_function_bodies").fetchone() == (value,)
