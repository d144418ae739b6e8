"""Functions and views as files: installed in an order that is found, compared, replaced, and taken over from a database."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project
from migration_support import head, revision

from skinspire_db.objects.files import read_file
from skinspire_db.objects.kinds import POLICY

OPEN = "CREATE OR REPLACE VIEW visits_open AS SELECT visit_id, label(status) AS state FROM visits WHERE status IN ('open', 'held');"
LABEL = "CREATE OR REPLACE FUNCTION label(status varchar) RETURNS text LANGUAGE sql RETURN upper(status);"
COUNTED = (
    "CREATE MATERIALIZED VIEW visits_counted AS SELECT state, count(*) AS visits FROM visits_open GROUP BY state;\n"
    "CREATE UNIQUE INDEX visits_counted_state ON visits_counted (state);"
)
TABLE = "CREATE TABLE visits (visit_id int PRIMARY KEY, status varchar(10), fee numeric(8,2))"


def write(project: Project, name: str, sql: str, *, version: int = 1, bump: bool = True) -> Path:
    """An SQL file of the project, such as views/visits, with its version locked."""
    path = project.root / "sql" / f"{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'/*\nversion = {version}\nsummary = "s"\n*/\n{sql}\n')
    if bump:
        outcome = project.invoke("sql.bump", f"--name={name}")
        assert outcome.code == 0, outcome.err
    return path


def edit(project: Project, name: str, sql: str) -> None:
    """Another text for a file, under the same version: it was never committed."""
    write(project, name, sql)


@pytest.fixture
def app(clinic: Project) -> Project:
    """A project with a table, a function, a view on it by that, and a materialized view on the view; nothing is installed."""
    (clinic.root / "migrations" / "versions").mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=clinic.root, check=True)
    clinic.execute(TABLE)
    clinic.execute("INSERT INTO visits VALUES (1, 'open', 10), (2, 'held', 20), (3, 'gone', 30)")
    write(clinic, "views/visits", OPEN)
    write(clinic, "functions/label", LABEL)
    write(clinic, "views/aggregates", COUNTED)  # before what it needs, by name
    return clinic


def install(project: Project, *arguments: str) -> None:
    outcome = project.invoke("sql.install", *arguments)
    assert outcome.code == 0, outcome.err


def states(project: Project) -> dict[str, str]:
    objects = project.invoke("sql.status", "--json").json["objects"]
    return {each["object"]: each["state"] for each in objects if "/" in each["file"] and each["file"] != "policies/tenant"}


def test_installed_in_the_order_of_what_they_need(app: Project) -> None:
    assert states(app) == {"(all of it)": "MISSING"}
    install(app)
    assert app.query("SELECT * FROM visits_counted ORDER BY 1") == [("HELD", 1), ("OPEN", 1)]
    assert set(states(app).values()) == {"INSTALLED"}
    assert set(states(app)) == {
        "label(character varying)", "view visits_open", "materialized view visits_counted", "index visits_counted_state",
    }  # fmt: skip
    assert app.invoke("sql.diff").code == app.invoke("sql.verify").code == app.invoke("triggers.status").code == 0
    before = app.query("SELECT xmin::text, * FROM skinspire_tools.ledger ORDER BY name")
    numbers = app.invoke("sql.install", "--json").json["steps"][0]["summary"]
    assert (numbers["functions"], numbers["views"], numbers["dropped"]) == (0, 0, 0)
    assert app.query("SELECT xmin::text, * FROM skinspire_tools.ledger ORDER BY name") == before
    assert app.invoke("triggers.install").code == 0
    assert set(states(app).values()) == {"INSTALLED"}, "triggers.install is for trigger files alone"


@pytest.mark.slow
def test_other_columns_take_what_depends_on_them_along(app: Project) -> None:
    """The files of the others are made again too, with owner, grants, comments and an index made by hand."""
    install(app)
    app.execute(
        "DROP ROLE IF EXISTS reader_of_views; CREATE ROLE reader_of_views;"
        "GRANT SELECT ON visits_counted TO reader_of_views; GRANT SELECT (visit_id) ON visits_open TO reader_of_views;"
        "COMMENT ON MATERIALIZED VIEW visits_counted IS 'by state'; COMMENT ON COLUMN visits_open.state IS 'the label';"
        "CREATE INDEX by_hand ON visits_counted (visits); ALTER VIEW visits_open OWNER TO reader_of_views"
    )
    try:
        edit(app, "views/visits", OPEN.replace("visit_id, ", "visit_id, fee, "))
        diff = app.invoke("sql.diff")
        assert diff.code == 3 and "views/visits: view visits_open" in diff.out and "+   SELECT" not in diff.err
        install(app)
        assert set(states(app).values()) == {"INSTALLED"}, states(app)
        assert app.query("SELECT has_table_privilege('reader_of_views', 'visits_counted', 'SELECT')") == [(True,)]
        assert app.query("SELECT has_column_privilege('reader_of_views', 'visits_open', 'visit_id', 'SELECT')") == [(True,)]
        assert app.query("SELECT obj_description('visits_counted'::regclass), to_regclass('by_hand') IS NOT NULL") == [
            ("by state", True)
        ]
        assert app.query("SELECT col_description('visits_open'::regclass, 3)") == [(None,)] or app.query(
            "SELECT count(*) FROM pg_description WHERE description = 'the label'"
        ) == [(1,)]
        assert app.query("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'visits_open'") == [
            ("reader_of_views",)
        ]
    finally:
        app.execute("DROP OWNED BY reader_of_views CASCADE; DROP ROLE reader_of_views")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DROP VIEW visits_open CASCADE", {"view visits_open": "MISSING", "materialized view visits_counted": "MISSING"}),
        ("CREATE OR REPLACE VIEW visits_open AS SELECT visit_id, status::text AS state FROM visits", {"view visits_open": "DRIFTED"}),
        ("DROP INDEX visits_counted_state", {"index visits_counted_state": "MISSING"}),
        ("ALTER TABLE visits RENAME fee TO price", {}),
    ],
)  # fmt: skip
def test_damage_is_seen_and_repaired(app: Project, damage: str, found: dict[str, str]) -> None:
    install(app)
    app.execute(damage)
    assert {key: state for key, state in states(app).items() if state != "INSTALLED"}.items() >= found.items()
    assert app.invoke("sql.diff").code == (3 if found else 0)
    install(app)
    assert set(states(app).values()) == {"INSTALLED"}
    assert app.query("SELECT count(*) FROM visits_counted") == [(2,)]


@pytest.mark.slow
def test_a_file_that_is_gone_takes_its_objects_along(app: Project) -> None:
    install(app)
    app.execute("CREATE VIEW theirs AS SELECT 1 AS one")
    for name in ("views/aggregates", "views/visits"):
        (app.root / "sql" / f"{name}.sql").unlink()
    assert "ORPHANED" in app.invoke("sql.status").err
    install(app)
    assert app.query(
        "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace"
    ) == [("theirs",)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ({"views/bad": "CREATE VIEW bad AS\nSELECT nonesuch FROM visits;"}, 1, 'bad.sql:6: column "nonesuch" does not exist'),
        ({"views/bad": "CREATE VIEW bad AS SELEC 1;"}, 1, "bad.sql:5: syntax error"),
        ({"views/bad": "DO $$ BEGIN\n\nCREATE VIEW bad AS SELECT nonesuch FROM visits; END $$;"}, 1, 'bad.sql:7: column "nonesuch"'),
        (
            {"views/a": "CREATE VIEW a AS SELECT one FROM b;", "views/b": "CREATE VIEW b AS SELECT 1 AS one FROM a;"},
            1,
            "a circle: views/a, which needs views/b, which needs views/a",
        ),
        ({"views/a": "CREATE OR REPLACE VIEW visits_open AS SELECT 1 AS one;"}, 1, "view visits_open is made by views/a and by views/visits"),
        ({"views/a": "SELECT 1;"}, 1, "a.sql:1: it makes no view"),
        ({"functions/a": "CREATE VIEW one AS SELECT 1 AS one;"}, 1, "a.sql:1: it makes no function"),
        ({"views/theirs": "CREATE OR REPLACE VIEW theirs AS SELECT 2 AS one;"}, 2, "view theirs exists already with another definition, and no view file made it"),
        ({"views/theirs": "CREATE VIEW theirs AS SELECT 2 AS one;"}, 2, "view theirs exists already with another definition, and no view file made it"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(app: Project, files: dict[str, str], code: int, says: str) -> None:
    app.execute("CREATE VIEW theirs AS SELECT 1 AS one")
    for name, sql in files.items():
        write(app, name, sql)
    before = app.dump()
    outcome = app.invoke("sql.install")
    assert (outcome.code, says in outcome.err) == (code, True), outcome.err
    assert app.invoke("sql.diff").code == 3
    assert app.dump() == before


@pytest.mark.slow
def test_two_files_with_one_name(make_project: Callable[..., Project]) -> None:
    project = make_project('sql = ["sql", "more"]\n')
    for folder in ("sql", "more"):
        (project.root / folder / "views").mkdir(parents=True)
        (project.root / folder / "views" / "one.sql").write_text(
            '/*\nversion = 1\nsummary = "s"\n*/\nCREATE VIEW one AS SELECT 1;\n'
        )
    outcome = project.invoke("db.setup")
    assert outcome.code == 1 and "more/views/one.sql:1: " in outcome.err and "has the same name" in outcome.err
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nsql = ["nowhere"]\n')
    assert "sql in pyproject.toml names nowhere, which is no folder" in project.invoke("sql.status").err
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db]\nsql = 5\n")
    assert "sql = 5 in pyproject.toml is no list of folders" in project.invoke("sql.status").err


@pytest.mark.slow
def test_a_projects_file_wins_over_the_packages(clinic: Project) -> None:
    from skinspire_db.objects import files

    path = clinic.root / "sql" / "triggers" / "parameters.sql"
    path.parent.mkdir(parents=True)
    path.write_text((files.folder() / "parameters.sql").read_text().replace("version = 3", "version = 1") + "-- ours\n")
    assert clinic.invoke("triggers.bump", "--name=parameters").code == 0
    assert (clinic.root / "sql" / "sql.lock").read_text().count("triggers/parameters 1 ") == 1
    assert clinic.invoke("triggers.install").code == 0
    assert clinic.query("SELECT version FROM skinspire_tools.ledger WHERE name = 'parameters'") == [(1,)]


# The way in from a database


@pytest.mark.slow
def test_from_the_database_and_taken_over_as_it_is(clinic: Project) -> None:
    clinic.execute(TABLE)
    clinic.execute(
        f"{LABEL} {OPEN} {COUNTED} COMMENT ON VIEW visits_open IS 'the visits that go on; it''s a view';"
        "CREATE FUNCTION label(n int) RETURNS text LANGUAGE plpgsql AS E'BEGIN\\r\\n RETURN n;\\r\\nEND';"
        "CREATE SCHEMA annex; CREATE VIEW annex.\"Odd Name\" AS SELECT 1 AS \"one two\" WHERE 'a'::varchar IN ('a', 'b')"
    )
    before = clinic.query("SELECT oid, xmin::text FROM pg_class WHERE relkind IN ('v', 'm') AND oid > 16384 ORDER BY 1")
    for view in ("visits_open", "visits_counted", 'annex."Odd Name"'):
        outcome = clinic.invoke("sql.new", f"--view={view}", "--from-database")
        assert outcome.code == 0, outcome.err
    assert clinic.invoke("--dry", "sql.new", "--function=label", "--from-database").code == 0
    outcome = clinic.invoke("sql.new", "--function=label", "--from-database", "--json")
    assert outcome.code == 0 and outcome.json["objects"] == ["label(character varying)", "label(integer)"]
    text = (clinic.root / "sql" / "views" / "visits_open.sql").read_text()
    assert text.startswith(
        '/*\nversion = 1\nsummary = "the visits that go on; it\'s a view"\n*/\nCREATE OR REPLACE VIEW visits_open'
    )
    assert sorted(path.name for path in (clinic.root / "sql" / "views").iterdir()) == [
        "annex_odd_name.sql", "visits_counted.sql", "visits_open.sql",
    ]  # fmt: skip
    install(clinic)
    assert set(states(clinic).values()) == {"INSTALLED"}
    after = clinic.query("SELECT oid, xmin::text FROM pg_class WHERE relkind IN ('v', 'm') AND oid > 16384 ORDER BY 1")
    assert [oid for oid, _ in after] == [oid for oid, _ in before], "none was dropped"
    for arguments, says in (
        (["--view=visits_open"], "there is an SQL file views/visits_open already"),
        (["--view=nonesuch"], "there is no view nonesuch in the database"),
        (["--view=a", "--function=b"], "needs one of --view, --function, --trigger and --policy"),
        (["--trigger=a"], "a trigger file says on which tables it belongs"),
        (["--policy=a"], "a policy file says on which tables it belongs"),
    ):
        outcome = clinic.invoke("sql.new", *arguments, "--from-database")
        assert outcome.code == 2 and says in outcome.err, outcome.err


@pytest.mark.slow
def test_a_new_file_is_edited_and_bumped(clinic: Project) -> None:
    for kind, folder in {"view": "views", "function": "functions", "trigger": "triggers", "policy": "policies"}.items():
        assert clinic.invoke("--dry", "sql.new", f"--{kind}=novel").code == 0
        assert not (clinic.root / "sql" / folder).exists()
        assert clinic.invoke("sql.new", f"--{kind}=novel").code == 0
    [policy] = read_file(clinic.root / "sql" / "policies" / "novel.sql", kind=POLICY).policies
    assert (policy.name, policy.tables, policy.using) == ("novel", ("the_table",), "false"), "it lets no row pass"
    assert "novel.sql:2: version 1 is not in sql.lock" in clinic.invoke("sql.install").err
    outcome = clinic.invoke("sql.bump", "--name=views/novel")
    assert outcome.code == 0 and outcome.out == "views/novel is version 1\n"
    outcome = clinic.invoke("sql.bump", "--name=other")
    assert outcome.code == 2 and "this project has no SQL file other" in outcome.err


# Operations


@pytest.mark.slow
def test_a_restored_view_is_no_drift(app: Project) -> None:
    """PostgreSQL prints an IN over varchar in other words when it has read its own."""
    install(app)
    [(text,)] = app.query("SELECT pg_get_viewdef('visits_open'::regclass)")
    app.execute(f"CREATE OR REPLACE VIEW visits_open AS {text}")
    assert app.query("SELECT pg_get_viewdef('visits_open'::regclass)") != [(text,)]
    assert set(states(app).values()) == {"INSTALLED"}


@pytest.mark.slow
def test_a_revision_under_a_view(app: Project) -> None:
    install(app)
    app.execute("COMMENT ON VIEW visits_open IS 'kept'")
    revision(app, "early", head(), "CREATE TABLE early (id int)")
    change = (
        "ALTER TABLE visits ALTER COLUMN status TYPE varchar(40);"
        " DO $$ BEGIN IF true THEN ALTER TABLE visits ALTER fee TYPE numeric(12, 2); END IF; END $$"
    )
    revision(app, "wider", "early", change)
    app.execute("CREATE VIEW theirs AS SELECT status FROM visits; CREATE VIEW on_ours AS SELECT state FROM visits_open")
    before = app.dump()
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 2, outcome.err
    assert "view on_ours" in outcome.err and "view theirs" in outcome.err and "sql.new" in outcome.err
    assert "nothing was changed" in outcome.err and app.dump() == before, "the first revision was not applied"
    for task in (["--dry", "migrate.upgrade"], ["migrate.sql"]):
        assert app.invoke(*task).code == 2
    for drop in ("DROP VIEW theirs, on_ours", "DO $$ BEGIN DROP VIEW theirs, on_ours; END $$"):
        revision(app, "early", head(), f"CREATE TABLE early (id int); {drop}")
        assert app.invoke("--dry", "migrate.upgrade").code == 0, "it drops them itself"
    app.execute("DROP VIEW theirs, on_ours; GRANT SELECT ON visits_open TO PUBLIC")
    revision(app, "early", head(), "CREATE TABLE early (id int)")
    by_hand(app)
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 0, outcome.err
    assert "view visits_open dropped, and made again" in outcome.out
    assert set(states(app).values()) == {"INSTALLED"}
    app.execute("CREATE VIEW theirs AS SELECT status FROM visits")
    revision(
        app, "never", "wider", "DO $$ BEGIN IF false THEN ALTER TABLE visits ALTER status TYPE varchar(50); END IF; END $$"
    )
    for name in ("migrate.sql", "migrate.upgrade"):
        outcome = app.invoke(name)
        assert outcome.code == 0, ("a branch that is not taken stops at nothing", outcome.err)
    assert app.query("SELECT obj_description('visits_open'::regclass), count(*) FROM visits_counted") == [("kept", 2)]


def by_hand(app: Project) -> None:
    """What migrate.sql writes, run by hand in a copy, does what migrate.upgrade does after it here."""
    text = app.invoke("migrate.sql").out
    assert text.index("DROP VIEW visits_open") < text.index("ALTER TABLE") < text.index("CREATE VIEW visits_open"), text
    copy = f"{app.database}_by_hand"
    app.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{app.database}"', "postgres")
    try:
        with app.connect(copy) as connection:
            connection.autocommit = True
            connection.execute(text.encode())
        views = "SELECT relname, relowner, relacl, pg_get_viewdef(oid) FROM pg_class WHERE relname LIKE 'visits%' ORDER BY 1"
        made = app.query(views, copy)
        assert app.query("SELECT obj_description('visits_open'::regclass), count(*) FROM visits_counted", copy) == [
            ("kept", 2)
        ]
    finally:
        app.execute(f'DROP DATABASE "{copy}" WITH (FORCE)', "postgres")
    former = app.query(views)
    assert [each[:3] for each in made] == [each[:3] for each in former]


MODELS = """
from sqlalchemy import Column, Integer, MetaData, Numeric, String, Table
from sqlalchemy.orm import declarative_base

