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
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (24,)


def test_installing_twice_locks_nothing_and_changes_nothing(clinic: Project) -> None:
    before = clinic.query("SELECT * FROM skinspire_tools.ledger ORDER BY 1")
    with clinic.connect() as reader, clinic.connect() as writer:
        reader.execute("BEGIN; SELECT count(*) FROM patients")
        writer.execute("BEGIN; UPDATE patients SET title = title")
        assert clinic.invoke("triggers.install").code == 0
        with psycopg.connect(**clinic.address.parameters, dbname=clinic.database) as third:
            assert triggers.install(third, trigger_files.read_files()).numbers == {
                "files": 2,
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
    files = trigger_files.read_files()
    assert states(connection, files[1:]) == {"INSTALLED", "ORPHANED"}
    triggers.install(connection, files[1:])
    assert connection.execute("SELECT to_regproc('timestamps')").fetchone() == (None,)
    assert states(connection, files[1:]) == {"INSTALLED"}


def test_a_changed_order_and_a_function_that_is_gone_leave_nothing_behind(connection: Connection, tmp_path: Path) -> None:
    text = (trigger_files.folder() / "timestamps.sql").read_text()
    old, new = text + "CREATE FUNCTION helper() RETURNS int LANGUAGE sql AS 'SELECT 1';\n", text.replace("= 100", "= 90")
    (tmp_path / "timestamps.sql").write_text(old.replace("version = 1", "version = 2"))
    triggers.install(connection, trigger_files.read_files(tmp_path))
    (tmp_path / "timestamps.sql").write_text(new.replace("version = 1", "version = 3"))
    triggers.install(connection, trigger_files.read_files(tmp_path))
    names = connection.execute("SELECT DISTINCT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1").fetchall()
    assert names == [("_90_timestamps",)]
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
