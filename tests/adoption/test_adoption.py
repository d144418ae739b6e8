"""db.adopt: the report, the adoption, and what the tools say of the database afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import OLD_CLINIC, Project

from skinspire_db.catalog import fingerprint
from skinspire_db.config import environment
from skinspire_db.postgres.target import target_of

OF_THE_TOOLS = "skinspire_tools"
PROBED = """/*
version = 1
summary = "nothing that is kept"
order   = 500
attach  = { tables = ["zz_restore_probe"] }
when    = "BEFORE INSERT"
needs   = { zz_restore_probe = [] }
*/
CREATE OR REPLACE FUNCTION public.probed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
"""


def adopt(project: Project, *more: str) -> Any:
    outcome = project.forked("db.adopt", "--env=dev", f"--confirm={project.database}", "--json", *more)
    assert outcome.code == 0, outcome.out + outcome.err
    return outcome.json


def owned(project: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """The fingerprint of everything but the tools' own schema and Alembic's table."""
    with monkeypatch.context() as patch:
        for name, value in {"SKINSPIRE_PROJECT": str(project.root), **project.env}.items():
            patch.setenv(name, value)
        found = fingerprint.take(target_of(environment.resolve("dev")), "test")
    left_out = (f'"{OF_THE_TOOLS}"', '"public"."alembic_version"')
    rows = {name: value for name, value in found.tables.items() if not name.startswith(left_out)}
    return rows, found.sequences, found.definitions


def test_an_old_clinic_comes_under_the_tools_unharmed(old_clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = owned(old_clinic, monkeypatch)
    adopted = adopt(old_clinic, "--reason=as the old clinic has it")
    assert owned(old_clinic, monkeypatch) == before
    assert [step["name"] for step in adopted["steps"]] == ["compare", "stamp", "history", "owner", "files"]
    assert "proved by a restore" in adopted["notes"][0]
    drift = old_clinic.forked("db.drift", "--json")
    assert drift.code == 0, drift.err
    assert drift.json["drift"] == [] and drift.json["accepted"] > 30 and drift.json["accepted_and_gone"] == []
    assert old_clinic.forked("migrate.check").code == 0
    prepared = old_clinic.forked("db.prepare", "--json")
    assert (prepared.code, prepared.json["steps"]) == (0, []), prepared.out
    assert "as the old clinic has it" in (old_clinic.root / "accepted.toml").read_text()
    assert old_clinic.query("SELECT version_num FROM alembic_version") == [("0001_baseline",)]
    assert owned(old_clinic, monkeypatch) == before


@pytest.fixture(scope="module")
def expected() -> Any:
    return json.loads((Path(__file__).parent.parent / "samples" / "old_clinic" / "expected.json").read_text())


@pytest.mark.slow
def test_the_report_names_every_difficulty(old_clinic: Project, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = owned(old_clinic, monkeypatch)
    outcome = old_clinic.forked("db.adopt", "--json")
    assert outcome.code == 3
    found = outcome.json
    named = {f"{each['kind']} {each['name']} {each['state']}" for each in found["differences"] if each["kind"] != "file"}
    assert named == set(expected["differences"])
    for what in ("tables", "sequences", "passwords", "without_primary_key", "rows_in_the_way", "unused_extensions"):
        assert found[what] == expected[what], what
    assert found["columns"]["new_not_null"] == expected["new_not_null"]
    assert found["soft_references"] == expected["soft_references"]
    assert found["clashes"] == ["function update_timestamp()"] and found["counted_already"] == {}
    assert owned(old_clinic, monkeypatch) == before and not (old_clinic.root / "migrations").exists()
    assert old_clinic.query("SELECT to_regnamespace('skinspire_tools')") == [(None,)]
    text = old_clinic.forked("db.adopt")
    assert text.code == 3 and f"--confirm={old_clinic.database}" in text.err and "letmein" not in text.out


@pytest.mark.slow
def test_the_baseline_makes_the_schema_in_an_empty_database(old_clinic: Project) -> None:
    adopt(old_clinic)
    upgraded = old_clinic.forked("migrate.upgrade", "--env=test")
    assert upgraded.code == 1, upgraded.out  # there is no database yet
    name = old_clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    old_clinic.execute(f"CREATE DATABASE {name}", "postgres")
    upgraded = old_clinic.forked("migrate.upgrade", "--env=test")
    assert upgraded.code == 0, upgraded.err
    drift = old_clinic.forked("db.drift", "--env=test", "--json")
    assert (drift.code, drift.json["accepted_and_gone"]) == (0, []), drift.out
    assert old_clinic.forked("migrate.downgrade", "--env=test").code == 2
    assert old_clinic.query("SELECT count(*) FROM monthly_income", name) == [(0,)]


@pytest.mark.slow
def test_a_second_database_is_compared_with_the_baseline(old_clinic: Project) -> None:
    """The baseline is noted as applied there too; where what it says is there, nothing is told, and else each difference."""
    adopt(old_clinic)
    file = old_clinic.root / "accepted.toml"
    accepted = file.read_text()
    name = old_clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    by_hand = (
        "ALTER TABLE zz_restore_probe ADD COLUMN by_hand int; DROP TABLE vendors; ALTER TABLE bills ALTER memo TYPE text"
    )
    for change, warnings in (
        ("", None),
        (
            by_hand,
            [
                f"not as the revision leaves it: {what}"
                for what in (
                    "column public.bills.memo differs",
                    "column public.zz_restore_probe.by_hand is extra",
                    "table public.vendors is missing",
                )
            ],
        ),
    ):
        old_clinic.execute(f"DROP DATABASE IF EXISTS {name}", "postgres")
        old_clinic.execute(f"CREATE DATABASE {name}", "postgres")
        old_clinic.execute(OLD_CLINIC.joinpath("old_clinic.sql").read_text(encoding="utf-8"), name)
        if change:
            old_clinic.execute("DROP VIEW open_bills_view", name)
            old_clinic.execute(change, name)
        assert "it is not adopted" in old_clinic.forked("db.doctor", "--env=test").err
        outcome = old_clinic.forked("db.adopt", "--env=test", f"--confirm={name}", "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.json.get("warnings") == warnings
        assert (file.read_text() == accepted) is not bool(change)
        drift = old_clinic.forked("db.drift", "--env=test", "--json")
        assert (drift.code, drift.json["drift"]) == (0, []), drift.out
    assert old_clinic.forked("db.drift", "--env=dev").code == 0  # what the second one accepts holds for the first as before


@pytest.mark.slow
def test_what_is_not_accepted_any_more_or_changed_is_drift_again(old_clinic: Project) -> None:
    adopt(old_clinic)
    file = old_clinic.root / "accepted.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "idx_patients_phone" not in line))
    drift = old_clinic.forked("db.drift", "--json")
    assert drift.code == 3 and [each["name"] for each in drift.json["drift"]] == ["idx_patients_phone on public.patients"]
    old_clinic.execute("DROP INDEX idx_patients_phone; ALTER TABLE vendors ADD CHECK (name <> '')")
    drift = old_clinic.forked("db.drift", "--json")
    assert [each["name"] for each in drift.json["drift"]] == ["vendors_name_check on public.vendors"]
    old_clinic.execute(
        "ALTER TABLE vendors DROP CONSTRAINT vendors_name_check; ALTER TABLE bill_lines ALTER line_id TYPE smallint"
    )
    drift = old_clinic.forked("db.drift", "--json")
    assert drift.code == 3 and [each["name"] for each in drift.json["drift"]] == ["public.bill_lines.line_id"]
    old_clinic.execute("ALTER TABLE bill_lines ALTER line_id TYPE bigint")
    drift = old_clinic.forked("db.drift", "--json")
    assert (drift.code, drift.json["accepted_and_gone"]) == (0, ["column public.bill_lines.line_id type"])
    # A view that the models read has no file, and is compared by the columns that they read.
    old_clinic.execute("DROP VIEW open_bills_view; CREATE VIEW open_bills_view AS SELECT bill_id, memo FROM bills")
    drift = old_clinic.forked("db.drift", "--json")
    assert drift.code == 3 and drift.json["drift"][0]["what"] == {"columns": ["bill_id, memo", "bill_id, gross"]}
    assert "invoke sql.new --env=dev --view=open_bills_view --from-database" in drift.json["error"]["remedy"]
    # A trigger file that is applicable here alone, by a table that no model has, makes no difference once it is installed.
    assert old_clinic.forked("db.drift", "--accept", "--reason=by hand").code == 0
    own = old_clinic.root / "sql" / "triggers" / "probed.sql"
    (own.parent / "verify").mkdir(parents=True)
    own.write_text(PROBED)
    (own.parent / "verify" / own.name).write_text("DO $$ BEGIN PERFORM pg_temp.expect(true, 'it runs'); END $$;\n")
    assert old_clinic.forked("triggers.bump", "--name=probed").code == 0
    installed = old_clinic.forked("triggers.install", "--name=probed")
    assert installed.code == 0, installed.err
    drift = old_clinic.forked("db.drift", "--json")
    assert (drift.code, drift.json["drift"]) == (0, []), drift.out
    old_clinic.execute("ALTER FUNCTION probed() COST 7")
    drift = old_clinic.forked("db.drift", "--json")
    assert [each["name"] for each in drift.json["drift"]] == ["probed()"], drift.out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wrong", "empty", "twice", "foreign", "unknown revision"])
def test_what_is_refused(old_clinic: Project, kind: str) -> None:
    confirm, said = old_clinic.database, ""
    match kind:
        case "wrong":
            confirm, said = "other", "--confirm=other does not name it"
        case "empty":
            old_clinic.execute(
                "DROP SCHEMA public CASCADE; DROP SCHEMA claims, deprecated_stuff CASCADE; CREATE SCHEMA public"
            )
            said = "nothing to adopt"
        case "twice":
            adopt(old_clinic)
            confirm, said = "other", "it is adopted"  # what cannot be done is said before what it would need
        case "foreign":
            old_clinic.execute(
                "CREATE SCHEMA skinspire_tools; CREATE TABLE skinspire_tools.stamp (only_row boolean PRIMARY KEY,"
                " environment text, identity uuid); INSERT INTO skinspire_tools.stamp VALUES (true, 'prod', gen_random_uuid())"
            )
            said = "prod"
        case "unknown revision":
            old_clinic.execute("INSERT INTO alembic_version VALUES ('abc')")
            said = "abc, which no revision file of the project has"
    files = sorted(old_clinic.root.rglob("*.toml"))
    before = old_clinic.dump()
    outcome = old_clinic.forked("db.adopt", f"--confirm={confirm}")
    assert outcome.code == 2 and said in outcome.err, outcome.err
    assert old_clinic.dump() == before and sorted(old_clinic.root.rglob("*.toml")) == files


@pytest.mark.slow
def test_rows_that_lead_to_another_hospital_are_counted(old_clinic: Project) -> None:
    """By a table's own hospital, and for a table without one by two rows that it joins."""
    old_clinic.execute(
        "UPDATE bills SET hospital_id = (SELECT h.hospital_id FROM hospitals h WHERE h.hospital_id <> bills.hospital_id LIMIT 1)"
        " WHERE bill_id = (SELECT min(bill_id::text)::uuid FROM bills);"
        "CREATE TABLE notes (bill_id uuid REFERENCES bills, patient_id uuid REFERENCES patients);"
        "INSERT INTO notes SELECT bill_id, patient_id FROM bills"
    )
    wrong = "SELECT count(*) FROM bills b JOIN patients p USING (patient_id) WHERE b.hospital_id <> p.hospital_id"
    [(bills,)] = old_clinic.query(wrong)
    found = {
        (each["table"], each["by"]): each["rows"] for each in old_clinic.forked("db.adopt", "--json").json["across_hospitals"]
    }
    assert bills > 0 and found["bills", "patient_id to patients"] == bills, found
    assert found["notes", "bill_id to bills and patient_id to patients"] == bills, found


