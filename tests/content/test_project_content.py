"""The content is the project's: without the core's tables nothing of the core is made, seeded or expected."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from conftest import Project

MODELS = """
import datetime, uuid
from sqlalchemy import JSON, Boolean, Column, DateTime, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import declarative_base

Base = declarative_base()


class Ward(Base):
    __tablename__ = "wards"
    ward_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    code = Column(String(10), nullable=False, unique=True)
    name = Column(String(50))
    parent = Column(ForeignKey("wards.ward_id"))
    made_at = Column(DateTime(timezone=True), nullable=False, default=lambda: datetime.datetime.now(datetime.timezone.utc))
    is_open = Column(Boolean, nullable=False, default=True)
    settings = Column(JSONB)


class Bed(Base):
    __tablename__ = "beds"
    bed_id = Column(Integer, primary_key=True)
    ward_id = Column(ForeignKey("wards.ward_id"), nullable=False)
    number = Column(Integer, nullable=False)
    notes = Column(String(20), default="new")
    __table_args__ = (UniqueConstraint("ward_id", "number"),)


class Fee(Base):
    __tablename__ = "fees"
    __table_args__ = {"schema": "money"}
    code = Column(String(10), primary_key=True)
    bed_id = Column(ForeignKey("beds.bed_id"))
    price = Column(Integer, nullable=False, server_default="1")


def people(connection, seeding):
    with seeding.session() as session:
        ward = session.query(Ward).filter_by(code="A").one()
        have = session.query(Bed).count()
        session.add_all(Bed(ward_id=ward.ward_id, number=100 + n) for n in range(have, seeding.options.patients))
    return {"beds": max(0, seeding.options.patients - have)}
"""
SEEDS = """
[beds]  # before the wards that it names: the order does not matter
key = ["ward_id", "number"]
rows = [{ ward_id = { code = "B" }, number = 1 }, { ward_id = { code = "A" }, number = 1, notes = "old" }]

[wards]
key = "code"
[[wards.rows]]
code = "B"
name = "Children"
parent = { code = "A" }
settings = { colour = "blue" }
[[wards.rows]]
code = "A"
name = "All"

