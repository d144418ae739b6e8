"""db.inspect, db.activity, db.history, db.url, db.shell: what a database holds, whatever its names, and read only."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import wcwidth
from conftest import CHECKOUT, Outcome, Project
from markdown_it import MarkdownIt
from psycopg import sql

from skinspire_db.config import environment
from skinspire_db.inspection import overview
from skinspire_db.lifecycle.read_only import read_only_connection
from skinspire_db.postgres.target import target_of
from skinspire_db.terminal.rendering import printable

FORMATS = ("table", "json", "markdown", "mermaid")
HOSTILE = [
    "--help", "-e", "select", 'quo"ted', "it's", "two words", " spaces around ", "Пациенты", "患者テーブル", "e\u0301clair", "क्\u200dष",
    "👩\u200d⚕️", "esc\x1b[31mred\x1b[0m", "esc\x1b]0;title\x07", "c1\x9b31m", "back\x08space\rreturn", "new\nline", "delete\x7f", "tab\there",
    "bidi\u202egnp.exe", "zero\u200bwidth", "line\u2028separator", "a|b", "a\\|b", "`code`", "``two``", "[link](http://evil.example)", "![image](x)",
    "<script>alert(1)</script>", "&amp;", "**bold**", "_emphasis_", "~~gone~~", "# heading", "- item", "www.evil.example", "me@evil.example",
    "a.b", "erDiagram", "title", "pk", "}o--||", '"]{ x }', "%%{init: {}}%%", "#quot;", "back\\slash", "$(touch pwned)", "`touch pwned`",
    "%s %(x)s {0}", "; DROP TABLE safe; --", "'; DROP TABLE safe; --", '"; DROP TABLE safe; --', "x" * 63, "é" * 31, "1st", "*",
]  # fmt: skip


def inspect(project: Project, *arguments: str) -> Any:
    outcome = project.invoke("db.inspect", "--json", *arguments)
    assert outcome.code == 0, outcome.out + outcome.err
    return outcome.json


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


def test_a_table_that_somebody_holds_is_not_waited_for(make_project: Callable[..., Project], template: str) -> None:
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


# Names that would do something


@pytest.fixture
def hostile(clinic: Project) -> Project:
    """A clinic with every kind of object under every name."""
    with clinic.connect() as connection:
        connection.execute("CREATE TABLE safe (id int PRIMARY KEY)")
        for name in HOSTILE:
            n, text = sql.Identifier(name), sql.Literal(name)
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {n} ({n} int PRIMARY KEY DEFAULT 1, safe int, CONSTRAINT {k} FOREIGN KEY (safe) REFERENCES safe);"
                    "COMMENT ON TABLE {n} IS {text}; COMMENT ON COLUMN {n}.{n} IS {text}; GRANT SELECT ON {n} TO PUBLIC"
                ).format(n=n, text=text, k=sql.Identifier(name[:20] + "_k"))
            )
        name = 'it\'s "a" \x1b[31m|`b`\n<c>'
        n = sql.Identifier(name)
        connection.execute(
            sql.SQL(
                "CREATE SCHEMA {n}; CREATE TABLE {n}.{n} (a int); CREATE VIEW {n}.v AS SELECT 1 AS {n}; CREATE SEQUENCE {n}.{s};"
                "CREATE FUNCTION {n}.{n}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                "CREATE TRIGGER {n} AFTER INSERT ON {n}.{n} EXECUTE FUNCTION {n}.{n}()"
            ).format(n=n, s=sql.Identifier("s" + name))
        )  # fmt: skip
    return clinic


def harmless(outcome: Outcome) -> Outcome:
    """Nothing in it acts on a terminal."""
    found = re.findall(
        r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069]", outcome.out + outcome.err
    )
    assert not found, found
    return outcome


def test_hostile_names_on_a_terminal(hostile: Project) -> None:
    outcome = harmless(hostile.invoke("db.inspect"))
    assert outcome.code == 0, outcome.err
    section = outcome.out.partition("\ntables: ")[2].partition("\nviews: ")[0].splitlines()[3:]
    assert len(section) == len(HOSTILE) + 15, "one line each"
    for name in HOSTILE:
        assert sum(f" {printable(name)} " in line for line in section) >= 1, name
    assert len({wcwidth.wcswidth(line.rpartition("  skinspire")[0]) for line in section}) == 1, "aligned, in every script"
    for arguments in (["db.inspect", "--exact"], ["db.drift"], ["db.verify", "--verbose"], ["db.doctor"], ["db.activity"]):
        outcome = harmless(hostile.invoke(*arguments))
        assert not re.search(r"^line", outcome.out, re.MULTILINE), "a name with a new line makes none"
    assert inspect(hostile, "--table=--help")["columns"][0]["column"] == "--help"
    outcome = harmless(hostile.invoke("db.inspect", '--schema=it\'s "a" \x1b[31m|`b`\n<c>'))
    assert outcome.code == 0 and "\\x1b[31m|`b`\\n<c>" in outcome.out
    assert hostile.query("SELECT count(*) FROM safe") == [(0,)]


def test_hostile_names_in_every_other_format(hostile: Project) -> None:
    in_json(hostile)
    in_markdown(hostile)
    in_mermaid(hostile)


def in_json(hostile: Project) -> None:
    answer = inspect(hostile, "--exact")
    assert {row["table"] for row in answer["tables"]} >= set(HOSTILE)
    assert {row["comment"] for row in answer["tables"]} >= set(HOSTILE)
    assert all(row["rows"] == 0 for row in answer["tables"] if row["table"] in HOSTILE)
    assert hostile.invoke("db.inspect", "--json").out.isascii()


def in_markdown(hostile: Project) -> None:
    """As a reader of Markdown sees it: each name as it is, and nothing else that a name could have made."""
    outcome = harmless(hostile.invoke("db.inspect", "--format=markdown"))
    assert outcome.code == 0, outcome.err
    parser = MarkdownIt("gfm-like", {"linkify": False})
    tokens = parser.parse(outcome.out)
    cells = []
    for index, token in enumerate(tokens):
        if token.type == "inline":
            made = {child.type for child in token.children or []} - {"text", "text_special"}
            assert not made, f"{token.content} made {made}"
            if tokens[index - 1].type == "td_open":
                cells.append("".join(child.content for child in token.children or []))
    for name in HOSTILE:
        assert printable(name).strip() in cells, name
    assert not {token.type for token in tokens} & {"html_block", "fence", "code_block"}
    assert not re.search(r"(?<!\\)@|https?://|(?<![\\\w])www\.", outcome.out), "GitHub links those without being asked"


def in_mermaid(hostile: Project) -> None:
    """What Mermaid's grammar takes for one entity, one attribute, one line between two entities, and nothing else."""
    outcome = harmless(hostile.invoke("db.inspect", "--format=mermaid"))
    assert outcome.code == 0, outcome.err
    name = r'"(?:[\w .,()-]|#\d+;)+"'
    entity = re.compile(rf"    {name} \{{")
    attribute = re.compile(rf"        [A-Za-z_][\w()\[\]]* [A-Za-z_]\w*(?: [PF]K(?:, FK)?)?(?: {name})?")
    line = re.compile(rf"    {name} [|o]{{2}}--[|o]{{1,2}}\{{? {name} : {name}")
    first, *lines = outcome.out.splitlines()
    assert first == "erDiagram"
    for each in lines:
        assert each == "    }" or any(kind.fullmatch(each) for kind in (entity, attribute, line)), each
    assert len([each for each in lines if entity.fullmatch(each)]) == len(HOSTILE) + 15
    decoded = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), outcome.out)
    for each in HOSTILE:
        assert f'"{printable(each)}"' in decoded or f'public.{printable(each)}"' in decoded, each


