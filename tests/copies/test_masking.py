"""Masked copies: nothing of the source but what rules keep; keys, conditions and sign-ins hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Outcome, Project
from support import database

PYPROJECT = '[tool.skinspire_db.environments.live]\nextends = "prod"\nsslmode = "disable"\n'


@pytest.fixture
def live(make_project: Callable[..., Project], template: str) -> Project:
    """A project whose protected environment `live` is set up, with the core's invented people; dev does not exist yet."""
    project = make_project("")
    (project.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{PYPROJECT}")
    project.env["LIVE_DATABASE_URL"] = project.env["TEST_DATABASE_URL"].replace("/test_", "/live_")
    project.execute(f'CREATE DATABASE "{source(project)}" TEMPLATE {template}', "postgres")
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'", source(project))
    return project


def source(project: Project) -> str:
    return database(project, "LIVE")


def masked(project: Project, *more: str) -> Outcome:
    arguments = ("--source=live", "--target=dev", "--masked", f"--confirm={source(project)}")
    return project.invoke("db.copy", *arguments, *more)


def test_nothing_of_a_person_leaves_a_protected_environment(live: Project) -> None:
    refused = live.invoke("db.copy", "--source=live", "--target=dev", "--masked")
    assert refused.code == 2 and f"--masked --confirm={source(live)}" in refused.err
    outcome = masked(live, "--json")
    assert outcome.code == 0, outcome.err
    dump = live.dump()
    for column in PERSONAL:
        table, _, name = column.partition(".")
        for (value,) in live.query(
            f"SELECT DISTINCT ({name})::text FROM {table} WHERE length(({name})::text) > 5", source(live)
        ):
            assert value not in dump, column
    assert live.query(COUNTS) == live.query(COUNTS, source(live))


PERSONAL = (
    "users.user_id",
    "patients.last_name",
    "patients.mrn",
    "staff.staff_id",
    "patients.contact_info->'address'->>'street'",
)
COUNTS = """
    SELECT count(*), count(DISTINCT u.user_id), count(DISTINCT first_name), count(DISTINCT to_jsonb(p) - 'x') FROM patients p
    JOIN users u ON entity_id = patient_id JOIN user_role_mapping USING (user_id)
"""


@pytest.mark.slow
def test_the_masked_core_works(live: Project) -> None:
    """All commands work on the copy; people sign in with the documented password; the copy may be copied on."""
    assert masked(live).code == 0
    checked = live.invoke("mask.check", "--env=live", "--json")
    assert checked.code == 0 and checked.json["refusals"] == [], "each column of the core has a rule"
    assert live.invoke("db.verify").code == 0
    assert live.invoke("db.drift").code == 0
    prepared = live.invoke("db.prepare", "--json")
    assert (prepared.code, prepared.json["steps"]) == (0, [])
    for command in ("db.inspect", "db.history"):
        assert "a masked copy of live" in live.invoke(command).err
    hashes = live.query("SELECT DISTINCT password_hash = crypt('SkinSpire@2024', password_hash) FROM users")
    assert hashes == [(True,)]
    assert live.invoke("db.copy", "--source=dev", "--target=test").code == 0
    stamped = live.query("SELECT environment, masked_from, masked_rules FROM skinspire_tools.stamp", database(live, "TEST"))
    assert stamped == [("test", "live", "masks/core 1")]
    assert live.invoke("db.copy", "--source=live", "--target=dev").code == 2, "as it is, the protected one is not copied"


RULES = """version = 1
summary = "rules that tests use"
{}
"""
WRONG = [
    ('[tables.patients]\nnonesuch = "text"', "masks/own.toml: there is no column patients.nonesuch"),
    ('[tables.nonesuch]\nx = "text"', "there is no table nonesuch"),
    ('[tables.patients]\nfirst_name = "date"', "date is no mask for patients.first_name, which is of type character varying(100)"),
    ('[tables.patients]\nmrn = { mask = "constant", value = "x" }', "two masked rows of patients would be equal in its key"),
    ('[tables.users]\nentity_type = { mask = "constant", value = "x" }', "masked rows of users would break ck_users_entity_type, on entity_type"),
    ('[tables.users]\nentity_id = "null"', "users.entity_id cannot be null"),
    ('[tables.patients]\nfirst_name = "nonesuch"', "own.toml:4: patients.first_name: there is no mask nonesuch"),
    ('drop_rows = ["users"]', "users, whose rows stay away"),
    ("nonesuch = 1", "nonesuch is no key of a file of rules"),
    ('[tables.patients]\ntitle = { mask = "json", paths = { a = "nonesuch" } }', "nonesuch is no mask of a json path"),
    ('[tables.patients]\ntitle = { mask = "digits", references = "users.nonesuch" }', "there is no column users.nonesuch"),
]  # fmt: skip


def rules(project: Project, text: str, name: str = "own") -> None:
    folder = project.root / "sql" / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "sql.lock").unlink(missing_ok=True)  # each text is a first version
    (folder / f"{name}.toml").write_text(RULES.format(text))
    assert project.invoke("sql.bump", f"--name=masks/{name}").code == 0


@pytest.mark.slow
def test_a_rule_that_cannot_hold_is_refused_before_the_copy(live: Project) -> None:
    for text, says in WRONG:
        rules(live, text)
        arguments = ("--source=live", "--target=dev", "--masked", f"--confirm={source(live)}")
        outcome = live.invoke("--dry", "db.copy", *arguments)
        assert outcome.code in (1, 2) and says in outcome.err and "sql/masks" in outcome.err, outcome.err


@pytest.mark.slow
def test_a_value_of_a_masked_column_that_is_kept_in_another_one_stops_the_copy(live: Project) -> None:
    live.execute("UPDATE patients SET medical_info = 'Bhattacharya' WHERE mrn = 'T000003'", source(live))
    rules(live, '[tables.patients]\nmedical_info = "keep"')
    outcome = masked(live, "--json")
    assert outcome.code == 1 and "1 value of patients.last_name, in patients.medical_info" in outcome.json["error"]["message"]
    assert live.query(f"SELECT FROM pg_database WHERE datname ~ '^{live.database}'", "postgres") == [], "no part of a copy"
    live.execute("UPDATE patients SET medical_info = 'nothing known' WHERE mrn = 'T000003'", source(live))
    outcome = masked(live, "--json")
    assert outcome.code == 0, outcome.err
    found = next(step["summary"] for step in outcome.json["steps"] if step["name"] == "search")
    assert found["values_found"] == 0 and found["values_looked_for"] > 200
