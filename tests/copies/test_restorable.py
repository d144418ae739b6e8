"""What a restore could not compute is said when it is backed up."""

from __future__ import annotations

import shutil

import pytest
from conftest import Project
from support import database

from skinspire_db.copies import restorable

BARE = {
    "a generated column": "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (public.outer_one(a)) STORED); INSERT INTO g VALUES (1)",
    "a constraint": "CREATE TABLE g (a int CONSTRAINT odd CHECK (public.outer_one(a) > 0)); INSERT INTO g VALUES (1)",
    "an index": "CREATE TABLE g (a int); CREATE INDEX ON g (public.outer_one(a)); INSERT INTO g VALUES (1)",
    "an index's condition": "CREATE TABLE g (a int); CREATE INDEX ON g (a) WHERE public.outer_one(a) > 0; INSERT INTO g VALUES (1)",
    "an exclusion": "CREATE TABLE g (a int, EXCLUDE (public.outer_one(a) WITH =)); INSERT INTO g VALUES (1)",
    "a partition key": "CREATE TABLE g (a int) PARTITION BY RANGE (public.outer_one(a));"
    " CREATE TABLE g1 PARTITION OF g FOR VALUES FROM (0) TO (9); INSERT INTO g VALUES (1)",
    "a domain": "CREATE DOMAIN d AS int CHECK (public.outer_one(VALUE) > 0); CREATE TABLE g (a d); INSERT INTO g VALUES (1)",
    "a domain in a type": "CREATE DOMAIN d AS int CHECK (public.outer_one(VALUE) > 0); CREATE TYPE pair AS (one d, two int);"
    "CREATE TABLE g (a pair[]); INSERT INTO g VALUES (ARRAY[ROW(1, 2)::pair])",
    "an operator": "CREATE OPERATOR @@@ (PROCEDURE = public.outer_one, RIGHTARG = int);"
    "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (@@@ a) STORED); INSERT INTO g VALUES (1)",
    "a materialized view": "CREATE TABLE g (a int); CREATE MATERIALIZED VIEW m AS SELECT public.outer_one(a) AS b FROM g;"
    "INSERT INTO g VALUES (1)",
    "a view in it": "CREATE TABLE g (a int); CREATE VIEW v AS SELECT public.outer_one(a) AS b FROM g;"
    "CREATE MATERIALIZED VIEW m AS SELECT max(b) AS c FROM v; INSERT INTO g VALUES (1)",
}


FUNCTIONS = (
    "CREATE FUNCTION inner_one(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN a + 1; END';"
    "CREATE FUNCTION outer_one(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN inner_one(a); END';"
)


@pytest.mark.parametrize(
    "kind", [each if each == "a materialized view" else pytest.param(each, marks=pytest.mark.slow) for each in BARE]
)
def test_what_cannot_be_restored_is_said_when_it_is_backed_up(
    clinic: Project, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    clinic.execute(FUNCTIONS + BARE[kind])
    outcome = clinic.invoke("backup.create")
    assert outcome.code == 1 and "public.outer_one(integer) calls something by its bare name" in outcome.err, outcome.err
    assert list((clinic.root / "backups").glob("*")) == []
    with monkeypatch.context() as unchecked:  # it would not be restored indeed
        unchecked.setattr(restorable, "check", lambda *_: [])
        assert clinic.invoke("backup.create").code == 0
        assert clinic.invoke("backup.verify", "--full").code != 0
    clinic.execute(outcome.err.partition("invoke db.shell: ")[2].strip())
    shutil.rmtree(clinic.root / "backups")
    assert clinic.invoke("backup.create").code == 0
    full = clinic.invoke("backup.verify", "--full")
    assert full.code == 0, full.err


def test_what_no_restore_computes_is_no_reason_to_refuse(clinic: Project) -> None:
    """Nor what is computed when it is first asked for: it was so in the database that is backed up."""
    clinic.execute(
        FUNCTIONS + "CREATE TABLE g (a int DEFAULT public.outer_one(1)); INSERT INTO g DEFAULT VALUES;"
        "ALTER TABLE g ADD CONSTRAINT odd CHECK (public.outer_one(a) > 0) NOT VALID;"
        "CREATE STATISTICS s ON (public.outer_one(a)), a FROM g; CREATE POLICY p ON g USING (public.outer_one(a) > 0);"
        "CREATE VIEW v AS SELECT public.outer_one(a) AS b FROM g;"
        "CREATE MATERIALIZED VIEW m AS SELECT public.outer_one(a) AS b FROM g WITH NO DATA;"
    )
    assert clinic.invoke("backup.create").code == 0
    assert clinic.invoke("backup.restore").code == 0
    assert clinic.query("SELECT a FROM g") == [(2,)]


def test_partitions_by_the_hash_of_an_enum(clinic: Project) -> None:
    """Their rows are in other partitions after a restore and in a copy, for labels have other oids there; none is missing."""
    clinic.execute(
        "CREATE TYPE hue AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g'); CREATE TABLE hues (h hue, n int, note text) PARTITION BY HASH (h);"
        "CREATE TABLE hues_0 PARTITION OF hues FOR VALUES WITH (MODULUS 3, REMAINDER 0);"
        "CREATE TABLE hues_1 PARTITION OF hues FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY LIST (h);"
        "CREATE TABLE hues_1x PARTITION OF hues_1 DEFAULT;"
        "CREATE TABLE hues_2 PARTITION OF hues FOR VALUES WITH (MODULUS 3, REMAINDER 2);"
        "INSERT INTO hues SELECT (enum_range(NULL::hue))[1 + n % 7], n, 'x' FROM generate_series(1, 700) n"
    )
    assert clinic.invoke("backup.create").code == 0
    full = clinic.invoke("backup.verify", "--full")
    assert full.code == 0, full.out
    outcome = clinic.invoke("db.copy", "--source=dev", "--target=test", "--method=stream")
    assert outcome.code == 0, outcome.err
    assert clinic.query("SELECT count(*), sum(n) FROM hues", database(clinic, "TEST")) == [(700, 245350)]
    clinic.execute("DELETE FROM hues WHERE n = 7")
    assert clinic.invoke("backup.restore").code == 0 and clinic.query("SELECT count(*) FROM hues") == [(700,)]
