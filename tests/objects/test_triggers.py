"""Trigger files installed and compared with the database, on one connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.objects import files, versions
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.install import install
from skinspire_db.objects.status import status

Connection = psycopg.Connection[Any]
CURRENT = versions.current(settings.Project(Path(), {}))
HEADER = '/*\nversion = 1\nsummary = "s"\norder = 1\n*/\n'


def states(connection: Connection, wanted: list[SqlFile] | None = None) -> set[str]:
    return {each.state for each in status(connection, wanted or CURRENT)}


def test_installed_everywhere_where_the_columns_are(connection: Connection) -> None:
    assert states(connection) == {"INSTALLED"}
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (59,)


def test_installing_twice_locks_nothing_and_changes_nothing(clinic: Project) -> None:
    before = clinic.query("SELECT * FROM skinspire_tools.ledger ORDER BY 1")
    with clinic.connect() as reader, clinic.connect() as writer:
        reader.execute("BEGIN; SELECT count(*) FROM patients")
        writer.execute("BEGIN; UPDATE patients SET title = title")
        assert clinic.invoke("triggers.install").code == 0
        with psycopg.connect(**clinic.address.parameters, dbname=clinic.database) as third:
            assert install(third, CURRENT).numbers == {
                "files": 9,
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
    old, new = text + "CREATE FUNCTION helper() RETURNS int LANGUAGE sql AS 'SELECT 1';\n", text.replace("= 100", "= 90", 1)
    (tmp_path / "timestamps.sql").write_text(old)
    install(connection, files.read_files(tmp_path))
    (tmp_path / "timestamps.sql").write_text(new)
    install(connection, files.read_files(tmp_path))
    names = connection.execute("SELECT DISTINCT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1").fetchall()
    assert names == [("_090_timestamps",)], "the other files' went with them"
    assert connection.execute("SELECT to_regproc('helper')").fetchone() == (None,)


def test_others_triggers_survive(connection: Connection) -> None:
    connection.execute(
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER _105_theirs BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION theirs()"
    )
    install(connection, CURRENT)
    assert connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = '_105_theirs'").fetchone() == (1,)


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (
            "CREATE FUNCTION timestamps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "function timestamps()",
        ),
        (
            "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER _100_timestamps BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION theirs()",
            "trigger _100_timestamps on public.staff",
        ),
    ],
)
def test_others_objects_of_our_names_are_not_replaced(clinic: Project, theirs: str, says: str) -> None:
    for name in ("timestamps", "user_tracking"):
        clinic.execute(f"DELETE FROM skinspire_tools.ledger WHERE name = '{name}'")
    clinic.execute("DROP FUNCTION timestamps() CASCADE;" + theirs)
    before = clinic.dump()
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 2 and f"{says} exists already, and no trigger file made it" in outcome.err
    assert clinic.dump() == before


def test_our_own_objects_are_adopted_when_the_ledger_has_lost_them(clinic: Project) -> None:
    clinic.execute("DELETE FROM skinspire_tools.ledger")
    assert clinic.invoke("triggers.install").code == 0
    assert clinic.invoke("triggers.status").code == 0


def test_install_onto_many_tables(connection: Connection) -> None:
    """Every table with the audit columns, whatever its schema and name; a view, a partition and a temporary table aside."""
    audit = "created_at timestamptz, updated_at timestamptz, created_by varchar(50), updated_by varchar(50)"
    connection.execute(
        f'CREATE SCHEMA "Other One"; CREATE TABLE "Other One"."Odd ""name""" (id int, {audit});'
        f"CREATE TABLE parted (id int, {audit}) PARTITION BY RANGE (id); CREATE VIEW looks AS SELECT * FROM parted;"
        "CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9);".encode()
    )
    for number in range(98):
        connection.execute(f"CREATE TABLE extra_{number} (id int, {audit})".encode())
    assert install(connection, CURRENT).numbers["attached"] == 200
    assert states(connection) == {"INSTALLED"}
    connection.execute('INSERT INTO part (id) VALUES (1); INSERT INTO "Other One"."Odd ""name""" (id) VALUES (1)')
    assert connection.execute("SELECT created_by FROM looks").fetchone() == ("skinspire",)
    connection.execute("ALTER TABLE extra_1 DROP COLUMN updated_at")
    assert [(each.object, each.state) for each in status(connection, CURRENT) if each.state != "INSTALLED"] == [
        ("_100_timestamps on public.extra_1", "ORPHANED")
    ]
    assert install(connection, CURRENT).numbers["dropped"] == 1


