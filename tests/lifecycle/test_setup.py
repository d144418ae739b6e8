"""`db.setup` and its five steps, each as its user runs it."""

from __future__ import annotations

import re

import pytest
from conftest import CHECKOUT, Project

STEPS = ["reset", "create", "triggers", "seed", "verify"]


def test_setup_makes_a_verified_clinic(project: Project) -> None:
    outcome = project.process("db.setup", "--env=dev", "--json")
    assert outcome.code == 0, outcome.err
    answer = outcome.json
    assert [step["name"] for step in answer["steps"]] == STEPS
    assert all(step["ok"] and step["seconds"] >= 0 for step in answer["steps"])
    assert (answer["operation"], answer["environment"], answer["ok"], answer["exit_code"], answer["error"]) == (
        "db.setup", "dev", True, 0, None,
    )  # fmt: skip
    assert answer["database"] == project.database
    assert {check["status"] for check in answer["checks"]} == {"pass"}
    staff = dict(project.query("SELECT staff_type, count(*) FROM staff GROUP BY 1"))
    assert staff == {"admin": 2, "doctor": 5, "nurse": 2, "receptionist": 2, "pharmacy": 2}
    assert project.query("SELECT count(*) FROM patients") == [(20,)]
    unpaired = """
        SELECT count(*) FROM (SELECT staff_id AS id, 'staff' AS type FROM staff UNION ALL SELECT patient_id, 'patient' FROM patients) p
        FULL JOIN users u ON u.entity_id = p.id AND u.entity_type = p.type WHERE u.user_id IS NULL OR p.id IS NULL"""
    assert project.query(unpaired) == [(0,)]
    assert project.query(
        "SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT FROM user_role_mapping m WHERE m.user_id = u.user_id)"
    ) == [(0,)]


def test_the_five_steps_alone_give_what_setup_gives(project: Project) -> None:
    project.env["TEST_DATABASE_URL"] = project.env["DEV_DATABASE_URL"].replace("dev_", "test_")
    assert project.invoke("db.setup", "--env=test").code == 0
    for step in ("db.create", "db.reset", "db.create", "triggers.install", "db.seed", "db.verify"):
        outcome = project.invoke(step, "--env=dev")
        assert outcome.code == 0, f"{step}: {outcome.err}"
    count = "SELECT relname, (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I', relname), true, true, '')))[1]::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    test = project.env["TEST_DATABASE_URL"].rpartition("/")[2]
    assert project.query(count) == project.query(count, test)


def test_setup_prints_target_steps_and_how_to_sign_in(project: Project) -> None:
    outcome = project.invoke("db.setup", "--env=development")
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"dev: {project.database} on 127.0.0.1:")
    steps = [line for line in lines if re.match(r"  \w+ .* s$", line)]  # a long summary goes on below itself
    assert [line.split()[0] for line in steps] == STEPS
    assert any("System Administrator" in line and "9999999999" in line for line in lines)
    assert lines[-1].startswith("db.setup: committed and read back")


def test_the_printed_password_opens_the_account(clinic: Project) -> None:
    outcome = clinic.invoke("db.setup", "--json")
    for each in outcome.json["sign_in"]:
        right = f"SELECT password_hash = crypt('{each['password']}', password_hash) FROM users WHERE user_id = '{each['user_id']}'"
        assert clinic.query(right) == [(True,)]


def test_the_test_password_is_hashed_once(clinic: Project) -> None:
    hashes = clinic.query(
        "SELECT count(DISTINCT password_hash) FROM users u JOIN user_role_mapping USING (user_id) JOIN role_master USING (role_id) WHERE role_name NOT LIKE '%Administrator'"
    )
    assert hashes == [(1,)]


def test_setup_again_replaces_everything(clinic: Project) -> None:
    clinic.execute("UPDATE patients SET last_name = 'Changed'; CREATE TABLE left_over (a int)")
    assert clinic.invoke("db.setup").code == 0
    assert clinic.query("SELECT count(*) FROM patients WHERE last_name = 'Changed'") == [(0,)]
    assert clinic.query("SELECT to_regclass('left_over')") == [(None,)]