@pytest.mark.slow
def test_a_fault_of_the_models_hides_no_other_difference(old_clinic: Project) -> None:
    """What PostgreSQL refuses of them is named and accepted as such; the comparison of the rest is true."""
    before = old_clinic.forked("db.adopt", "--json").json["differences"]
    models = old_clinic.root / "app" / "models.py"
    key = '    name_key = Column(String(80), ForeignKey("vendors.name", name="slips_name_key"))\n\n\nclass Vendor('
    models.write_text(models.read_text().replace("\n\nclass Vendor(", key, 1))
    outcome = old_clinic.forked("db.adopt", "--json")
    found = outcome.json
    assert outcome.code == 3, found["error"]
    new = [each for each in found["differences"] if each not in before]
    assert [(each["kind"], each["name"], each["state"]) for each in new] == [
        ("constraint", "slips_name_key on public.slips", "refused"), ("column", "public.slips.name_key", "missing"),
    ]  # fmt: skip
    assert len(new) + len(before) == len(found["differences"])
    [line] = [line for line in found["steps"][2]["lines"] if line.startswith("faults of the models")]
    assert line.endswith("constraint slips_name_key on public.slips")
    adopt(old_clinic)
    old_clinic.execute("CREATE INDEX by_hand ON vendors (name)")
    drift = old_clinic.forked("db.drift", "--json")
    assert drift.code == 3 and [each["name"] for each in drift.json["drift"]] == ["by_hand on public.vendors"], drift.out
    old_clinic.execute("DROP INDEX by_hand")
    assert old_clinic.forked("db.verify").code == 0 and old_clinic.forked("db.prepare").code == 0
    file = old_clinic.root / "accepted.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if "public.slips" not in line))
    drift = old_clinic.forked("db.drift")
    assert drift.code == 3 and "constraint slips_name_key on public.slips: refused -> correct the model" in drift.err
    written = old_clinic.forked("migrate.new", "--message=slips")
    assert written.code == 0 and "PostgreSQL refuses it, and it is left out: constraint slips_name_key" in written.out
    made = old_clinic.forked("db.setup", "--env=test")  # the models alone make no database
    assert made.code == 1 and "no unique constraint matching" in made.err


