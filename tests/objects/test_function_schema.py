"""Our functions in a schema of their own, beside an owner's functions of the same names."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.errors import InvalidSetting
from skinspire_db.objects import versions

THEIRS = (
    "CREATE FUNCTION update_timestamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at = now(); RETURN NEW; END'"
)


def declare(project: Project, text: str) -> None:
    (project.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{text}\n")


def functions(project: Project, schema: str) -> int:
    [(count,)] = project.query(f"SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('{schema}')")
    return int(count)


def test_functions_move_with_the_setting_and_back(clinic: Project) -> None:
    """Attachments are made anew, nothing stays behind, and everything that looks agrees."""
    ours = functions(clinic, "public")
    declare(clinic, 'function_schema = "user"')  # a word that must be quoted
    assert clinic.invoke("triggers.status").code == 3
    outcome = clinic.invoke("triggers.install", "--verify")
    assert outcome.code == 0, outcome.err
    assert functions(clinic, "public") + functions(clinic, '"user"') == ours
    for task in ("triggers.status", "triggers.diff", "triggers.verify", "db.verify", "db.drift"):
        outcome = clinic.invoke(task)
        assert outcome.code == 0, (task, outcome.err)
    clinic.execute("INSERT INTO login_history (user_id, status) SELECT user_id, 'failed' FROM users")
    assert clinic.query("SELECT min(failed_login_attempts) FROM users") == [(1,)]
    assert clinic.invoke("triggers.install", "--name=timestamps", "--at-version=1").code == 0
    declare(clinic, "")
    outcome = clinic.invoke("triggers.install", "--verify")
    assert outcome.code == 0, outcome.err
    assert functions(clinic, "public") == ours
    assert clinic.query("SELECT to_regnamespace('\"user\"') IS NULL") == [(True,)], (
        "the schema that we made is gone with them"
    )


def test_a_schema_of_the_owners_stays(clinic: Project) -> None:
    clinic.execute("CREATE SCHEMA tools; CREATE FUNCTION tools.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    declare(clinic, 'function_schema = "tools"')
    assert clinic.invoke("triggers.install").code == 0
    declare(clinic, "")
    assert clinic.invoke("triggers.install").code == 0
    assert functions(clinic, "tools") == 1


@pytest.mark.parametrize(
    ("theirs", "signature"),
    [
        (THEIRS, "update_timestamp()"),
        ("CREATE FUNCTION expire_sessions() RETURNS text LANGUAGE sql AS $$ SELECT 'theirs' $$", "expire_sessions()"),
        ("CREATE FUNCTION verify_password(a text, b text) RETURNS boolean LANGUAGE sql AS 'SELECT true'", "verify_password(text,text)"),
        ("CREATE PROCEDURE expire_sessions() LANGUAGE sql AS 'SELECT 1'", "expire_sessions()"),
    ],
    ids=["same signature", "other result", "other names", "a procedure"],
)  # fmt: skip
def test_an_owners_function_of_our_name_is_said_and_stays(clinic: Project, theirs: str, signature: str) -> None:
    name = signature.partition("(")[0]
    clinic.execute(
        "DO $$ DECLARE t record; BEGIN FOR t IN SELECT tgname, tgrelid::regclass AS r FROM pg_trigger WHERE tgname ~ '^_' LOOP"
        " EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.r); END LOOP; END $$;"
        f"DELETE FROM skinspire_tools.ledger; DROP FUNCTION {name}; {theirs}"
    )
    before = clinic.dump()
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 2 and f"{signature} exists already, and no trigger file made it" in outcome.err, outcome.err
    assert "function_schema" in outcome.err and clinic.dump() == before
    declare(clinic, 'function_schema = "ours"')
    assert clinic.invoke("triggers.install").code == 0
    [(text,)] = clinic.query(f"SELECT md5(prosrc) FROM pg_proc WHERE oid = 'public.{signature}'::regprocedure")
    assert f"{text}" and clinic.query(f"SELECT count(*) FROM pg_proc WHERE proname = '{name}'") == [(2,)]


@pytest.mark.parametrize("value", [7, "", "pg_temp", "skinspire_tools", "a b", "Ours"])
def test_what_is_no_name_of_a_schema(value: object) -> None:
    with pytest.raises(InvalidSetting) as refused:
        versions.current(settings.Project(Path(), {"function_schema": value}))
    assert "function_schema" in refused.value.message


def test_a_project_proves_the_packages_file_by_its_own_proof(clinic: Project) -> None:
    own = clinic.root / "sql" / "triggers" / "verify" / "timestamps.sql"
    own.parent.mkdir(parents=True)
    own.write_text("DO $$ BEGIN PERFORM pg_temp.expect(false, 'as this clinic wants it'); END $$;")
    outcome = clinic.invoke("triggers.verify", "--proofs")
    assert (
        outcome.code == 1
        and "as this clinic wants it" in outcome.err
        and "sql/triggers/verify/timestamps.sql:1" in outcome.err
    )