["money.fees"]
key = "code"
rows = [{ code = "BED", bed_id = { ward_id = { code = "B" }, number = 1 }, price = 5 }]
"""


@pytest.fixture
def app(make_project: Callable[..., Project]) -> Project:
    """An application of three tables whose defaults SQLAlchemy alone knows, with a file of reference data and people."""
    module = f"wards_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["{module}:Base"]\nreference = ["seeds/clinic.toml"]\npeople = "{module}:people"\n')
    (project.root / f"{module}.py").write_text(MODELS)
    (project.root / "seeds").mkdir()
    (project.root / "seeds" / "clinic.toml").write_text(SEEDS)
    return project


def done(project: Project, task: str, code: int = 0) -> str:
    outcome = project.forked(*task.split())
    assert outcome.code == code, (task, outcome.out, outcome.err)
    return outcome.out + outcome.err


def test_nothing_of_the_core_is_made_and_the_files_say_which_rows(app: Project) -> None:
    dry = done(app, "db.prepare --dry")
    assert "add 2 rows to beds" in dry and "add 2 rows to wards" in dry and "add 1 row to money.fees" in dry
    done(app, "db.setup --patients=5")
    found = app.query(
        "SELECT c.relname::text FROM pg_class c WHERE relkind = 'r' AND relnamespace::regnamespace::text = 'public'"
    )
    assert sorted(name for (name,) in found) == ["beds", "wards"], "no table of the core"
    assert app.query("SELECT extname FROM pg_extension") == [("plpgsql",)]
    assert app.query(
        "SELECT w.code, p.code, w.settings ->> 'colour', w.is_open, w.made_at IS NOT NULL"
        " FROM wards w LEFT JOIN wards p ON p.ward_id = w.parent ORDER BY 1"
    ) == [("A", None, None, True, True), ("B", "A", "blue", True, True)]
    assert app.query("SELECT number, notes FROM beds ORDER BY 1, 2") == [
        (1, "new"), (1, "old"), (102, "new"), (103, "new"), (104, "new"),
    ]  # fmt: skip
    assert app.query("SELECT w.code, f.price FROM money.fees f JOIN beds USING (bed_id) JOIN wards w USING (ward_id)") == [
        ("B", 5)
    ]
    assert "nothing to do" in done(app, "db.prepare")


@pytest.mark.slow
def test_what_people_edited_stays_and_what_the_file_changes_is_written(app: Project) -> None:
    done(app, "db.setup --reference-only")
    app.execute("UPDATE wards SET name = 'Ours', is_open = false WHERE code = 'A'; DELETE FROM money.fees")
    verified = done(app, "db.verify", 1)
    assert "missing: money.fees BED" in verified and "db.seed" in verified
    assert "add 1 row to money.fees" in done(app, "db.prepare --dry")
    done(app, "db.prepare")
    assert app.query("SELECT name, is_open FROM wards WHERE code = 'A'") == [("Ours", False)]
    file = app.root / "seeds" / "clinic.toml"
    file.write_text(file.read_text().replace('"Children"', '"Kids"').replace('name = "All"', 'name = "All"\nis_open = true'))
    assert "change 2 rows of wards" in done(app, "db.prepare --dry")
    done(app, "db.prepare")
    assert app.query("SELECT code, name, is_open FROM wards ORDER BY 1") == [("A", "Ours", True), ("B", "Kids", True)]
    assert "nothing to do" in done(app, "db.prepare")
    for task in ("db.verify", "db.drift", "migrate.check", "db.create --update-only"):
        done(app, task)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[wards]", "[ward]", ("there is no table ward (there is wards)",)),
        ('name = "All"', 'nmae = "All"\nfloor = 1', ("the table wards has no column nmae (there is name)", "no column floor")),
        ('key = "code"\n[[', '[[', ("the table wards has no key", "key = [")),
        ("price = 5", 'price = "dear"', ("clinic.toml: money.fees", "invalid input syntax for type integer")),
        ("price = 5", "price = 5 }, { code = \"TOOLONGACODE\"", ("TOOLONGACODE", "value too long")),
        ('parent = { code = "A" }', 'parent = { code = "Z" }', ("a row that it refers to is not there", 'code = "Z"')),
        ("[beds]", "[beds", ("is not valid TOML", "line 2")),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_in_one_line(app: Project, old: str, new: str, says: tuple[str, ...]) -> None:
    file = app.root / "seeds" / "clinic.toml"
    text = file.read_text().replace(old, new, 1)
    file.write_text(text if "[ward]" not in new else text.replace("[[wards.rows]]", "[[ward.rows]]"))
    outcome = app.forked("db.setup", "--reference-only")
    assert outcome.code in (1, 2) and outcome.err.count("\n") == 1 and " -> " in outcome.err, outcome.err
    assert all(each in outcome.err for each in says), outcome.err
    assert app.query(f"SELECT FROM pg_database WHERE datname = '{app.database}'", "postgres") == []


@pytest.mark.slow
def test_settings_that_mean_nothing_and_people_that_are_not_there(app: Project) -> None:
    pyproject = app.root / "pyproject.toml"
    text = pyproject.read_text()
    module = next(app.root.glob("wards_*.py")).stem
    for setting, says in (
        ('reference = ["seeds/none.toml"]', "names seeds/none.toml, which is no file"),
        ("reference = 5", "reference in pyproject.toml is no list of names"),
        ('people = "nowhere"', "neither module:function nor false"),
        ('people = "nowhere:people"', "nowhere:people cannot be loaded"),
    ):
        name = setting.partition(" ")[0]
        pyproject.write_text("\n".join(setting if line.startswith(name) else line for line in text.splitlines()) + "\n")
        outcome = app.forked("db.setup")
        assert outcome.code == 2 and says in outcome.err and outcome.err.count("\n") == 1, outcome.err
    pyproject.write_text(text.replace(f'people = "{module}:people"', "people = false").replace('["seeds/clinic.toml"]', "[]"))
    refused = app.forked("db.setup", "--patients=5")
    assert refused.code == 2 and "invents no people" in refused.err
    done(app, "db.setup")
    assert app.query("SELECT count(*) FROM beds") == [(0,)]
    done(app, "db.verify")
    assert "nothing to do" in done(app, "db.prepare")


BROKEN_PEOPLE = {  # what follows `def people(connection, seeding):` -> what is said
    "return [1]": "answers a list, not a Summary or None",
    "return {'beds': 'many'}": "answers a str for beds, not a number",
    "raise ValueError('two\\nlines')": "ValueError: two lines",
    "return seeding.nothing": "AttributeError: 'Seeding' object has no attribute 'nothing'",
    "with seeding.session() as session:\n        session.query(Ward).filter_by(code='none').one()": "NoResultFound: No row was found",
    "with seeding.session() as session:\n        session.add(Ward(code='private', ward_id='private'))": "invalid input syntax for type uuid;",
    "yield 1": "answers a generator",
}  # fmt: skip


@pytest.mark.slow
def test_people_that_cannot_be_invented(app: Project) -> None:
    """Each case is one line with a remedy, shows no values, and leaves the database as it was."""
    pyproject, module = app.root / "pyproject.toml", next(app.root.glob("wards_*.py"))
    text, models = pyproject.read_text(), module.read_text()
    done(app, "db.setup --patients=3")
    before = app.dump()
    for named, says in (
        (f"{module.stem}:Ward.metadata", "is a MetaData, not a function"),
        (f"{module.stem}:nobody", "no attribute 'nobody'"),
    ):
        pyproject.write_text(text.replace(f"{module.stem}:people", named))
        for dry in ("", " --dry"):
            told = done(app, f"db.seed --patients=9{dry}", 2)
            assert says in told and " -> " in told and told.count("error:") == 1, told
    pyproject.write_text(text)
    for body, says in BROKEN_PEOPLE.items():
        module.write_text(models[: models.index("def people(")] + f"def people(connection, seeding):\n    {body}\n")
        outcome = app.forked("db.seed", "--patients=9")
        assert (outcome.code, outcome.err.count("\n"), says in outcome.err, " -> " in outcome.err) == (1, 1, True, True), (
            outcome.err
        )
        assert "private" not in outcome.err
    assert app.dump() == before


@pytest.mark.slow
def test_an_error_of_people_shows_no_values(app: Project) -> None:
    module = next(app.root.glob("wards_*.py"))
    module.write_text(module.read_text().replace("number=100 + n", "number=1, notes='private'"))
    failed = done(app, "db.setup --patients=5", 1)
    assert "beds_ward_id_number_key" in failed and "private" not in failed and "INSERT" not in failed


@pytest.mark.slow
def test_the_cores_file_and_one_of_the_projects(make_project: Callable[..., Project]) -> None:
    project = make_project('reference = ["skinspire_db.clinic:reference.toml", "ours.toml"]\n')
    (project.root / "ours.toml").write_text(
        '[parameter_settings]\nkey = "param_code"\n'
        'rows = [{ param_code = "OURS", param_value = "1" }, { param_code = "MAX_LOGIN_ATTEMPTS", param_value = "3" }]\n'
        '[role_master]\nkey = ["hospital_id", "role_name"]\nrows = [{ role_name = "Porter", description = "Carries" }]\n'
        '[role_module_access]\nkey = ["role_id", "module_id"]\n'
        'rows = [{ role_id = { role_name = "Porter" }, module_id = { module_name = "Dashboard" }, can_view = true }]\n'
    )
    done(project, "db.setup")
    assert project.query("SELECT param_value FROM parameter_settings WHERE param_code IN ('OURS', 'MAX_LOGIN_ATTEMPTS') ORDER BY 1") == [
        ("1",), ("3",),
    ]  # fmt: skip
    assert "nothing to do" in done(project, "db.prepare")


@pytest.mark.slow
def test_the_cores_people_need_the_cores_reference_data(make_project: Callable[..., Project]) -> None:
    project = make_project("reference = []\n")
    failed = done(project, "db.setup", 1)
    assert "people = false" in failed and failed.count("error:") == 1
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db]\nreference = []\npeople = false\n")
    assert "administrator" in done(project, "db.setup", 1), "the core's checks look at the core's tables"
