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


def test_the_core_is_masked_and_works(live: Project) -> None:
    """One confirmed copy of a protected environment: everything works on it, and no value of a person is in it."""
    refused = live.invoke("db.copy", "--source=live", "--target=dev", "--masked")
    assert refused.code == 2 and f"--masked --confirm={source(live)}" in refused.err
    assert live.invoke("db.copy", "--source=live", "--target=dev").code == 2
    outcome = masked(live, "--json")
    assert outcome.code == 0, outcome.err
    assert live.invoke("db.verify").code == 0
    assert live.invoke("db.drift").code == 0
    prepared = live.invoke("db.prepare", "--json")
    assert (prepared.code, prepared.json["steps"]) == (0, [])
    assert "a masked copy of live" in live.invoke("db.inspect").err
    assert "a masked copy of live" in live.invoke("db.history").err
    dump = live.dump()
    for column in (
        "users.user_id",
        "patients.last_name",
        "patients.mrn",
        "staff.staff_id",
        "patients.contact_info->'address'->>'street'",
    ):
        table, _, name = column.partition(".")
        for (value,) in live.query(
            f"SELECT DISTINCT ({name})::text FROM {table} WHERE length(({name})::text) > 5", source(live)
        ):
            assert value not in dump, column
    hashes = live.query("SELECT DISTINCT password_hash = crypt('SkinSpire@2024', password_hash) FROM users")
    assert hashes == [(True,)]
    assert live.query("SELECT count(*) FROM user_role_mapping") == live.query(
        "SELECT count(*) FROM user_role_mapping", source(live)
    )
    # A masked database may be copied on, and stays masked.
    assert live.invoke("db.copy", "--source=dev", "--target=test").code == 0
    stamped = live.query("SELECT environment, masked_from, masked_rules FROM skinspire_tools.stamp", database(live, "TEST"))
    assert stamped == [("test", "live", "masks/core 1")]
