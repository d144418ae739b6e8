"""db.inspect: what it shows, how it looks, and that it waits for nothing and changes nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Project
from inspection_support import FORMATS, inspect

from skinspire_db.config import environment
from skinspire_db.inspection import overview
from skinspire_db.lifecycle.read_only import read_only_connection
from skinspire_db.postgres.target import target_of

# What is there


def test_the_overview(clinic: Project) -> None:
    answer = inspect(clinic)
    assert (answer["operation"], answer["environment"], answer["database"]) == ("db.inspect", "dev", clinic.database)
    about = answer["about"]
    assert about["stamp"]["environment"] == "dev" and about["bytes"] > 1_000_000 and about["at_head"] is True
    assert about["triggers_state"]["wrong"] == [] and about["triggers_state"]["installed"] > 50
    tables = {row["table"]: row for row in answer["tables"]}
    assert len(tables) == 13 and {row["schema"] for row in tables.values()} == {"public"}
    patients = tables["patients"]
    assert (patients["columns"], patients["indexes"], patients["foreign_keys"], patients["triggers"]) == (22, 5, 2, 4)
    assert patients["bytes"] == clinic.query("SELECT pg_total_relation_size('patients')")[0][0]
    assert "crypt" not in {row["function"] for row in answer["functions"]}, "an extension's are not the application's"
    assert {row["extension"] for row in answer["extensions"]} == {"pgcrypto", "plpgsql"}
    assert "skinspire" in {row["role"] for row in answer["roles"]}
    outcome = clinic.invoke("db.inspect")
    assert outcome.code == 0 and outcome.err == ""
    assert re.search(r"^  stamp +dev, identity ", outcome.out, re.MULTILINE)
    assert re.search(r"^  migrations +at \w+, the head$", outcome.out, re.MULTILINE)


def test_what_is_not_as_it_should_be_shows_at_a_glance(clinic: Project) -> None:
    clinic.execute("DROP TRIGGER _100_timestamps ON patients; UPDATE alembic_version SET version_num = 'beef'")
    out = clinic.invoke("db.inspect").out
    assert "at beef, which is not the head" in out
    assert re.search(
        r"triggers +1 of \d+ are not as the files say: timestamps, _100_timestamps on public.patients: MISSING", out
    )


def test_rows_estimated_unknown_and_exact(clinic: Project) -> None:
    clinic.execute("CREATE TABLE fresh AS SELECT 1 AS a; ANALYZE patients")
    rows = {row["table"]: (row["rows"], row["rows_estimated"]) for row in inspect(clinic)["tables"]}
    assert (rows["fresh"], rows["patients"]) == ((None, True), (20, True))
    out = clinic.invoke("db.inspect", "--section=tables").out
    assert re.search(r"fresh +table +unknown ", out) and re.search(r"patients +table +~20 ", out)
    clinic.execute("INSERT INTO fresh SELECT 2; ALTER TABLE staff ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    rows = {row["table"]: (row["rows"], row["rows_estimated"]) for row in inspect(clinic, "--exact")["tables"]}
    assert (rows["fresh"], rows["patients"]) == ((2, False), (20, False))
    assert re.search(r"fresh +table +2 ", clinic.invoke("db.inspect", "--exact", "--section=tables").out)


def test_rows_that_the_role_may_not_see_are_unknown_not_none(clinic: Project) -> None:
    role = f"reader_{clinic.database}"
    clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};"
                   f" GRANT USAGE ON SCHEMA skinspire_tools TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA skinspire_tools TO {role};"
                   f" REVOKE SELECT ON users FROM {role}; ALTER TABLE staff ENABLE ROW LEVEL SECURITY")  # fmt: skip
    clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database, user=role, password="p")
    try:
        rows = {row["table"]: row["rows"] for row in inspect(clinic, "--exact")["tables"]}
        assert rows["users"] is None and rows["staff"] is None, "not counted: a 0 would be a lie"
        assert rows["patients"] == 20
    finally:
        clinic.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_one_section(clinic: Project) -> None:
    clinic.execute("CREATE VIEW v AS SELECT 1 AS one; CREATE MATERIALIZED VIEW m AS SELECT 1; GRANT SELECT ON v TO PUBLIC")
    with clinic.connect(application_name="somebody"):
        found = {section: inspect(clinic, f"--section={section}") for section in overview.SECTIONS}
    for section, answer in found.items():
        assert set(overview.OVERVIEW) & set(answer) == {section} & set(overview.OVERVIEW)
        assert answer[section], "there is one"
        assert clinic.invoke("db.inspect", f"--section={section}").out.count(f"\n{section}: ") == 1
    [row] = [row for row in found["triggers"]["triggers"] if (row["table"], row["trigger"]) == ("staff", "_100_timestamps")]
    assert row["file"] == "timestamps" and row["what"] == "created_at and updated_at keep themselves"
    assert row["fires"] == "BEFORE INSERT OR UPDATE" and row["state"] == "enabled"
    assert {row["view"]: row["kind"] for row in found["views"]["views"]} == {"v": "view", "m": "materialized view"}
    granted = {"kind": "view", "schema": "public", "object": "v", "role": "PUBLIC", "privileges": ["SELECT"]}
    assert granted in found["grants"]["grants"]


def test_one_table(clinic: Project) -> None:
    answer = inspect(clinic, "--table=hospitals")
    assert [row["column"] for row in answer["columns"] if row["primary_key"]] == ["hospital_id"]
    assert {row["table"] for row in answer["referenced_by"]} >= {"patients", "staff", "users", "branches"}
    assert {row["trigger"]: row["file"] for row in answer["triggers"]}["_110_user_tracking"] == "user_tracking"
    assert any(row["definition"].startswith("CREATE UNIQUE INDEX") for row in answer["indexes"])
    out = clinic.invoke("db.inspect", "--table=public.hospitals").out
    assert "created_at and updated_at keep themselves" in out, "the summary of its file"


def test_a_view(clinic: Project) -> None:
    clinic.execute("CREATE VIEW names AS SELECT first_name FROM patients")
    answer = inspect(clinic, "--table=names")
    assert answer["views"][0]["kind"] == "view" and "first_name" in answer["definition"][0]["definition"]


def test_schemas(clinic: Project) -> None:
    clinic.execute("CREATE SCHEMA billing; CREATE TABLE billing.patients (a int); CREATE TABLE billing.invoices (a int)")
    assert {row["table"] for row in inspect(clinic, "--schema=billing")["tables"]} == {"patients", "invoices"}
    outcome = clinic.invoke("db.inspect", "--table=patients")
    assert outcome.code == 2 and "add --schema=, one of: billing, public" in outcome.err
    assert len(inspect(clinic, "--table=patients", "--schema=billing")["columns"]) == 1
    assert len(inspect(clinic, "--table=billing.patients")["columns"]) == 1
    assert {row["table"] for row in inspect(clinic, "--schema=skinspire_tools")["tables"]} >= {"stamp", "journal"}


def test_what_does_not_exist(clinic: Project) -> None:
    for arguments, says in (
        (["--table=patient"], "there is no table patient in {} -> use one of: patients"),
        (["--table=patients", "--schema=skinspire_tools"], "in the schema skinspire_tools of"),
        (["--schema=nowhere"], "there is no schema nowhere in {} -> use one of: public, skinspire_tools"),
        (["--section=cats"], "there is no section cats -> use one of: tables, views"),
        (["--format=xml"], "there is no format xml -> use one of: table, json, markdown, mermaid"),
        (["--format=mermaid", "--section=grants"], "mermaid draws tables, not grants"),
        (["--table=patients", "--section=grants"], "takes no --section"),
    ):
        outcome = clinic.invoke("db.inspect", *arguments)
        assert outcome.code == 2 and says.format(clinic.database) in outcome.err, outcome.err
        assert outcome.out == "" and outcome.err.count("\n") == 1


def test_format_json_is_json_in_failure_too(clinic: Project) -> None:
    answer = clinic.invoke("db.inspect", "--format=json", "--table=bogus").json
    assert (answer["ok"], answer["exit_code"], answer["error"]["type"]) == (False, 2, "UsageError")
    answer = clinic.invoke("db.inspect", "--json", "--format=markdown").json
    assert answer["exit_code"] == 2 and "are two answers" in answer["error"]["message"]
    assert set(clinic.invoke("db.inspect", "--format=json").json) == set(inspect(clinic))


def test_an_empty_a_missing_and_a_foreign_database(project: Project, clinic: Project) -> None:
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'")
    outcome = clinic.invoke("db.inspect")
    assert outcome.code == 0 and outcome.err == "note: this database is stamped prod, not dev\n"
    clinic.execute(f'CREATE DATABASE "{clinic.database}_empty"', "postgres")
    clinic.env["DEV_DATABASE_URL"] += "_empty"
    for task in ("db.inspect", "db.activity", "db.history"):
        outcome = clinic.invoke(task)
        assert outcome.code == 0 and "has no stamp" in outcome.err, outcome.err
    clinic.execute(f'DROP DATABASE "{clinic.database}"', "postgres")
    outcome = clinic.invoke("db.inspect")
    assert outcome.code == 1 and "does not exist -> invoke db.setup --env=dev" in outcome.err


# How it looks


def test_postgresql_itself_refuses_to_write(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (clinic.env | {"SKINSPIRE_PROJECT": str(clinic.root)}).items():
        monkeypatch.setenv(name, value)
    to = target_of(environment.resolve("dev"))
    with (
        pytest.raises(Exception, match="cannot execute INSERT in a read-only transaction"),
        read_only_connection(to, "test") as connection,
    ):
        connection.execute("INSERT INTO public.parameter_settings (param_code, param_value) VALUES ('x', 'y')")


def test_every_look_is_read_only(clinic: Project) -> None:
    """What each of these begins in the database, it begins READ ONLY."""
    name = clinic.database
    looks = (
        ["db.verify"], ["db.drift"], ["triggers.status"], ["migrate.status"], ["migrate.check"], ["db.inspect"],
        ["db.activity"], ["db.history"], ["triggers.verify", "--functions"],
    )  # fmt: skip
    seen: list[str] = []
    real = psycopg.Connection.execute

    def watch(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        text = query if isinstance(query, str) else query.decode() if isinstance(query, bytes) else query.as_string(self)
        if "SET TRANSACTION ISOLATION LEVEL" in text and self.info.dbname == name:
            seen.append(text)
        return real(self, query, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", watch)
        for look in looks:
            seen.clear()
            assert clinic.invoke(*look).code == 0, look
            assert seen and all("READ ONLY" in text for text in seen), look


def test_nothing_is_changed(clinic: Project) -> None:
    before = clinic.dump()
    for task in ("db.inspect", "db.activity", "db.history", "db.url"):
        assert clinic.invoke(task).code == 0
    for how in FORMATS:
        assert clinic.invoke("db.inspect", f"--format={how}", "--exact").code == 0
        assert clinic.invoke("db.inspect", f"--format={how}", "--table=users").code == 0
    assert clinic.dump() == before


def test_as_many_queries_for_many_tables_as_for_few(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def counting(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(self, query, *arguments, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counting)
    inspect(clinic)
    few = len(asked)
    clinic.execute(
        "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE 'CREATE TABLE many_' || i || ' (id serial PRIMARY KEY)'; END LOOP; END $$"
    )
    asked.clear()
    assert len(inspect(clinic)["tables"]) == 313
    assert len(asked) == few


def test_a_table_that_is_held_is_not_waited_for(make_project: Callable[..., Project], template: str) -> None:
    project = make_project("[tool.skinspire_db.environments.dev]\nlock_timeout = 0.3\n")
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    with project.connect(application_name="a migration") as holder:
        holder.execute("BEGIN; LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        rows = {row["table"]: row for row in inspect(project, "--exact")["tables"]}
        assert rows["patients"]["rows"] is None and rows["patients"]["bytes"] is None, "unknown, not waited for"
        assert rows["users"]["rows"] and rows["users"]["bytes"]
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        outcome = project.invoke("db.inspect")
        assert outcome.code == 0 and "where migrations and triggers stand is not known" in outcome.err
        holder.execute("ROLLBACK")


def test_neither_sqlalchemy_nor_alembic_is_loaded_where_no_url_is_parsed(clinic: Project) -> None:
    """The embedded server's address is in a file; a URL is SQLAlchemy's to parse."""
    code = (
        "import sys\n"
        "from skinspire_db.config import environment, policy; from skinspire_db.terminal import rendering\n"
        "from skinspire_db.inspection import activity, overview\n"
        "from skinspire_db.postgres.target import Target\n"
        "to = Target('dev', policy.Policy(), dict(p.split('=', 1) for p in sys.argv[1:]))\n"
        "overview.target_of = lambda _: to\n"
        "chosen = environment.resolve('dev')\n"
        "print(len(rendering.as_text(overview.inspect(chosen, overview.Wanted()))) > 1000,"
        " [name for name in ('sqlalchemy', 'alembic') if name in sys.modules])\n"
    )
    parameters = clinic.address.parameters | {"dbname": clinic.database}
    arguments = [f"{key}={value}" for key, value in parameters.items()]
    for _ in range(2):  # the first may have to look which revision is the head, which is kept then
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=clinic.environment, cwd=clinic.root, capture_output=True, text=True
        )
    assert done.stdout == "True []\n", done.stdout + done.stderr


def test_no_look_waits_for_a_lock(make_project: Callable[..., Project], template: str) -> None:
    """Whatever is asked for, of the locked table itself, of one that refers to it, of a view on it."""
    project = make_project("[tool.skinspire_db.environments.dev]\nlock_timeout = 0.2\n")
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template} STRATEGY FILE_COPY', "postgres")
    project.execute("CREATE VIEW a_view AS SELECT patient_id FROM patients; CREATE MATERIALIZED VIEW stored AS SELECT 1")
    sections = [[f"--section={name}"] for name in overview.SECTIONS]
    asked = [[], ["--format=mermaid"], ["--exact"], ["--schema=public"], *sections]
    asked += [[f"--table={name}"] for name in ("users", "user_role_mapping", "a_view", "hospitals")]
    asked += [["--table=patients", how] for how in ("--exact", "--format=mermaid")]
    with project.connect() as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE patients, users, a_view")
        failed = {" ".join(each): out.err for each in asked if (out := project.invoke("db.inspect", *each)).code != 0}
        more = {task: out.err for task in ("db.activity", "db.history") if (out := project.invoke(task)).code != 0}
        table = project.invoke("db.inspect", "--table=patients", "--json").json
        other.execute("ROLLBACK")
    assert failed | more == {}
    assert table["columns"] and table["tables"][0]["bytes"] is None


def test_what_was_set_up_has_estimates(clinic: Project) -> None:
    """PostgreSQL knows nothing of a new table until it is analyzed."""
    rows = {row["table"]: row["rows"] for row in inspect(clinic)["tables"]}
    assert None not in rows.values() and (rows["patients"], rows["hospitals"], rows["login_history"]) == (20, 1, 0)
    assert clinic.invoke("db.seed", "--patients=30").code == 0
    assert {row["table"]: row["rows"] for row in inspect(clinic)["tables"]}["patients"] == 30


@pytest.mark.parametrize("section", overview.OVERVIEW)
def test_every_section_of_the_overview_can_be_had_alone(clinic: Project, section: str) -> None:
    assert inspect(clinic, f"--section={section}")[section] == inspect(clinic)[section]
