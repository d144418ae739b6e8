"""What carries values beside the rows: a masked copy refuses definitions that hold one, and leaves comments and objects out."""

from __future__ import annotations

from contextlib import closing

import pytest
from conftest import Project, dump
from support import database

from skinspire_db.config import environment
from skinspire_db.copies import copied_tables
from skinspire_db.copies.masking import definitions
from skinspire_db.copies.masking.masking import MaskedStream, Masking
from skinspire_db.postgres.connections import begin
from skinspire_db.postgres.target import target_of

TABLES = """
CREATE EXTENSION file_fdw;
CREATE TABLE people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, mobile text, born date, a text, b text) ;
INSERT INTO people (name, mobile) SELECT 'Bhatta' || chr(97 + n / 26) || chr(97 + n % 26) || 'charya', 9876543210 + n FROM generate_series(0, 99) AS n;
"""
# What defines it, by the name of the definition in messages; {0} is a value of a row, each of them another one.
DEFINITIONS = {
    "table with_default": "CREATE TABLE with_default (x text DEFAULT '{0}')",
    "table with_computed": "CREATE TABLE with_computed (x text, y text GENERATED ALWAYS AS (x || 'Dr. {0}') STORED)",
    "table with_check": "CREATE TABLE with_check (x text CHECK (x <> '{0}'))",
    "table with_number": "CREATE TABLE with_number (x bigint CHECK (x <> {1}))",
    "check constraint people later_check": "ALTER TABLE people ADD CONSTRAINT later_check CHECK (a <> 'x {0}') NOT VALID",
    "domain word": "CREATE DOMAIN word AS text DEFAULT '{0}'",
    "domain words": "CREATE DOMAIN words AS text CHECK (VALUE NOT LIKE '%{0}%')",
    "type mood": "CREATE TYPE mood AS ENUM ('sad', '{0}')",
    "view of_one": "CREATE VIEW of_one AS SELECT id FROM people WHERE upper(name) = 'DOCTOR {0}'",
    "materialized view gathered": "CREATE MATERIALIZED VIEW gathered AS SELECT '{0}'::text AS x",
    "view q": "CREATE VIEW q AS SELECT id, a AS \"{0}\" FROM people",
    "function in_body()": "CREATE FUNCTION in_body() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM '{0}'; END $$",
    "function in_comment()": "CREATE FUNCTION in_comment() RETURNS void LANGUAGE plpgsql AS $$ BEGIN -- asked for by {0}, on Monday\nEND $$",
    "function in_standard()": "CREATE FUNCTION in_standard() RETURNS text LANGUAGE sql RETURN '{0}'",
    "function in_argument(text)": "CREATE FUNCTION in_argument(x text DEFAULT '{0}') RETURNS text LANGUAGE sql RETURN x",
    "function in_setting()": "CREATE FUNCTION in_setting() RETURNS text LANGUAGE sql SET my.own = '{0}' RETURN 'x'",
    "aggregate joined(text)": "CREATE AGGREGATE joined(text) (SFUNC = textcat, STYPE = text, INITCOND = '{0}')",
    "index by_predicate": "CREATE INDEX by_predicate ON people (id) WHERE name = '{0}'",
    "index by_expression": "CREATE INDEX by_expression ON people ((name = E'{0}'))",
    "statistics of_expression": "CREATE STATISTICS of_expression ON (a = '{0}'), b FROM people",
    "trigger people when_so": "CREATE TRIGGER when_so BEFORE UPDATE ON people FOR EACH ROW WHEN (NEW.name = '{0}') EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "trigger people with_argument": "CREATE TRIGGER with_argument BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger(a, '{0}', b)",
    "rule people instead": "CREATE RULE instead AS ON DELETE TO people WHERE old.name = '{0}' DO INSTEAD NOTHING",
    "policy people not_one": "CREATE POLICY not_one ON people USING (name <> '{0}')",
    "table attach divided_one": "CREATE TABLE divided (x text) PARTITION BY LIST (x); CREATE TABLE divided_one PARTITION OF divided FOR VALUES IN ('{0}')",
    "foreign table away": "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE away (x text) SERVER files OPTIONS (filename '/{0}')",
    "schema of {0}": "CREATE SCHEMA \"of {0}\"",
    "table of {0} is": "CREATE TABLE \"of {0} is\" (id int)",
    "publication table of_all people": "CREATE PUBLICATION of_all FOR TABLE people WHERE (name <> '{0}')",
}  # fmt: skip


