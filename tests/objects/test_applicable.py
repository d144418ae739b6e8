"""Files whose needs the database does not meet: not applicable, unless they are demanded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.errors import InvalidSetting, NotApplicable, SqlFileInvalid
from skinspire_db.objects import files, needs, proofs, versions
from skinspire_db.objects.diff import diff
from skinspire_db.objects.install import install
from skinspire_db.objects.status import status

Connection = psycopg.Connection[Any]
CORE = versions.current(settings.Project(Path(), {}))
OTHERS = versions.current(settings.Project(Path(), {"metadata": ["app.models:Base"]}))

TABLES = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.owners (id int PRIMARY KEY, name varchar(20) UNIQUE);
    CREATE TABLE shop.pets (id uuid DEFAULT gen_random_uuid(), owner int NOT NULL REFERENCES shop.owners ON DELETE CASCADE,
        keeper int REFERENCES shop.owners, name text, UNIQUE (owner, name))
"""


def needing(tmp_path: Path, header: str) -> files.SqlFile:
    path = tmp_path / "care.sql"
    path.write_text(f'/*\nversion = 1\nsummary = "care"\norder = 500\nneeds = {header}\n*/\nSELECT 1;\n')
    return files.read_file(path)


@pytest.mark.parametrize(
    ("header", "lacks"),
    [
        ('{"shop.pets" = []}', None),
        ('{"shop.pets" = ["id uuid default", "owner integer -> shop.owners cascade", "keeper null -> shop.owners", "name text"]}', None),
        ('{"shop.pets" = ["unique (name, owner)"], "shop.owners" = ["unique (id)", "unique (name)"]}', None),
        ('{pets = []}', "no table pets"),
        ('{"shop.pets" = ["weight"]}', "no column shop.pets.weight"),
        ('{"shop.pets" = ["id integer"]}', "shop.pets.id is uuid, not integer"),
        ('{"shop.pets" = ["name default"]}', "shop.pets.name has no default"),
        ('{"shop.pets" = ["owner null"]}', "shop.pets.owner is NOT NULL"),
        ('{"shop.pets" = ["name -> shop.owners"]}', "no foreign key from shop.pets.name to shop.owners"),
        ('{"shop.pets" = ["keeper -> shop.owners cascade"]}', "the foreign key from shop.pets.keeper to shop.owners has no ON DELETE CASCADE"),
        ('{"shop.pets" = ["unique (name)"]}', "no unique key on shop.pets (name)"),
        ('{"extension nonesuch" = []}', "no extension nonesuch"),
        ('{a = [], b = [], c = [], d = [], "shop.pets" = ["weight"]}', "no table a; no table b; no table c; and 2 more"),
    ],
)  # fmt: skip
def test_each_need_is_read_from_the_catalogue(connection: Connection, tmp_path: Path, header: str, lacks: str | None) -> None:
    connection.execute(TABLES.encode())
    found = needs.lacks(connection, [needing(tmp_path, header)])
    assert {name: str(lack) for name, lack in found.items()} == ({} if lacks is None else {"care": lacks})


@pytest.mark.parametrize(
    "header", ["[]", '{users = "user_id"}', '{users = ["user_id of"]}', '{"us ers" = []}', "{users = [1]}"]
)
def test_needs_that_are_not_understood(tmp_path: Path, header: str) -> None:
    with pytest.raises(SqlFileInvalid) as refused:
        needing(tmp_path, header)
    assert "care.sql:" in refused.value.message and "needs" in refused.value.message


@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("ALTER TABLE users DROP COLUMN locked_until", "login_tracking"),
        ("ALTER TABLE login_history DROP COLUMN session_id CASCADE", "session_management"),
        ("ALTER TABLE role_module_access ALTER hospital_id SET NOT NULL", "tenancy"),
        ("DROP TABLE role_master CASCADE", "role_assignment"),
        ("ALTER TABLE users ALTER password_hash SET NOT NULL", "password_hashing"),
        ("ALTER TABLE parameter_settings DROP COLUMN param_value CASCADE", "parameters"),
    ],
)
def test_an_application_with_other_tables(connection: Connection, change: str, file: str) -> None:
    """It is told, not installed, not proved; what an earlier install made of it goes."""
    connection.execute(
        change.encode() if "role_module" not in change else b"DELETE FROM role_module_access;" + change.encode()
    )
    [state] = [each for each in status(connection, OTHERS) if each.file == file]
    assert state.state == "ORPHANED" and "not applicable any more" in state.note
    numbers = install(connection, OTHERS).numbers
    assert int(numbers["not_applicable"]) >= 1
    states = {each.file: each.state for each in status(connection, OTHERS)}
    assert states[file] == "NOT APPLICABLE" and set(states.values()) == {"INSTALLED", "NOT APPLICABLE"}
    assert diff(connection, OTHERS) == []
    checks = {check.name: check for view in proofs.VIEWS.values() for check in view(connection, OTHERS)}
    assert file not in checks and [check for check in checks.values() if check.status != "pass"] == []
    broken = "SELECT FROM pg_trigger WHERE tgname ~ %s"
    order = next(each.order for each in OTHERS if each.name == file)
    assert connection.execute(broken, (f"^_{order}",)).fetchall() == [] or file == "session_management"


