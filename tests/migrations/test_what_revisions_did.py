"""What a revision did is said when it is applied and taken back, and stands in the history."""

from __future__ import annotations

import re

import pytest
from conftest import Project
from migration_support import app, head, revision  # noqa: F401

BASE = (
    "CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE deed (id int PRIMARY KEY, plan varchar(9), size int CHECK (size > 0), was text);"
    "CREATE INDEX deed_plan ON deed (plan); CREATE TABLE old (id serial PRIMARY KEY); CREATE VIEW seen AS SELECT id FROM deed"
)


@pytest.mark.parametrize(
    ("up", "numbers"),
    [
        ("ALTER TABLE deed ADD novel int", {"columns_added": 1}),
        ("ALTER TABLE deed DROP was", {"columns_dropped": 1}),
        ("ALTER TABLE deed RENAME was TO is_now", {"columns_renamed": 1}),
        ("ALTER TABLE deed RENAME plan TO idea", {"columns_renamed": 1}),
        ("ALTER TABLE deed ALTER plan TYPE text", {"columns_changed": 1}),
        ("ALTER TABLE deed ALTER size TYPE bigint", {"columns_changed": 1, "constraints_changed": 1}),
        ("ALTER TABLE deed ALTER was SET NOT NULL, ALTER plan SET DEFAULT 'x'", {"columns_changed": 2}),
        ("ALTER TABLE deed RENAME TO act", {"tables_renamed": 1}),
        ("CREATE TABLE further (id serial PRIMARY KEY, deed int REFERENCES deed)", {"tables_added": 1}),
        ("DROP TABLE old; ALTER TABLE deed ADD UNIQUE (plan)", {"tables_dropped": 1, "constraints_added": 1}),
        ("CREATE INDEX ON deed (size); DROP INDEX deed_plan", {"indexes_added": 1, "indexes_dropped": 1}),
        ("ALTER TABLE deed DROP CONSTRAINT deed_size_check", {"constraints_dropped": 1}),
        ("ALTER INDEX deed_plan RENAME TO by_plan", {"indexes_renamed": 1}),
        ("ALTER TYPE mood ADD VALUE 'sad'; CREATE SEQUENCE s", {"types_changed": 1, "sequences_added": 1}),
        ("CREATE OR REPLACE VIEW seen AS SELECT id, 1 AS one FROM deed", {"views_changed": 1}),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SCHEMA x", {"functions_added": 1, "schemas_added": 1}),
        ("COMMENT ON COLUMN deed.was IS 'what was'; GRANT SELECT ON old TO PUBLIC", {"columns_changed": 1, "tables_changed": 1}),
        ("INSERT INTO deed (id) VALUES (1), (2); UPDATE deed SET plan = 'x'; DELETE FROM deed WHERE id = 1",
         {"rows_inserted": 2, "rows_updated": 2, "rows_deleted": 1}),
        ("CREATE STATISTICS s ON plan, size FROM deed; CREATE PUBLICATION p FOR TABLE deed",
         {"statistics_objects_added": 1, "publications_added": 1}),
        ("CREATE STATISTICS s ON plan, size FROM deed; DROP TABLE deed CASCADE", {"tables_dropped": 1, "views_dropped": 1}),
        ("CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
         "CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION e()", {"functions_added": 1, "event_triggers_added": 1}),
        ("CREATE COLLATION c (LOCALE = 'C'); CREATE CAST (mood AS int) WITH INOUT; CREATE CONVERSION v FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
         {"collations_added": 1, "casts_added": 1, "conversions_added": 1}),
        ("CREATE OPERATOR @@@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)", {"operators_added": 1}),
        ("CREATE OPERATOR CLASS o FOR TYPE int USING hash AS OPERATOR 1 =", {"operator_classes_added": 1, "operator_families_added": 1}),
        ("CREATE TEXT SEARCH CONFIGURATION t (COPY = simple); CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple)",
         {"text_search_configurations_added": 1, "text_search_dictionaries_added": 1}),
        ("CREATE RULE r AS ON DELETE TO deed DO INSTEAD NOTHING", {"rules_added": 1}),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", {"default_privileges_added": 1}),
        ("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR PUBLIC SERVER s",
         {"foreign_data_wrappers_added": 1, "servers_added": 1, "user_mappings_added": 1}),
        ("CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)", {"subscriptions_added": 1}),
        ("COMMENT ON TYPE mood IS 'm'; COMMENT ON VIEW seen IS 'v'; COMMENT ON COLUMN seen.id IS 'i'; COMMENT ON INDEX deed_plan IS 'x'",
         {"types_changed": 1, "views_changed": 1, "indexes_changed": 1}),
        ("ALTER TABLE deed ALTER plan SET STATISTICS 9, CLUSTER ON deed_plan", {"columns_changed": 1, "indexes_changed": 1}),
        ("DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'x'); END $$", {"databases_changed": 1}),
    ],
)  # fmt: skip
def test_in_numbers(connection: object, up: str, numbers: dict[str, int]) -> None:
    from skinspire_db.migrations import effects

    connection.execute(BASE)  # type: ignore[attr-defined]
    before = effects.state(connection)  # type: ignore[arg-type]
    connection.execute(up)  # type: ignore[attr-defined]
    found, lines = effects.between(before, effects.state(connection))  # type: ignore[arg-type]
    assert {key: value for key, value in found.items() if "columns_changed" not in key or "view" not in up} == numbers, lines
    assert len(lines) == sum(value for key, value in numbers.items() if not key.startswith("rows_"))


