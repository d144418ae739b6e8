"""The tasks as a whole: help, listing, output, and how they are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT, Project
from invoke.loader import FilesystemLoader
from invoke.program import Program

from skinspire_db.lifecycle.result import counted, told
from skinspire_db.terminal import layout


@pytest.fixture(scope="module")
def listed() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "-r", str(CHECKOUT), "--list", "--list-format=flat"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.findall(r"^  (\w+\.[\w-]+)", done.stdout, re.MULTILINE)


def test_every_task_has_a_help_text_for_itself_and_each_flag(listed: list[str]) -> None:
    module, _ = FilesystemLoader(start=str(CHECKOUT)).load("tasks")
    tasks = {f"{name}.{task}": item for name, group in module.ns.collections.items() for task, item in group.tasks.items()}
    assert len(tasks) == len(listed)
    for name, task in tasks.items():
        assert task.__doc__ and task.__doc__.strip(), name
        for argument in task.get_arguments():
            assert argument.help, f"{name} --{argument.name}"
            assert not argument.positional, f"{name} --{argument.name} would swallow --help"


def test_every_remedy_is_a_command_that_exists(listed: list[str]) -> None:
    for path in (CHECKOUT / "skinspire_db").rglob("*.py"):
        for name in re.findall(r"invoke ((?:db|env|server|triggers|dev)\.\w+)", path.read_text()):
            assert name in listed, f"{path}: {name}"


def test_list_imports_nothing_heavy() -> None:
    code = (
        "import sys; from invoke import Program; Program().run(['invoke', '-r', sys.argv[1], '--list'], exit=False);"
        "heavy = ('sqlalchemy', 'alembic', 'psycopg', 'tabulate', 'tqdm', 'decouple');"
        "print([m for m in sys.modules if m in heavy or m.startswith('skinspire_db.') and not m.startswith('skinspire_db.tasks')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(CHECKOUT)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


NEEDLESS = ("adoption", "clinic.models", "copies", "doctor", "operations.migrate", "recovery", "rehearsal")
HEAVY = ("sqlalchemy", "alembic", *(f"skinspire_db.{name}" for name in NEEDLESS))


def test_the_operations_import_what_they_need_when_they_run() -> None:
    code = "import sys; from skinspire_db.operations import db, triggers; from skinspire_db.terminal import console; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = (
        *HEAVY,
        "psycopg",
        "tabulate",
        "wcwidth",
        "skinspire_db.inspection",
        "skinspire_db.migrations",
        "skinspire_db.schema",
    )
    assert [name for name in loaded if name.startswith(heavy)] == []


@pytest.mark.slow
def test_what_the_looks_of_a_day_import(clinic: Project) -> None:
    """Their start is most of what they take. One process runs all four, after what is kept between commands was computed."""
    looks = ("db.verify", "db.prepare", "triggers.status", "db.drift")
    for look in looks:
        assert clinic.invoke(look).code == 0
    code = (
        "import sys; from invoke import Program\n"
        "for look in sys.argv[2:]: Program().run(['invoke', '-r', sys.argv[1], look], exit=False)\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(CHECKOUT), *looks]
    done = subprocess.run(command, env=clinic.environment, cwd=clinic.root, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert [name for name in loaded if name.startswith(HEAVY)] == []
    library = [name for name in loaded if name.startswith("skinspire_db.") and not name.startswith("skinspire_db.tasks")]
    assert 60 < len(library) <= 130, library


def test_importing_the_package_imports_no_sqlalchemy() -> None:
    code = "import sys, skinspire_db; print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_help_is_shown_and_nothing_runs(project: Project) -> None:
    for task in ("db.setup", "db.reset", "server.destroy"):
        outcome = project.invoke("--help", task)
        assert outcome.code == 0 and "Options:" in outcome.out
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_one_is_no_plural() -> None:
    named = ["tables_created", "indexes_created", "sessions_ended", "databases", "attached", "support_staff"]
    assert [told(1, name) for name in named] == [
        "1 table created", "1 index created", "1 session ended", "1 database", "1 attached", "1 support staff",
    ]  # fmt: skip
    assert told(2, "tables_created") == "2 tables created" and told(0, "databases") == "0 databases"
    assert counted(1, "session", "were", "was") == "1 session was" and counted(2, "difference") == "2 differences"


def test_wrong_usage_runs_nothing(project: Project) -> None:
    for arguments in (["db.setup", "--bogus"], ["db.setup", "dev"], ["db.bogus"], ["db.setup", "--env"]):
        assert project.invoke(*arguments).code == 2
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


@pytest.mark.parametrize(
    "typed, remedy",
    [
        ("env.switch dev", "env.switch --env=dev"),
        ("db.setup development", "db.setup --env=development"),
        ("--dry db.setup prod", "--dry db.setup --env=prod"),
        ("db.copy test dev", "db.copy --source=test --target=dev"),
        ("db.copy --target=dev test", "db.copy --target=dev --source=test"),
        ("db.seed dev 50", "db.seed --env=dev --patients=50"),
        ("db.inspect dev patients", "db.inspect --env=dev --table=patients"),
        ("backup.restore dev a.dump", "backup.restore --env=dev --file=a.dump"),
        ("triggers.bump timestamps", "triggers.bump --name=timestamps"),
        ("db.setup dev db.verify dev", "db.setup --env=dev db.verify --env=dev"),
        ("setup", "db.setup"),
        ("db.setup db.verfy", "db.verify"),
        ("db.setup nonsense", "--help db.setup"),
        ("db.copy dev test prod", "--help db.copy"),
        ("db.setup --env=dev test", "--help db.setup"),
        ("db.setup --environment dev", "--help db.setup"),
        ("nonsense", "--list"),
        ("db.run fair dev", "db.run --pipeline=fair --env=dev"),
    ],
)
def test_old_habits_are_told_the_right_flag(project: Project, typed: str, remedy: str) -> None:
    """Scripts took words without flags; Invoke says that it has no idea what they are."""
    outcome = project.invoke(*typed.split())
    assert outcome.code == 2 and outcome.out == "" and outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: ") and outcome.err.endswith(f" -> invoke {remedy}\n")
    failure = project.invoke(*typed.split(), "--json")
    assert failure.json["exit_code"] == 2 and failure.json["error"]["type"] == "UsageError", "one object"


def test_a_url_that_was_typed_as_a_word_is_not_shown(project: Project) -> None:
    outcome = project.invoke("db.setup", project.url("clinic"))  # invoke() itself looks for the password
    assert outcome.code == 2 and "DEV_DATABASE_URL" in outcome.err


def test_old_habits_as_a_process(project: Project) -> None:
    outcome = project.process("db.setup", "dev")
    assert (outcome.code, outcome.err) == (2, "error: db.setup takes dev as --env=dev -> invoke db.setup --env=dev\n")


@pytest.mark.parametrize("task", ["db.setup", "db.reset", "db.seed", "triggers.install", "env.stamp"])
def test_dry_changes_nothing(clinic: Project, task: str) -> None:
    before = clinic.dump()
    outcome = clinic.invoke("--dry", task)
    assert outcome.code == 0 and "would run" in outcome.out
    assert clinic.dump() == before


def test_from_a_subfolder(project: Project) -> None:
    """Without -r: Invoke looks upwards for tasks.py, and so do we for the project."""
    env = {name: value for name, value in os.environ.items() if name != "SKINSPIRE_PROJECT"}
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "env.status", "--json"],
        cwd=CHECKOUT / "tests" / "benchmarks", env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(CHECKOUT) in done.stdout


def test_a_bug_keeps_its_traceback_and_debug_shows_all(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("skinspire_db.config.environment.resolve", broken)
    monkeypatch.setenv("SKINSPIRE_PROJECT", str(project.root))
    with pytest.raises(ZeroDivisionError):
        Program().run(["invoke", "-r", str(CHECKOUT), "db.verify"])


def test_invoke_yaml_sets_the_defaults(project: Project) -> None:
    project.env |= {"INVOKE_SEED_PATIENTS": "3", "INVOKE_SEED_DOCTORS": "2"}
    assert project.invoke("db.setup").code == 0
    assert project.query("SELECT count(*) FROM patients") == [(3,)]


def test_no_registry_is_named_in_any_file() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        text = (CHECKOUT / name).read_text(errors="replace")
        assert (
            not re.search(r"pypi\.org|files\.pythonhosted|registry\.npm" + "js", text) or name == "tests/tasks/test_tasks.py"
        ), name


def test_a_short_flag_means_one_thing_everywhere(listed: list[str]) -> None:
    module, _ = FilesystemLoader(start=str(CHECKOUT)).load("tasks")
    meant: dict[str, set[str]] = {}
    for group in module.ns.collections.values():
        for task in group.tasks.values():
            for argument in task.get_arguments():
                for short in (name for name in argument.names if len(name) == 1):
                    meant.setdefault(short, set()).add(argument.name)
    assert {"e": {"env"}, "j": {"json"}, "m": {"message"}}.items() <= meant.items()
    assert all(len(names) == 1 for names in meant.values()), meant


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_a_step_keeps_to_the_terminals_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = ", ".join(f"{number} things done" for number in range(1, 30))
    lines = layout.step_lines("seed", text, 1.5)
    assert all(len(line) <= columns for line in lines) and lines[0].endswith(" 1.50 s") and len(lines) > 2
    assert " ".join(lines[0].removesuffix("1.50 s").split()[1:] + " ".join(lines[1:]).split()) == text
    assert len(layout.step_lines("reset", "nothing to do", 0.0)[0]) == len(lines[0])


def test_lines_are_no_wider_than_a_pipe_s_80_columns(project: Project) -> None:
    project.env["COLUMNS"] = ""
    for task in ("db.setup", "db.verify", "triggers.status", "db.prepare"):
        lines = project.invoke(task, *(["--verbose"] if task == "db.verify" else [])).out.splitlines()
        assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.parametrize(
    "task", [["db.setup"], ["db.setup", "--json"], ["env.status"], ["env.status", "--json"], ["db.inspect", "--json"]]
)
def test_output_that_cannot_be_written_is_a_failure(project: Project, task: list[str]) -> None:
    if task[0] == "db.inspect":
        project.invoke("db.setup")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(project.command(*task), env=project.environment, cwd=project.root, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: the output could not be written: No space left")
    assert done.stderr.count("\n") == 1
    if task[0] == "db.setup":
        assert project.query("SELECT count(*) FROM patients") == [(20,)], "what was to be done is done"


def test_a_refusal_that_cannot_be_written_keeps_its_exit_code(project: Project) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(project.command("db.setup", "--env=bogus", "--json"), env=project.environment, cwd=project.root,
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: unknown environment 'bogus'")


def test_env_status_shows_what_copies_and_backups_use(project: Project) -> None:
    project.env["INVOKE_BACKUP_DAILY"] = "3"
    found = {each["name"]: each["value"] for each in project.invoke("env.status", "--json").json["settings"]}
    assert found["copy.jobs"] == "2" and found["backup.daily"] == "3" and found["backup.folder"] == "backups"


def test_generated_passwords_are_said_to_be_shown_only_now(make_project: Callable[..., Project]) -> None:
    project = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    assert "shown only now" in project.invoke("db.setup", "--env=live").out
    project.execute(f'DROP DATABASE "{project.database}"', "postgres")
    assert any("shown only now" in note for note in project.invoke("db.setup", "--env=live", "--json").json["notes"])
    assert "shown only now" not in project.invoke("db.setup", "--env=test").out, "everybody knows those"
    assert project.invoke("db.reset", "--env=live", f"--confirm={project.database}").code == 0
    assert project.invoke("backup.create", "--env=live").code == 0
    whys = [each["why"] for each in project.invoke("backup.list", "--env=live", "--json").json["backups"]]
    assert whys == ["asked for", "before db.reset"]
