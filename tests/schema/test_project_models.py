"""A project's models beside the core's: with their own naming convention, and loaded before revisions that use them."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from conftest import Project
from migration_support import at, head, revision

MODELS = """
import decimal
from sqlalchemy import Boolean, CheckConstraint, DDL, Enum, ForeignKey, Index, MetaData, Numeric, String, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

class Money(TypeDecorator):
    impl = Numeric(10, 2)
    cache_ok = True

class Base(DeclarativeBase):
    metadata = MetaData(naming_convention={
        "ix": "idx_%(table_name)s_%(column_0_name)s", "uq": "unq_%(table_name)s_%(column_0_name)s",
        "ck": "chk_%(table_name)s_%(constraint_name)s", "fk": "ref_%(table_name)s_%(column_0_name)s", "pk": "key_%(table_name)s"})

class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(9), unique=True)
    label: Mapped[str] = mapped_column(String(9), index=True)
    both: Mapped[str] = mapped_column(String(9), index=True, unique=True)
    kind: Mapped[str] = mapped_column(Enum("a", "b", name="kind", native_enum=False))
    native: Mapped[str] = mapped_column(Enum("a", "b", name="native", create_constraint=True))
    whole: Mapped[bool] = mapped_column(Boolean(create_constraint=True, name="whole"))
    price: Mapped[decimal.Decimal] = mapped_column(Money)
    part_of: Mapped[int | None] = mapped_column(ForeignKey("things.id"))
    __table_args__ = (
        CheckConstraint("price > 0", name="price"),
        CheckConstraint("code GLOB '[a-z]*'", name="glob").ddl_if(dialect="sqlite"),
        Index("lite", "price", sqlite_where=text("price > 0")).ddl_if(dialect="sqlite"),
        Index("dear", "price").ddl_if(dialect="postgresql"),
    )
"""
NAMES = {
    "key_things", "unq_things_code", "idx_things_label", "idx_things_both", "chk_things_price", "ref_things_part_of",
    "dear",
}  # fmt: skip


@pytest.fixture
def own(make_project: Callable[..., Project], template: str) -> tuple[Project, str]:
    """A project with models of its own beside the core's, whose dev database has the core's tables; and their module."""
    module = f"own_models_{secrets.token_hex(4)}"  # every one is imported in this process
    project = make_project(f'metadata = ["skinspire_db.clinic.models:Base", "{module}:Base"]\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    (project.root / f"{module}.py").write_text(MODELS)
    return project, module


def names(project: Project) -> set[str]:
    found = project.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'things'::regclass AND contype <> 'n' UNION"
        " SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'things'::regclass"
    )
    return {name for (name,) in found}


@pytest.mark.parametrize("way", ["db.setup", "db.create --update-only", "migrate.new"])
def test_names_are_those_of_each_naming_convention(own: tuple[Project, str], way: str) -> None:
    project, _ = own
    outcome = project.invoke("migrate.check", "--json")
    assert [(each["kind"], each["name"]) for each in outcome.json["drift"] if "things" in each["name"]] != []
    assert all("things" in each["name"] or each["kind"] == "type" for each in outcome.json["drift"]), outcome.json["drift"]
    if way == "migrate.new":
        assert project.invoke("migrate.new", "-m", "things").code == 0
        way = "migrate.upgrade"
    outcome = project.invoke(*way.split())
    assert outcome.code == 0, outcome.err
    assert names(project) == NAMES
    for task in ("db.verify", "db.drift", "migrate.new -m again", "db.create --update-only"):
        outcome = project.invoke(*task.split())
        assert outcome.code == 0, (task, outcome)
    assert not list((project.root / "migrations" / "versions").glob("*again*"))


def test_one_metadata_too(make_project: Callable[..., Project]) -> None:
    """What ddl_if keeps for other databases is no difference, also where there is nothing to put together."""
    module = f"own_models_{secrets.token_hex(4)}"
    project = make_project(f'metadata = "{module}:Base"\n')
    (project.root / f"{module}.py").write_text(MODELS)
    assert project.invoke("db.create").code == 0 and names(project) == NAMES
    assert project.invoke("db.drift").code == 0  # none of the trigger files has anything to do here
    assert project.invoke("triggers.install").code == 0 and project.invoke("db.drift").code == 0


def test_a_revision_may_use_the_models_and_changes_none(own: tuple[Project, str]) -> None:
    project, module = own
    assert project.invoke("migrate.new", "-m", "things").code == 0
    [file] = (project.root / "migrations" / "versions").glob("*things.py")
    file.write_text(file.read_text().replace("def upgrade", f"""
