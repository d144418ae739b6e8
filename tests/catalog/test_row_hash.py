"""The hash of rows: whatever differs in text differs in it, whether or not PostgreSQL calls it equal."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from skinspire_db.catalog import fingerprint, row_hash
from skinspire_db.config.policy import Policy
from skinspire_db.postgres.cluster import Address
from skinspire_db.postgres.target import Target

# Of each type values that differ in text; many are equal, and others have the same hash of PostgreSQL's.
VALUES = {
    "bool": ("true", "false"),
    '"char"': ("a", "b", ""),
    "name": ("a", "b", ""),
    "int2": ("1", "-1", "0"),
    "int4": ("1", "-1", "0", "65536"),
    "int8": ("1", "4294967296", "-1", "4294967295", "0", "-4294967296", "4294967297"),
    "oid": ("1", "4294967295"),
    "numeric": ("1", "1.0", "1.00", "-1", "100", "NaN", "Infinity", "-Infinity", "0", "0.0"),
    "float4": ("0", "-0", "1", "NaN", "Infinity"),
    "float8": ("0", "-0", "1", "-1", "NaN", "Infinity", "5e-324"),
    "money": ("1", "-1"),
    "text": ("", "a", "A", "a "),
    "varchar(9)": ("", "a", "A", "a "),
    "char(9)": ("", "a", "A", " a"),
    "bpchar": ("", "a", "a ", "a  "),
    'text COLLATE "blind"': ("", "a", "A"),
    "bytea": (r"\x", r"\x00", r"\x0000", r"\xff"),
    "date": ("2026-01-01", "0001-01-01 BC", "infinity", "-infinity"),
    "time": ("00:00", "24:00", "00:00:00.000001"),
    "timetz": ("12:00+00", "13:00+01", "12:00+01"),
    "timestamp": ("2026-01-01", "2026-01-01 00:00:00.000001", "infinity", "2000-01-01 00:00:00.000001", "2000-01-01 01:11:34.967296"),
    "timestamptz": ("2026-01-01+00", "infinity", "2000-01-01 00:00:00.000001+00", "2000-01-01 01:11:34.967296+00", "1999-12-31+00"),
    "interval": ("1 day", "24:00", "1 month", "30 days", "-1 day"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"),
    "json": ('{"a":1}', '{"a": 1}', "1"),
    "jsonb": ('{"a":1}', '{"a":1.0}', '{"a":-1}', "[]", "{}", "[[1]]", "[1]", "1", "null", '[[1],2]', "[[1,2]]"),
    "jsonpath": ("$.a", "$.b"),
    "xml": ("", "<a/>", "<a></a>"),
    "inet": ("10.0.0.1", "10.0.0.1/8", "::1"),
    "cidr": ("10.0.0.0/8", "10.0.0.0/9"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "macaddr8": ("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06"),
    "bit(4)": ("0000", "0001"),
    "varbit": ("", "0", "00"),
    "tsvector": ("", "a", "a:1", "a:1A"),
    "tsquery": ("a", "a & b"),
    "point": ("(0,0)", "(-0,0)", "(0.0000001,0)"),
    "box": ("(1,1),(0,0)", "(2,0.5),(0,0)"),
    "circle": ("<(0,0),1>", "<(5,5),1>"),
    "line": ("{1,0,0}", "{2,0,0}"),
    "lseg": ("[(0,0),(1,1)]", "[(1,1),(0,0)]"),
    "path": ("[(0,0),(1,1)]", "((0,0),(1,1))"),
    "polygon": ("((0,0),(1,1),(2,0))", "((1,1),(2,0),(0,0))"),
    "int4[]": ("{1,2}", "[2:3]={1,2}", "{{1,2}}", "{}", "{1,2,NULL}", "{1,NULL,2}"),
    "numeric[]": ("{1}", "{1.0}", "{-1}"),
    "text[]": ("{}", '{""}', "{NULL}", '{"NULL"}'),
    "int4range": ("[1,2)", "empty", "(,2)", "[1,)"),
    "numrange": ("[1,2]", "[1.0,2]", "[1,2)"),
    "int8multirange": ("{}", "{[1,2)}", "{[1,2),[4,5)}"),
    "pg_lsn": ("0/1", "1/0"),
    "tid": ("(0,1)", "(1,0)"),
    "xid8": ("1", "4294967296"),
    "regclass": ("pg_class", "pg_type"),
    "mood": ("sad", "happy"),
    "citext": ("", "a", "A"),
    "price": ("1", "1.0", "-1"),
    "word": ("a", "A"),
    "long": ("1", "4294967296"),
    "again": ("1", "4294967296", "-1"),
    "pair": ("(1,a)", "(1.0,a)", "(,)", "(1,)", '(1,"")'),
    "pair[]": ("{}", '{"(1,a)"}', '{"(1.0,a)"}'),
}  # fmt: skip
TYPES = """
    CREATE EXTENSION citext;
    CREATE COLLATION blind FROM "C"; UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'blind'; -- without ICU
    CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN price AS numeric; CREATE DOMAIN word AS text COLLATE blind;
    CREATE DOMAIN long AS int8; CREATE DOMAIN again AS long; CREATE TYPE pair AS (a numeric, b text);