@pytest.fixture
def shop(project: Project) -> Project:
    """A project without models, and people in its test database."""
    (project.root / "shop.py").write_text("from sqlalchemy import MetaData\n\nmetadata = MetaData()\n")
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:metadata"]\n')
    test = database(project, "TEST")
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    project.execute(TABLES, test)
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    return project


def values(project: Project) -> list[tuple[str, str]]:
    return project.query("SELECT name, mobile FROM people ORDER BY id", database(project, "TEST"))


@pytest.mark.slow
def test_each_kind_of_definition_that_holds_a_value_is_found(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds another value of a row; those of the project's own files, and short ones, are none of the copy's leaks."""
    test, wanted = database(shop, "TEST"), {}
    for (name, statement), each in zip(DEFINITIONS.items(), values(shop), strict=False):
        shop.execute(statement.format(*each), test)
        wanted[name.format(*each)] = "people.mobile" if "{1}" in statement else "people.name"
    for variable, value in {"SKINSPIRE_PROJECT": str(shop.root), **shop.env}.items():
        monkeypatch.setenv(variable, value)
    source = environment.resolve("test")
    with closing(shop.connect(test)) as connection:
        connection.autocommit = False
        begin(connection, target_of(source).policy)
        masking = Masking(source.project)
        masked = MaskedStream.of(masking, connection, target_of(source), copied_tables.tables(connection))
        masked.search.gather(connection, masked.wanted)
        sql = dict(definitions.named(dump(shop.address, test, "--schema-only", "--no-comments")))
        found = definitions.holding(connection, source.project, masked.search, sql)
    assert {name: column.full for name, column in found.items()} == wanted


@pytest.mark.slow
def test_a_definition_is_refused_by_name_until_it_is_allowed(shop: Project) -> None:
    test, copy = database(shop, "TEST"), ("db.copy", "--source=test", "--target=dev", "--masked")
    (one, _), (other, _), (third, _), *_ = values(shop)
    shop.execute(
        f"CREATE VIEW of_one AS SELECT id FROM people WHERE name = '{one}'; CREATE VIEW of_other AS SELECT '{other}'::text AS x;"
        f"COMMENT ON VIEW of_one IS '{third}'; SELECT lo_from_bytea(0, '{third}'); CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
        f"CREATE USER MAPPING FOR CURRENT_USER SERVER files; INSERT INTO people (name) VALUES ('{third}'); SELECT setval('people_id_seq', 2012345678)",
        test,
    )
    refused = shop.invoke(*copy)
    assert refused.code == 2 and one not in refused.err and "Bhatta" not in refused.err
    assert (
        "the definition of view of_one holds a value of people.name, which is masked, and so does that of view of_other"
        in refused.err
    )
    assert shop.query(f"SELECT FROM pg_database WHERE datname ~ '^{shop.database}'", "postgres") == [], (
        "no part of a copy is left"
    )
    rules = shop.root / "sql" / "masks" / "own.toml"
    rules.parent.mkdir(parents=True)
    rules.write_text('version = 1\nsummary = "x"\nallow_definitions = ["view of_one", "view nonesuch"]\n')
    assert shop.invoke("sql.bump", "--name=masks/own").code == 0
    refused = shop.invoke(*copy)
    assert (
        refused.code == 2
        and "own.toml: allow_definitions names view nonesuch, and there is no such definition" in refused.err
    )
    rules.write_text('version = 1\nsummary = "x"\nallow_definitions = ["view of_one"]\n')
    (rules.parent.parent / "sql.lock").unlink()
    assert shop.invoke("sql.bump", "--name=masks/own").code == 0
    assert "view of_other" in shop.invoke(*copy).err
    # What a file of the project says is in developers' hands already.
    (shop.root / "migrations" / "versions").mkdir(parents=True)
    (shop.root / "migrations" / "versions" / "1_views.sql").write_text(
        f"CREATE VIEW of_other AS SELECT '{other.upper()}'::text AS x"
    )
    done = shop.invoke(*copy)
    assert done.code == 0, done.err
    for left in ("large objects", "user mappings"):
        assert f"left out: {left}" in done.err
    text = dump(shop.address, shop.database, "--large-objects")
    assert third not in text and "USER MAPPING" not in text and "2012345678" not in text
    shop.execute("INSERT INTO people (name) VALUES ('x')")
