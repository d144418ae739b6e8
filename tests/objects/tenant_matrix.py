"""Every operation on every table with the tenant's policies, for each setting of the hospital, as the application's role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
from conftest import Project
from psycopg import sql

from skinspire_db.config.tenancy import Roles

PROOFS = Path(__file__).parents[2] / "sql" / "proofs.sql"
ONE, OTHER = "aaaaaaaa-0000-4000-8000-00000000000a", "bbbbbbbb-0000-4000-8000-00000000000b"
TENANTS = """
    SELECT c.oid::regclass::text, EXISTS (SELECT FROM pg_policy o WHERE o.polrelid = c.oid AND o.polname = 'tenant_of_system'),
           array(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum)
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.polname = 'tenant' ORDER BY 1
"""
# What each sees of the rows of ONE, by the setting of the hospital.
SETTINGS = {"own": ONE, "other": OTHER, "none": "", "garbage": "x' OR true --"}
REFUSED = "42501"  # insufficient_privilege: also what a policy refuses


def fill(connection: psycopg.Connection[Any], given: dict[str, dict[str, str]]) -> list[tuple[str, bool, list[str]]]:
    """Rows of two hospitals, and of none where that may be, in every table with the policies.

    Args:
        connection: a superuser's, in autocommit.
        given: table -> values of columns that a check or key wants so; {n} is the number of the row in the table.

    Returns:
        The tables, whether they may have rows of no hospital, and their columns.
    """
    connection.execute("SET session_replication_role = replica")  # neither triggers nor foreign keys
    connection.execute(PROOFS.read_bytes())
    tables = connection.execute(TENANTS).fetchall()
    for table, nullable, _ in tables:
        for number, hospital in enumerate((ONE, OTHER, *([None] if nullable else []))):
            values = {column: value.format(n=number + 1) for column, value in given.get(table, {}).items()}
            row = json.dumps({"hospital_id": hospital} | values)
            connection.execute("SELECT pg_temp.add(%s::regclass, %s::jsonb)", (table, row))
    connection.execute("SET session_replication_role = origin")
    return tables


def attempt(connection: psycopg.Connection[Any], statement: sql.Composed | str, *values: object) -> tuple[str, int]:
    """What comes of a statement that is rolled back: its SQLSTATE, empty where it worked, and how many rows it was about."""
    try:
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(statement, values or None)
            return "", cursor.rowcount
    except psycopg.Error as error:
        return error.sqlstate or "?", 0


def copied(connection: psycopg.Connection[Any], table: str) -> tuple[str, bytes]:
    """What COPY TO gives: its SQLSTATE, and the rows."""
    try:
        with (
            connection.transaction(force_rollback=True),
            connection.cursor().copy(f"COPY {table} TO STDOUT".encode()) as copy,
        ):
            return "", b"".join(bytes(block) for block in copy)
    except psycopg.Error as error:
        return error.sqlstate or "?", b""


def check(project: Project, login_url: str, given: dict[str, dict[str, str]]) -> int:
    """Try all of it.

    Args:
        project: its database has tenancy.
        login_url: the application's.
        given: as `fill`.

    Returns:
        How many tables were tried.
    """
    roles = Roles(project.database)
    with project.connect() as above, psycopg.connect(login_url, autocommit=True) as connection:
        tables = fill(above, given)
        rows = {
            table: above.execute(f"SELECT to_jsonb(t)::text FROM {table} AS t WHERE hospital_id = '{ONE}'").fetchall()
            for table, _, _ in tables
        }
        before = {table: above.execute(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t").fetchone()
                  for table in rows}  # fmt: skip
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(roles.application)))
        for setting, hospital in SETTINGS.items():
            connection.execute("SELECT set_config('app.current_hospital', %s, false)", (hospital,))
            for table, _, columns in tables:
                found = _operations(connection, table, columns, rows[table][0][0])
                _judge(found, setting, table)
        after = {table: above.execute(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t").fetchone()
                 for table in rows}  # fmt: skip
    assert after == before, "everything was rolled back"
    return len(tables)


def _operations(connection: psycopg.Connection[Any], table: str, columns: list[str], row: str) -> dict[str, tuple[str, Any]]:
    names = ", ".join(f'"{column}"' for column in columns)
    insert = f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM jsonb_populate_record(NULL::{table}, %s::jsonb)"
    of_one = f"WHERE hospital_id = '{ONE}'"
    return {
        "select": attempt(connection, f"SELECT FROM {table} {of_one}"),
        "insert": attempt(connection, insert, row),
        "update": attempt(connection, f"UPDATE {table} SET hospital_id = hospital_id {of_one}"),
        "move": attempt(connection, f"UPDATE {table} SET hospital_id = '{OTHER}' {of_one}"),
        "take": attempt(connection, f"UPDATE {table} SET hospital_id = nullif(current_setting('app.current_hospital'), '')::uuid {of_one}"),
        "delete": attempt(connection, f"DELETE FROM {table} {of_one}"),
        "truncate": attempt(connection, f"TRUNCATE {table} CASCADE"),
        "copy from": attempt(connection, f"COPY {table} FROM STDIN"),
        "copy to": copied(connection, table),
    }  # fmt: skip


def _judge(found: dict[str, tuple[str, Any]], setting: str, table: str) -> None:
    where = (setting, table, found)
    assert found["truncate"][0] == REFUSED, where
    assert found["copy from"][0] in (REFUSED, "0A000"), where
    state, text = found["copy to"]
    if setting == "own":
        assert found["select"] == ("", 1), where
        assert found["insert"][0] not in ("", REFUSED), "another of its rows has the same key"
        assert found["update"][1] == 1 or found["update"][0] not in ("", REFUSED), where
        assert found["move"][0] != "", where
        assert found["delete"][1] == 1 or found["delete"][0] not in ("", REFUSED), where
        assert state == "" and ONE.encode() in text and OTHER.encode() not in text, where
        return
    assert found["insert"][0] != "", where
    assert all(found[each][1] == 0 for each in ("select", "update", "move", "take", "delete")), where
    assert ONE.encode() not in text, where
    if setting == "garbage":
        assert found["select"][0] == state == "22P02", where
    else:
        assert found["select"] == ("", 0) and state == "", where
        assert found["delete"] == ("", 0) and found["update"] == ("", 0), where


THROUGH = (
    "SELECT * FROM {t}", "TABLE {t}", "SELECT to_jsonb(t) FROM {t} AS t", "SELECT query_to_xml('SELECT * FROM {t}', true, true, '')",
    "SELECT table_to_xml('{t}', true, true, '')", "SELECT array_agg(t::text) FROM {t} AS t", "SELECT max(hospital_id::text) FROM {t}",
    "WITH c AS MATERIALIZED (SELECT * FROM {t}) SELECT * FROM c", "SELECT a.* FROM {t} a JOIN {t} b ON a.hospital_id <> b.hospital_id",
    "SELECT (SELECT t FROM {t} AS t WHERE hospital_id = '{other}' LIMIT 1)", "SELECT h.* FROM hospitals h LEFT JOIN {t} t USING (hospital_id)",
    "SELECT * FROM ROWS FROM (json_populate_recordset(NULL::{t}, (SELECT json_agg(t) FROM {t} AS t))) AS r",
    "UPDATE {t} SET hospital_id = hospital_id RETURNING *", "DELETE FROM {t} WHERE true OR hospital_id = '{other}' RETURNING *",
    "SELECT * FROM {t} WHERE hospital_id::text ~ '^b' OR 1 / (length(hospital_id::text) - 36) = 0", "EXPLAIN ANALYZE SELECT * FROM {t}",
    "INSERT INTO {t} SELECT * FROM {t} RETURNING *", "SELECT * FROM {t} FOR UPDATE", "DECLARE c CURSOR FOR SELECT * FROM {t}; FETCH ALL FROM c",
    "SELECT most_common_vals FROM pg_stats WHERE tablename = '{t}'", "DO $$ BEGIN RAISE '%', (SELECT string_agg(t::text, '') FROM {t} AS t); END $$",
)  # fmt: skip


def fuzz(project: Project, login_url: str, relations: list[str]) -> int:
    """Queries in many forms, as work for ONE: neither rows nor errors hold the id of OTHER, unless the query did.

    Args:
        project: its database was filled.
        login_url: the application's.
        relations: the tables and views.

    Returns:
        How many queries were tried.
    """
    tried = 0
    with psycopg.connect(login_url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(Roles(project.database).application)))
        connection.execute("SELECT set_config('app.current_hospital', %s, false)", (ONE,))
        for relation in relations:
            for form in THROUGH:
                query, said = form.format(t=relation, other=OTHER), ""
                try:
                    with connection.transaction(force_rollback=True):
                        cursor = connection.execute(query.encode())
                        while True:
                            said += repr(cursor.fetchall()) if cursor.description else ""
                            if not cursor.nextset():
                                break
                except psycopg.Error as error:
                    said = f"{error} {error.diag.message_detail} {error.diag.context}"
                said = said.replace(query, "")
                assert OTHER not in said and OTHER.replace("-", "") not in said, (query, said)
                tried += 1
    return tried


# Foreign keys without the hospital between tables with the policies: names, column and its type, target and its column.
KEYS = """
    SELECT k.conname, k.conrelid::regclass::text, a.attname, format_type(a.atttypid, NULL), k.confrelid::regclass::text, b.attname
    FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
    JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
    WHERE k.contype = 'f' AND cardinality(k.conkey) = 1 AND a.attname <> 'hospital_id'
      AND 2 = (SELECT count(*) FROM pg_policy p WHERE p.polname = 'tenant' AND p.polrelid IN (k.conrelid, k.confrelid)) ORDER BY 2, 1
