"""Trigger files: read, installed, compared; and what the installed ones do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db import settings
from skinspire_db.triggers import files, versions
from skinspire_db.triggers.files import TriggerFile
from skinspire_db.triggers.install import install
from skinspire_db.triggers.status import status

Connection = psycopg.Connection[Any]
CURRENT = versions.current(settings.Project(Path(), {}))
HEADER = '/*\nversion = 1\nsummary = "s"\norder = 1\n*/\n'


def states(connection: Connection, wanted: list[TriggerFile] | None = None) -> set[str]:
    return {each.state for each in status(connection, wanted or CURRENT)}


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
            assert install(third, CURRENT).numbers == {
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
    install(connection, CURRENT)
    assert states(connection) == {"INSTALLED"}


def test_a_file_that_is_gone_is_an_orphan_and_goes(connection: Connection) -> None:
    rest = [file for file in CURRENT if file.name != "timestamps"]
    assert states(connection, rest) == {"INSTALLED", "ORPHANED"}
    install(connection, rest)
    assert connection.execute("SELECT to_regproc('timestamps')").fetchone() == (None,)
    assert states(connection, rest) == {"INSTALLED"}


def test_a_changed_order_and_a_function_that_is_gone_leave_nothing_behind(connection: Connection, tmp_path: Path) -> None:
    text = (files.folder() / "timestamps.sql").read_text()
    old, new = text + "CREATE FUNCTION helper() RETURNS int LANGUAGE sql AS 'SELECT 1';\n", text.replace("= 100", "= 90")
    (tmp_path / "timestamps.sql").write_text(old.replace("version = 2", "version = 3"))
    install(connection, files.read_files(tmp_path))
    (tmp_path / "timestamps.sql").write_text(new.replace("version = 1", "version = 3"))
    install(connection, files.read_files(tmp_path))
    names = connection.execute("SELECT DISTINCT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1").fetchall()
    assert names == [("_90_timestamps",)], "the other files' went with them"
    assert connection.execute("SELECT to_regproc('helper')").fetchone() == (None,)


def test_others_triggers_survive(connection: Connection) -> None:
    connection.execute(
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER _105_theirs BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION theirs()"
    )
    install(connection, CURRENT)
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = '_105_theirs'").fetchone() == (1,)


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


def test_install_with_verify_keeps_nothing_when_a_proof_fails(clinic: Project) -> None:
    assert clinic.invoke("triggers.install", "--verify").code == 0
    assert clinic.invoke("triggers.verify").code == 0
    clinic.execute(
        "CREATE OR REPLACE FUNCTION is_password_hash(value text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'"
    )
    outcome = clinic.invoke("triggers.verify", "--json")
    assert outcome.code == 1
    assert {check["name"]: check["status"] for check in outcome.json["checks"]}["password_hashing"] == "fail"
