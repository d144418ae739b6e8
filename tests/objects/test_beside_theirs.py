"""An old clinic with functions and triggers of its own: ours are installed beside them, or the error says what is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.errors import NotOurs
from skinspire_db.objects import counting, versions
from skinspire_db.objects.install import install

OWN = """
    SELECT c.relname, t.tgname, t.tgenabled::text, pg_get_triggerdef(t.oid), md5(p.prosrc)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgname !~ '^_[0-9]{3}_' ORDER BY 1, 2
"""


def settle(project: Project, text: str) -> None:
    pyproject = project.root / "pyproject.toml"
    table = "[tool.skinspire_db]\n"
    kept = pyproject.read_text().replace("\n# ours\n", "\n").partition(table)
    pyproject.write_text(f"{kept[0]}{table}{text}\n{kept[2]}")


@pytest.mark.slow
def test_our_triggers_beside_theirs(old_clinic: Project) -> None:
    assert old_clinic.invoke("env.stamp", "--env=dev", f"--confirm={old_clinic.database}").code == 0
    before = old_clinic.query(OWN)
    assert before
    outcome = old_clinic.invoke("triggers.install")
    assert outcome.code == 2 and "update_timestamp() exists already" in outcome.err and "function_schema" in outcome.err
    settle(old_clinic, 'function_schema = "skinspire"')
    outcome = old_clinic.invoke("triggers.install")
    assert outcome.code == 1, outcome.out
    assert (
        "fires after _100_timestamps and changes updated_at" in outcome.err and "function update_timestamp()" in outcome.err
    )
    assert old_clinic.query("SELECT to_regnamespace('skinspire') IS NULL") == [(True,)], "and nothing is kept of it"
    settle(old_clinic, 'disabled_triggers = ["timestamps", "user_tracking"]')
    outcome = old_clinic.invoke("triggers.install", "--verify")
    assert outcome.code == 0, outcome.err
    outcome = old_clinic.invoke("triggers.status")
    assert outcome.code == 0 and "NOT APPLICABLE" in outcome.out and "no column users.locked_until" in outcome.out
    assert old_clinic.invoke("triggers.verify").code == 0 and old_clinic.invoke("triggers.diff").code == 0
    assert old_clinic.query(OWN) == before


COUNTING = {
    "UPDATE public.users u SET last_login = now(), failed_login_attempts = coalesce(u.failed_login_attempts, 0) + 1 WHERE user_id = $1": True,
    "UPDATE users SET (locked_until, failed_login_attempts) = (now(), 3)": True,
    "INSERT INTO users (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET failed_login_attempts = users.failed_login_attempts + 1": True,
    "UPDATE users SET failed_login_attempts = 0 WHERE user_id = $1": False,
    "UPDATE users SET failed_login_attempts = NULL, status = 'active'": False,
    "UPDATE staff SET title = 'Dr' FROM users WHERE failed_login_attempts = 3": False,
    "SELECT 1 -- UPDATE users SET failed_login_attempts = failed_login_attempts + 1": False,
}  # fmt: skip


def test_what_counts_beside_login_tracking_is_named(connection: psycopg.Connection[Any]) -> None:
    """By a function, a rule, or a trigger on the table of the counter; what only resets it or reads it is not meant."""
    files = versions.current(settings.Project(Path(), {}))
    assert counting.twice(connection, files) == {}
    body = "'BEGIN {}; RETURN NEW; END'"
    for number, (text, _) in enumerate(COUNTING.items()):
        quoted = text.replace("'", "''")
        connection.execute(
            f"CREATE FUNCTION public.f{number}(text) RETURNS void LANGUAGE plpgsql AS 'BEGIN {quoted}\n; END'".encode()
        )
    on_users = body.format("NEW.failed_login_attempts := OLD.failed_login_attempts + 1")
    connection.execute(
        f"CREATE FUNCTION public.its_trigger() RETURNS trigger LANGUAGE plpgsql AS {on_users};"
        "CREATE TRIGGER own BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.its_trigger();"
        f"CREATE FUNCTION public.on_nothing() RETURNS trigger LANGUAGE plpgsql AS {on_users};"
        "CREATE FUNCTION public.in_sql(text) RETURNS void BEGIN ATOMIC UPDATE public.users"
        " SET failed_login_attempts = failed_login_attempts + 1 WHERE user_id = $1; END;"
        "CREATE RULE own AS ON INSERT TO public.login_history DO ALSO UPDATE public.users"
        " SET failed_login_attempts = failed_login_attempts + 1 WHERE user_id = NEW.user_id".encode()
    )
    expected = [f"function f{number}(text)" for number, counts in enumerate(COUNTING.values()) if counts]
    expected += ["function in_sql(text)", "function its_trigger()", "rule own on login_history"]
    assert counting.twice(connection, files) == {"login_tracking": expected}
    [line] = install(connection, files).lines
    assert line.startswith("careful: function f0(text)") and 'disabled_triggers = ["login_tracking"]' in line
    connection.execute(b"DELETE FROM skinspire_tools.ledger")  # our own functions are ours without it, too
    assert counting.twice(connection, files) == {"login_tracking": expected}


def test_all_names_that_clash_are_named_at_once(connection: psycopg.Connection[Any]) -> None:
    files = versions.current(settings.Project(Path(), {}))
    connection.execute(b"DELETE FROM skinspire_tools.ledger")
    theirs = connection.execute(
        "SELECT proname, format('CREATE OR REPLACE FUNCTION public.%I() RETURNS trigger LANGUAGE plpgsql AS ''BEGIN RETURN NEW; END''', proname)"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prorettype = 'trigger'::regtype AND pronargs = 0 ORDER BY 1"
    ).fetchall()
    for _, statement in theirs:
        connection.execute(statement.encode())
    connection.execute(
        b"DROP FUNCTION public.expire_sessions();"  # CREATE OR REPLACE fails over one of another result
        b"CREATE FUNCTION public.expire_sessions() RETURNS text LANGUAGE sql AS $$ SELECT 'theirs' $$"
    )
    with pytest.raises(NotOurs) as refused:
        install(connection, files)
    expected = sorted([*(f"function {name}()" for name, _ in theirs), "function expire_sessions()"])
    assert sorted(refused.value.names) == expected and len(theirs) > 5
    more = f" and {len(theirs) - 2} more exist already, and no file of the project made them"
    assert more in refused.value.message and refused.value.message.count("function ") == 3
    assert "function_schema" in str(refused.value.remedy)
