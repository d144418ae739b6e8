"""Three public applications: each makes its database by its own revisions, and is then adopted; its package is installed for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, Project, WarmPython
from environments import new_environment

KEYSTONE = """
import importlib

for name in (
    "application_credential.backends.sql", "assignment.backends.sql", "assignment.role_backends.sql_model", "catalog.backends.sql",
    "credential.backends.sql", "endpoint_policy.backends.sql", "federation.backends.sql", "identity.backends.sql_model",
    "identity.mapping_backends.sql", "limit.backends.sql", "oauth1.backends.sql", "policy.backends.sql",
    "resource.backends.sql_model", "resource.config_backends.sql", "revoke.backends.sql", "trust.backends.sql",
):
    importlib.import_module(f"keystone.{name}")
from keystone.common.sql.core import ModelBase as Base
"""
OPTUNA = """
import os, optuna

study = optuna.create_study(storage=optuna.storages.RDBStorage(os.environ["OWN_URL"]))
study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=5)
"""
ROWS = """
    SELECT table_name, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM public.%I', table_name), false, true, '')))[1]::text
    FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1
"""


@dataclass(frozen=True)
class Application:
    """A public application.

    Attributes:
        package: What is installed.
        models: The module that has all of its models, as a person writes it for `metadata`.
        base: What `metadata` names in it.
        migrations: Its folder of revisions, from its packages' folder.
        history: The command that makes its database by its own revisions; {python}, {scripts} and {conf} are replaced.
        lines: It has several lines of revisions, of which a new one needs `expand`.
    """

    package: str
    models: str
    base: str
    migrations: str
    history: tuple[str, ...]
    lines: bool = False


APPLICATIONS = [
    Application(
        "optuna", "from optuna.storages._rdb.models import BaseModel", "BaseModel", "optuna/storages/_rdb/alembic",
        ("{python}", "-c", OPTUNA),
    ),
    Application(
        "keystone", KEYSTONE, "Base", "keystone/common/sql/migrations",
        ("{scripts}/keystone-manage", "--config-file", "{conf}", "db_sync"), lines=True,
    ),
    Application(
        "cinder", "from cinder.db.models import BASE", "BASE", "cinder/db/migrations",
        ("{scripts}/cinder-manage", "--config-file", "{conf}", "db", "sync"),
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """The application in an environment of its own, and its project folder."""

    application: Application
    project: Project
    scripts: Path
    python: WarmPython

    def run(self, *arguments: str) -> Any:
        """Run a command of the tools there, in a fork that has the application's modules; its JSON. Their warnings are their own."""
        outcome = self.project.forked_by(self.python, str(self.scripts / "skinspire-db"), *arguments, "--json")
        return json.loads(outcome.out)


