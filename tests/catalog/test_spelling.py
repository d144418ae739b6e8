"""What PostgreSQL only spells otherwise is no difference; what it means otherwise is one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from conftest import Project, dump

from skinspire_db.catalog import definitions, fields, spelling
from skinspire_db.migrations import drift

EVERYWHERE = """
    CREATE DOMAIN kind AS varchar(9) DEFAULT 'a' CHECK (VALUE IN ('a', 'b'));
    CREATE FUNCTION is_known(s varchar) RETURNS boolean LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT s IN ('a', 'b'); END;
    CREATE TABLE told (
        s varchar(9) CHECK (s IN ('a', 'b')) DEFAULT CASE WHEN 'a'::varchar IN ('a', 'b') THEN 'a' END,
        n varchar(9) CHECK (n NOT IN ('x', 'y') AND s <> ALL (ARRAY['q', 'r']::varchar[])),
        k kind,
        c char(2) CHECK (c IN ('a', 'b')),
        g integer GENERATED ALWAYS AS (CASE WHEN s IN ('a', 'b') THEN 1 ELSE 2 END) STORED,
        EXCLUDE USING btree (s WITH =) WHERE (s IN ('a', 'b'))
    );
    COMMENT ON CONSTRAINT told_s_check ON told IS 'two of them';
    CREATE INDEX told_part ON told (n) WHERE s IN ('a', 'b');
    CREATE UNIQUE INDEX told_expression ON told ((s IN ('a', 'b')), n);
    CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER told_trigger BEFORE UPDATE ON told FOR EACH ROW WHEN (NEW.s IN ('a', 'b') AND OLD.n = 'c') EXECUTE FUNCTION fire();
"""


@pytest.fixture
def databases(project: Project) -> Iterator[list[str]]:
    """Three of them, empty."""
    names = [f"{project.database}_{number}" for number in range(3)]
    for name in names:
        project.execute(f'CREATE DATABASE "{name}"', "postgres")
    yield names
    for name in names:
        project.execute(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")


def test_a_dump_and_restore_is_no_drift(project: Project, databases: list[str]) -> None:
    project.execute(EVERYWHERE, databases[0])
    with project.connect(databases[0]) as connection:
        first = definitions.snapshot(connection)
        connection.execute("BEGIN")
        wanted = spelling.Expected(first, spelling.again(connection, first))
        connection.execute("ROLLBACK")
        assert definitions.snapshot(connection) == first
    for before, after in itertools.pairwise(databases):
        sql = "\n".join(
            line for line in dump(project.address, before, "-s").splitlines() if not line.startswith("SELECT pg_cat")
        )
        project.execute(sql, after)
        with project.connect(after) as connection:
            live = definitions.snapshot(connection)
        assert sum(live[key] != text for key, text in first.items()) >= 9, "as PostgreSQL spells it after its own words"
        assert [vars(each) for each in drift.compare(live, wanted, set())] == []
        differing = live | {"constraint told_s_check on public.told": fields.Other("CHECK (((s)::text = 'a'::text))")}
        assert [each.state for each in drift.compare(differing, wanted, set())] == ["differs"]


DEFAULTS = {
    ("timestamptz", "now()", "CURRENT_TIMESTAMP"): True,
    ("timestamptz", "transaction_timestamp()", "CURRENT_TIMESTAMP"): True,
    ("timestamp", "now()", "LOCALTIMESTAMP"): True,
    ("date", "now()", "CURRENT_DATE"): True,
    ("timestamptz", "now()", "clock_timestamp()"): False,
    ("timestamptz", "now()", "CURRENT_TIMESTAMP(0)"): False,
    ("text", "'CURRENT_TIMESTAMP'", "'now()'"): False,
    ("smallint", "0", "'0'"): True,
    ("bigint", "-1", "'-1'"): True,
    ("numeric", "0", "'0.0'"): False,
    ("varchar(9)", "'x'", "'x'::text"): True,
    ("text", "'x'", "'y'"): False,
    ("boolean", "true", "'t'"): True,
}


def test_two_spellings_of_a_default(connection: psycopg.Connection[object]) -> None:
    for (kind, one, other), same in DEFAULTS.items():
        found = []
        for default in (one, other):
            connection.execute(
                f"CREATE TABLE said (c {kind} DEFAULT {default} CHECK (c::text <> 'CURRENT_TIMESTAMP'))".encode()
            )
            found.append(definitions.snapshot(connection))
            connection.execute("DROP TABLE said")
        assert (list(drift.compare(found[0], found[1], set())) == []) is same, (kind, one, other)
