"""Options of columns that a PostgreSQL server keeps for itself: no other server takes them, and a copy does without."""

from __future__ import annotations

import pytest
from conftest import Project
from test_hostile_dumps import of_others

SOURCE = """CREATE TABLE optioned (a int, b text, "SET (pg_attver=1)" text); INSERT INTO optioned VALUES (1, 'x', 'y');
    COMMENT ON TABLE optioned IS 'ALTER TABLE ONLY public.g ALTER COLUMN a SET (pg_attver=1);';
    CREATE VIEW reads AS SELECT a FROM optioned;
    CREATE FUNCTION in_a_body() RETURNS text LANGUAGE sql AS $$
        SELECT '\\! echo'
    $$;
    CREATE FUNCTION atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
    UPDATE pg_attribute SET attoptions = CASE attname WHEN 'b' THEN '{pg_attver=7, n_distinct=5}'::text[] ELSE '{pg_attver=7}' END
    WHERE attrelid = 'optioned'::regclass AND attnum > 0"""
OPTIONS = """SELECT attoptions::text FROM pg_attribute WHERE attrelid = 'optioned'::regclass AND attnum > 0
    AND attoptions::text ~ 'n_distinct'"""
COMMENT = "SELECT obj_description('optioned'::regclass), (SELECT prosrc ~ '! echo' FROM pg_proc WHERE proname = 'in_a_body')"


def check(project: Project, database: str) -> None:
    """All came along but the option."""
    assert project.query(OPTIONS, database) == [("{n_distinct=5}",)]
    assert project.query('SELECT a, b, "SET (pg_attver=1)" FROM optioned', database) == [(1, "x", "y")]
    comment = "ALTER TABLE ONLY public.g ALTER COLUMN a SET (pg_attver=1);"
    assert project.query(COMMENT, database) == [(comment, True)]


def test_a_stream_leaves_them_out(clinic: Project) -> None:
    clinic.execute(SOURCE)
    outcome = clinic.invoke("db.copy", "--source=dev", "--target=test", "--method=stream")
    assert outcome.code == 0, outcome.err
    check(clinic, clinic.env["TEST_DATABASE_URL"].rpartition("/")[2])


@pytest.mark.slow
def test_a_backup_is_restored_without_them(clinic: Project) -> None:
    clinic.execute(SOURCE)
    made = clinic.invoke("backup.create")
    assert made.code == 0, made.err
    full = clinic.invoke("backup.verify", "--full")
    assert full.code == 0, full.err
    outcome = clinic.invoke("backup.restore")
    assert outcome.code == 0, outcome.err
    check(clinic, clinic.database)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["-Fp", "-Fc", "-Fd"])
def test_a_dump_by_others_is_restored_without_them(clinic: Project, kind: str) -> None:
    clinic.execute(SOURCE)
    file = of_others(clinic, kind, file=f"theirs{kind}")
    outcome = clinic.invoke("backup.restore", f"--file={file}")
    assert outcome.code == 0, outcome.err
    check(clinic, clinic.database)
