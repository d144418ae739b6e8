"""migrate.lint: what is risky about pending revisions, by squawk's rules, and revisions whose files changed after they were applied."""

from __future__ import annotations

import pytest
from conftest import Project
from migration_support import app, head, revision  # noqa: F401

# statement -> the rules that it breaks; the table `old` has rows, a table made in the revision itself has none.
DANGEROUS = {
    "CREATE INDEX ix_old ON old (a)": {"require-concurrent-index-creation"},
    "CREATE INDEX CONCURRENTLY ix_old ON old (a); SELECT 1": {"ban-concurrent-index-creation-in-transaction"},
    "DROP INDEX ix_a": {"require-concurrent-index-deletion"},
    "ALTER TABLE old ALTER a TYPE bigint": {"changing-column-type"},
    "ALTER TABLE old ALTER v TYPE varchar(50), ALTER n TYPE numeric(12, 3)": {"changing-column-type"},
    "ALTER TABLE old ALTER a SET NOT NULL": {"adding-not-nullable-field"},
    "ALTER TABLE old ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES old (id)": {
        "adding-foreign-key-constraint", "constraint-missing-not-valid"
    },
    "ALTER TABLE old ADD CONSTRAINT c CHECK (a > 0)": {"constraint-missing-not-valid"},
    "ALTER TABLE old ADD CONSTRAINT u UNIQUE (a)": {"disallowed-unique-constraint", "constraint-missing-not-valid"},
    "ALTER TABLE old ADD b int NOT NULL": {"adding-required-field"},
    "ALTER TABLE old ADD b uuid DEFAULT gen_random_uuid()": {"adding-field-with-default"},
    "ALTER TABLE old ADD b serial PRIMARY KEY": {"adding-serial-primary-key-field"},
    "ALTER TABLE old DROP COLUMN a": {"ban-drop-column", "loss"},
    "DROP TABLE old": {"ban-drop-table", "loss"},
    "TRUNCATE old CASCADE": {"ban-truncate-cascade", "loss"},
    "ALTER TABLE old RENAME a TO b": {"renaming-column"},
    "ALTER TABLE old RENAME TO older": {"renaming-table"},
    "DO $$ BEGIN EXECUTE format('DROP TABLE %I', 'old'); END $$": {"loss"},
    "CREATE UNIQUE INDEX ux_old ON old (a)": {"require-concurrent-index-creation"},
    "ALTER TABLE old ADD PRIMARY KEY (a)": {"adding-serial-primary-key-field", "constraint-missing-not-valid"},
    "ALTER TABLE old ADD COLUMN g int REFERENCES old (id)": {"adding-foreign-key-constraint"},
    "ALTER TABLE old ADD h int GENERATED ALWAYS AS (a + 1) STORED": {"adding-field-with-default"},
    "ALTER TABLE old ALTER id DROP NOT NULL": {"ban-drop-not-null"},
    "ALTER TABLE old ALTER a DROP DEFAULT": {"ban-drop-default"},
    "ALTER TABLE old DROP CONSTRAINT IF EXISTS nonesuch": {"ban-drop-constraint"},
    "DROP VIEW IF EXISTS seen": {"ban-drop-view"},
    "DROP FUNCTION IF EXISTS one()": {"ban-drop-function"},
    "ALTER INDEX ix_a RENAME TO ix_aa": {"renaming-object"},
    "DROP DATABASE other": {"ban-drop-database"},
    "REINDEX TABLE old": {"require-concurrent-reindex"},
    "ALTER TABLE old ALTER a TYPE text USING a::text": {"changing-column-type"},
    "DO $$ BEGIN IF true THEN ALTER TABLE old DROP COLUMN a; END IF; END $$": {"loss"},
}  # fmt: skip
HARMLESS = [
    "CREATE TABLE new (id int PRIMARY KEY, name varchar(10), at timestamp); CREATE INDEX ix_new ON new (name)",
    "CREATE TABLE new (id serial PRIMARY KEY); ALTER TABLE new ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES new (id)",
    "ALTER TABLE old ADD b int",
    "ALTER TABLE old ADD b int DEFAULT 5",
    "ALTER TABLE old ALTER a SET DEFAULT 3",
    "ALTER TABLE old ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
    "ALTER TABLE old VALIDATE CONSTRAINT c",
    "UPDATE old SET a = 1 WHERE a IS NULL",
    "COMMENT ON TABLE old IS 'x'",
    "CREATE VIEW seen AS SELECT id FROM old",
    "ALTER TABLE old ALTER COLUMN v TYPE varchar(40), ALTER n TYPE numeric(12, 2)",
    "ALTER TABLE old ALTER v TYPE text",
    "CREATE SEQUENCE numbers",
    "CREATE TYPE state AS ENUM ('a', 'b')",
    "ALTER TABLE old ADD c text, ADD d jsonb",
    "ALTER TABLE old SET (fillfactor = 90)",
    "CREATE TABLE new2 (LIKE old)",
    "INSERT INTO old (id) VALUES (7)",
    "GRANT SELECT ON old TO PUBLIC",
    "REVOKE ALL ON old FROM PUBLIC",
    "ALTER TABLE old ALTER a SET STATISTICS 500",
    "ALTER TYPE state ADD VALUE 'c'",
    "CREATE SCHEMA more",
    "CREATE EXTENSION IF NOT EXISTS pgcrypto",
    "DELETE FROM old WHERE a IS NULL",
    "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE old ADD e numeric(5, 1) DEFAULT 1.5 NOT NULL",
    "ALTER TABLE old ADD f timestamptz DEFAULT now()",
    "CREATE TRIGGER t BEFORE UPDATE ON old FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "DO $$ BEGIN UPDATE old SET a = 2 WHERE a = 1; END $$",
    "ALTER TABLE old ENABLE ROW LEVEL SECURITY",
]


