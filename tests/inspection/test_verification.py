"""Each check passes on a good database, fails on the damage that it is for, and is unknown when it could not look."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from conftest import Project
from test_remedies import commands

from skinspire_db.clinic import checks as core
from skinspire_db.inspection.verification import CHECKS
from skinspire_db.lifecycle import lock

CROSSED = (
    "SET session_replication_role = replica; INSERT INTO hospitals (name, is_active) VALUES ('A', false), ('B', false);"
    "INSERT INTO role_master (role_id, hospital_id, role_name) OVERRIDING SYSTEM VALUE SELECT -1, hospital_id, 'R' FROM hospitals WHERE name = 'A';"
    "INSERT INTO module_master (module_id, hospital_id, module_name) OVERRIDING SYSTEM VALUE SELECT -1, hospital_id, 'M' FROM hospitals"
    " WHERE name = 'B'; "
)
DAMAGE = [
    ("stamp", "UPDATE skinspire_tools.stamp SET environment = 'test'", "stamped test, not dev"),
    ("stamp", "DELETE FROM skinspire_tools.stamp", "no stamp"),
    ("stamp", "DROP SCHEMA skinspire_tools CASCADE", "no stamp"),
    ("tables", "DROP TABLE login_history", "table public.login_history is missing"),
    ("tables", "ALTER TABLE patients DROP COLUMN medical_info", "patients.medical_info is missing"),
    ("constraints", "ALTER TABLE patients DROP CONSTRAINT ck_patients_blood_group", "missing: ck_patients_blood_group"),
    ("constraints", "ALTER TABLE login_history DROP CONSTRAINT pk_login_history", "missing: pk_login_history on public.login_history"),
    ("constraints", "DROP INDEX ix_patients_live", "missing: ix_patients_live"),
    ("constraints", "ALTER TABLE patients ADD CONSTRAINT odd CHECK (mrn <> 'T000001') NOT VALID", "not valid: odd on patients"),
    ("constraints", "ALTER TABLE patients ADD CONSTRAINT odd CHECK (mrn <> 'nobody') NOT VALID", "not valid: odd on patients"),
    ("triggers", "ALTER TABLE patients DISABLE TRIGGER _100_timestamps", "public.patients: DISABLED"),
    ("triggers", "ALTER TABLE patients ENABLE REPLICA TRIGGER _100_timestamps", "public.patients: DISABLED"),
    ("triggers", "DROP TRIGGER _110_user_tracking ON users", "public.users: MISSING"),
    ("reference data", "DELETE FROM parameter_settings WHERE param_code = 'LOCKOUT_MINUTES'", "parameter_settings LOCKOUT_MINUTES"),
    ("reference data", "DELETE FROM role_module_access a USING role_master r WHERE a.role_id = r.role_id AND role_name = 'Nurse'",
     "roles without any right: Nurse"),
    ("administrator", "SET session_replication_role = replica; UPDATE users SET is_active = false", "no administrator"),
    ("administrator", "UPDATE users SET locked_until = now() + interval '1 hour'", "no administrator"),
    ("administrator", "SET session_replication_role = replica; UPDATE users SET password_hash = 'plain text'", "no administrator"),
    ("administrator", "SET session_replication_role = replica; UPDATE user_role_mapping SET is_active = false", "no administrator"),
    ("sequences", "UPDATE role_master SET role_id = 100 WHERE role_name = 'Nurse'", "role_master.role_id at 100"),
    ("sequences", "SELECT setval('module_master_module_id_seq', 1)", "is at 1, module_master.module_id at 16"),
    ("passwords", "SET session_replication_role = replica; UPDATE users SET password_hash = 'plain' WHERE entity_type = 'patient'", "no hash"),
    ("passwords", "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.password_hash := ''plain''; RETURN NEW; END';"
     " CREATE TRIGGER zzz BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION undo()", "fires after the hashing: trigger zzz"),
    ("foreign keys", "SET session_replication_role = replica; DELETE FROM hospitals", "rows refer to nothing"),
    ("foreign keys", "SET session_replication_role = replica; UPDATE patients SET branch_id = gen_random_uuid()", "fk_patients_hospital_id_branch_id"),
    ("foreign keys", "ALTER TABLE patients DISABLE TRIGGER ALL", "switched off: fk_patients_hospital_id"),
    ("storage", "CREATE RULE gone AS ON INSERT TO login_history DO INSTEAD NOTHING", "rule gone on login_history"),
    ("storage", "ALTER TABLE login_history SET UNLOGGED", "login_history is UNLOGGED"),
    ("hospitals", "SET session_replication_role = replica; DELETE FROM user_role_mapping m USING role_master r"
     " WHERE r.role_id = m.role_id AND role_name = 'Hospital Administrator'", "without an administrator"),
    ("sessions and logins", "SET session_replication_role = replica; INSERT INTO user_sessions (user_id, token, expires_at)"
     " SELECT min(user_id), n::text, now() + interval '1 h' FROM users, generate_series(1, 9) AS n GROUP BY n", "too many active sessions"),
    ("sessions and logins", "UPDATE users SET failed_login_attempts = 9", "not locked"),
    ("tenants", CROSSED + "INSERT INTO user_role_mapping (user_id, role_id) SELECT min(user_id), -1 FROM users", "role of another hospital"),
    ("tenants", CROSSED + "INSERT INTO role_module_access (role_id, module_id) VALUES (-1, -1)", "between two hospitals"),
    ("tenants", CROSSED + "UPDATE module_master SET parent_module = -1 WHERE module_id > 1", "under another hospital's module"),
    ("tenants", CROSSED + "UPDATE patients SET hospital_id = (SELECT hospital_id FROM hospitals WHERE name = 'B')", "of another hospital"),
    ("tenants", "SET session_replication_role = replica; UPDATE user_role_mapping SET hospital_id = NULL", "not of their user's hospital"),
    ("attribution", "SET session_replication_role = replica; INSERT INTO hospitals (name, is_active) VALUES ('A', false)",
     "hospitals has rows that do not say by whom"),
    ("attribution", "SET session_replication_role = replica; UPDATE patients SET updated_by = NULL", "patients has rows that do not say"),
    ("storage", "CREATE RULE ignore AS ON INSERT TO parameter_settings DO INSTEAD NOTHING", "in place of what is written"),
    ("write", "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$",
     "every transaction begins read only"),
]  # fmt: skip


def test_all_pass_on_a_good_database(clinic: Project) -> None:
    before = clinic.dump()
    answer = clinic.invoke("db.verify", "--json").json
    assert [(check["name"], check["status"]) for check in answer["checks"]] == [
        (name, "pass") for name in CHECKS | core.CHECKS if name != "views"
    ]
    assert clinic.dump() == before, "the write check leaves nothing"


@pytest.mark.parametrize(("name", "damage", "says"), DAMAGE)
def test_damage_makes_its_check_fail(clinic: Project, name: str, damage: str, says: str) -> None:
    if "role_id = 100" in damage:
        clinic.execute("DELETE FROM user_role_mapping m USING role_master r WHERE m.role_id = r.role_id AND role_name = 'Nurse';"
                       "DELETE FROM role_module_access a USING role_master r WHERE a.role_id = r.role_id AND role_name = 'Nurse'")  # fmt: skip
    clinic.execute(damage)
    outcome = clinic.invoke("db.verify", "--json")
    assert outcome.code == 1
    found = {check["name"]: check for check in outcome.json["checks"]}
    assert found[name]["status"] == "fail" and says in found[name]["detail"]
    assert outcome.json["error"]["type"] == "ChecksFailed"


FOR_PEOPLE = ("give ", "set ", "remove ")  # what no command can decide


@pytest.mark.parametrize(("name", "damage", "says"), DAMAGE)
def test_the_remedy_of_what_failed_first_helps_when_typed(clinic: Project, name: str, damage: str, says: str) -> None:
    if "role_id = 100" in damage:
        clinic.execute("DELETE FROM user_role_mapping m USING role_master r WHERE m.role_id = r.role_id AND role_name = 'Nurse';"
                       "DELETE FROM role_module_access a USING role_master r WHERE a.role_id = r.role_id AND role_name = 'Nurse'")  # fmt: skip
    clinic.execute(damage)
    found = clinic.invoke("db.verify", "--env=dev", "--json").json
    first, remedy = next(each["name"] for each in found["checks"] if each["status"] != "pass"), found["error"]["remedy"]
    assert remedy and "db.verify" not in remedy and "{" not in remedy
    if sql := re.fullmatch(r"type in invoke db\.shell --env=dev: (.*)", remedy):
        done = subprocess.run(clinic.command("db.shell", "--env=dev"), input=sql[1], cwd=clinic.root, env=clinic.environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0 or "violated by some row" in done.stderr, done.stderr
        if (
            "VALIDATE" not in sql[1] and sql[1].startswith(("SELECT f.*", "SELECT * FROM", "SELECT user_id", "\\d"))
        ) or done.returncode != 0:
            assert "(0 rows)" not in done.stdout and len(done.stdout.splitlines()) > 2, (
                "it shows the rows, or what is in the way"
            )
            return
    elif remedy.startswith("invoke "):
        for _ in range(4):  # a look names what mends it, until it finds nothing
            outcome = clinic.invoke(*shlex.split(remedy)[1:])
            for typed in commands(outcome.err.partition(" -> ")[2]):
                assert clinic.invoke(*typed).code in (0, 3), typed
            if outcome.code == 0:
                break
        if "stamped test" in says:
            assert "correct the URL of dev, or use --env=test" in outcome.err, "whose database it is, people decide"
            return
        assert outcome.code == 0, outcome.err
    else:
        assert remedy.startswith(FOR_PEOPLE), remedy
        return
    after = {check["name"]: check["status"] for check in clinic.invoke("db.verify", "--json").json["checks"]}
    assert after[first] == "pass", remedy


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("reference data", "DROP TABLE parameter_settings"),
        ("administrator", "ALTER TABLE users RENAME TO people"),
    ],
)
def test_a_check_that_could_not_run_is_unknown_and_no_pass(clinic: Project, name: str, damage: str) -> None:
    clinic.execute(damage)
    outcome = clinic.invoke("db.verify", "--json")
    assert outcome.code == 1
    assert {check["name"]: check["status"] for check in outcome.json["checks"]}[name] == "unknown"


def test_rows_from_before_the_triggers_may_say_nothing(clinic: Project) -> None:
    clinic.execute(
        "SET session_replication_role = replica; INSERT INTO hospitals (name, is_active, created_at)"
        " VALUES ('A', false, now() - interval '1 year')"
    )
    assert clinic.invoke("db.verify").code == 0


def test_the_write_check_does_not_write_into_another_environments_database(clinic: Project) -> None:
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'")
    clinic.execute(
        "CREATE SEQUENCE writes; CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''writes''); RETURN NEW; END';"
        "CREATE TRIGGER note BEFORE INSERT ON parameter_settings FOR EACH ROW EXECUTE FUNCTION note()"
    )
    assert clinic.invoke("db.verify").code == 1
    assert clinic.query("SELECT is_called FROM writes") == [(False,)]


def test_verbose_tells_what_was_looked_at(clinic: Project) -> None:
    quiet, verbose = clinic.invoke("db.verify").out, clinic.invoke("db.verify", "--verbose").out
    assert "12 tables with" in verbose and "12 tables with" not in quiet
    clinic.execute("DROP INDEX ix_patients_live")
    outcome = clinic.invoke("db.verify")
    assert "fail     constraints" in outcome.out and "missing: ix_patients_live" in outcome.out


def test_verify_needs_no_lock_and_takes_none(clinic: Project) -> None:
    """Another operation is under way: looking must still be possible."""
    with clinic.connect() as other:
        other.execute(f"BEGIN; SELECT pg_advisory_xact_lock({lock.KEY})".encode())
        assert clinic.invoke("db.verify").code == 0
