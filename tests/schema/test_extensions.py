"""An extension that is missing is made by what the commands name, without a revision of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Project


@pytest.fixture
def app(make_project: Callable[..., Project], template: str) -> Project:
    project = make_project('extensions = ["citext"]\nmigrations = "migrations"\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    return project


def test_only_an_extension_is_missing(app: Project) -> None:
    drift = app.invoke("db.drift")
    assert drift.code == 3 and "extension citext" in drift.err and "-> invoke migrate.upgrade --env=dev" in drift.err
    written = app.invoke("migrate.new", "-m", "citext")
    assert written.code == 0 and "invoke migrate.upgrade --env=dev makes it: extension citext" in written.out
    assert list(app.root.glob("migrations/versions/*.py")) == []
    upgraded = app.invoke("migrate.upgrade", "--json")
    assert upgraded.code == 0 and upgraded.json["steps"][0]["summary"] == {"extensions_created": 1}
    assert app.invoke("db.drift").code == 0
    assert app.invoke("migrate.upgrade", "--json").json["steps"] == [], "once"
    app.execute("DROP EXTENSION citext; DROP EXTENSION pgcrypto")
    prepared = app.invoke("db.prepare")
    assert prepared.code == 0, prepared.err
    assert app.invoke("db.drift").code == 0 and app.invoke("db.verify").code == 0