@pytest.mark.slow
def test_dangerous_statements_are_named_and_harmless_ones_left_alone(app: Project) -> None:
    app.execute(
        "CREATE TABLE old (id int PRIMARY KEY, a int, v varchar(9), n numeric(9, 2)); CREATE INDEX ix_a ON old (a); INSERT INTO old VALUES (1, 2)"
    )
    statements = [*DANGEROUS, *HARMLESS]
    for number, sql in enumerate(statements):
        revision(app, f"r{number:02}", f"r{number - 1:02}" if number else head(), sql)
    outcome = app.invoke("migrate.lint", "--json")
    assert outcome.code == 3, outcome.err
    found: dict[str, set[str]] = {sql: set() for sql in statements}
    for each in outcome.json["findings"]:
        name = each["file"].rpartition("/")[2]
        found[statements[int(name[1:3])]].add(each["rule"])
        assert each["rule"] == "loss" or (each["remedy"] and name.endswith(".py:8")), each
    assert found == DANGEROUS | {sql: set() for sql in HARMLESS}


@pytest.mark.slow
def test_a_revision_that_was_changed_after_it_was_applied(app: Project) -> None:
    revision(app, "one", head(), "CREATE TABLE one (id int)")
    assert app.invoke("migrate.upgrade").code == 0 and app.invoke("migrate.lint").code == 0
    file = app.root / "migrations" / "versions" / "one.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert app.invoke("migrate.lint").code == 0, "line ends are no change"
    revision(app, "one", head(), "CREATE TABLE one (id bigint)")
    outcome = app.invoke("migrate.lint")
    assert outcome.code == 3 and "one.py: changed: its file is not the one that was applied" in outcome.out, outcome
    revision(app, "two", "one", "ALTER TABLE one RENAME TO two")
    assert app.invoke("migrate.upgrade").code == 0
    assert "findings" in app.invoke("migrate.lint", "--json").json


@pytest.mark.slow
def test_what_cannot_be_linted(app: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    revision(app, "reads", head())
    path = app.root / "migrations" / "versions" / "reads.py"
    path.write_text(path.read_text().replace("    pass", "    op.get_bind().execute(None).one()", 1))
    outcome = app.invoke("migrate.lint")
    assert outcome.code == 3 and "reads.py: unknown: it reads the database" in outcome.out
    monkeypatch.setattr("skinspire_db.migrations.lint.program", lambda: None)
    outcome = app.invoke("migrate.lint")
    assert outcome.code != 0 and "squawk is not installed -> pip install 'skinspire-db[lint]'" in outcome.err


@pytest.mark.slow
def test_migrate_new_notes_what_it_wrote(app: Project) -> None:
    app.execute("ALTER TABLE staff ALTER title TYPE char(10)")
    written = app.invoke("migrate.new", "-m", "wider")
    assert written.code == 0, written.err
    assert (
        "changing-column-type: public.staff.title: character(10) becomes character varying(10): the whole" in written.out
        and "lint: migrations/versions/" in written.out
    ), written.out