@pytest.mark.slow
def test_each_hostile_name_asked_for(hostile: Project) -> None:
    for name in HOSTILE:
        for how in FORMATS:
            # Invoke takes `--table=-e` for `--table -e`, the flag; with its schema any name can be said.
            table = f"public.{name}" if name == "-e" else name
            outcome = harmless(hostile.invoke("db.inspect", f"--table={table}", f"--format={how}"))
            assert outcome.code == 0, (name, how, outcome.err)
        assert inspect(hostile, f"--table=public.{name}")["columns"][0]["column"] == name
        outcome = harmless(hostile.invoke("db.inspect", f"--table={name}?"))
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        for option in ("schema", "section", "format", "env") if name != "-e" else ():
            outcome = harmless(hostile.invoke("db.inspect", f"--{option}={name}"))
            assert outcome.code == 2 and outcome.err.count("\n") == 1, (option, name, outcome.err)
    assert hostile.query("SELECT count(*) FROM safe") == [(0,)]


# Who is at work, and who was


@contextlib.contextmanager
def blocked(project: Project) -> Iterator[tuple[int, int]]:
    """Two sessions, the second of which waits for the first; their pids."""
    with (
        project.connect(application_name="a \x1b[31mlong\nreport") as holder,
        project.connect(application_name="the web") as waiter,
    ):
        holder.execute("BEGIN; LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=lambda: waiter.execute("SELECT count(*) FROM patients"))
        thread.start()
        waits = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {waiter.info.backend_pid}"
        deadline = time.monotonic() + 60
        try:
            while project.query(waits) != [(1,)]:
                assert time.monotonic() < deadline
            yield holder.info.backend_pid, waiter.info.backend_pid
        finally:  # closing the waiter would wait for its query
            holder.execute("ROLLBACK")
            thread.join(60)


def test_activity_says_who_blocks_whom(clinic: Project) -> None:
    with blocked(clinic) as (holder, waiter):
        for answer in (clinic.invoke("db.activity", "--json").json, inspect(clinic, "--section=activity")):
            rows = {row["pid"]: row for row in answer["activity"]}
            assert rows[waiter]["blocked_by"] == [holder] and rows[waiter]["wants"] == "patients AccessShareLock"
            assert rows[waiter]["query"] == "SELECT count(*) FROM patients" and rows[waiter]["state"] == "active"
            assert rows[holder]["state"] == "idle in transaction" and rows[holder]["transaction_seconds"] >= 0
        outcome = harmless(clinic.invoke("db.activity"))
        assert outcome.code == 0 and re.search(rf"^ +{waiter} +the web .* {holder} ", outcome.out, re.MULTILINE), outcome.out
    assert clinic.invoke("db.activity", "--json").json["activity"] == []


def test_history(clinic: Project) -> None:
    assert clinic.invoke("db.seed", "--patients=25").code == 0
    rows = clinic.invoke("db.history", "--json").json["journal"]
    assert [row["operation"] for row in rows] == ["db.seed", "db.setup"]
    assert "5 patients" in rows[0]["result"] and rows[0]["seconds"] > 0 and rows[0]["os_user"]
    assert len(clinic.invoke("db.history", "--limit=1", "--json").json["journal"]) == 1
    out = clinic.invoke("db.history").out
    assert re.search(r"^  20\d\d-\d\d-\d\d \d\d:\d\d UTC +db.seed ", out, re.MULTILINE)
    for limit in ("0", "-1", "x", "1.5", "99999999999", ""):
        assert clinic.invoke("db.history", f"--limit={limit}").code == 2, limit


def test_history_of_hostile_operations(clinic: Project) -> None:
    clinic.execute("""INSERT INTO skinspire_tools.journal (entry_id, operation, environment, seconds, os_user, host, tool_version, steps)
                      VALUES (gen_random_uuid(), E'evil\\x1b[2J\\n|', 'dev', 1, E'\\u202e', 'h', '0', '[{"summary": {"a\\n": "b\\u001b"}}, 7]')""")
    outcome = harmless(clinic.invoke("db.history"))
    assert outcome.code == 0 and "evil\\x1b[2J\\n|" in outcome.out


# The way in


def test_the_url_hides_its_password(clinic: Project) -> None:
    outcome = clinic.invoke("db.url")
    assert outcome.out == f"postgresql://skinspire:***@127.0.0.1:{clinic.address.port}/{clinic.database}\n"
    for arguments in (["--reveal"], ["--reveal", "--json"]):
        outcome = clinic.invoke("db.url", *arguments)  # which also asserts that the password is nowhere in it
        assert outcome.code == 2, "no terminal"


pty = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")


def on_a_terminal(project: Project, arguments: list[str], typed: str = "") -> str:
    """What a terminal shows of the command, to which this is typed."""
    import pty as terminal

    controller, device = terminal.openpty()
    command = [sys.executable, "-m", "invoke", "-r", str(CHECKOUT), *arguments]
    env = project.environment | {"TERM": "dumb", "PAGER": "cat", "HOME": str(project.root)}
    process = subprocess.Popen(
        command, cwd=project.root, env=env, stdin=device, stdout=device, stderr=device, start_new_session=True
    )
    os.close(device)
    shown = b""
    if typed:
        os.write(controller, typed.encode())
    with contextlib.suppress(OSError):  # the other end was closed
        while part := os.read(controller, 4096):
            shown += part
    os.close(controller)
    assert process.wait(30) == 0, shown
    return shown.decode()


@pytest.mark.slow
@pty
def test_the_url_is_revealed_on_a_terminal(clinic: Project) -> None:
    assert clinic.address.password in on_a_terminal(clinic, ["db.url", "--reveal"])


def test_a_script_through_the_shell(clinic: Project) -> None:
    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(clinic.command("db.shell"), input=script, cwd=clinic.root, env=clinic.environment | {"PGHOST": "nowhere"},
                              capture_output=True, text=True)  # fmt: skip

    done = run("SELECT current_database(); SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert done.returncode == 0 and clinic.database in done.stdout and "skinspire-db db.shell" in done.stdout, done.stderr
    assert clinic.invoke("--dry", "db.shell").out.startswith(f"would open psql in {clinic.database}")
    done = run("CREATE TABLE before (a int);\nSELEC;\nCREATE TABLE after (a int);")
    assert done.returncode == 1 and "psql stopped at the first error" in done.stderr
    assert clinic.query("SELECT to_regclass('before'), to_regclass('after')") == [("before", None)]


@pty
def test_the_prompt_says_which_environment(make_project: Callable[..., Project], template: str) -> None:
    project = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / ".psqlrc").write_text("\\set PROMPT1 'mine> '\n\\echo my own file was read\n")
    shown = on_a_terminal(project, ["db.shell", "--env=dev"], "\\q\n")
    assert f"dev {project.database}=# " in shown and "\x1b[1;31m" not in shown
    assert "my own file was read" in shown and "mine>" not in shown
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'")
    assert f"\x1b[1;31mlive\x1b[0m {project.database}=# " in on_a_terminal(project, ["db.shell", "--env=live"], "\\q\n")
    project.execute("UPDATE skinspire_tools.stamp SET environment = '%`touch pwned`'")
    assert "stamped ??touch?pwned?" in on_a_terminal(project, ["db.shell", "--env=live"], "\\q\n")
    assert not (project.root / "pwned").exists()


def test_no_password_among_psqls_arguments(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from skinspire_db.terminal import psql

    clinic.env["DEV_DATABASE_URL"] += "?sslpassword=hunter3"
    for name, value in (clinic.env | {"SKINSPIRE_PROJECT": str(clinic.root)}).items():
        monkeypatch.setenv(name, value)
    ready = psql.prepare(environment.resolve("dev"), terminal=True)
    assert clinic.address.password not in " ".join(ready.command) and "hunter3" not in " ".join(ready.command)
    assert ready.env["PGPASSWORD"] == clinic.address.password and clinic.address.password not in repr(ready)


@pytest.mark.slow
def test_a_database_with_a_hostile_name(project: Project) -> None:
    name = 'My "Db"\'s %s \\x'
    project.env["DEV_DATABASE_URL"] = project.url("My%20%22Db%22's%20%25s%20%5Cx")
    project.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)).as_string(), "postgres")
    try:
        for task in ("db.inspect", "db.activity", "db.history", "db.url"):
            assert project.invoke(task).code == 0
        done = subprocess.run(project.command("db.shell"), input="SELECT current_database()", cwd=project.root, env=project.environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0 and name in done.stdout, done.stderr
    finally:
        project.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)).as_string(), "postgres")


