"""What SQLAlchemy warns of circles of foreign keys is one note where it matters, and is not on stderr at every command."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from conftest import Project
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

from skinspire_db.schema import blueprint

MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

metadata = MetaData()
Table("hens", metadata, Column("id", Integer, primary_key=True), Column("egg", ForeignKey("eggs.id")))
Table("eggs", metadata, Column("id", Integer, primary_key=True), Column("hen", ForeignKey("hens.id")))
order = [table.name for table in metadata.sorted_tables]  # an application's own script does this
"""


@pytest.mark.slow
def test_a_circle_is_a_note_of_create_and_migrate_new_and_of_no_other_command(make_project: Callable[..., Project]) -> None:
    module = f"circle_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["{module}:metadata"]\n')
    (project.root / f"{module}.py").write_text(MODELS)
    made = project.forked("db.create")
    assert (
        made.code == 0
        and made.err == ""
        and made.out.count("cycle") == 1
        and "note: Cannot correctly sort tables" in made.out
    )
    for task in ("db.create --update-only", "db.drift", "db.verify"):
        outcome = project.forked(*task.split())
        assert "SAWarning" not in outcome.err and "cycle" not in outcome.out + outcome.err, task
    project.execute("DROP TABLE hens, eggs CASCADE")
    written = project.forked("migrate.new", "-m", "hens and eggs")
    assert written.code == 0 and written.err == "" and written.out.count("note: Cannot correctly sort tables") == 1, (
        written.err
    )


def test_constraints_that_are_altered_in_are_made_each_time() -> None:
    """SQLAlchemy marks such a constraint, and would leave it out of the next CREATE TABLE of the same process."""
    models = MetaData()
    Table("a", models, Column("id", Integer, primary_key=True), Column("b_id", ForeignKey("b.id", name="fk_ab")))
    Table("b", models, Column("id", Integer, primary_key=True), Column("a_id", ForeignKey("a.id", name="fk_ba")))
    first = blueprint.create_statements(models, blueprint.tables(models))
    assert sum(statement.count("FOREIGN KEY") for statement in first) == 2
    assert blueprint.create_statements(models, blueprint.tables(models)) == first
    alone = blueprint.create_statements(models, [models.tables["b"]])
    assert "fk_ba" in " ".join(alone), alone
