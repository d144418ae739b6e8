"""The tasks of the triggers: status, diff, verify, install, and the switch."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.objects import versions
from skinspire_db.objects.status import ObjectState, status

Connection = psycopg.Connection[Any]

CURRENT = versions.current(settings.Project(Path(), {}))


def found_by(clinic: Project, code: int = 3) -> dict[str, str]:
    """object -> note of what triggers.status does not call INSTALLED."""
    outcome = clinic.invoke("triggers.status", "--json")
    assert outcome.code == code
    return {
        f"{each['object']}: {each['state']}": each["note"]
        for each in outcome.json["triggers"]
        if each["state"] != "INSTALLED"
    }


def test_status_tells_a_wish_from_an_accident(clinic: Project) -> None:
    trigger = "_130_login_tracking on public.login_history"
    assert clinic.invoke("triggers.disable", "--name=login_tracking").code == 0
    assert "on purpose by skinspire" in found_by(clinic)[f"{trigger}: DISABLED"]
    assert "triggers.enable --name=login_tracking --env=dev" in clinic.invoke("triggers.status").err
    clinic.execute("INSERT INTO login_history (user_id, status) SELECT user_id, 'failed' FROM users")
    assert clinic.query("SELECT max(failed_login_attempts) FROM users") == [(0,)]
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 0 and "1 left disabled" in outcome.out
    assert f"{trigger}: DISABLED" in found_by(clinic)
    clinic.execute("ALTER TABLE login_history ENABLE TRIGGER _130_login_tracking")
    assert "on purpose" in found_by(clinic)[f"{trigger}: DRIFTED"]
    assert clinic.invoke("triggers.enable", "--name=login_tracking").code == 0
    assert found_by(clinic, 0) == {}
    clinic.execute("ALTER TABLE login_history DISABLE TRIGGER _130_login_tracking")
    assert "by accident" in found_by(clinic)[f"{trigger}: DISABLED"]
    assert clinic.invoke("triggers.install").code == 0
    assert found_by(clinic, 0) == {}


def test_a_disabled_file_stays_disabled_on_a_new_table_and_in_a_new_version(clinic: Project) -> None:
    assert clinic.invoke("triggers.disable", "--name=timestamps").code == 0
    clinic.execute("CREATE TABLE newcomer (created_at timestamptz, updated_at timestamptz)")
    assert clinic.invoke("triggers.install").code == 0
    assert clinic.invoke("triggers.install", "--name=timestamps", "--at-version=1").code == 0
    assert clinic.query("SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname = '_100_timestamps'") == [("D",)]


@pytest.mark.parametrize("verb", ["disable", "enable"])
def test_wrong_arguments_of_the_switch(clinic: Project, verb: str) -> None:
    for arguments, says in (([], "needs the name"), (["--name=nonesuch"], "no trigger file nonesuch is installed"),
                            (["--name=parameters"], "parameters has no triggers")):  # fmt: skip
        outcome = clinic.invoke(f"triggers.{verb}", *arguments)
        assert outcome.code == 2 and says in outcome.err


def test_a_protected_environment_wants_a_confirmation(make_project: Callable[..., Project]) -> None:
    project = make_project("[tool.skinspire_db.environments.dev]\nprotected = true\ntest_data = false\n")
    assert project.invoke("db.setup").code == 0
    outcome = project.invoke("triggers.disable", "--name=login_tracking")
    assert outcome.code == 2 and "would switch off the triggers of login_tracking" in outcome.err
    assert f"invoke triggers.disable --name=login_tracking --env=dev --confirm={project.database}" in outcome.err
    assert project.invoke("triggers.disable", "--name=login_tracking", f"--confirm={project.database}").code == 0
    assert project.invoke("triggers.enable", "--name=login_tracking").code == 0


def test_diff_shows_what_an_install_would_change(clinic: Project) -> None:
    outcome = clinic.invoke("triggers.diff")
    assert outcome.code == 0 and "+" not in outcome.out and "the database was not changed" in outcome.out
    clinic.execute(
        "CREATE OR REPLACE FUNCTION expire_sessions() RETURNS integer LANGUAGE sql AS 'SELECT 0';"
        "DROP TRIGGER _100_timestamps ON staff; ALTER TABLE users DISABLE TRIGGER _110_user_tracking;"
        "CREATE OR REPLACE TRIGGER _130_login_tracking BEFORE INSERT ON login_history FOR EACH ROW EXECUTE FUNCTION login_tracking()"
    )
    before = clinic.dump()
    with clinic.connect() as writer:
        writer.execute("BEGIN; UPDATE staff SET title = title; UPDATE users SET is_active = is_active")
        outcome = clinic.invoke("triggers.diff")
        writer.execute("ROLLBACK")
    assert outcome.code == 3 and "4 functions and triggers differ" in outcome.err
    lines = [line.strip() for line in outcome.out.splitlines()]
    assert "- LANGUAGE sql" in lines and "+ LANGUAGE plpgsql" in lines
    assert "timestamps: _100_timestamps on public.staff" in lines
    assert any(line.startswith("+CREATE TRIGGER _100_timestamps BEFORE INSERT OR UPDATE") for line in lines)
    assert "-disabled" in lines and "+enabled" in lines
    assert any(line.startswith("-CREATE TRIGGER _130_login_tracking BEFORE INSERT") for line in lines)
    assert clinic.dump() == before
    assert clinic.invoke("triggers.diff", "--name=timestamps").err.startswith("error: 1 function or trigger differs")
    assert clinic.invoke("triggers.install").code == 0
    assert clinic.invoke("triggers.diff").code == 0


def test_diff_of_a_file_that_is_gone(clinic: Project) -> None:
    (clinic.root / "pyproject.toml").write_text('[tool.skinspire_db]\ndisabled_triggers = ["parameters"]\n')
    outcome = clinic.invoke("triggers.diff")
    assert outcome.code == 3 and "-CREATE OR REPLACE FUNCTION public.integer_parameter" in outcome.out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "DO $$ BEGIN EXECUTE (SELECT replace(replace(pg_get_triggerdef(oid), 'CREATE', 'CREATE OR REPLACE'), 'IS DISTINCT',"
            " 'IS NOT DISTINCT') FROM pg_trigger WHERE tgrelid = 'patients'::regclass AND tgname = '_160_hospital_stays'); END $$",
            "_160_hospital_stays on public.patients",
        ),
        ("ALTER TABLE patients RENAME hospital_id TO clinic_id", "no column patients.hospital_id"),
    ],
)
def test_a_condition_that_changed_is_seen(clinic: Project, change: str, says: str) -> None:
    """The ledger's text stands for a trigger that is as it was, and for no other."""
    clinic.execute(change)
    outcome = clinic.invoke("triggers.status")
    assert outcome.code == 3 and says in outcome.out