"""


@pytest.fixture(scope="module")
def typed(server: Address) -> Iterator[Target]:
    """A database with types of its own, and no tables."""
    target = Target("dev", Policy(), server.parameters | {"dbname": f"row_hashes_{secrets.token_hex(4)}"})
    with psycopg.connect(**server.parameters, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {target.database}".encode())
        try:
            with connected(target) as connection:
                connection.execute(TYPES.encode())
            yield target
        finally:
            admin.execute(f"DROP DATABASE {target.database} WITH (FORCE)".encode())


def connected(target: Target) -> psycopg.Connection:
    return psycopg.connect(**target.parameters)


def hashes(connection: psycopg.Connection, table: str) -> list[int]:
    """The hash of each row of a table, by the SQL that fingerprints have for it."""
    ((_, _, hashed),) = row_hash.tables(connection, row_hash.CURRENT, {f'"public"."{table}"'})
    return [int(row[0]) for row in connection.execute(f"SELECT {hashed} FROM {table} AS t".encode()).fetchall()]


def test_values_of_every_type_are_told_apart(typed: Target) -> None:
    assert {each.partition("(")[0].strip('"') for each in VALUES} >= {*row_hash.EXACT, *row_hash.HALVES} - {"varchar"}
    with connected(typed) as connection:
        for number, (type_name, values) in enumerate(VALUES.items()):
            connection.execute(f"CREATE TABLE of_{number} (v {type_name})".encode())
            for value in (None, *values):
                text = sql.Literal(value).as_string(connection)
                connection.execute(f"INSERT INTO of_{number} VALUES ({text})".encode())
            found = hashes(connection, f"of_{number}")
            assert len(set(found)) == len(values) + 1, type_name
            if type_name in ('text COLLATE "blind"', "word"):
                assert "format('%s'" in row_hash.tables(connection, row_hash.CURRENT, {f'"public"."of_{number}"'})[0][2]
        connection.rollback()


@pytest.mark.slow
def test_every_two_bits_of_64_are_told_apart(typed: Target) -> None:
    """PostgreSQL's hash is of the XOR of a value's halves: two bits that are 32 apart leave it as it is."""
    with connected(typed) as connection:
        bits = "SELECT (1::int8 << a) # (1::int8 << b) AS n FROM generate_series(0, 50) a, generate_series(0, a) b GROUP BY 1"
        connection.execute(f"CREATE TABLE bits AS {bits}".encode())
        connection.execute("CREATE TABLE moments AS SELECT timestamptz '2000-01-01+00' + n * interval '1 us' AS at FROM bits")
        for table in ("bits", "moments"):
            found = hashes(connection, table)
            assert len(found) > 1000 and len(set(found)) == len(found)
        connection.execute("ALTER TABLE moments ALTER at TYPE timestamp")
        assert len(set(hashes(connection, "moments"))) == len(found)
        connection.rollback()


def test_rows_that_exchange_a_value_have_another_sum(typed: Target) -> None:
    with connected(typed) as connection:
        connection.execute("CREATE TABLE pairs AS SELECT n, md5(n::text) AS x, n::text AS y FROM generate_series(1, 50) n")
        before, seen = sum(hashes(connection, "pairs")), set()
        for one in range(1, 11):
            connection.execute("UPDATE pairs SET x = md5((51 - n)::text) WHERE n IN (%s, %s)", (one, 51 - one))
            seen.add(sum(hashes(connection, "pairs")))
        assert len(seen - {before}) == 10
        connection.rollback()


@pytest.mark.slow
def test_tables_of_no_columns_and_of_most(typed: Target) -> None:
    """The last of 1,600 counts as the first, also where those after it are all NULL."""
    columns = ", ".join(f"c{number:04} {'numeric' if number < 800 else 'int8'}" for number in range(1600))
    with connected(typed) as connection:
        connection.execute("CREATE TABLE none (); INSERT INTO none DEFAULT VALUES")
        connection.execute(f"CREATE TABLE wide ({columns}); INSERT INTO wide DEFAULT VALUES".encode())
        found = {*hashes(connection, "none"), *hashes(connection, "wide")}
        for column in ("c0000", "c0700", "c1599"):
            connection.execute(f"UPDATE wide SET {column} = 1".encode())
            found |= set(hashes(connection, "wide"))
        assert len(found) == 5
        connection.rollback()


@pytest.mark.slow
def test_a_large_table_is_hashed_in_parts(typed: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(typed) as connection:
        connection.execute("CREATE TABLE long_one AS SELECT n, repeat('x', 900) AS x FROM generate_series(1, 60) n")
    whole = fingerprint.rows(typed, "test")
    assert whole['"public"."long_one"'][0] == 60
    monkeypatch.setattr(fingerprint, "PART", 2)
    assert len(list(fingerprint._parts(8))) == 4 and list(fingerprint._parts(2)) == ["true"]
    assert fingerprint.rows(typed, "test") == whole
    for row in (1, 30, 60):
        with connected(typed) as connection:
            connection.execute("UPDATE long_one SET x = 'y' WHERE n = %s", (row,))
        assert fingerprint.rows(typed, "test") != whole
        whole = fingerprint.rows(typed, "test")


def test_hashes_of_two_kinds_are_not_compared() -> None:
    """They are no proof of anything, so that is a difference."""
    tables: dict[str, list[Any]] = {"t": [1, "5"]}
    one, other = (fingerprint.Fingerprint(tables, {}, {}, 17, kind) for kind in row_hash.KINDS)
    assert list(fingerprint.differences(one, one)) == []
    (said,) = fingerprint.differences(one, other)
    assert "columns and record" in said