Base = declarative_base()

class Visit(Base):
    __tablename__ = "visits"
    visit_id = Column(Integer, primary_key=True)
    status = Column(String(10))
    fee = Column(Numeric(8, 2))

class Open(Base):
    __tablename__ = "visits_open"
    __table_args__ = {"info": {"is_view": True}}
    visit_id = Column(Integer, primary_key=True)

Table("visits_counted", Base.metadata, Column("state", String, primary_key=True), info={"materialized_view": True})
"""


@pytest.fixture
def mapped(make_project: Callable[..., Project]) -> Project:
    """A project beside the core, two of whose models are mapped to views."""
    module = f"mapped_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["skinspire_db.clinic.models:Base", "{module}:Base"]\nmigrations = "migrations"\n')
    (project.root / f"{module}.py").write_text(MODELS)
    (project.root / "migrations" / "versions").mkdir(parents=True)
    return project


@pytest.mark.slow
def test_every_operation_installs_the_views_of_models(mapped: Project) -> None:
    outcome = mapped.invoke("db.setup", "--patients=1")
    assert outcome.code == 1 and "view visits_counted, view visits_open" in outcome.err
    assert "-> invoke sql.new --view=visits_counted, write its query" in outcome.err  # nothing was committed, and it helps
    for name, sql in (("views/visits", OPEN), ("functions/label", LABEL), ("views/aggregates", COUNTED)):
        write(mapped, name, sql)
    outcome = mapped.invoke("db.setup", "--patients=1", "--json")
    assert outcome.code == 0, outcome.err
    steps = {each["name"]: each for each in outcome.json["steps"]}
    assert list(steps) == ["reset", "create", "sql", "seed", "verify"] and steps["sql"]["summary"]["views"] == 2
    assert {each["name"]: each["status"] for each in outcome.json["checks"]}["views"] == "pass"
    for task in ("db.verify", "db.drift", "migrate.check", "sql.verify"):
        outcome = mapped.invoke(task)
        assert outcome.code == 0, (task, outcome)
    for task in ("db.prepare", "db.create --update-only"):
        mapped.execute("DROP VIEW visits_open CASCADE")
        outcome = mapped.invoke("db.verify")
        assert outcome.code == 1 and "views: a model is mapped to what is not there" in outcome.out + outcome.err
        assert "view public.visits_open is missing" in mapped.invoke("db.drift").out
        assert mapped.invoke(*task.split()).code == 0
        assert set(states(mapped).values()) == {"INSTALLED"}
    assert "nothing to do" in mapped.invoke("db.prepare").out


@pytest.mark.slow
def test_a_revision_is_written_under_views(mapped: Project) -> None:
    """migrate.new tries what it writes, and upgrade and downgrade leave the views as they were."""
    for name, sql in (("views/visits", OPEN), ("functions/label", LABEL), ("views/aggregates", COUNTED)):
        write(mapped, name, sql)
    assert mapped.invoke("db.setup", "--patients=1").code == 0
    [module] = mapped.root.glob("mapped_*.py")
    module.write_text(MODELS.replace("String(10)", "String(40)").replace("Numeric(8, 2)", "Numeric(12, 2)"))
    with_new_models = mapped.forked("migrate.new", "--message=wider")
    assert with_new_models.code == 0 and "by hand" not in with_new_models.out, with_new_models
    for task in ("migrate.upgrade", "migrate.downgrade", "migrate.upgrade"):
        outcome = mapped.forked(task)
        assert outcome.code == 0, (task, outcome)
        assert set(states(mapped).values()) == {"INSTALLED"}
    assert mapped.forked("db.drift").code == mapped.forked("db.verify").code == 0


@pytest.mark.slow
def test_views_that_exist_in_part_are_taken_over(clinic: Project) -> None:
    """A file of several views of which one is missing, and a materialized one that cannot be made twice."""
    clinic.execute(f"{TABLE}; {LABEL} {OPEN} {COUNTED}")
    write(clinic, "views/visits", OPEN + "\nCREATE OR REPLACE VIEW more AS SELECT count(*) AS visits FROM visits;")
    write(clinic, "views/counted", COUNTED + "\nCREATE MATERIALIZED VIEW twice AS SELECT 2 AS two;")
    write(clinic, "functions/label", LABEL)
    clinic.execute("CREATE VIEW theirs AS SELECT * FROM visits_counted; COMMENT ON VIEW theirs IS 'stays'")
    outcome = clinic.invoke("sql.install", "--json")
    assert outcome.code == 0, outcome.err
    assert set(states(clinic).values()) == {"INSTALLED"}
    assert clinic.query("SELECT obj_description('theirs'::regclass), count(*) FROM more, twice") == [("stays", 1)]


@pytest.mark.slow
def test_a_view_keeps_its_triggers_when_it_is_made_anew(app: Project) -> None:
    """One that a trigger file attaches to the view, one of the owner's, and a default of its column."""
    path = app.root / "sql" / "triggers" / "visit_writes.sql"
    (path.parent / "verify").mkdir(parents=True)
    path.write_text(
        '/*\nversion = 1\nsummary = "s"\norder = 700\nattach = { tables = ["visits_open"] }\nwhen = "INSTEAD OF INSERT"\n*/\n'
        "CREATE OR REPLACE FUNCTION visit_writes() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n"
        "    INSERT INTO visits VALUES (NEW.visit_id, 'open', NULL);\n    RETURN NEW;\nEND\n$$;\n"
    )
    (path.parent / "verify" / "visit_writes.sql").write_text("INSERT INTO visits_open (visit_id) VALUES (99);\n")
    assert app.invoke("sql.bump", "--name=visit_writes").code == 0
    install(app, "--verify")
    app.execute(
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER theirs INSTEAD OF DELETE ON visits_open FOR EACH ROW EXECUTE FUNCTION theirs();"
        "ALTER VIEW visits_open ALTER COLUMN visit_id SET DEFAULT 7"
    )
    edit(app, "views/visits", OPEN.replace("visit_id, ", "visit_id, fee, "))
    install(app)
    app.execute("INSERT INTO visits_open (state) VALUES ('x'); DELETE FROM visits_open")
    assert app.query("SELECT status FROM visits WHERE visit_id = 7") == [("open",)]
    assert app.invoke("sql.status").code == 0