def install(application: Application, project: Project, home: Path) -> Installed:
    """Install the application and the tools from the package index, and write its project folder."""
    scripts = new_environment(home, "-e", f"{CHECKOUT}[embedded]", application.package, "psycopg2-binary", compiled=False)
    where = subprocess.run(
        [scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    migrations = Path(where.stdout.strip()) / application.migrations
    (project.root / "its_models.py").write_text(application.models)
    (project.root / "pyproject.toml").write_text(
        f'[tool.skinspire_db]\nmetadata = ["its_models:{application.base}"]\nmigrations = {json.dumps(str(migrations))}\n'
    )
    python = WarmPython(scripts / "python", application.models, PYTHONWARNINGS="ignore")
    return Installed(application, project, scripts, python)


def make_its_database(installed: Installed) -> None:
    """By its own revisions, to their head."""
    project, application = installed.project, installed.application
    project.execute(f"CREATE DATABASE {project.database}", "postgres")
    own = project.url(project.database).replace("postgresql://", "postgresql+psycopg2://")
    configuration = project.root / "its.conf"
    configuration.write_text(f"[database]\nconnection = {own.replace('%', '%%')}\n[DEFAULT]\nstate_path = {project.root}\n")
    words = {"python": installed.scripts / "python", "scripts": installed.scripts, "conf": configuration}
    command = [part if part == OPTUNA else part.format(**words) for part in application.history]
    done = subprocess.run(
        command, cwd=project.root, env=os.environ | {"OWN_URL": own}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.package)
def test_a_public_application_comes_under_the_tools(
    application: Application, make_project: Callable[..., Project], tmp_path: Path
) -> None:
    """Its history to the head, the report, adopted, drift true, a revision there and back, prepare."""
    installed = install(application, make_project(), tmp_path / "venv")
    try:
        comes_under_the_tools(installed)
    finally:
        installed.python.end()


def comes_under_the_tools(installed: Installed) -> None:
    """Make its database, and run the tools on it."""
    project, run = installed.project, installed.run
    make_its_database(installed)
    rows, at = project.query(ROWS), project.query("SELECT * FROM alembic_version ORDER BY 1")
    report = run("db.adopt")
    assert report["exit_code"] == 3 and f"--confirm={project.database}" in report["error"]["remedy"], report["error"]
    adopted = run("db.adopt", f"--confirm={project.database}")
    assert adopted["ok"], adopted["error"]
    assert project.query("SELECT * FROM alembic_version ORDER BY 1") == at  # its history goes on; there is no baseline
    drift = run("db.drift")
    assert (drift["exit_code"], drift["drift"], drift["accepted_and_gone"]) == (0, [], []), drift["error"]
    assert run("migrate.check")["exit_code"] == 0
    prepared = run("db.prepare")
    assert (prepared["exit_code"], prepared["steps"]) == (0, []), prepared
    assert project.query(ROWS) == rows
    # The drift is true: what is changed by hand is found by name.
    [(table, column)] = project.query(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'character varying'"
        " AND table_name <> 'alembic_version' AND table_name IN (SELECT table_name FROM information_schema.tables"
        " WHERE table_type = 'BASE TABLE') ORDER BY 1, 2 LIMIT 1"
    )
    project.execute(f'ALTER TABLE public."{table}" ALTER COLUMN "{column}" SET DEFAULT \'by hand\'')
    changed = run("db.drift")
    assert changed["exit_code"] == 3 and any(f"{table}.{column}" in str(each) for each in changed["drift"]), changed
    project.execute(f'ALTER TABLE public."{table}" ALTER COLUMN "{column}" DROP DEFAULT')
    there_and_back(installed)
    assert project.query(ROWS) == rows


def there_and_back(installed: Installed) -> None:
    """A revision of the project's own, in a folder beside the application's, for a table that its models get."""
    project, run = installed.project, installed.run
    models = project.root / "its_models.py"
    base = installed.application.base
    models.write_text(
        f"{models.read_text()}\nfrom sqlalchemy import Column, Integer, String, Table\n\n"
        f"Table('clinic_notes', {base}.metadata, Column('note_id', Integer, primary_key=True), Column('text', String(40)))\n"
    )
    chosen = []
    if installed.application.lines:
        written = run("migrate.new", "--message=notes")
        assert "expand (head" in written["error"]["message"] and "--head=" in written["error"]["remedy"], written
        chosen = ["--head=expand"]
    written = run("migrate.new", "--message=notes", *chosen)
    assert written["ok"], written["error"]
    file = Path(written["file"])
    file = file if file.is_absolute() else project.root / file
    try:
        upgraded = run("migrate.upgrade")
        assert upgraded["ok"], upgraded["error"]
        assert project.query("SELECT to_regclass('public.clinic_notes') IS NOT NULL") == [(True,)]
        assert run("db.drift")["exit_code"] == 0
        back = run("migrate.downgrade", f"--confirm={project.database}")
        assert back["ok"], back["error"]
        assert project.query("SELECT to_regclass('public.clinic_notes') IS NULL") == [(True,)]
    finally:
        file.unlink()