@pytest.mark.slow
def test_tenancy_after_an_adoption(make_project: Callable[..., Project]) -> None:
    """Adopting makes no policy, and says by which command they are made: that makes these alone, and db.verify asks for no more."""
    project = make_project('tenancy = true\nmetadata = ["app:metadata"]\nmigrations = "migrations"\n')
    (project.root / "app.py").write_text(
        "from sqlalchemy import *\nmetadata = MetaData()\nTable('visits', metadata, Column('visit_id', Integer, primary_key=True,"
        " autoincrement=False), Column('hospital_id', UUID, nullable=False), Column('updated_at', TIMESTAMP(timezone=True)))\n"
    )
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    try:
        project.execute("CREATE TABLE visits (visit_id int PRIMARY KEY, hospital_id uuid NOT NULL, updated_at timestamptz)")
        adopted = project.invoke("db.adopt", "--env=dev", f"--confirm={project.database}", "--reason=as it was")
        command = "sql.install --env=dev --name=policies/tenant"
        assert adopted.code == 0 and command in " ".join(adopted.out.split()), adopted.out + adopted.err
        verified = project.invoke("db.verify")
        assert verified.code == 1 and command in verified.err and project.query("SELECT FROM pg_policy") == []
        assert project.invoke(*command.split()).code == 0
        assert len(project.query("SELECT FROM pg_policy")) == 2
        assert project.query("SELECT FROM pg_trigger WHERE NOT tgisinternal") == [], "the triggers are left alone still"
        verified = project.invoke("db.verify")
        assert "login" in verified.err and "policies/tenant" not in verified.out, (
            verified.out
        )  # which is a superuser in tests
        drift = project.invoke("db.drift")
        assert drift.code == 0, drift.out
    finally:
        project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
        for role in ("app", "system"):
            project.execute(f'DROP ROLE IF EXISTS "{project.database}_{role}"', "postgres")