@pytest.mark.slow
def test_a_function_with_another_result(app: Project) -> None:
    install(app)
    edit(
        app,
        "functions/label",
        LABEL.replace("RETURNS text", "RETURNS varchar").replace("upper(status)", "upper(status)::varchar"),
    )
    install(app)
    assert set(states(app).values()) == {"INSTALLED"}
    assert app.query("SELECT pg_get_function_result('label(varchar)'::regprocedure)") == [("character varying",)]
    app.execute("CREATE TABLE kept (state text CHECK (label(state) <> ''))")
    edit(app, "functions/label", LABEL)
    before = app.dump()
    outcome = app.invoke("sql.install")
    assert outcome.code == 2 and "no SQL file made constraint kept_state_check on table kept" in outcome.err, outcome.err
    assert app.dump() == before


@pytest.mark.slow
def test_a_revision_that_drops_what_a_view_read(app: Project) -> None:
    """The view's file has its next version in the same change; without it the revision fails with the file and line."""
    install(app)
    edit(app, "views/visits", OPEN.replace("visit_id, ", "visit_id, fee, "))
    install(app)
    revision(app, "no_fee", head(), "ALTER TABLE visits DROP COLUMN fee")
    before = app.dump()
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and 'visits.sql:5: column "fee" does not exist' in outcome.err, outcome.err
    assert app.dump() == before
    edit(app, "views/visits", OPEN)
    assert app.invoke("migrate.upgrade").code == 0
    assert set(states(app).values()) == {"INSTALLED"}