"""
ABSENT = {"uuid": "99999999-0000-4000-8000-000000000009", "integer": "-99", "character varying": "zz"}


def telling(project: Project, login_url: str) -> tuple[int, list[str]]:
    """Foreign keys whose refusal tells work for ONE whether another hospital has a row, or that let its row in.

    Args:
        project: its database was filled.
        login_url: the application's.

    Returns:
        How many were tried, and what each of those does.
    """
    with project.connect() as above, psycopg.connect(login_url, autocommit=True) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(Roles(project.database).application)))
        connection.execute("SELECT set_config('app.current_hospital', %s, false)", (ONE,))
        keys, found = above.execute(KEYS).fetchall(), []
        for name, table, column, kind, target, key in keys:
            row = above.execute(f"SELECT {key}::text FROM {target} WHERE hospital_id = '{OTHER}' LIMIT 1").fetchone()
            assert row, target
            said = []
            for value in (row[0], ABSENT[kind]):
                try:
                    with connection.transaction(force_rollback=True):
                        connection.execute(f"UPDATE {table} SET {column} = %s", (value,))
                        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                        said.append("accepted")
                except psycopg.Error as error:
                    text = f"{error.sqlstate} {error.diag.constraint_name} {error.diag.message_primary} {error.diag.message_detail}"
                    said.append(text.replace(value, "VALUE"))
            if said[0] != said[1] or "accepted" in said:
                found.append(f"{name} of {table}: {said[0]}; but for no row: {said[1]}")
    return len(keys), found
