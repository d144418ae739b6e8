"""Triggers of others that undo what ours do are found, and named with their function and table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from skinspire_db.config import project as settings
from skinspire_db.lifecycle.result import Check
from skinspire_db.objects import versions
from skinspire_db.objects.install import install
from skinspire_db.objects.proofs import prove

Connection = psycopg.Connection[Any]
CURRENT = versions.current(settings.Project(Path(), {}))
VISITS = """
    CREATE SCHEMA "Old One"; CREATE TABLE "Old One"."vis its" (visit_id int PRIMARY KEY, price numeric NOT NULL CHECK (price > 0),
        created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, created_by varchar(50), updated_by varchar(50));
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
    CREATE TRIGGER {name} BEFORE {events} ON "Old One"."vis its" FOR EACH ROW EXECUTE FUNCTION touch();
"""
SAYS = 'trigger zz_touch on "Old One"."vis its" (function touch()) fires after _100_timestamps and changes updated_at'


def proofs_with(connection: Connection, statements: str) -> dict[str, Check]:
    connection.execute(statements.encode())
    install(connection, CURRENT)
    return {check.name: check for check in prove(connection, CURRENT)}


@pytest.mark.parametrize(
    ("body", "events", "name", "status", "says"),
    [
        ("NEW.updated_at := now() AT TIME ZONE 'UTC';", "INSERT OR UPDATE", "zz_touch", "fail", SAYS),
        ("NEW.updated_at := '2020-01-01Z';", "UPDATE", "zz_touch", "fail", SAYS),
        ("NEW.updated_at := NULL;", "INSERT", "zz_touch", "fail", SAYS),
        ("NEW := jsonb_populate_record(NEW, jsonb_build_object(TG_ARGV[0], NULL));", "INSERT", "zz_touch", "pass", ""),
        ("NEW.updated_at := now();", "INSERT OR UPDATE", "zz_touch", "pass", ""),
        ("NEW.updated_at := '2020-01-01Z';", "INSERT OR UPDATE", "_000_touch", "fail", ""),
        ("IF NEW.price IS NULL THEN RAISE 'no price'; END IF; NEW.updated_at := now();", "INSERT OR UPDATE", "zz_touch", "unknown",
         f"{SAYS}; it could not be tried: no price"),
        ("IF NEW.price IS NULL THEN RAISE 'no price'; END IF;", "INSERT OR UPDATE", "zz_touch", "pass", ""),
    ],
    ids=["utc", "update", "insert", "other column", "the same", "before ours", "cannot be tried", "of no concern"],
)  # fmt: skip
def test_what_fires_after_ours_and_changes_its_columns(
    connection: Connection, body: str, events: str, name: str, status: str, says: str
) -> None:
    found = proofs_with(connection, VISITS.format(body=body, events=events, name=name))["timestamps"]
    if name == "_000_touch":  # ours keeps what was given: what fires before it is as if the application had written it
        status = "pass"
    assert found.status == status and says in found.detail, found
    left = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname IN ('vis its', 'skinspire_alone')"
    )
    assert left.fetchone() == (0,)


def test_a_trigger_that_is_switched_off_is_in_nobodys_way(connection: Connection) -> None:
    off = 'ALTER TABLE "Old One"."vis its" DISABLE TRIGGER zz_touch'
    statements = VISITS.format(body="NEW.updated_by := NULL;", events="INSERT OR UPDATE", name="zz_touch")
    assert proofs_with(connection, statements + off)["user_tracking"].status == "pass"


def test_one_function_on_many_tables_is_named_once(connection: Connection) -> None:
    more = "".join(
        f'CREATE TABLE more_{n} (LIKE "Old One"."vis its");'
        f"CREATE TRIGGER zz_touch BEFORE INSERT OR UPDATE ON more_{n} FOR EACH ROW EXECUTE FUNCTION touch();"
        for n in range(9)
    )
    found = proofs_with(connection, VISITS.format(body="NEW.updated_by := NULL;", events="UPDATE", name="zz_touch") + more)
    assert found["user_tracking"].status == "fail" and "changes updated_by; so do 9 more" in found["user_tracking"].detail
    assert found["timestamps"].status == "pass"


@pytest.mark.parametrize(
    ("function", "trigger", "file", "says"),
    [
        ("NEW.password_hash := 'plain'; RETURN NEW;", "BEFORE INSERT OR UPDATE ON users FOR EACH ROW", "password_hashing",
         "it passes without trigger zz_theirs on public.users (function theirs())"),
        ("UPDATE users SET failed_login_attempts = 0; RETURN NULL;", "AFTER INSERT ON login_history FOR EACH ROW", "login_tracking",
         "it passes without trigger zz_theirs on public.login_history (function theirs())"),
        ("RAISE 'no more users'; RETURN NULL;", "BEFORE INSERT ON users FOR EACH STATEMENT", "role_assignment",
         "no more users; it passes without trigger zz_theirs on public.users (function theirs())"),
    ],
)  # fmt: skip
def test_a_proof_that_fails_names_the_trigger_without_which_it_passes(
    connection: Connection, function: str, trigger: str, file: str, says: str
) -> None:
    found = proofs_with(
        connection,
        f"CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {function} END $$;"
        "CREATE FUNCTION idle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER zz_idle AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION idle();"
        f"CREATE TRIGGER zz_theirs {trigger} EXECUTE FUNCTION theirs()",
    )[file]
    assert found.status == "fail" and says in found.detail and "zz_idle" not in found.detail, found
    assert f'disabled_triggers = ["{file}"]' in (found.remedy or "")
    enabled = connection.execute("SELECT bool_and(tgenabled = 'O') FROM pg_trigger WHERE tgname ~ '^zz_'").fetchone()
    assert enabled == (True,), "what was switched off to try is on again"