@pytest.mark.slow
def test_backup_restore_and_an_earlier_version(app: Project) -> None:
    install(app)
    subprocess.run(["git", "add", "."], cwd=app.root, check=True)
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "s"], cwd=app.root, check=True
    )
    edit(app, "views/visits", OPEN.replace("visit_id, ", "visit_id, fee, "))
    install(app)
    for task in ("backup.create", "backup.restore", "sql.status", "sql.diff"):
        outcome = app.invoke(task)
        assert outcome.code == 0, (task, outcome)
    install(app, "--name=visits", "--at-version=1")
    assert app.query("SELECT count(*) FROM pg_attribute WHERE attrelid = 'visits_open'::regclass") == [(2,)]
    assert {state for name, state in states(app).items() if name == "view visits_open"} == {"OUTDATED"}
    assert app.query("SELECT count(*) FROM visits_counted") == [(2,)], "what depends on it was made again"


@pytest.mark.slow
def test_a_file_that_drops_what_it_makes_loses_nothing(app: Project) -> None:
    """As owners' scripts have it; CASCADE would take along what others made."""
    anew = "DROP VIEW IF EXISTS visits_open CASCADE;\n" + OPEN.replace("CREATE OR REPLACE", "CREATE")
    edit(app, "views/visits", anew)
    install(app)
    app.execute("COMMENT ON VIEW visits_open IS 'kept'; CREATE VIEW theirs AS SELECT * FROM visits_open")
    edit(app, "views/visits", anew.replace("visit_id, ", "visit_id, fee, "))
    outcome = app.invoke("sql.install")
    assert outcome.code == 2 and "no SQL file made view theirs" in outcome.err, outcome.err
    app.execute("DROP VIEW theirs")
    install(app)
    assert app.query("SELECT obj_description('visits_open'::regclass), count(*) FROM visits_counted") == [("kept", 2)]


