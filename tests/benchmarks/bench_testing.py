"""What a test pays for its database, beside pytest-postgresql's clone for every test of the same template."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from skinspire_db.postgres.embedded_server import EmbeddedServer

from .harness import CHECKOUT, Bench, Figure, bench

TESTS = 60  # of each kind, in turns
# Each test with real commits writes one row and reads it back.
SUITE = f"""
import pytest
from pytest_postgresql import factories
from sqlalchemy import text
from skinspire_db.database_service import get_db_session

theirs = factories.postgresql("db_server")
WRITE = "INSERT INTO parameter_settings (param_code, param_value) VALUES ('BENCH', 'x') RETURNING param_value"
KINDS = ("none", "session", "database", "clone", "theirs")
CASES = [(kind, n) for block in range(0, {TESTS}, 20) for kind in KINDS for n in range(block, block + 20)]

def pytest_generate_tests(metafunc):
    marks = lambda kind: [pytest.mark.db(kind)] if kind not in ("none", "theirs") else []
    metafunc.parametrize(("kind", "number"), [pytest.param(*case, marks=marks(case[0])) for case in CASES])

def test_one(request, kind, number):
    if kind == "theirs":
        connection = request.getfixturevalue("theirs")
        assert connection.execute(WRITE).fetchone() == ("x",)
        connection.commit()
    elif kind in ("database", "clone"):
        with get_db_session() as session:
            assert session.scalar(text(WRITE)) == "x"
"""
# How long each test took with all that belongs to it, and when the first one began.
CONFTEST = """
import json, time, pytest
seconds = {}

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    if not seconds:
        seconds["first"] = time.time()
    started = time.perf_counter()
    result = yield
    kind = item.callspec.params["kind"] if hasattr(item, "callspec") else "other"
    seconds.setdefault(kind, []).append(time.perf_counter() - started)
    return result

def pytest_sessionfinish():
    with open("seconds.json", "w") as file:
        json.dump(seconds, file)
"""


def bench_tests_on_the_core_schema() -> list[Figure]:
    with suite() as project:
        return figures(project, "core schema")


def bench_tests_on_150_tables() -> list[Figure]:
    with suite('metadata = ["skinspire_db.clinic.models:Base", "large_app:metadata"]\n') as project:
        (project.root / "large_app.py").write_text(
            f"import sys\n\nsys.path.append({str(CHECKOUT / 'tests')!r})\nfrom large_schema import build\n\nmetadata = build()\n"
        )
        project.invoke("sql.new", "--view=overview")  # a model is mapped to it
        project.invoke("sql.bump", "--name=overview")
        return figures(project, "150 tables")


def bench_the_first_test_of_a_second_run() -> list[Figure]:
    with suite() as project:
        firsts, seconds = [], []
        (project.root / "test_sample.py").write_text("def test_one(db_session):\n    pass\n")
        run(project)  # compiles what Python has not compiled yet
        for _ in range(3):
            throw_away(project).destroy()
            shutil.rmtree(project.root / ".skinspire", ignore_errors=True)
            firsts.append(run(project)["until the first"])
            seconds.append(run(project)["until the first"])
        return [Figure("first test of a second run", statistics.median(seconds), "first run", statistics.median(firsts), 0.3)]


def figures(project: Bench, what: str) -> list[Figure]:
    (project.root / "test_sample.py").write_text(SUITE)
    found = {kind: statistics.median(each[3:]) * 1000 for kind, each in run(project).items() if isinstance(each, list)}
    clone = "pytest-postgresql, clone"
    return [
        Figure(f"what db_session adds to a test, {what}", found["session"] - found["none"], "1 ms", 1, 1, "ms"),
        Figure(f"db_database, {what}", found["database"], clone, found["theirs"], 0.1, "ms"),
        Figure(f"db_clone, {what}", found["clone"], clone, found["theirs"], 1, "ms"),
    ]


def run(project: Bench) -> dict[str, Any]:
    """A run of the suite on the checkout's throw-away server, as a developer has it."""
    env = {name: value for name, value in project.env.items() if not name.startswith("PG")}
    started = time.time()
    subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=project.root, env=env, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((project.root / "seconds.json").read_text())
    return found | {"until the first": found["first"] - started}


@contextlib.contextmanager
def suite(config: str = "") -> Iterator[Bench]:
    """A project whose throw-away server goes with it."""
    with bench() as project:
        options = '[tool.pytest.ini_options]\naddopts = ["-p", "no:cacheprovider"]\nasyncio_default_fixture_loop_scope = "function"\n'
        (project.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{config}{options}")
        (project.root / "conftest.py").write_text(CONFTEST)
        try:
            yield project
        finally:
            throw_away(project).destroy()


def throw_away(project: Bench) -> EmbeddedServer:
    home = project.server.home
    return EmbeddedServer(home.with_name(f"{home.name}-test"), durable=False)
