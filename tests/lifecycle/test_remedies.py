"""Remedies: every one in the sources names a command and flags that exist; typed, they help."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT, Outcome, Project
from invoke.loader import FilesystemLoader
from invoke.tasks import Task

from skinspire_db.lifecycle import remedies

SOURCES = [path for folder in ("skinspire_db", "tasks") for path in sorted((CHECKOUT / folder).rglob("*.py"))]
LIVE = '[tool.skinspire_db.environments.live]\nextends = "prod"\n'


def tasks() -> dict[str, Task]:  # type: ignore[type-arg]
    module, _ = FilesystemLoader(start=str(CHECKOUT)).load("tasks")
    return {f"{name}.{task}": item for name, group in module.ns.collections.items() for task, item in group.tasks.items()}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every text of a file with its line, an expression in it as VALUE."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)


def test_every_command_in_the_sources_can_be_typed() -> None:
    """It exists, so do its flags, and what is left open is filled in by the code that shows it."""
    known, wrong = tasks(), []
    for path in SOURCES:
        for line, text in texts(path):
            for found in remedies.COMMAND.finditer(text):
                where = f"{path.relative_to(CHECKOUT)}:{line}: {found[0]}"
                if "VALUE" in found[1]:
                    continue
                task = known.get(found[1])
                flags = {name for argument in task.get_arguments() for name in argument.names} if task else set()
                typed = re.findall(r" --?([a-z][\w-]*)", re.sub(r"\"[^\"]*\"", "", found[2]))
                if task is None or not {flag for flag in typed if flag != "VALUE"} <= flags:
                    wrong.append(where)
                if "..." in found[0] or re.search(r"[= ][A-Z]{2,}\b", found[0].replace("VALUE", "")):
                    wrong.append(f"{where}: not filled in")
                if re.search(r"\{(?!env\})", found[0]):
                    wrong.append(f"{where}: nothing fills this in")
    assert wrong == []


def test_a_remedy_is_for_the_environment_that_was_meant() -> None:
    def complete(text: str, **how: object) -> str:
        return remedies.complete(text, "live", **{"given": True, "database": "my db", "protected": True} | how)  # type: ignore[arg-type]

    assert complete("invoke migrate.status") == "invoke migrate.status --env=live"
    assert complete("invoke migrate.status", given=False) == "invoke migrate.status"
    assert complete("invoke db.undo --env={env}, if it helps") == "invoke db.undo --env=live --confirm='my db', if it helps"
    assert complete("invoke db.undo", protected=False) == "invoke db.undo --env=live"
    assert complete("invoke db.setup --env={env}") == "invoke db.prepare --env=live", "nothing is destroyed for a remedy"
    assert complete("invoke db.setup --env=dev makes people") == "invoke db.setup --env=dev makes people"
    assert complete('invoke migrate.new -m "add a, b" and then') == 'invoke migrate.new --env=live -m "add a, b" and then'
    assert complete("invoke triggers.bump --name=x; invoke db.copy --source=a") == (
        "invoke triggers.bump --name=x; invoke db.copy --target=live --source=a"
    )
    asked = {name for name, task in tasks().items() if any(each.name == "confirm" for each in task.get_arguments())}
    assert set(remedies.CONFIRMED) <= asked


def commands(text: str) -> list[list[str]]:
    return [shlex.split(found[0])[1:] for found in remedies.COMMAND.finditer(text)]


def follow(project: Project, outcome: Outcome, *, steps: int = 3) -> None:
    """Type what is said, and what that says, until a command succeeds."""
    seen: list[list[str]] = []
    for _ in range(steps):
        said = outcome.err.partition(" -> ")[2] or outcome.out
        typed = next((each for each in commands(said) if each not in seen), None)
        assert typed, f"no way on from {outcome.err}{outcome.out}, after {seen}"
        seen.append(typed)
        outcome = project.invoke(*typed)
        if outcome.code == 0:
            return
    raise AssertionError(f"after {seen}: {outcome.err}")


@pytest.fixture
def live(make_project: Callable[..., Project], template: str) -> Project:
    """A protected environment, set up."""
    project = make_project(LIVE)
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template} STRATEGY FILE_COPY', "postgres")
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'")
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    return project


def test_after_a_restore_in_a_protected_environment(live: Project) -> None:
    assert live.invoke("backup.create", "--env=live").code == 0
    live.execute("UPDATE hospitals SET name = 'later'")
    refused = live.invoke("backup.restore", "--env=live")
    follow(live, refused, steps=1)
    assert live.query("SELECT count(*) FROM hospitals WHERE name = 'later'") == [(0,)]
    for count in (1, 0):
        back = live.invoke("db.undo", "--env=live", f"--confirm={live.database}")
        assert back.code == 0 and live.query("SELECT count(*) FROM hospitals WHERE name = 'later'") == [(count,)]
    [typed] = commands(back.out)
    assert typed == ["db.undo", "--env=live", f"--confirm={live.database}"] and live.invoke(*typed).code == 0


def test_a_copy_between_protected_environments(live: Project) -> None:
    live.env["PROD_DATABASE_URL"] = live.url(f"prod_{live.database}")
    try:
        refused = live.invoke("db.copy", "--source=live", "--target=prod")
        assert refused.code == 2
        follow(live, refused, steps=1)
        follow(live, live.invoke("db.copy", "--source=test", "--target=live"), steps=1)
    finally:
        live.execute(f'DROP DATABASE IF EXISTS "prod_{live.database}" WITH (FORCE)', "postgres")


def test_a_missing_backup(clinic: Project) -> None:
    refused = clinic.invoke("backup.restore", "--env=dev")
    assert refused.code == 2
    follow(clinic, refused, steps=2)
    follow(clinic, clinic.invoke("backup.verify", "--env=dev"), steps=1)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ("DELETE FROM role_module_access; DELETE FROM parameter_settings", "reference data"),
        ("ALTER TABLE patients DROP COLUMN title", "tables"),
        ("ALTER TABLE users DISABLE TRIGGER USER", "triggers"),
    ],
)
def test_a_check_that_did_not_pass_leads_on(clinic: Project, broken: str, check: str) -> None:
    clinic.execute(broken)
    for arguments in ([], ["--verbose"]):
        failed = clinic.invoke("db.verify", *arguments)
        assert failed.code == 1 and "db.verify" not in failed.err.partition(" -> ")[2], failed.err
        assert len(failed.err) < 400, "what is printed above is not said twice"


def test_a_database_that_was_made_without_migrations_gets_into_no_circle(clinic: Project) -> None:
    clinic.execute("DROP TABLE alembic_version; DROP INDEX ix_patients_hospital_id_branch_id")
    for task in ("migrate.check", "db.drift"):
        found = clinic.invoke(task)
        assert found.code == 3, found.err
        assert "migrate.upgrade" not in found.err
    for typed in commands(clinic.invoke("migrate.upgrade").err.partition(" -> ")[2]):
        assert clinic.invoke(*typed).code == 0, typed
    assert clinic.invoke("migrate.check").code == 0 == clinic.invoke("migrate.upgrade").code


def test_a_database_ahead_of_the_files(clinic: Project) -> None:
    clinic.execute("UPDATE alembic_version SET version_num = 'f00'; ALTER TABLE patients DROP COLUMN title")
    assert "migrate.upgrade" not in clinic.invoke("db.drift").err.partition(" -> ")[2]


def test_the_environment_is_the_one_that_was_typed(clinic: Project) -> None:
    """Not the active one, which the same words without --env would go to."""
    clinic.env["TEST_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"]
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'test'")
    for task in (
        ["migrate.downgrade", "--steps=x"],
        ["db.history", "--limit=x"],
        ["backup.restore", f"--file={clinic.root}"],
    ):
        said = clinic.invoke(*task, "--env=test").err.partition(" -> ")[2]
        assert said and all("--env=test" in each for each in commands(said)), said
