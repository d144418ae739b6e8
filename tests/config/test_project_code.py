"""Code that a project brings, its models and revisions: no way out of it but a normal return is a success."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Project
from migration_support import at, head, revision

WAYS_OUT = (
    "raise SystemExit",
    "import sys; sys.exit(0)",
    "exit()",
    "raise GeneratorExit",
    "raise type('Own', (BaseException,), {})",
    "import os; os._exit(0)",
    "import os; os.execv('/bin/true', ['true'])",
    "raise StopIteration",
    "from invoke.exceptions import Exit; raise Exit(code=0)",
    "from skinspire_db.errors import Drifted; raise Drifted('')",
)


@pytest.fixture
def app(make_project: Callable[..., Project], template: str) -> Project:
    """A project with models and a folder for revisions of its own, whose dev database is set up."""
    project = make_project('metadata = ["skinspire_db.clinic.models:Base"]\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    return project


def ends(project: Project, *arguments: str) -> str:
    """What the one line of a failed command says."""
    outcome = project.invoke(*arguments)
    assert outcome.code in (1, 2) and outcome.out.count("committed") == 0, (arguments, outcome)
    [line] = [line for line in outcome.err.splitlines() if line.strip()]
    assert line.startswith("error: ") and " -> " in line
    return line


@pytest.mark.parametrize("way", WAYS_OUT)
def test_whatever_a_revision_does_when_it_is_read(app: Project, way: str) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'leaves', head())}.py"
    file.write_text(file.read_text().replace("def upgrade", f"{way}\ndef upgrade"))
    tasks = ("migrate.upgrade", "migrate.check", "migrate.status", "migrate.sql", "db.prepare", "db.setup", "db.create")
    for task in tasks if way == WAYS_OUT[0] else tasks[:1]:
        assert "leaves.py, line 7" in ends(app, task), task
    assert at(app) == [head()]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_whatever_a_revision_does_when_it_is_run(app: Project, way: str) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'leaves', head(), 'CREATE TABLE gone (id int)')}.py"
    text = file.read_text()
    file.write_text(text.replace("\ndef downgrade", f"\n    {way}\ndef downgrade"))
    line = ends(app, "migrate.upgrade")
    assert "leaves.py, line 9: " in line and "left no trace" in line
    if way == WAYS_OUT[0]:
        assert line == ends(app, "db.prepare") and "leaves.py" in ends(app, "migrate.sql")
    assert at(app) == [head()] and app.query("SELECT to_regclass('gone')") == [(None,)]
    file.write_text(text.replace("def downgrade():\n    pass", f"def downgrade():\n    {way}"))
    assert app.invoke("migrate.upgrade").code == 0
    assert "leaves.py, line 10: " in ends(app, "migrate.downgrade")
    assert at(app) == ["leaves"]


@pytest.mark.parametrize("kind", ["async def upgrade():\n    ", "def upgrade():\n    yield\n    "])
def test_a_revision_that_was_not_run_at_all(app: Project, kind: str) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'never', head(), 'CREATE TABLE never (id int)')}.py"
    file.write_text(file.read_text().replace("def upgrade():\n    ", kind))
    assert "nothing of it was run" in ends(app, "migrate.upgrade")
    assert at(app) == [head()]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_whatever_a_models_module_does(app: Project, way: str) -> None:
    name = f"models_{abs(hash(way))}"
    (app.root / f"{name}.py").write_text(f"\n{way}\n")
    (app.root / "pyproject.toml").write_text(f'[tool.skinspire_db]\nmetadata = ["{name}:Base"]\n')
    tasks = ("db.setup", "db.prepare", "db.create", "db.verify", "db.drift", "migrate.check")
    for task in tasks if way == WAYS_OUT[0] else tasks[:1]:
        line = ends(app, task)
        assert f"{name}.py, line 2" in line, (task, line)
    assert at(app) == [head()]


def test_ctrl_c_in_it_is_an_interruption(app: Project) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'slow', head())}.py"
    file.write_text(file.read_text().replace("def upgrade():\n    pass", "def upgrade():\n    raise KeyboardInterrupt"))
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "interrupted" in outcome.err


def test_what_it_prints_is_not_our_answer(app: Project) -> None:
    """Not by print(), not by a program that it starts, not by a log that it opens at stdout."""
    noise = "import os, sys, logging; print('noise'); os.system('echo noise'); logging.StreamHandler(sys.stdout).emit("
    noise += "logging.makeLogRecord({'msg': 'noise'}))"
    (app.root / "noisy.py").write_text(f"{noise}\nfrom skinspire_db.clinic.models import Base\n")
    (app.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["noisy:Base"]\n')
    file = app.root / "migrations" / "versions" / f"{revision(app, 'loud', head())}.py"
    file.write_text(noise + "\n" + file.read_text().replace("def upgrade():\n    pass", f"def upgrade():\n    {noise}"))
    for task in ("migrate.sql", "migrate.upgrade", "migrate.check"):
        outcome = app.process(task, "--json")
        assert outcome.json["operation"] == task and outcome.err.count("noise") >= 3
    assert "noise" not in app.process("migrate.status").out


RAW = "raw = op.get_bind().connection.dbapi_connection; raw.cursor().execute('CREATE TABLE t1 (id int)'); "


@pytest.mark.parametrize(
    ("up", "trace"),
    [
        (RAW + "raw.cursor().execute('COMMIT')", True),
        (RAW + "raw.cursor().execute('COMMIT'); op.execute('SELECT 1/0')", True),
        pytest.param(RAW + "raw.cursor().execute('COMMIT'); op.execute('LOCK TABLE nonesuch')", True, marks=pytest.mark.slow),
        pytest.param(RAW + "raw.cursor().execute('COMMIT'); {}['colour']", True, marks=pytest.mark.slow),
        pytest.param(
            RAW + "raw.cursor().execute('COMMIT AND CHAIN'); raw.cursor().execute('SELECT 1/0')", True, marks=pytest.mark.slow
        ),
        (RAW + "raw.cursor().execute('ROLLBACK'); op.execute('CREATE TABLE t2 (id int)')", True),
        pytest.param(RAW + "raw.cursor().execute('COMMIT'); raise KeyboardInterrupt", True, marks=pytest.mark.slow),
        (RAW + "raw.pgconn.exec_(b'COMMIT; BEGIN')", True),
        pytest.param(RAW + "raw.commit()", False, marks=pytest.mark.slow),
        (RAW + "raw.rollback()", False),
        (RAW + "raw.cursor().execute('SELECT 1/0')", False),
    ],
)
def test_a_revision_that_ends_its_transaction_behind_our_back(app: Project, up: str, trace: bool) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'ends', head())}.py"
    file.write_text(file.read_text().replace("def upgrade():\n    pass", f"def upgrade():\n    {up}"))
    line = ends(app, "migrate.upgrade")
    assert "ends.py" in line and ("may have left a trace" in line) == trace and ("left no trace" in line) != trace
    assert at(app) == [head()]
    assert trace or app.query("SELECT to_regclass('t1')") == [(None,)]