def test_a_failing_step_leaves_the_former_database(clinic: Project) -> None:
    clinic.execute("UPDATE patients SET last_name = 'Kept'")
    before = clinic.dump()
    (clinic.root / "models.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table, CheckConstraint, text\n"
        "metadata = MetaData()\n"
        "Table('extra', metadata, Column('id', Integer, primary_key=True, server_default=text('no_such_function()')))\n"
    )
    (clinic.root / "pyproject.toml").write_text(
        '[tool.skinspire_db]\nmetadata = ["skinspire_db.clinic.models:Base", "models:metadata"]\n'
    )
    outcome = clinic.forked("db.setup", "--json")
    assert outcome.code == 1
    assert outcome.json["error"]["type"] == "StepFailed"
    assert "no_such_function" in outcome.json["error"]["message"]
    assert [(step["name"], step["ok"]) for step in outcome.json["steps"]] == [("reset", True), ("create", False)]
    assert clinic.dump() == before


def test_a_database_that_was_created_is_dropped_when_the_operation_fails(project: Project) -> None:
    (project.root / "pyproject.toml").write_text(
        '[tool.skinspire_db]\nmetadata = ["skinspire_db.clinic.models:Base", "models:metadata"]\n'
    )
    (project.root / "models.py").write_text(
        "from sqlalchemy import Column, Integer, MetaData, Table, text\nmetadata = MetaData()\n"
        "Table('extra', metadata, Column('id', Integer, primary_key=True, server_default=text('no_such_function()')))\n"
    )
    assert project.forked("db.setup").code == 1
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_dry_shows_the_plan_and_changes_nothing(project: Project) -> None:
    outcome = project.invoke("--dry", "db.setup", "--json")
    assert outcome.json["plan"] == STEPS
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_the_journal_names_the_operation_in_its_own_transaction(clinic: Project) -> None:
    assert clinic.invoke("db.seed").code == 0
    [(operation, environment, steps)] = clinic.query(
        "SELECT operation, environment, steps FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1"
    )
    assert (operation, environment, [step["name"] for step in steps]) == ("db.seed", "dev", ["seed"])
    assert "SkinSpire@" not in clinic.dump().partition("COPY skinspire_tools.journal")[2].partition("\\.")[0]


CHAIN = ("db.reset", "db.create", "triggers.install", "db.seed", "db.verify")


def chain(environment: str, tasks: tuple[str, ...] = CHAIN) -> list[str]:
    return [each for task in tasks for each in (task, f"--env={environment}")]


def test_the_steps_in_a_row_from_nothing(project: Project) -> None:
    """As the cookbook has it, as a process: what is not there is reset, which is done and not failed."""
    typed = re.search(r"^invoke (db\.reset --env=test .*)$", (CHECKOUT / "docs/cookbook.md").read_text(), re.MULTILINE)
    assert typed and typed[1].split() == chain("test")
    for _ in range(2):  # from nothing, and from what is there
        outcome = project.forked(*chain("test"))
        assert outcome.code == 0, outcome.err
        assert outcome.out.splitlines()[-1].startswith("db.verify: all checks pass")
    test = project.env["TEST_DATABASE_URL"].rpartition("/")[2]
    assert project.query("SELECT count(*) FROM patients", test) == [(20,)]
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_resetting_what_is_not_there_is_done_and_makes_nothing(project: Project, environment: str) -> None:
    project.env["PROD_DATABASE_URL"] = project.env["DEV_DATABASE_URL"].replace("dev_", "prod_")
    name = project.env[f"{environment.upper()}_DATABASE_URL"].rpartition("/")[2]
    outcome = project.forked("db.reset", f"--env={environment}", "--json")
    assert outcome.code == 0 and outcome.json["ok"] and outcome.json["steps"] == [], outcome.err
    assert outcome.json["notes"] == [f"the database {name} does not exist: there is nothing to reset"]
    outcome = project.invoke("db.reset", f"--env={environment}")
    assert "committed" not in outcome.out and "nothing to do" in outcome.out
    assert project.invoke("db.reset", f"--env={environment}", "--confirm=another").code == 2, "another database was meant"
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres") == []


def test_a_server_that_cannot_be_asked_is_no_missing_database(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = project.url("dev_gone", port=1)
    assert project.invoke("db.reset").code == 1


def test_a_flag_that_only_the_last_command_of_a_row_has_is_refused(clinic: Project) -> None:
    """Invoke gives it to that command alone; the others would go to the active environment."""
    before = clinic.dump()
    outcome = clinic.forked(*CHAIN, "--env=test")
    assert outcome.code == 2 and "db.reset has no --env" in outcome.err and "--env=test" in outcome.err.partition("->")[2]
    assert clinic.dump() == before
    assert clinic.invoke("db.verify", "--env=test", "db.reset").code == 2
    assert clinic.dump() == before
    assert clinic.invoke("env.status", "db.verify", "--env=dev", "db.drift").code == 0, "the active one is dev"
    assert clinic.invoke("env.switch", "--env=test", "db.create", "db.verify", "--env=dev").code == 2
