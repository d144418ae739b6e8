"""What the tests of faults share: a server of their own, tasks that are halted in the middle, and what is left."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import CHECKOUT, Project, dump, throw_away_home

from skinspire_db.postgres.embedded_server import EmbeddedServer

# step -> after how many of its statements it is stopped: somewhere between its first write and its last one
MIDDLE = {"reset": 2, "create": 3, "triggers": 9, "seed": 9, "verify": 10, "commit": 1}


RUNNING: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_task_left_behind() -> Iterator[None]:
    yield
    while RUNNING:
        task = RUNNING.pop()
        task.kill()
        task.communicate()


@pytest.fixture
def own_server(killable: Project) -> Project:
    """The project of this module, its server running."""
    EmbeddedServer(Path(killable.env["SKINSPIRE_PG_HOME"])).start()
    return killable


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with an embedded server of its own, to be killed, and a dev database with a row of the user's."""
    root = tmp_path_factory.mktemp("faults")
    (root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    server = EmbeddedServer(throw_away_home(root))
    project = Project(root, server.start())
    project.env = {"SKINSPIRE_PG_HOME": str(server.home)}
    assert project.invoke("db.setup").code == 0
    with psycopg.connect(**project.address.parameters, dbname="skinspire_dev") as connection:
        connection.execute("UPDATE patients SET last_name = 'Precious' WHERE mrn = 'T000007'")
        connection.execute("CREATE VIEW of_mine AS SELECT mrn FROM patients")
    yield project
    EmbeddedServer(server.home).destroy()


def halted(project: Project, step: str, *arguments: str, count: int | None = None) -> subprocess.Popen[str]:
    """The task, standing still in the middle of the step, or after so many of its statements."""
    halt = [str(CHECKOUT / "tests/halting_invoke.py"), step, str(MIDDLE[step] if count is None else count)]
    task = subprocess.Popen(
        [sys.executable, *halt, "-r", str(CHECKOUT), *arguments], env=project.environment, cwd=project.root, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    RUNNING.append(task)
    assert task.stdout
    for line in task.stdout:
        if line == "HALTED\n":
            return task
    raise AssertionError(f"{step} did not halt: {task.communicate()}")


def rows_and_definitions(project: Project) -> str:
    """The dump without the sequences' values: after a crash PostgreSQL lets a sequence skip up to 32 numbers that it had
    set aside (its manual, CREATE SEQUENCE, Notes).
    """
    return "\n".join(line for line in dump(project.address, "skinspire_dev").splitlines() if "pg_catalog.setval" not in line)


def wait_until_idle(project: Project) -> None:
    """Until the server has noticed that the killed task is gone."""
    deadline = time.monotonic() + 20
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'skinspire-db%' AND pid <> pg_backend_pid()"
    while project.query(count, "skinspire_dev") != [(0,)]:
        assert time.monotonic() < deadline, "the killed task's session lives on"
        time.sleep(0.05)
