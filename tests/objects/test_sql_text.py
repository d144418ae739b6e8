"""What PostgreSQL takes for one statement is not refused in a trigger file or a revision, and nothing hides a COMMIT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project
from migration_support import app, at, head, revision  # noqa: F401

from skinspire_db.errors import SqlFileInvalid
from skinspire_db.objects import files, install, status
from skinspire_db.objects.making import Making
from skinspire_db.postgres import sql_text

HEADER = '/*\nversion = 1\nsummary = "s"\norder = 1\n*/\n'
ATOMIC = "CREATE FUNCTION f(a int) RETURNS text LANGUAGE sql BEGIN ATOMIC {} END"
VALID = [
    ATOMIC.format("SELECT CASE a WHEN 1 THEN 'x' ELSE CASE WHEN a > 2 THEN 'y' END END; SELECT 'z';"),
    ATOMIC.format("SELECT 'x' AS end; SELECT CASE WHEN x.case = 1 THEN 'a' END FROM (SELECT 1 AS case) x;"),
    ATOMIC.format("SELECT 'END;' /* END; */ -- END;\n;"),
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $größe$ BEGIN RETURN 1; END $größe$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $名$ BEGIN RETURN 1; END; $名$; SELECT 1 AS a$b$c; SELECT $b$; COMMIT; $b$",
    "/* it's /* nested, isn't it; */ COMMIT; ROLLBACK; /* /* deep */ ; END; */ */ SELECT 1",
    'SELECT \'a\' AS "x""; COMMIT; --"; -- ; COMMIT',
    "SELECT E'\\'; COMMIT; --', '\\' AS two; SELECT 1",
]
CONTROL = [
    ATOMIC.format("SELECT CASE a WHEN 1 THEN 'x' END;") + "; COMMIT",
    "SELECT CASE WHEN true THEN 1 END; END",
    "SELECT 1 AS a$b$; COMMIT; SELECT 2 AS a$b$",
    "/* /* */ */ COMMIT",
    "SELECT '/*'; COMMIT; SELECT '*/'",
    "SELECT $é$ $e$ $é$; COMMIT; SELECT $e$ $e$",
]


@pytest.mark.parametrize("sql", VALID)
def test_what_is_valid_is_taken(connection: psycopg.Connection[Any], tmp_path: Path, sql: str) -> None:
    path = tmp_path / "good.sql"
    path.write_text(HEADER + sql)
    Making(connection, {}).make([files.read_file(path)])


@pytest.mark.parametrize("sql", CONTROL)
def test_what_ends_the_transaction_is_refused(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "bad.sql"
    path.write_text(HEADER + sql)
    with pytest.raises(SqlFileInvalid, match="in an SQL file"):
        files.read_file(path)


@pytest.mark.parametrize("refused", [CONTROL[:2], pytest.param(CONTROL[2:], marks=pytest.mark.slow)], ids=["two", "others"])
def test_the_same_in_revisions(app: Project, refused: list[str]) -> None:
    after = head()
    for number, sql in enumerate(VALID):
        after = revision(app, f"r{number}", after, sql.replace("f(", f"f{number}("))
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 0 and at(app) == [after], outcome.err
    for number, sql in enumerate(refused):
        revision(app, "bad", after, sql.replace("f(", f"c{number}("))
        outcome = app.invoke("migrate.upgrade")
        assert outcome.code == 1 and "one transaction" in outcome.err and at(app) == [after]


def test_a_mark_at_the_beginning_of_a_file_is_no_text(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    path = tmp_path / "marked.sql"
    path.write_text(HEADER + "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", encoding="utf-8")
    plain = files.read_file(path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    marked = files.read_file(path)
    assert marked.sha256 == plain.sha256
    making = Making(connection, {})
    making.make([marked])
    assert list(making.made["marked"]) == ["f()"]


@pytest.mark.parametrize(
    ("target", "when"),
    [("CREATE VIEW seen AS SELECT patient_id FROM patients", "INSTEAD OF INSERT"),
     ("CREATE TABLE whole (id int) PARTITION BY LIST (id); CREATE VIEW seen AS SELECT * FROM whole", "INSTEAD OF DELETE OR UPDATE"),
     ("CREATE EXTENSION file_fdw; CREATE SERVER s FOREIGN DATA WRAPPER file_fdw;"
      "CREATE FOREIGN TABLE seen (id int) SERVER s OPTIONS (filename '/nonexistent')", "BEFORE INSERT")],
)  # fmt: skip
def test_a_trigger_on_what_is_named_and_is_no_table(
    connection: psycopg.Connection[Any], tmp_path: Path, target: str, when: str
) -> None:
    connection.execute(target.encode())
    path = tmp_path / "looks.sql"
    body = "CREATE FUNCTION looks() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    path.write_text(HEADER.replace("*/", f'when = "{when}"\nattach = {{ tables = ["seen"] }}\n*/') + body)
    file = files.read_file(path)
    assert install.install(connection, [file], others=False).numbers["attached"] == 1
    assert {each.state for each in status.status(connection, [file]) if each.file == "looks"} == {"INSTALLED"}
    assert install.install(connection, [file], others=False).numbers["attached"] == 0


def test_columns_bring_no_trigger_to_a_view(connection: psycopg.Connection[Any]) -> None:
    connection.execute(b"CREATE VIEW seen AS SELECT created_at, updated_at FROM patients")
    assert install.install(connection, files.read_files(files.folder())).numbers["attached"] == 0


def test_the_statements_in_a_block() -> None:
    text = """
        SELECT 1; DO $$ DECLARE n int; BEGIN -- a comment; DROP TABLE none
        IF EXISTS (SELECT FROM pg_class WHERE relname = 'DROP') THEN ALTER TABLE t ALTER c TYPE int USING CASE WHEN a THEN 1 END; END IF;
        EXECUTE 'ALTER TABLE "u" DROP COLUMN a'; EXECUTE $q$DROP TABLE z$q$;
        FOR r IN SELECT 1 LOOP EXECUTE format('ALTER TABLE %I DROP b', r); END LOOP; GRANT EXECUTE ON FUNCTION f() TO PUBLIC; END $$;
        do language plpgsql 'BEGIN TRUNCATE w; EXECUTE ''DROP TABLE k''; END'; CREATE FUNCTION f() AS $$ DROP TABLE g $$
    """
    found = [each.strip() for each in sql_text.statements(text)]
    assert [each for each in found if not each.lower().startswith(("do ", "select", "create"))] == [
        "ALTER TABLE t ALTER c TYPE int USING CASE WHEN a THEN 1 END", 'ALTER TABLE "u" DROP COLUMN a', "DROP TABLE z",
        "EXECUTE format('ALTER TABLE %I DROP b', r)", "TRUNCATE w", "DROP TABLE k",
    ]  # fmt: skip