def test_conditions_are_known_while_their_tables_are_held(clinic: Project) -> None:
    """PostgreSQL opens a table to print a condition. A ledger of earlier tools learns their shape, and no trigger is remade."""
    clinic.execute(
        "UPDATE skinspire_tools.ledger SET triggers = (SELECT coalesce(jsonb_object_agg(key, value - 'shape'), '{}')"
        " FROM jsonb_each(triggers))"
    )
    made = "SELECT oid, xmin::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    before = clinic.query(made)
    assert clinic.invoke("triggers.install").code == 0
    assert clinic.query(made) == before
    held = "SELECT string_agg(DISTINCT tgrelid::regclass::text, ', ') FROM pg_trigger WHERE tgqual IS NOT NULL"
    with clinic.connect() as holder:
        [(tables,)] = clinic.query(held)
        holder.execute(f"BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        assert clinic.invoke("triggers.status").code == 0
        holder.execute("ROLLBACK")


def test_verify_has_three_views_and_the_proofs(clinic: Project) -> None:
    outcome = clinic.invoke("triggers.verify", "--json")
    assert outcome.code == 0
    assert [step["name"] for step in outcome.json["steps"]] == ["functions", "critical", "counts", "proofs"]
    names = [check["name"] for check in outcome.json["checks"]]
    assert "verify_password(text,text)" in names and "public.patients" in names and "login_tracking" in names
    clinic.execute(
        "DROP TRIGGER _120_password_hashing ON users; CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER theirs BEFORE UPDATE ON staff FOR EACH ROW EXECUTE FUNCTION theirs()"
    )
    assert clinic.invoke("triggers.verify", "--functions").code == 0
    outcome = clinic.invoke("triggers.verify", "--counts")
    assert outcome.code == 1 and "public.users: 9 of 10 triggers" in outcome.err
    assert re.search(r"public\.staff +(\d) of \1 triggers, and 1 of others", outcome.out)
    outcome = clinic.invoke("triggers.verify", "--critical")
    assert outcome.code == 1 and "_120_password_hashing on public.users" in outcome.err
    outcome = clinic.invoke("triggers.verify")
    assert outcome.code == 1
    assert [line.split()[0] for line in outcome.out.splitlines() if " passed " in line] == [
        "functions",
        "critical",
        "counts",
        "proofs",
    ]


def test_verify_of_a_database_without_tables_is_no_pass(project: Project) -> None:
    assert project.invoke("db.setup").code == 0
    assert project.invoke("db.reset").code == 0
    assert project.invoke("triggers.verify").code == 1
    assert project.invoke("triggers.install").code == 0
    outcome = project.invoke("triggers.install", "--verify")
    assert outcome.code == 1 and "unknown" in outcome.out and "invoke db.create" in outcome.err


def test_a_database_of_an_earlier_version_of_the_tools(clinic: Project) -> None:
    """Its ledger has no columns for wishes; looking works, and the first change adds them."""
    clinic.execute(
        "ALTER TABLE skinspire_tools.ledger DROP COLUMN disabled_by, DROP COLUMN disabled_at; COMMENT ON SCHEMA skinspire_tools IS NULL"
    )
    assert clinic.invoke("triggers.status").code == 0
    assert clinic.invoke("triggers.disable", "--name=timestamps").code == 0
    assert clinic.invoke("triggers.status").code == 3


PGTAP = sorted(Path("/usr/share/postgresql").glob("*/extension/pgtap--[0-9.]*.sql"))


@pytest.mark.skipif(not PGTAP, reason="pgTAP is not installed (Debian: apt-get install pgtap)")
def test_pgtap_agrees_with_status(clinic: Project) -> None:
    """An independent judge of which triggers and functions exist, and on which tables."""
    script = next(path for path in PGTAP if path.name.count("--") == 1)
    with clinic.connect() as connection:
        connection.execute("CREATE SCHEMA tap; SET search_path = tap, public")
        connection.execute(script.read_bytes())

        def tap(query: str, *values: str) -> bool:
            return str(connection.execute(f"SELECT {query}".encode(), values).fetchall()[0][0]).startswith("ok")

        def agrees(states: list[ObjectState]) -> int:
            for each in states:
                exists = each.state not in ("MISSING", "UNATTACHED")
                if " on " in each.object:
                    trigger, table = each.object.split(" on public.")
                    assert tap("has_trigger('public', %s, %s::name)", table, trigger) is exists, each
                else:
                    name, _, arguments = each.object.rstrip(")").partition("(")
                    wanted = "{" + arguments + "}"
                    assert tap("has_function('public', %s, %s::name[])", name, wanted) is exists, each
            return len(states)

        connection.execute("SET search_path = public, tap; SELECT * FROM no_plan()")
        assert agrees(status(connection, CURRENT)) == 96
        for table in ("staff", "users"):
            names = [row[0] for row in connection.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", (table,))]  # fmt: skip
            assert tap("triggers_are('public', %s, %s::name[], 'all')", table, "{" + ",".join(names) + "}")
        connection.execute("DROP TRIGGER _100_timestamps ON staff; DROP FUNCTION expire_sessions();"
                           " CREATE TABLE newcomer (created_at timestamptz, updated_at timestamptz)")  # fmt: skip
        wrong = [each.state for each in status(connection, CURRENT) if each.state != "INSTALLED"]
        assert sorted(wrong) == ["MISSING", "MISSING", "UNATTACHED"]
        agrees(status(connection, CURRENT))


def test_install_waits_for_no_reader_of_another_table(clinic: Project) -> None:
    """A new table gets its triggers while another session writes to all the others."""
    clinic.execute("CREATE TABLE newcomer (created_at timestamptz, updated_at timestamptz)")
    with clinic.connect() as writer:
        writer.execute("BEGIN; UPDATE patients SET title = title")
        done: list[int] = []
        task = threading.Thread(target=lambda: done.append(clinic.process("triggers.install").code))
        task.start()
        task.join(100)  # what waits for the writer fails after lock_timeout, 5 s
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
