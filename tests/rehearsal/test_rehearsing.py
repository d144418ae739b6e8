"""migrate.rehearse: the pending revisions on a copy, what each statement locks, and what is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Project
from migration_support import revision

TABLES = """
CREATE TABLE people (id int PRIMARY KEY, name varchar(100), hidden text);
CREATE TABLE visits (id int PRIMARY KEY, person int NOT NULL, note text);
INSERT INTO people SELECT n, repeat('x', n), CASE WHEN n % 2 = 0 THEN 'x' END FROM generate_series(1, 100) AS n;
INSERT INTO visits SELECT n, n % 200, 'secret note' FROM generate_series(1, 1000) AS n;
"""
TABLE = """
CREATE TABLE {t} (id int, a int NOT NULL, v varchar(9), n numeric(9, 2), at timestamp);
INSERT INTO {t} SELECT g, g, 'abcdefghi', g + 0.25, '2026-01-01 12:00' FROM generate_series(1, 10) AS g;
CREATE INDEX {t}_n ON {t} (n); CREATE MATERIALIZED VIEW {t}_seen AS SELECT id FROM {t};
"""
# statement -> what it does to {t}: "readers" or "writers" are stopped, it is "rewritten", "scanned" meanwhile, "rows" are locked, or a
# value is "lost".
DANGEROUS = {
    "ALTER TABLE {t} ALTER v TYPE varchar(5) USING left(v, 5)": "readers rewritten scanned lost",
    "ALTER TABLE {t} ALTER a TYPE bigint": "readers rewritten scanned",
    "ALTER TABLE {t} ALTER n TYPE numeric(9, 1)": "readers rewritten scanned lost",
    "ALTER TABLE {t} ALTER at TYPE date": "readers rewritten scanned lost",
    "ALTER TABLE {t} ALTER a TYPE text USING a::text": "readers rewritten scanned",
    "ALTER TABLE {t} ADD b uuid DEFAULT gen_random_uuid()": "readers rewritten scanned",
    "ALTER TABLE {t} ADD b serial": "readers rewritten scanned",
    "ALTER TABLE {t} ADD b int GENERATED ALWAYS AS (a + 1) STORED": "readers rewritten scanned",
    "ALTER TABLE {t} SET UNLOGGED": "readers rewritten scanned",
    "CLUSTER {t} USING {t}_n": "readers rewritten scanned",
    "ALTER TABLE {t} ALTER v SET NOT NULL": "readers scanned",
    "ALTER TABLE {t} ADD CHECK (a > 0)": "readers scanned",
    "ALTER TABLE {t} ADD PRIMARY KEY (id)": "readers scanned",
    "ALTER TABLE {t} ADD UNIQUE (id)": "readers scanned",
    "ALTER TABLE {t} ADD FOREIGN KEY (id) REFERENCES people (id)": "writers scanned",
    "CREATE INDEX {t}_a ON {t} (a)": "writers scanned",
    "CREATE UNIQUE INDEX {t}_id ON {t} (id)": "writers scanned",
    "REINDEX TABLE {t}": "writers scanned",
    "CREATE TRIGGER own BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": "writers",
    "LOCK TABLE {t}": "readers",
    "ALTER TABLE {t} DROP COLUMN v": "readers lost",
    "DROP TABLE {t} CASCADE": "readers lost",
    "TRUNCATE {t}": "readers rewritten lost",
    "DELETE FROM {t}": "rows lost",
    "DELETE FROM {t} WHERE id = 3": "rows lost",
    "UPDATE {t} SET v = NULL": "rows lost",
    "UPDATE {t} SET a = a + 1": "rows",
    "DO $$ BEGIN EXECUTE format('ALTER TABLE %I DROP COLUMN v', '{t}'); END $$": "readers lost",
    "DO $$ BEGIN EXECUTE format('ALTER TABLE %I ALTER v TYPE varchar(3) USING left(v, 3)', '{t}'); END $$": "readers rewritten scanned lost",
    "DO $$ BEGIN FOR i IN 1..3 LOOP UPDATE {t} SET a = i WHERE id = i; END LOOP; END $$": "rows",
    "CREATE TABLE {t}_new AS SELECT * FROM {t} WHERE id < 5; DROP TABLE {t} CASCADE; ALTER TABLE {t}_new RENAME TO {t}": "readers lost",
    "REFRESH MATERIALIZED VIEW {t}_seen": "readers rewritten",
}  # fmt: skip
HARMLESS = [
    "ALTER TABLE {t} ADD b int",
    "ALTER TABLE {t} ADD b int DEFAULT 5 NOT NULL",
    "ALTER TABLE {t} ADD b timestamptz DEFAULT now()",
    "ALTER TABLE {t} ADD b text, ADD c jsonb",
    "ALTER TABLE {t} ALTER a SET DEFAULT 3",
    "ALTER TABLE {t} ALTER a DROP DEFAULT",
    "ALTER TABLE {t} ALTER v TYPE varchar(40), ALTER n TYPE numeric(12, 2)",
    "ALTER TABLE {t} ALTER v TYPE text",
    "ALTER TABLE {t} ADD CONSTRAINT {t}_c CHECK (a > 0) NOT VALID",
    "ALTER TABLE {t} ADD CONSTRAINT {t}_f FOREIGN KEY (id) REFERENCES people (id) NOT VALID",
    "ALTER TABLE {t} ALTER a SET STATISTICS 500",
    "ALTER TABLE {t} SET (fillfactor = 90)",
    "ALTER TABLE {t} RENAME a TO b",
    "ALTER TABLE {t} RENAME TO {t}_older",
    "ALTER TABLE {t} ALTER a DROP NOT NULL",
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "ALTER INDEX {t}_n RENAME TO {t}_nn",
    "ALTER TABLE {t} ADD UNIQUE USING INDEX {t}_ready",
    "DROP INDEX {t}_n",
    "DROP MATERIALIZED VIEW {t}_seen",
    "COMMENT ON TABLE {t} IS 'x'",
    "GRANT SELECT ON {t} TO PUBLIC",
    "CREATE VIEW {t}_view AS SELECT id FROM {t}",
    "INSERT INTO {t} (id, a) VALUES (7, 7)",
    "UPDATE {t} SET a = 1 WHERE a IS NULL",
    "DELETE FROM {t} WHERE a IS NULL",
    "CREATE TABLE {t}_new (LIKE {t}); INSERT INTO {t}_new SELECT * FROM {t}; CREATE INDEX ON {t}_new (a); UPDATE {t}_new SET a = 1",
    "CREATE SEQUENCE {t}_numbers",
    "CREATE TYPE {t}_state AS ENUM ('a', 'b')",
    "DO $$ BEGIN PERFORM count(*) FROM {t}; END $$",
]  # fmt: skip


def make_shop(make_project: Callable[..., Project], tables: str = TABLES) -> Project:
    """An application without the core, whose database has tables by its own first revision."""
    project = make_project('metadata = ["shop:Base"]\nmigrations = "migrations"\nreference = []\nsql = []\n')
    (project.root / "shop.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase\nclass Base(DeclarativeBase):\n    pass\n"
    )
    (project.root / "migrations" / "versions").mkdir(parents=True)
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    revision(project, "first", None, tables)
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 0, outcome.err
    return project


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    return make_shop(make_project)


def found(outcome: Any) -> dict[str, Any]:
    """What a rehearsal has found, as --json has it."""
    rehearsal: dict[str, Any] = outcome.json["rehearsal"]
    return rehearsal


@pytest.mark.slow
def test_dangerous_statements_are_named_and_harmless_ones_left_alone(make_project: Callable[..., Project]) -> None:
    statements = {f"t{number:02}": sql for number, sql in enumerate([*DANGEROUS, *HARMLESS])}
    tables = [TABLES, *(TABLE.replace("{t}", table) for table in statements)]
    ready = next(table for table, sql in statements.items() if "USING INDEX" in sql)
    shop = make_shop(make_project, "".join([*tables, f"CREATE UNIQUE INDEX {ready}_ready ON {ready} (id)"]))
    revision(shop, "second", "first", ";".join(sql.replace("{t}", table) for table, sql in statements.items()))
    outcome = shop.invoke("migrate.rehearse", "--from=copy", "--longest-lock=1000", "--json")
    assert outcome.code == 3, outcome.err
    said: dict[str, set[str]] = {table: set() for table in statements}
    words = {"readers and writers": "readers", "writers": "writers", "writers of these rows": "rows", "": ""}
    for statement in found(outcome)["revisions"][0]["statements"]:
        locked: dict[str, set[str]] = {}
        for lock in statement["locks"]:
            locked.setdefault(lock["table"], set()).add(words[lock["stops"]])
        for table, stops in locked.items():
            name = table.partition("_")[0]
            if name in said:
                said[name] |= {min(stops - {""})} if stops - {""} else set()  # those who stop readers stop writers, too
                said[name] |= {"rewritten"} if table in statement["rewritten"] else set()
                said[name] |= {"scanned"} if table in statement["scanned"] and stops & {"readers", "writers"} else set()
    for loss in found(outcome)["losses"]:
        said[loss.split()[1].partition(".")[0].rstrip(":")].add("lost")
    lines = {sql: " ".join(sorted(said[table])) for table, sql in statements.items()}
    assert {sql: lines[sql] for sql in DANGEROUS} == {sql: " ".join(sorted(what.split())) for sql, what in DANGEROUS.items()}
    assert {sql for sql in HARMLESS if lines[sql] not in ("", "readers", "writers")} == set(), "held for a moment alone"


@pytest.mark.slow
def test_what_an_operator_decides_by(shop: Project) -> None:
    revision(
        shop, "second", "first", "ALTER TABLE people ALTER name TYPE varchar(50) USING left(name, 50)",
        "ALTER TABLE people ALTER name TYPE varchar(100)",
    )  # fmt: skip
    revision(
        shop, "third", "second",
        "ALTER TABLE visits ADD CONSTRAINT f FOREIGN KEY (person) REFERENCES people NOT VALID; CREATE INDEX ix ON visits (person);"
        "UPDATE people SET hidden = NULL WHERE id < 50",
        "ALTER TABLE visits DROP CONSTRAINT f; DROP INDEX ix",
    )  # fmt: skip
    before = shop.dump()
    outcome = shop.invoke("migrate.rehearse", "--from=copy", "--longest-lock=1000", "--json")
    assert outcome.code == 3, outcome.err
    result = found(outcome)
    assert result["losses"] == [
        "column people.name: character varying(100) becomes character varying(50): values over 50 characters are cut: 50 of 100 rows",
        "column people.hidden loses 24 of 50 values",
    ]
    people = next(each for each in result["tables"] if each["table"] == "people")
    assert people["before"]["values"]["hidden"] == 50 and people["after"]["values"]["hidden"] == 26
    first, *third = (each for one in result["revisions"] for each in one["statements"])
    assert first["rewritten"] == ["people"] and first["locks"][0]["mode"] == "AccessExclusiveLock"
    assert [each["sql"].split()[0] for each in third] == ["ALTER", "CREATE", "UPDATE"], "one text, three statements"
    assert third[1]["scanned"] == {"visits": 1000} and third[2]["locks"][-1]["rows"] == 49
    assert {(each["table"], each["gave_up"], each["says"]) for each in result["queue"]} == {
        ("people", True, ""), ("visits", True, "")
    }  # fmt: skip
    assert all(each["waited"] > 0 for each in result["queue"])
    failed = [each["name"] for each in outcome.json["checks"] if each["status"] != "pass"]
    assert failed == ["constraint f on visits"]
    after = shop.dump()
    assert "secret note" not in outcome.out and before.count("\n") + 1 == after.count("\n"), (
        "the journal alone has a line more"
    )
    names = shop.query(f"SELECT datname FROM pg_database WHERE datname LIKE '{shop.database}%'")
    assert names == [(shop.database,)]