# The first morning, and the shell's completion


def test_onboarding(project: Project) -> None:
    dry = project.invoke("--dry", "dev.onboard")
    assert dry.code == 0 and dry.out.count("would run upgrade -> triggers -> seed -> verify") == 2
    outcome = project.invoke("dev.onboard")
    assert outcome.code == 0, outcome.err
    assert "sign in as" in outcome.out and outcome.out.count("checks, ") == 2
    *_, inspect_, shell, tests = outcome.out.splitlines()
    assert [line.split("  ")[1] for line in (inspect_, shell, tests)] == [
        "invoke db.inspect --env=dev", "invoke db.shell --env=dev", "invoke dev.test",
    ]  # fmt: skip
    assert project.invoke(*inspect_.split("  ")[1].split()[1:]).code == 0
    project.execute("UPDATE hospitals SET name = 'Mine'")
    before = project.dump()
    answer = project.invoke("dev.onboard", "--json").json
    assert [each["environment"] for each in answer["environments"]] == ["dev", "test"] and len(answer["next"]) == 3
    assert all(each["checks"] for each in answer["environments"]), "verified, though there was nothing to do"
    assert project.dump() == before, "a second time changes nothing"


def test_onboarding_touches_nothing_of_others(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE TABLE precious (a int)")
    outcome = project.invoke("dev.onboard")
    assert outcome.code == 2 and "no stamp" in outcome.err
    assert project.invoke("dev.onboard", "--json").json["operation"] == "dev.onboard"
    assert [
        name
        for (name,) in project.query(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    ] == ["precious"]


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_completion_in_bash(tmp_path: Path) -> None:
    """The script that Invoke prints, sourced by a bash that then completes what is typed, in a subfolder too."""
    typed = ("invoke db.", "invoke db.insp", "invoke db.inspect --")
    lines = [
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; source <(invoke --print-completion-script bash)"
    ]
    for line in typed:
        words = line.split(" ")
        lines.append(f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}")
        lines.append(f'_complete_invoke invoke {shlex.quote(words[-1])}; echo "${{COMPREPLY[@]}}"')
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=CHECKOUT / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tasks, one, flags = (set(line.split()) for line in done.stdout.splitlines())
    assert tasks >= {"db.inspect", "db.doctor", "db.setup", "db.shell"} and one == {"db.inspect"}
    assert flags >= {"--env", "--table", "--section", "--format", "--exact", "--json"}


# The way from the old scripts

OLD_AND_NEW = (CHECKOUT / "docs/cookbook.md").read_text().partition("now, each after `invoke` |")[2].partition("\n\n")[0]


def test_every_old_script_and_scenario_has_its_row() -> None:
    for old in ("create_database", "reset_database", "install_triggers", "populate_test_data", "verify_db_service", "db_inspector",
                "copy_test_to_dev", "manage_db", "switch_env", "verify_triggers", "setup_db.bat", "pg_dump", "new developer",
                "corrupted database", "changed models", "preparing for tests", "connection trouble"):  # fmt: skip
        assert len(re.findall(rf"^\| [^|]*{re.escape(old)}", OLD_AND_NEW, re.MULTILINE)) == 1, old


@pytest.mark.slow
def test_every_command_of_the_table_works(project: Project) -> None:
    """Each as it stands, on a database that the ones before have left, prepared in between as a developer would."""
    for row in OLD_AND_NEW.strip().splitlines()[1:]:
        for command in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1]):
            task, *arguments = shlex.split(command)
            if command == "db.create --env=dev":  # for an empty database
                project.invoke("db.reset", "--env=dev")
            else:
                assert project.invoke("db.prepare", "--env=dev").code == project.invoke("db.prepare", "--env=test").code == 0
            outcome = project.invoke(task, *arguments)
            assert outcome.code == 0, f"{command}: {outcome.err}"


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
