"""Scenarios of db.seed: those of the core, a project's own, and files that are none."""

from __future__ import annotations

import pytest
from conftest import Project


def seed(project: Project, name: str, *arguments: str) -> dict[str, int]:
    outcome = project.invoke("db.seed", f"--scenario={name}", "--json", *arguments)
    assert outcome.code == 0, outcome.out + outcome.err
    summary: dict[str, int] = outcome.json["steps"][0]["summary"]
    return summary


def test_edge_cases_have_what_breaks_screens(clinic: Project) -> None:
    before = clinic.query("SELECT count(*) FROM patients")[0][0]
    added = seed(clinic, "edge-cases")["scenario_rows_added"]
    assert clinic.query("SELECT count(*) FROM patients") == [(before + added,)] and added >= 15
    assert seed(clinic, "edge-cases")["scenario_rows_added"] == 0, "once more adds nothing"
    edge = "SELECT count(*) FROM patients WHERE mrn LIKE 'EDGE-%%' AND "
    for what, condition in {
        "longest names": "length(first_name) = 100 AND length(last_name) = 100 AND length(mrn) = 20 AND length(title) = 10",
        "no e-mail": "contact_info ->> 'email' IS NULL AND contact_info ->> 'phone' IS NOT NULL",
        "no contact": "contact_info = '{}'",
        "a minor": "(personal_info ->> 'date_of_birth')::date > '2015-01-01' AND emergency_contact ->> 'guardian' = 'true'",
        "right to left": "first_name ~ '[\u0590-\u06ff]'",
        "emoji": "first_name ~ '[\U0001f300-\U0001faff]'",
        "29 February": "personal_info ->> 'date_of_birth' LIKE '%%-02-29'",
        "deceased": "personal_info ? 'deceased_on' AND NOT is_active",
    }.items():
        assert clinic.query(f"{edge}{condition}".replace("%%", "%")) >= [(1,)], what
    twins = (
        "SELECT count(*) FROM patients GROUP BY first_name, last_name, personal_info ->> 'date_of_birth' HAVING count(*) > 1"
    )
    assert (2,) in clinic.query(twins)


@pytest.mark.slow
def test_the_other_scenarios_and_a_projects_own(clinic: Project) -> None:
    assert seed(clinic, "edge-cases") and seed(clinic, "new-hospital") == {
        "reference_rows_added": 0, "reference_rows_updated": 0, "administrators": 0, "scenario_rows_added": 3,
        "scenario_rows_updated": 0,
    }  # fmt: skip
    assert seed(clinic, "busy-clinic")["patients"] == 2000 - 20
    assert clinic.invoke("db.verify").code == 0
    folder = clinic.root / "scenarios"
    folder.mkdir()
    (folder / "busy-clinic.toml").write_text("[scenario]\npatients = 2001\n")
    assert seed(clinic, "busy-clinic")["patients"] == 1, "the project's own takes its place"
    assert seed(clinic, "busy-clinic", "--patients=2003")["patients"] == 2, "what is typed counts"
    planned = clinic.invoke("--dry", "db.seed", "--scenario=edge-cases", "--json")
    assert planned.code == 0 and not any("patients" in each for each in planned.json["would"]), planned.out


@pytest.mark.slow
def test_what_is_no_scenario_is_refused(clinic: Project) -> None:
    clinic.env["PROD_DATABASE_URL"] = clinic.url("prod_of_nothing")
    for arguments, says in {
        "--scenario=edge-case": "there is no scenario edge-case; there are busy-clinic, edge-cases, new-hospital -> invoke db.seed",
        "--scenario=": "there is no scenario ;",
        "--scenario=../secrets": "there is no scenario ../secrets",
        "--scenario=edge-cases --reference-only": "a scenario is test data",
        "--scenario=edge-cases --env=prod": "test data is never seeded into a protected environment",
        "--scenario=new-hospital --env=prod": "test data is never seeded into a protected environment",
    }.items():
        outcome = clinic.invoke("db.seed", *arguments.split())
        assert outcome.code == 2 and says in outcome.err, (arguments, outcome.err)
    folder = clinic.root / "scenarios"
    folder.mkdir()
    for number, (text, code, says) in enumerate((
        ("x", 2, "is not valid TOML"), ("scenario = 1", 2, "scenario is no table"), ("[scenario]\nbeds = 2", 2, "scenario is no table"),
        ("[scenario]\npatients = 'x'", 2, "patients is no whole number"), ("[scenario]\npatients = 0", 2, "is not between"),
        ("[patients]\nrows = []", 2, "has no key"), ("[wards]\nkey = 'a'\nrows = [{ a = 1 }]", 1, "wards"),
    )):  # fmt: skip
        (folder / f"own_{number}.toml").write_text(text)
        outcome = clinic.invoke("db.seed", f"--scenario=own_{number}")
        assert outcome.code == code and says in outcome.err, (text, outcome.err)
    (clinic.root / "pyproject.toml").write_text("[tool.skinspire_db]\nscenarios = 'nowhere'\n")
    outcome = clinic.forked("db.seed", "--scenario=own")
    assert outcome.code == 2 and "scenarios = 'nowhere' in pyproject.toml is no folder" in outcome.err
