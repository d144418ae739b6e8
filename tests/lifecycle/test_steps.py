"""The public steps: chained in Python, in an application's tasks.py, and in pyproject.toml; guarded in every composition."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

import skinspire_db
from skinspire_db import pipeline, steps
from skinspire_db.errors import DatabaseMissing, GuardRefused, InvalidSetting, SkinspireError, UsageError
from skinspire_db.lifecycle.result import Check, Summary

TASKS = """
from skinspire_db.tasks import collections

ns = collections(globals())

from invoke import task
from skinspire_db import pipeline, steps


def mark(connection):
    connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('OWN', '1')")


@task
def demo(ctx, env=None, confirm=None):
    \"\"\"Rebuild with the trade fair's rows.\"\"\"
    pipeline("demo", env, steps.reset, steps.create, steps.triggers, steps.seed(patients=3, doctors=2),
             steps.sql_file("demo.sql"), mark, steps.verify).run(ctx, confirm=confirm)
"""
FAIR = "INSERT INTO public.parameter_settings (param_code, param_value) VALUES ('FAIR', '%');\n"
CHAIN = '["reset", "create", "triggers", {step = "seed", patients = 3, doctors = 2}, "sql/fair.sql", "verify"]'
LIVE = '[tool.skinspire_db.environments.live]\nextends = "prod"\n'


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that the library itself works in, as an application's own code does."""
    enter(project, monkeypatch)
    return project