@pytest.mark.slow
def test_the_step_sql_in_a_declared_pipeline(app: Project) -> None:
    (app.root / "pyproject.toml").write_text('[tool.skinspire_db.pipelines]\nviews = ["sql"]\n')
    outcome = app.invoke("db.run", "--pipeline=views", "--json")
    assert outcome.code == 0 and outcome.json["steps"][0]["name"] == "sql", outcome.err
    assert set(states(app).values()) == {"INSTALLED"}


@pytest.mark.slow
def test_files_beside_an_adopted_database(old_clinic: Project) -> None:
    """What adoption found uninstalled is accepted; an install that is typed takes it over or makes it."""
    project = old_clinic
    write(project, "views/new_one", "CREATE VIEW added_later AS SELECT 1 AS one;")
    outcome = project.forked("env.stamp", f"--confirm={project.database}")
    for name in ("open_bills_view", "monthly_income"):
        outcome = project.forked("sql.new", f"--view={name}", "--from-database")
        assert outcome.code == 0, outcome.err
    project.execute("DROP SCHEMA skinspire_tools CASCADE")
    before = project.query("SELECT oid FROM pg_class WHERE relkind IN ('v', 'm') AND oid > 16384 ORDER BY 1")
    outcome = project.forked("db.adopt", f"--confirm={project.database}")
    assert outcome.code == 0, outcome.err
    for task in ("db.drift", "migrate.check", "db.prepare", "sql.status"):
        outcome = project.forked(task)
        assert outcome.code == 0, (task, outcome)
    assert '"file views/new_one missing"' in (project.root / "accepted.toml").read_text()
    for name, said in (("open_bills_view", "1 taken over"), ("monthly_income", "taken over"), ("new_one", "1 view")):
        outcome = project.forked("sql.install", f"--name={name}")
        assert outcome.code == 0 and said in outcome.out, outcome
    after = project.query("SELECT oid FROM pg_class WHERE relkind IN ('v', 'm') AND oid > 16384 ORDER BY 1")
    assert after[: len(before)] == before and len(after) == len(before) + 1
    assert "file views/new_one missing" in project.forked("db.drift").out, "accepted, and not there any more"
