"""Trigger files: read, installed, compared; and what the installed ones do."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db import bookkeeping, trigger_files, triggers
from skinspire_db.errors import TriggerFileInvalid
from skinspire_db.trigger_files import TriggerFile

Connection = psycopg.Connection[Any]
HEADER = '/*\nversion = 1\nsummary = "s"\norder = 1\n*/\n'


def states(connection: Connection, files: list[TriggerFile] | None = None) -> set[str]:
    return {each.state for each in triggers.status(connection, files or trigger_files.read_files())}


def test_the_lock_file_agrees_with_the_files() -> None:
    """An edit without a new version shows here."""
    lock = (bookkeeping.sql_folder() / "triggers.lock").read_text()
    files = sorted(trigger_files.read_files(), key=lambda file: file.name)
    assert lock.splitlines()[1:] == [f"{file.name} {file.version} {file.sha256}" for file in files]


def test_installed_everywhere_where_the_columns_are(connection: Connection) -> None:
    assert states(connection) == {"INSTALLED"}
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (35,)


def test_installing_twice_locks_nothing_and_changes_nothing(clinic: Project) -> None:
    before = clinic.query("SELECT * FROM skinspire_tools.ledger ORDER BY 1")
    with clinic.connect() as reader, clinic.connect() as writer:
        reader.execute("BEGIN; SELECT count(*) FROM patients")
        writer.execute("BEGIN; UPDATE patients SET title = title")
        assert clinic.invoke("triggers.install").code == 0
        with psycopg.connect(**clinic.address.parameters, dbname=clinic.database) as third:
            assert triggers.install(third, trigger_files.read_files()).numbers == {
                "files": 7,
                "functions": 0,
                "attached": 0,
                "dropped": 0,
            }
            locks = third.execute(
                "SELECT DISTINCT mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE pid = pg_backend_pid()"
                " AND c.relnamespace = 'public'::regnamespace"
            ).fetchall()
    assert set(locks) <= {("AccessShareLock",)}
    assert clinic.query("SELECT * FROM skinspire_tools.ledger ORDER BY 1") == before


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        ("ALTER TABLE staff DISABLE TRIGGER _100_timestamps", "DISABLED"),
        ("DROP TRIGGER _100_timestamps ON staff", "MISSING"),
        ("DROP TRIGGER _100_timestamps ON staff;"
         " CREATE TRIGGER _100_timestamps BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION timestamps()", "DRIFTED"),
        ("CREATE OR REPLACE FUNCTION timestamps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "DRIFTED"),
        ("CREATE TABLE newcomer (created_at timestamptz, updated_at timestamptz)", "UNATTACHED"),
        ("UPDATE skinspire_tools.ledger SET sha256 = 'other' WHERE name = 'timestamps'", "OUTDATED"),
        ("DELETE FROM skinspire_tools.ledger WHERE name = 'timestamps'", "MISSING"),
    ],
)  # fmt: skip
def test_damage_is_seen_under_its_name_and_repaired(connection: Connection, damage: str, state: str) -> None:
    connection.execute(damage.encode())
    assert states(connection) - {"INSTALLED"} == {state}
    triggers.install(connection, trigger_files.read_files())
    assert states(connection) == {"INSTALLED"}


def test_a_file_that_is_gone_is_an_orphan_and_goes(connection: Connection) -> None:
    files = [file for file in trigger_files.read_files() if file.name != "timestamps"]
    assert states(connection, files) == {"INSTALLED", "ORPHANED"}
    triggers.install(connection, files)
    assert connection.execute("SELECT to_regproc('timestamps')").fetchone() == (None,)
    assert states(connection, files) == {"INSTALLED"}


def test_a_changed_order_and_a_function_that_is_gone_leave_nothing_behind(connection: Connection, tmp_path: Path) -> None:
    text = (trigger_files.folder() / "timestamps.sql").read_text()
    old, new = text + "CREATE FUNCTION helper() RETURNS int LANGUAGE sql AS 'SELECT 1';\n", text.replace("= 100", "= 90")
    (tmp_path / "timestamps.sql").write_text(old.replace("version = 1", "version = 2"))
    triggers.install(connection, trigger_files.read_files(tmp_path))
    (tmp_path / "timestamps.sql").write_text(new.replace("version = 1", "version = 3"))
    triggers.install(connection, trigger_files.read_files(tmp_path))
    names = connection.execute("SELECT DISTINCT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1").fetchall()
    assert names == [("_90_timestamps",)], "the other files' went with them"
    assert connection.execute("SELECT to_regproc('helper')").fetchone() == (None,)


def test_others_triggers_survive(connection: Connection) -> None:
    connection.execute(
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER _105_theirs BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION theirs()"
    )
    triggers.install(connection, trigger_files.read_files())
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = '_105_theirs'").fetchone() == (1,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';", ":1: there is no header"),
        ("/*\nversion = 1\nsummary = oops\n*/", ":3: the header is not TOML"),
        ("/*\nversion = 1\norder = 1\n*/", "the header needs summary"),
        ('/*\nversion = "1"\nsummary = "s"\norder = 1\n*/', "the header needs version, int"),
        (HEADER.replace("*/", "colour = 1\n*/"), "unknown key colour"),
        (HEADER + "SELECT 1;\n\nCOMMIT;\n", ":8: COMMIT in a trigger file"),
        (HEADER + "SELECT 1; begin ;", ":6: BEGIN in a trigger file"),
        (HEADER.replace("\n", "\r\n"), ":1: line ends are CRLF"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.sql").write_bytes(text.encode())
    with pytest.raises(TriggerFileInvalid) as refusal:
        trigger_files.read_files(tmp_path)
    assert says in refusal.value.message and str(tmp_path / "bad.sql") in refusal.value.message


def test_keywords_in_strings_comments_and_bodies_are_no_transaction_control(tmp_path: Path) -> None:
    (tmp_path / "good.sql").write_text(
        HEADER
        + "-- x; COMMIT;\n/* ; ROLLBACK; */ SELECT '; COMMIT;', \"; END;\", $x$; COMMIT; $x$, $$; BEGIN; $$, E'\\'; COMMIT;';"
    )
    assert len(trigger_files.read_files(tmp_path)) == 1


def test_a_long_name(tmp_path: Path) -> None:
    (tmp_path / f"{'x' * 61}.sql").write_text(HEADER.replace("*/", 'when = "AFTER INSERT"\nattach = { tables = ["t"] }\n*/'))
    with pytest.raises(TriggerFileInvalid, match="over 63 bytes"):
        trigger_files.read_files(tmp_path)


def test_the_fingerprint_is_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "one.sql"
    path.write_text(HEADER)
    [file] = trigger_files.read_files(tmp_path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# What they do


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_timestamps(connection: Connection, zone: str) -> None:
    connection.execute(f"SET TimeZone = '{zone}'".encode())
    row = "SELECT created_at, updated_at, now() FROM hospitals WHERE name = 'T'"
    connection.execute("INSERT INTO hospitals (name, created_at, updated_at) VALUES ('T', '2020-01-01Z', NULL)")
    created, updated, now = connection.execute(row.encode()).fetchone() or ()
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
    triggers.install(connection, trigger_files.read_files())
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


def test_install_waits_for_no_reader_of_another_table(clinic: Project) -> None:
    """A new table gets its triggers while somebody writes to all the others."""
    clinic.execute("CREATE TABLE newcomer (created_at timestamptz, updated_at timestamptz)")
    with clinic.connect() as writer:
        writer.execute("BEGIN; UPDATE patients SET title = title")
        done: list[int] = []
        task = threading.Thread(target=lambda: done.append(clinic.process("triggers.install").code))
        task.start()
        task.join(20)
    assert done == [0]


def test_every_file_that_attaches_something_has_a_proof_and_all_pass(connection: Connection) -> None:
    files = trigger_files.read_files()
    assert [file.name for file in files if file.attachments and not file.proof.exists()] == []
    before = connection.execute("SELECT count(*) FROM users").fetchone()
    assert {check.status for check in triggers.prove(connection, files)} == {"pass"}
    assert connection.execute("SELECT count(*) FROM users").fetchone() == before


# file, what is broken in it: each must make its proof fail
BREAKS = [
    ("timestamps", "IF NOT (NEW *= OLD) THEN", "IF true THEN"),
    ("timestamps", "NEW.created_at := OLD.created_at;", ""),
    ("timestamps", "NEW.updated_at := now();", "NULL;"),
    ("timestamps", "coalesce(NEW.created_at, now())", "now()"),
    ("timestamps", "coalesce(NEW.updated_at, NEW.created_at)", "coalesce(NEW.updated_at, now())"),
    ("user_tracking", "NEW.created_by := OLD.created_by;", ""),
    ("user_tracking", "IF NOT (NEW *= OLD) THEN", "IF true THEN"),
    ("user_tracking", "coalesce(actor, nullif(NEW.updated_by, OLD.updated_by), left(session_user, 50))", "coalesce(nullif(NEW.updated_by, OLD.updated_by), actor, left(session_user, 50))"),
    ("user_tracking", "coalesce(actor, NEW.created_by, left(session_user, 50))", "coalesce(actor, left(session_user, 50))"),
    ("user_tracking", "nullif(current_setting('app.current_user', true), '')", "current_setting('app.current_user', true)"),
    ("parameters", "BETWEEN lowest AND highest", "> 0"),
    ("parameters", "{1,9}", "+"),
    ("password_hashing", "IF NEW.password_hash IS NULL OR is_password_hash(NEW.password_hash) THEN", "IF NEW.password_hash IS NULL THEN"),
    ("password_hashing", "NOT BETWEEN 1 AND 72 THEN\n        -- bcrypt", "NOT BETWEEN 0 AND 72 THEN\n        -- bcrypt"),
    ("password_hashing", "NOT BETWEEN 1 AND 72 THEN\n        -- bcrypt", "NOT BETWEEN 1 AND 73 THEN\n        -- bcrypt"),
    ("password_hashing", "octet_length(NEW.password_hash) NOT", "length(NEW.password_hash) NOT"),
    ("password_hashing", "stored := '$2a$' || substr(stored, 5);", ""),
    ("password_hashing", "{53}$'", "{53}'"),
    ("login_tracking", "u.failed_login_attempts + 1 END,", "u.failed_login_attempts + 2 END,"),
    ("login_tracking", ">= integer_parameter('MAX_LOGIN_ATTEMPTS'", "> integer_parameter('MAX_LOGIN_ATTEMPTS'"),
    ("login_tracking", "CASE WHEN u.locked_until <= now() THEN 1 ELSE u.failed_login_attempts + 1 END,", "u.failed_login_attempts + 1,"),
    ("login_tracking", "WHEN u.locked_until > now() THEN u.locked_until", ""),
    ("login_tracking", " AND (u.locked_until IS NULL OR u.locked_until <= now())", ""),
    ("login_tracking", ", last_login = NEW.login_time", ""),
    ("session_management", "NEW.is_active AND NEW.expires_at <= now()", "false"),
    ("session_management", "created_at DESC", "created_at"),
    ("session_management", "WHERE user_id = NEW.user_id AND is_active", "WHERE is_active"),
    ("session_management", "WHERE session_id = NEW.session_id AND logout_time IS NULL", "WHERE session_id = NEW.session_id"),
    ("session_management", "WHERE session_id = OLD.session_id AND logout_time IS NULL", "WHERE false"),
    ("session_management", "WHERE is_active AND expires_at <= now()", "WHERE is_active"),
    ("role_assignment", "role.hospital_id IS NOT NULL AND role.hospital_id IS DISTINCT FROM home", "false"),
    ("role_assignment", "NOT (role.is_active AND role.status IS NOT DISTINCT FROM 'active')", "false"),
    ("role_assignment", "u.user_id <> leaving", "true"),
    ("role_assignment", "TG_OP = 'DELETE' OR NOT NEW.is_active OR NEW.role_id", "NOT NEW.is_active OR NEW.role_id"),
    ("role_assignment", "OR NOT NEW.is_active OR NEW.role_id <> OLD.role_id", "OR NEW.role_id <> OLD.role_id"),
    ("role_assignment", "NOT NEW.is_active OR NEW.is_deleted OR NEW.hospital_id", "NOT NEW.is_active OR NEW.hospital_id"),
    ("role_assignment", 'name = "user_deletion"\nwhen = "BEFORE DELETE"', 'name = "user_deletion"\nwhen = "AFTER DELETE"'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "right", "wrong"), BREAKS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BREAKS)])
def test_a_broken_function_fails_its_proof(connection: Connection, tmp_path: Path, name: str, right: str, wrong: str) -> None:
    text = (trigger_files.folder() / f"{name}.sql").read_text()
    assert right in text
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / f"{name}.sql").write_text((trigger_files.folder() / "verify" / f"{name}.sql").read_text())
    (tmp_path / f"{name}.sql").write_text(text.replace(right, wrong))
    [broken] = trigger_files.read_files(tmp_path)
    files = [broken if file.name == name else file for file in trigger_files.read_files()]
    triggers.install(connection, files)
    assert {check.name: check.status for check in triggers.prove(connection, files)}[name] == "fail"


def test_install_with_verify_keeps_nothing_when_a_proof_fails(clinic: Project) -> None:
    assert clinic.invoke("triggers.install", "--verify").code == 0
    assert clinic.invoke("triggers.verify").code == 0
    clinic.execute(
        "CREATE OR REPLACE FUNCTION is_password_hash(value text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'"
    )
    outcome = clinic.invoke("triggers.verify", "--json")
    assert outcome.code == 1
    assert {check["name"]: check["status"] for check in outcome.json["checks"]}["password_hashing"] == "fail"