def test_the_cores_own_tables_may_not_be_cut_short(connection: Connection) -> None:
    connection.execute("ALTER TABLE users DROP COLUMN locked_until")
    [state] = [each for each in status(connection, CORE) if each.file == "login_tracking"]
    assert state.state == "MISSING" and "required, and not applicable: no column users.locked_until" in state.note
    assert diff(connection, CORE) == ["login_tracking: required, and not applicable: no column users.locked_until"]
    with pytest.raises(NotApplicable) as refused:
        install(connection, CORE)
    assert "no column users.locked_until" in refused.value.message


def test_required_triggers_are_demanded(make_project: Callable[..., Project], connection: Connection) -> None:
    found = versions.current(settings.Project(Path(), {"metadata": ["a:b"], "required_triggers": ["session_management"]}))
    connection.execute("DROP TABLE user_sessions CASCADE")
    [state] = [each for each in status(connection, found) if each.file == "session_management"]
    assert state.state == "MISSING" and "no table user_sessions" in state.note
    with pytest.raises(NotApplicable) as refused:
        install(connection, found)
    assert "required_triggers names it: no table user_sessions" in refused.value.message
    assert {check.name: check.status for check in proofs.prove(connection, found)}["session_management"] == "unknown"


@pytest.mark.parametrize(
    "config",
    [
        {"required_triggers": ["nonesuch"]},
        {"required_triggers": "tenancy"},
        {"required_triggers": ["tenancy"], "disabled_triggers": ["tenancy"]},
    ],
)
def test_wrong_lists_of_required_triggers(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting) as refused:
        versions.current(settings.Project(Path(), config))
    assert "required_triggers" in refused.value.message


def test_a_file_that_is_named_is_refused_where_it_is_not_applicable(make_project: Callable[..., Project]) -> None:
    project = make_project('metadata = ["shop:metadata"]\n')
    (project.root / "shop.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table\n"
        "metadata = MetaData()\n"
        'Table("wares", metadata, Column("ware_id", Integer, primary_key=True))\n'
    )
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    outcome = project.invoke("triggers.install", "--name=login_tracking")
    assert outcome.code == 1 and "login_tracking is not applicable: no table login_history" in outcome.err
    outcome = project.invoke("triggers.install", "--json")
    # Those that go by columns too: no table has them, and not one function of the core comes into this database.
    assert outcome.code == 0 and outcome.json["steps"][0]["summary"]["not_applicable"] == len(CORE)
    assert project.query("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace") == []
    outcome = project.invoke("triggers.status")
    assert outcome.code == 0 and "NOT APPLICABLE" in outcome.out and "no table login_history" in outcome.out
    assert "no table has the column updated_at" in outcome.out
    assert project.invoke("triggers.verify").code == 0


def test_tables_that_are_otherwise_than_the_cores(connection: Connection) -> None:
    """Other keys, views, partitions and short columns: whatever is not applicable is left alone, and nothing fails."""
    connection.execute(
        "DROP TABLE users CASCADE; DROP TABLE user_sessions, parameter_settings CASCADE;"
        "CREATE TABLE users (clinic int, user_id int, password_hash text, failed_login_attempts int, locked_until timestamptz,"
        " last_login timestamptz, hospital_id int, is_active boolean, PRIMARY KEY (clinic, user_id));"
        "CREATE VIEW parameter_settings AS SELECT 'A'::text AS param_code, 'b'::text AS param_value;"
        "CREATE TABLE user_sessions (session_id bigint, user_id int, is_active boolean) PARTITION BY RANGE (session_id);"
        "CREATE TABLE sessions_1 PARTITION OF user_sessions FOR VALUES FROM (0) TO (9);"
        "CREATE TABLE short (created_by varchar(10), updated_by varchar(10), created_at date, updated_at date);"
        "CREATE SCHEMA insurance; CREATE TABLE insurance.users (LIKE users);"
        "CREATE TABLE insurance.claims (a int, b uuid, created_at timestamp, updated_at timestamp, updated_by text, PRIMARY KEY (a, b))"
    )
    install(connection, OTHERS)
    states = {each.file: each.state for each in status(connection, OTHERS)}
    assert set(states.values()) == {"INSTALLED", "NOT APPLICABLE"} and states["password_hashing"] == "NOT APPLICABLE"
    assert [check for check in proofs.prove(connection, OTHERS) if check.status != "pass"] == []
    connection.execute("SELECT set_config('app.current_user', 'a longer name than ten', true)")
    connection.execute("INSERT INTO short DEFAULT VALUES; INSERT INTO insurance.claims VALUES (1, gen_random_uuid())")
    claim = connection.execute("SELECT updated_by, updated_at = now() AT TIME ZONE 'UTC' FROM insurance.claims").fetchone()
    assert claim == ("a longer name than ten", True)


def test_a_view_in_place_of_a_table(connection: Connection) -> None:
    connection.execute("ALTER TABLE login_history RENAME TO logins; CREATE VIEW login_history AS SELECT * FROM logins")
    lacks = needs.lacks(connection, [file for file in OTHERS if file.name == "login_tracking"])
    assert str(lacks["login_tracking"]) == "login_history is a view"
