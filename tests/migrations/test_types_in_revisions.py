"""An enum or domain that several revisions name."""

from __future__ import annotations

from conftest import Project
from migration_support import app, at, head, revision  # noqa: F401


def write(project: Project, name: str, after: str, *up: str) -> None:
    file = project.root / "migrations" / "versions" / f"{revision(project, name, after)}.py"
    text = file.read_text().replace("def upgrade():\n    pass", "def upgrade():\n    " + "\n    ".join(up))
    file.write_text("import sqlalchemy as sa\nfrom sqlalchemy.dialects.postgresql import DOMAIN\n" + text)


def test_the_same_type_in_two_revisions(app: Project) -> None:
    mood, size = "sa.Enum('calm', 'sad', name='mood')", "DOMAIN('size', sa.Numeric(6, 2))"
    write(app, "one", head(), f"op.create_table('t1', sa.Column('m', {mood}), sa.Column('s', {size}))")
    write(app, "two", "one", f"op.create_table('t2', sa.Column('m', {mood}), sa.Column('s', {size}))",
          "op.execute(\"ALTER TYPE mood ADD VALUE 'wild'\")")  # fmt: skip
    write(
        app,
        "three",
        "two",
        f"op.add_column('t1', sa.Column('again', {mood}))",
        "sa.Enum('x', name='of its own').create(op.get_bind())",
    )
    outcome = app.invoke("migrate.upgrade", "--to=two")
    assert outcome.code == 0, outcome.err
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["three"], "also in a run of its own"
    assert app.query(
        "SELECT count(*) FROM pg_attribute WHERE atttypid = 'mood'::regtype AND attrelid::regclass::text ~ '^t[12]$'"
    ) == [(3,)]


def test_another_type_of_that_name_is_not_taken_for_it(app: Project) -> None:
    write(app, "one", head(), "op.create_table('t1', sa.Column('m', sa.Enum('calm', name='mood')))")
    write(app, "two", "one", "op.create_table('t2', sa.Column('m', sa.Enum('calm', 'sad', name='mood')))")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and at(app) == ["one"] and 'type "mood" already exists' in outcome.err