@pytest.mark.parametrize(
    ("columns", "function"),
    [
        ("updated_at timestamptz", "update_timestamp"),
        ("created_by varchar(50)", "creator_tracking"),
        ("updated_by text", "updater_tracking"),
    ],
)
def test_tables_with_one_of_two_columns(connection: Connection, columns: str, function: str) -> None:
    connection.execute(f"CREATE TABLE half ({columns})".encode())
    install(connection, CURRENT)
    found = connection.execute("SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgrelid = 'half'::regclass").fetchall()
    assert found == [(function,)]
    connection.execute("INSERT INTO half DEFAULT VALUES")
    assert connection.execute("SELECT count(*) FROM half WHERE half IS NOT NULL").fetchone() == (1,)


def test_columns_of_other_types_are_left_alone(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE odd (created_at text, updated_at text, created_by uuid, updated_by uuid);"
        "CREATE SCHEMA legacy; CREATE TABLE legacy.users (id int); CREATE TABLE legacy.login_history (LIKE login_history)"
    )
    install(connection, CURRENT)
    found = connection.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid IN ('odd'::regclass, 'legacy.users'::regclass)"
        " OR tgrelid = 'legacy.login_history'::regclass AND tgname ~ '_130'"
    )
    assert found.fetchall() == [], "and a table of a name of ours in another schema is the application's"
    assert states(connection) == {"INSTALLED"}


def test_a_renamed_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE customers (created_at timestamptz, updated_at timestamptz)")
    install(connection, CURRENT)
    connection.execute("ALTER TABLE customers RENAME TO clients; ALTER TABLE user_sessions RENAME TO visits")
    found = {(each.object, each.state) for each in status(connection, CURRENT) if each.state != "INSTALLED"}
    assert ("_100_timestamps on public.clients", "OUTDATED") in found
    [missing] = [each for each in status(connection, CURRENT) if each.file == "session_management"]
    assert missing.state == "MISSING" and "no table user_sessions" in missing.note
    connection.execute("ALTER TABLE visits RENAME TO user_sessions")
    install(connection, CURRENT)
    assert states(connection) == {"INSTALLED"}


def test_a_trigger_that_is_off_on_one_partition_is_off(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE parted (id int, created_at timestamptz, updated_at timestamptz) PARTITION BY RANGE (id);"
        "CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9)"
    )
    install(connection, CURRENT)
    connection.execute("ALTER TABLE part DISABLE TRIGGER _100_timestamps")
    assert states(connection) == {"INSTALLED", "DISABLED"}
    install(connection, CURRENT)
    assert states(connection) == {"INSTALLED"}


def test_another_owner_is_drift(clinic: Project) -> None:
    eve = f"eve_{clinic.database}"
    clinic.execute(f"CREATE ROLE {eve}; ALTER FUNCTION timestamps() OWNER TO {eve}")
    try:
        assert clinic.invoke("triggers.status").code == 3
        outcome = clinic.invoke("triggers.diff")
        assert outcome.code == 3 and f"--- owner: {eve}" in outcome.out
        assert clinic.invoke("triggers.install").code == 0
        assert clinic.query("SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'timestamps'") == [("skinspire",)]
    finally:
        clinic.execute(f"ALTER FUNCTION timestamps() OWNER TO skinspire; DROP ROLE {eve}")


def test_install_with_nothing_to_do_asks_little(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question is a round trip, and the server may be far away: three for a file, and a few for all."""
    asked: list[object] = []
    execute = psycopg.Cursor.execute

    def counted(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(query)
        return execute(self, query, *arguments, **options)

    former = connection.execute("SHOW search_path").fetchone()
    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    assert install(connection, CURRENT).numbers["attached"] == 0
    assert len(asked) <= 3 * len(CURRENT) + 8, asked
    assert connection.execute("SHOW search_path").fetchone() == former
