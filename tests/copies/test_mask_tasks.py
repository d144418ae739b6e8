"""mask.preview and mask.new: what they show and write, and what is said of wrong use."""

from __future__ import annotations

import tomllib

import pytest
from conftest import Project
from support import database

from skinspire_db.operations import mask

TABLES = """
CREATE TABLE people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, first_name text NOT NULL, "e-mail" text, "select" date, secret int4range[]);
INSERT INTO people (first_name, "e-mail", "select") SELECT 'Bhattacharya', 'asha@nowhere.org', '1971-05-06' FROM generate_series(1, 30);
CREATE SCHEMA "Odd schema"; CREATE TABLE "Odd schema"."Odd ""table"". %s" ("a ""b"" %s" text, "it's" text); CREATE TABLE no_rows (id int);
INSERT INTO "Odd schema"."Odd ""table"". %s" VALUES ('Bhattacharya', NULL);
CREATE TABLE parted (at date, name text) PARTITION BY RANGE (at); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO parted VALUES ('2026-03-04', 'Bhattacharya'); CREATE VIEW of_people AS SELECT id FROM people; CREATE TABLE no_columns ();
"""
ODD = 'Odd schema.Odd "table". %s'


@pytest.fixture
def shop(project: Project) -> Project:
    (project.root / "shop.py").write_text("from sqlalchemy import MetaData\n\nmetadata = MetaData()\n")
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:metadata"]\n')
    test = database(project, "TEST")
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    project.execute(TABLES, test)
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    return project


