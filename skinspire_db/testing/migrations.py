"""Tests of a project's revisions and triggers, to be imported into a test module of its own:

from skinspire_db.testing.migrations import *
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from skinspire_db.catalog import definitions
from skinspire_db.lifecycle import stamp
from skinspire_db.migrations import drift, position, revisions
from skinspire_db.objects import proofs, tenant_roles, versions
from skinspire_db.operations import env, migrate
from skinspire_db.postgres import connections
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.testing.databases import Database
    from skinspire_db.testing.modes import ClinicDatabase

__all__ = ["test_models_equal_migrations", "test_revisions_go_up_down_and_up", "test_triggers_are_proven"]


def test_revisions_go_up_down_and_up(db_empty: Database) -> None:
    """Every revision can be applied to what those before it made, be taken back, and be applied again.

    What a revision makes is the same both times, and taking it back leaves what was there before.
    """
    _begin(db_empty)
    environment = db_empty.environment
    states = [_definitions(db_empty)]
    upgrading = migrate.upgrade(environment)
    while (revision := upgrading.next()) is not None:
        revision.run()
        states.append(_definitions(db_empty))
        name = _current_revision(db_empty)
        migrate.downgrade(environment).run()
        if len(states) == 2:  # the trigger files' functions, and extensions, come with the first revision but are not its own
            left = {key for key in _definitions(db_empty) if key.startswith(("function ", "extension ", "grant "))}
            states[0] |= {key: states[1].get(key) for key in left if "(" in key or key.startswith("extension ")}
        assert _definitions(db_empty) == states[-2], f"taking back {name} does not leave what was there before"
        migrate.upgrade(environment, name).run()
        assert _definitions(db_empty) == states[-1], f"{name} makes something else the second time"
    count = len(states) - 1
    if count:
        migrate.downgrade(environment, count).run()
        assert _definitions(db_empty) == states[0], "taking back all revisions does not leave what was there before"
        migrate.upgrade(environment).run()
        assert _definitions(db_empty) == states[-1], "all revisions make something else the second time"


def test_models_equal_migrations(db_empty: Database) -> None:
    """What all revisions make is what the models and trigger files say."""
    _begin(db_empty)
    environment = db_empty.environment
    project = environment.project
    migrate.upgrade(environment).run()
    with contextlib.closing(connections.connect(db_empty.target, "tests")) as connection:
        connections.begin(connection, environment.policy)
        blueprint = Blueprint.of_project(project)
        files = versions.current(project, roles=tenant_roles.of(environment))
        differences = drift.look(connection, db_empty.target, project, blueprint, files)
    assert not differences.lines, "\n".join(differences.lines)


def test_triggers_are_proven(db_clone: ClinicDatabase) -> None:
    """Every trigger file does on the finished database what its proof in sql/triggers/verify asks for."""
    with contextlib.closing(connections.connect(db_clone.database.target, "tests")) as connection:
        connections.begin(connection, db_clone.environment.policy)
        files = versions.current(db_clone.environment.project, roles=tenant_roles.of(db_clone.environment))
        checks = proofs.prove(connection, files)
    bad = [f"{check.name}: {check.status}: {check.detail}" for check in checks if check.status != "pass"]
    assert not bad, "\n".join(bad)


def _begin(database: Database) -> None:
    """Stamp the database, so that revisions can be applied; skip the test in a project without revisions."""
    if not revisions.heads(database.environment.project):
        pytest.skip("the project has no revisions")
    env.stamp(database.environment).run()


def _definitions(database: Database) -> dict[str, Any]:
    with contextlib.closing(connections.connect(database.target, "tests")) as connection:
        connections.begin(connection, database.environment.policy)
        return dict(definitions.snapshot(connection))


def _current_revision(database: Database) -> str:
    """The revision that the database is at."""
    with contextlib.closing(connections.connect(database.target, "tests")) as connection:
        connections.begin(connection, database.environment.policy)
        stamp.identify(connection, database.target)
        return position.current(connection, database.environment.project)[0]