def enter(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (project.env | {"SKINSPIRE_PROJECT": str(project.root)}).items():
        monkeypatch.setenv(name, value)


def application(project: Project) -> Project:
    (project.root / "tasks.py").write_text(TASKS)
    (project.root / "demo.sql").write_text(FAIR)
    return project


def rows(project: Project, database: str | None = None) -> list[str]:
    query = "SELECT param_code FROM parameter_settings WHERE param_code IN ('OWN', 'FAIR') ORDER BY 1"
    return [code for (code,) in project.query(query, database)]


def test_the_public_names() -> None:
    assert {"pipeline", "steps"} <= set(skinspire_db.__all__)
    assert callable(pipeline) and {"reset", "create", "triggers", "seed", "sql_file", "verify", "step"} <= set(vars(steps))


def test_an_applications_own_task(project: Project) -> None:
    """The two lines in its tasks.py bring every collection, the executor, and --json for its own pipelines."""
    application(project)
    listed = project.forked("--list").out
    assert "demo" in listed and "db.setup" in listed and "backup.create" in listed
    dry = project.forked("--dry", "demo")
    assert dry.code == 0 and "would create the database" in dry.out and "seed -> demo -> mark -> verify" in dry.out
    done = project.forked("demo", "--json")
    assert done.code == 0, done.err
    assert [step["name"] for step in done.json["steps"]] == ["reset", "create", "triggers", "seed", "demo", "mark", "verify"]
    assert done.json["operation"] == "demo" and rows(project) == ["FAIR", "OWN"]
    assert project.query("SELECT count(*) FROM patients") == [(3,)]
    assert project.query("SELECT operation FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1") == [("demo",)]
    before = project.dump()
    (project.root / "demo.sql").write_text(f"{FAIR}SELECT nonesuch;\n")
    failed = project.forked("demo")
    assert failed.code == 1 and failed.err.startswith('error: demo.sql:2: column "nonesuch" does not exist'), failed.err
    assert project.dump() == before
    unknown = project.forked("demo", "--env=nowhere")
    assert unknown.code == 2 and unknown.err.startswith("error: unknown environment"), unknown.err


def test_the_guard_comes_with_the_steps(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller need not ask for it: what reset destroys, the pipeline confirms and backs up first."""
    project = make_project(LIVE)
    project.env["LIVE_DATABASE_URL"] = project.url("live_" + project.database)
    live = "live_" + project.database
    assert project.invoke("db.setup", "--env=live", "--reference-only").code == 0
    project.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('OWN', '1')", live)
    enter(project, monkeypatch)
    for chain in ((steps.reset,), (steps.reset, steps.create), (lambda connection: None,), (steps.step(erase),)):
        with pytest.raises(GuardRefused) as refused:
            pipeline("my", "live", *chain).run()
        assert refused.value.exit_code == 2 and f"--confirm={live}" in str(refused.value.remedy)
        assert rows(project, live) == ["OWN"]
    with pytest.raises(GuardRefused, match="test data"):
        pipeline("my", "live", steps.seed(patients=3)).run(confirm=live)
    result = pipeline("my", "live", steps.step(erase, destroys="delete the settings of {}")).run(confirm=live)
    assert result is not None and rows(project, live) == []
    assert any("a backup was taken first, and proved by a restore" in note for note in result.notes)
    harmless = pipeline("my", "live", steps.step(lambda connection: None, name="look", destroys="")).run()
    assert harmless is not None and harmless.notes == []


def erase(connection: psycopg.Connection[Any]) -> Summary:
    return Summary({"deleted": connection.execute("DELETE FROM public.parameter_settings WHERE param_code = 'OWN'").rowcount})


def test_create_marks_the_revisions(here: Project) -> None:
    """What public names have made is what db.prepare and migrate.check go on with."""
    result = pipeline("my", "dev", steps.reset, steps.create, steps.triggers, steps.seed(reference_only=True)).run()
    assert result is not None and result.commit == "done"
    for command in ("db.prepare", "migrate.check", "migrate.upgrade", "db.drift"):
        outcome = here.invoke(command)
        assert outcome.code == 0, (command, outcome.err)


def fails(connection: psycopg.Connection[Any]) -> Summary:
    connection.execute("CREATE TABLE public.trace (x int)")
    return Summary(checks=[Check("fair", "fail", "nothing is fair")])


def drifts(connection: psycopg.Connection[Any]) -> Summary:
    connection.execute("CREATE TABLE public.trace (x int)")
    return Summary(drift="1 difference")


def unknown(connection: psycopg.Connection[Any]) -> Summary:
    connection.execute("CREATE TABLE public.trace (x int)")
    return Summary(checks=[Check("fair", "unknown", "could not look")])


def commits(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE public.trace (x int)")
    connection.execute("ROLLBACK")


def exits(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE public.trace (x int)")
    raise SystemExit(0)


def breaks(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE public.trace (x int)")
    raise KeyError("visits")


def generates(connection: psycopg.Connection[Any]) -> Any:
    yield connection.execute("CREATE TABLE public.trace (x int)")


async def waits(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE public.trace (x int)")


def answers(connection: psycopg.Connection[Any]) -> Any:
    connection.execute("CREATE TABLE public.trace (x int)")
    return 5


WRONG = [
    (fails, 1, "fails: 1 of 1 check did not pass: fair: nothing is fair"),
    (unknown, 1, "unknown: 1 of 1 check did not pass: fair: could not look"),
    (drifts, 3, "1 difference"),
    (commits, 1, "commits has ended the transaction"),
    (exits, 1, "it calls sys.exit(0) instead of returning"),
    (breaks, 1, "breaks: KeyError: 'visits'"),
    (generates, 1, "generates answers a generator"),
    (waits, 1, "waits answers a coroutine"),
    (answers, 1, "answers answers a int"),
]


def test_a_step_that_is_not_right_commits_nothing(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(clinic, monkeypatch)
    before = clinic.dump()
    for step, code, said in WRONG:
        with pytest.raises(SkinspireError) as raised:
            pipeline("my", "dev", step).run()
        assert (raised.value.exit_code, said in raised.value.message) == (code, True), (step, raised.value)
        assert clinic.query("SELECT to_regclass('public.trace')") == [(None,)], step
    assert clinic.dump() == before


def test_a_declared_pipeline(make_project: Callable[..., Project]) -> None:
    project = make_project(f"[tool.skinspire_db.pipelines]\nfair = {CHAIN}\n")
    (project.root / "sql").mkdir()
    (project.root / "sql" / "fair.sql").write_text(FAIR)
    assert "reset -> create -> triggers -> seed -> fair -> verify" in project.invoke("--dry", "db.run", "--pipeline=fair").out
    done = project.invoke("db.run", "--pipeline=fair", "--json")
    assert done.code == 0 and [each["name"] for each in done.json["steps"]][-2:] == ["fair", "verify"], done.err
    assert rows(project) == ["FAIR"]
    before = project.dump()
    (project.root / "sql" / "fair.sql").write_text(FAIR.replace("'FAIR'", "NULL"))
    assert project.invoke("db.run", "--pipeline=fair").code == 1 and project.dump() == before


@pytest.mark.parametrize(
    ("declared", "command", "code", "said"),
    [
        ("fair = ['verify']", (), 2, "db.run needs the name of a pipeline; declared are: fair"),
        ("fair = ['verify']", ("--pipeline=fare",), 2, "there is no pipeline fare"),
        ("fair = 'verify'", ("--pipeline=fair",), 2, "fair in pyproject.toml is no list of steps"),
        ("fair = []", ("--pipeline=fair",), 2, "is no list of steps"),
        ("fair = [5]", ("--pipeline=fair",), 2, "is no list of steps"),
        ("fair = ['resett']", ("--pipeline=fair",), 2, "there is no step 'resett'"),
        ("fair = [{step = 'seed', patient = 3}]", ("--pipeline=fair",), 2, "the step seed has no option patient"),
        ("fair = [{step = 'seed', patients = -3}]", ("--pipeline=fair",), 2, "--patients=-3"),
        ("fair = ['nowhere.sql']", ("--pipeline=fair",), 2, "nowhere.sql cannot be read"),
        ("fair = ['nowhere:step']", ("--pipeline=fair",), 2, "nowhere:step cannot be loaded"),
        ("fair = ['os:nonesuch']", ("--pipeline=fair",), 2, "os:nonesuch cannot be loaded"),
        ("fair = ['os:sep']", ("--pipeline=fair",), 2, "is no step"),
    ],
)
def test_a_pipeline_that_is_declared_wrongly(
    make_project: Callable[..., Project], declared: str, command: tuple[str, ...], code: int, said: str
) -> None:
    project = make_project(f"[tool.skinspire_db.pipelines]\n{declared}\n")
    outcome = project.invoke("db.run", *command)
    assert outcome.code == code and said in outcome.err and outcome.err.count("\n") == 1, outcome.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1;\nCOMMIT;\n", "fair.sql:2: it ends or begins a transaction"),
        ("COPY patients FROM stdin;\n\\.\n", "it reads rows after COPY"),
        ("\\set x 1\n", "it has a command of psql's"),
        ("SELECT '\xff'", "is not UTF-8"),
    ],
)
def test_an_sql_file_that_is_no_step(here: Project, text: str, said: str) -> None:
    (here.root / "fair.sql").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidSetting, match=said):
        pipeline("my", "dev", steps.sql_file("fair.sql")).run()


def test_what_an_sql_file_may_hold(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(clinic, monkeypatch)
    text = "\ufeff-- 100 %\n/* COMMIT; */ CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'a%'; END$$;\nSELECT f();\n"
    for name, content in (("fair.sql", text), ("empty.sql", "-- nothing\n")):
        (clinic.root / name).write_bytes(content.encode())
    result = pipeline("my", "dev", steps.sql_file("fair.sql"), steps.sql_file(Path("empty.sql"))).run()
    assert result is not None and [step.summary.numbers for step in result.steps] == [{"statements": 2}, {"statements": 0}]
    assert clinic.query("SELECT f()") == [("a%",)]


def test_what_is_no_step(here: Project) -> None:
    with pytest.raises(UsageError, match="the step seed has no option patience"):
        steps.seed(patience=3)
    with pytest.raises(UsageError, match="5 is no step"):
        pipeline("my", "dev", 5).run()
    with pytest.raises(DatabaseMissing):
        pipeline("my", "dev", steps.reset, steps.seed).run()  # only create makes the database


def test_own_options_and_order(here: Project) -> None:
    first = pipeline("my", "dev", steps.create, steps.triggers, steps.seed(patients=2, doctors=1, random_seed=7)).run()
    assert first is not None and json.dumps(first.as_dict())
    with pytest.raises(SkinspireError, match="tables already"):
        pipeline("my", "dev", steps.create).run()
    again = pipeline("my", "dev", steps.verify).run()
    assert again is not None and again.steps[0].ok


def test_verify_in_a_change_writes_on_trial(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """db.verify is read only; the same step in a pipeline tries a write, and rolls it back."""
    enter(clinic, monkeypatch)
    clinic.execute("ALTER TABLE parameter_settings ADD CHECK (param_code <> 'SKINSPIRE_VERIFY')")
    with pytest.raises(SkinspireError, match="write: could not look"):
        pipeline("my", "dev", steps.verify).run()
    assert clinic.query("SELECT count(*) FROM parameter_settings WHERE param_code = 'SKINSPIRE_VERIFY'") == [(0,)]