import sqlalchemy as sa
from {module} import Thing
unique = sa.UniqueConstraint(Thing.__table__.c.label, name="spoils")
sa.Index("spoils_too", Thing.__table__.c.label)
sa.Table("legacy", Thing.metadata, sa.Column("id", sa.Integer, sa.ForeignKey("things.id")))
sa.ForeignKeyConstraint([Thing.__table__.c.id], ["nonesuch.id"])._set_parent_with_dispatch(Thing.__table__)
def upgrade""", 1))  # fmt: skip
    for task in ("migrate.status", "migrate.upgrade", "migrate.check", "db.drift", "db.prepare", "migrate.downgrade"):
        outcome = project.invoke(task)
        assert outcome.code == 0, (task, outcome)
    revision(project, "later", at(project)[0])
    later = project.root / "migrations" / "versions" / "later.py"
    later.unlink()
    assert at(project) == [head()]
    assert project.invoke("db.prepare").code == 0 and names(project) == NAMES


def test_a_foreign_key_has_the_type_of_a_column_of_other_models(make_project: Callable[..., Project]) -> None:
    module = f"own_models_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["skinspire_db.clinic.models:Base", "{module}:metadata"]\n')
    (project.root / f"{module}.py").write_text(
        "from sqlalchemy import Column, ForeignKey, MetaData, Table\n"
        "metadata = MetaData()\n"
        "Table('wards', metadata, Column('hospital', ForeignKey('hospitals.hospital_id')))\n"
    )
    outcome = project.invoke("db.create")
    assert outcome.code == 0, outcome
    assert project.query(
        "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'wards'::regclass AND attnum = 1"
    ) == [("uuid",)]


def test_the_projects_folder_is_the_first_on_the_path(own: tuple[Project, str]) -> None:
    """Wherever the command is typed, and also where the models were not loaded because nothing has changed."""
    project, module = own
    helper = f"helper_{module}"
    (project.root / f"{helper}.py").write_text("SQL = 'CREATE TABLE helped (id int)'\n")
    file = project.root / "migrations" / "versions" / f"{revision(project, 'helped', head())}.py"
    file.write_text(
        file.read_text().replace(
            "def upgrade():\n    pass", f"def upgrade():\n    from {helper} import SQL\n    op.execute(SQL)"
        )
    )
    assert project.invoke("migrate.status").code == 0
    outcome = project.forked("migrate.upgrade")
    assert outcome.code == 0 and at(project) == ["helped"], outcome


def test_a_models_module_that_exits_ends_every_command_that_reads_revisions(own: tuple[Project, str]) -> None:
    project, module = own
    (project.root / f"{module}.py").write_text("\nimport sys; sys.exit(0)\n")
    for task in ("migrate.upgrade", "migrate.status", "db.prepare"):
        outcome = project.invoke(task)
        assert outcome.code == 1 and f"{module}.py, line 2" in outcome.err, (task, outcome)


MISTAKES = {
    'Column("kind", Enum("a", "b", native_enum=False, create_constraint=True))': "name=",
    'Column("kind", Integer), CheckConstraint("kind > 0")': "name=",
    'Column("kind")': "NullType",
    'Column("kind", Enum("a", "b"))': "requires a name",
    f'Column("kind", Integer), CheckConstraint("kind > 0", name="{"x" * 70}")': "",
    f'Column("kind", Integer), Index("{"x" * 70}", "kind")': "exceeds maximum length",
}


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_model_that_lacks_what_its_sql_needs_is_refused_in_one_line(
    make_project: Callable[..., Project], mistake: str, both: bool
) -> None:
    module = f"mistaken_models_{secrets.token_hex(4)}"
    core = '"skinspire_db.clinic.models:Base", ' if both else ""
    project = make_project(f'metadata = [{core}"{module}:models"]\n')
    (project.root / f"{module}.py").write_text(
        "from sqlalchemy import CheckConstraint, Column, Enum, Index, Integer, MetaData, Table\n"
        "from skinspire_db.clinic.models.base import NAMING_CONVENTION\n"
        "models = MetaData(naming_convention=NAMING_CONVENTION)\n"
        f'Table("things", models, Column("id", Integer, primary_key=True), {mistake})\n'
    )
    if not MISTAKES[mistake]:  # SQLAlchemy shortens what a convention makes too long
        assert project.invoke("db.create").code == 0
        return
    for task in (["db.create"], ["db.drift"], ["migrate.new", "--message=x"]):
        refused = project.invoke(*task)
        assert refused.code == 2 and refused.err.count("\n") == 1, refused.err
        assert MISTAKES[mistake] in refused.err
        assert "metadata in" not in refused.err.partition(" -> ")[2], "nothing is wrong with pyproject.toml"