@pytest.mark.slow
def test_previews_show_masked_rows_alone_and_new_files_have_every_column(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = shop.invoke("mask.check", "--env=test", "--json")
    assert checked.code == 3 and {each["rule"] for each in checked.json["columns"]} == {"none"}
    for table, rows, columns in (
        ("people", 10, 5),
        ("public.people", 10, 5),
        (ODD, 1, 2),
        ("no_rows", 0, 0),
        ("parted", 1, 2),
        ("parted_1", 1, 2),
    ):
        shown = shop.invoke("mask.preview", "--env=test", f"--table={table}", "--json")
        assert shown.code == 0 and len(shown.json["rows"]) == rows, (table, shown.err)
        assert not rows or len(shown.json["rows"][0]) == columns
        assert not any(value in shown.out for value in ("Bhattacharya", "asha@", "1971-05-06"))
    written = shop.invoke("mask.new", "--env=test", "--json")
    file = shop.root / "sql" / "masks" / "rules.toml"
    assert written.code == 0 and written.json["file"] == str(file)
    tables = tomllib.loads(file.read_text(encoding="utf-8"))["tables"]
    assert sum(map(len, tables.values())) == len(checked.json["columns"]) == 10
    assert tables["people"] == {
        "id": "digits",
        "first_name": "first_name",
        "e-mail": "email",
        "select": "date",
        "secret": "default",
    }
    assert list(tables[ODD]) == ['a "b" %s', "it's"]
    # The remedies that the commands name work when typed, one after the other.
    unlocked = shop.invoke("mask.check", "--env=test")
    assert (
        unlocked.code == 1
        and "rules.toml:1: version 1 is not in sql.lock -> invoke sql.bump --name=masks/rules" in unlocked.err
    )
    assert shop.invoke("sql.bump", "--name=masks/rules").code == 0
    assert shop.invoke("mask.check", "--env=test").code == 0
    done = shop.invoke("mask.new", "--env=test", "--json")
    assert done.code == 0 and done.json["file"] is None and not (file.parent / "rules_2.toml").exists()
    shop.execute("ALTER TABLE people ADD mood text", database(shop, "TEST"))
    with monkeypatch.context() as patched:
        patched.setattr(mask, "LISTED", 5)
        shown = shop.invoke("mask.check", "--env=test")
        assert (
            "people.mood" in shown.out and "people.first_name" not in shown.out and "10 columns more" in shown.err + shown.out
        )
        assert len(shop.invoke("mask.check", "--env=test", "--json").json["columns"]) == 11
    bare = shop.invoke("mask.check", "--env=test")
    assert bare.code == 3 and "1 column has no rule: people.mood -> invoke mask.new --env=test" in bare.err
    assert shop.invoke("mask.new", "--env=test").code == 0
    assert tomllib.loads((file.parent / "rules_2.toml").read_text())["tables"] == {"people": {"mood": "default"}}
    assert shop.invoke("sql.bump", "--name=masks/rules_2").code == 0
    assert shop.invoke("mask.check", "--env=test").code == 0
    assert "@example.com" in shop.invoke("mask.preview", "--env=test", "--table=people").out, "rules hold in a preview"


WRONG = [
    (("mask.preview",), 2, "mask.preview needs a table -> invoke mask.preview --env=test --table="),
    (("mask.preview", "--table=nonesuch"), 2, "there is no table nonesuch with columns -> invoke db.inspect --env=test --section=tables"),
    (("mask.preview", "--table=of_people"), 2, "there is no table of_people"),
    (("mask.preview", "--table=People"), 2, "there is no table People"),
    (("mask.preview", "--table=no_columns"), 2, "there is no table no_columns with columns"),
    (("mask.preview", "--table=sessions"), 2, "the rows of sessions stay away from a masked copy -> invoke mask.check --env=test"),
    (("mask.preview", "--table=skinspire_tools.stamp"), 2, "the rows of skinspire_tools.stamp stay away"),
    (("mask.new", "--name=own"), 2, "there is an SQL file masks/own already -> edit it, then invoke sql.bump --name=masks/own"),
    (("mask.new", "--name=core"), 2, "there is an SQL file masks/core already"),
    (("mask.new", "--name=../own"), 2, "'../own' is no name for an SQL file -> use a-z, 0-9 and _"),
]  # fmt: skip


@pytest.mark.slow
def test_what_is_wrong_is_said_in_a_line_with_a_remedy(shop: Project) -> None:
    test = database(shop, "TEST")
    shop.execute("CREATE TABLE sessions (id int)", test)
    file = shop.root / "sql" / "masks" / "own.toml"
    file.parent.mkdir(parents=True)
    file.write_text('version = 1\nsummary = "x"\ndrop_rows = ["sessions"]\n')
    assert shop.invoke("sql.bump", "--name=masks/own").code == 0
    for arguments, code, says in WRONG:
        outcome = shop.invoke(arguments[0], "--env=test", *arguments[1:])
        assert (outcome.code, outcome.err.count("\n")) == (code, 1) and says in outcome.err, (arguments, outcome.err)
        if arguments[0] == "mask.new":
            assert shop.invoke("--dry", arguments[0], "--env=test", *arguments[1:]).code == code
    assert [path.name for path in file.parent.iterdir()] == ["own.toml"], "nothing is written"
    # A locked file that was edited, one that is no TOML, and a database that is not there.
    for text in ('version = 1\nsummary = "y"\n', "version = 1\nsummary ="):
        file.write_text(text)
        for command in ("mask.check", "mask.new", "mask.preview"):
            outcome = shop.invoke(command, "--env=test", *(["--table=people"] if command == "mask.preview" else []))
            assert outcome.code == 1 and "own.toml:" in outcome.err and outcome.err.count("\n") == 1, outcome.err
    outcome = shop.invoke("mask.new", "--env=dev", "--name=other")
    assert outcome.code == 1 and "does not exist -> invoke db.setup --env=dev" in outcome.err
    # A role that may read nothing: the columns are in the catalogue, their values are not to be had.
    role = f"reader_{database(shop, 'TEST')}"
    shop.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'", "postgres")
    try:
        shop.env["TEST_DATABASE_URL"] = shop.url(test, user=role, password="x")
        file.unlink()
        outcome = shop.invoke("mask.preview", "--env=test", "--table=people")
        assert outcome.code == 1 and "permission denied" in outcome.err, outcome.err
    finally:
        shop.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", test)