def test_a_revision_that_changed_nothing_is_said_to_have_run(connection: object) -> None:
    from skinspire_db.migrations import effects

    before = effects.state(connection)  # type: ignore[arg-type]
    connection.execute("SELECT 1")  # type: ignore[attr-defined]
    assert effects.between(before, effects.state(connection)) == ({}, [effects.NOTHING])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("policies_added", "policy added"), ("operator_classes_dropped", "operator class dropped"),
        ("statistics_objects_added", "statistics object added"), ("default_privileges_changed", "default privileges changed"),
        ("text_search_dictionaries_added", "text search dictionary added"), ("access_methods_added", "access method added"),
    ],
)  # fmt: skip
def test_one_of_a_kind_is_named_as_one(name: str, one: str) -> None:
    from skinspire_db.lifecycle.result import told

    assert told(1, name) == f"1 {one}"


def test_it_is_said_and_stays_in_the_history(app: Project) -> None:
    revision(app, "novel", head(), "ALTER TABLE staff ADD novel int; ALTER TABLE staff ALTER title TYPE text",
             "ALTER TABLE staff DROP novel; ALTER TABLE staff ALTER title TYPE varchar(10)")  # fmt: skip
    for task, verb, column in (("migrate.upgrade", "applied", "added"), ("migrate.downgrade", "taken back", "dropped")):
        outcome = app.invoke(task)
        said = " ".join(outcome.out.split())
        assert outcome.code == 0 and f"novel novel {verb}, 1 column {column}, 1 column" in said, outcome
        assert f"column public.staff.novel {column}" in said and "column public.staff.title changed: " in said
        told = " ".join(app.invoke("db.history").out.split())
        assert f"novel novel {verb}, " in told and re.search(rf"\b1 columns? {column}", told)
    revision(app, "empty", "novel")
    outcome = app.invoke("migrate.upgrade", "--json")
    assert outcome.json["steps"][0]["summary"]["applied"] == "novel novel"
    assert outcome.json["steps"][3]["summary"] == {"applied": "empty empty"}
    revision(app, "counted", "empty", "CREATE STATISTICS size ON staff_id, title FROM staff")
    said = " ".join(app.invoke("migrate.upgrade").out.split())
    assert "counted counted applied, 1 statistics object added" in said and "statistics object public.size added" in said
    revision(app, "idle", "counted", "SELECT 1")
    said = " ".join(app.invoke("migrate.upgrade").out.split())
    assert "idle idle applied" in said and "it ran to its end" in said and "nothing to do" not in said
