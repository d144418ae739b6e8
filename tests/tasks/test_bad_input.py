"""Input and settings that mean nothing or cannot be used: refused in one line, with a remedy that can be typed."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project
from refusals import FOREIGN, refused


def test_unknown_environment(project: Project) -> None:
    assert (
        refused(project, "db.setup", "--env=bogus", code=2, says="unknown environment 'bogus'")
        == "use one of: dev, test, prod"
    )


def test_prod_without_a_url(project: Project) -> None:
    assert "PROD_DATABASE_URL=" in refused(project, "db.setup", "--env=prod", code=2, says="PROD_DATABASE_URL is not set")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql//u:hunter2@h/d", "DEV_DATABASE_URL is not a database URL"),
        ("postgresql://u:hunter2@h:port/d", "DEV_DATABASE_URL is not a database URL"),
        ("mysql://u:hunter2@h/d", "a URL for mysql"),
        ("postgresql+psycopg2://u:hunter2@h/d", "a URL for postgresql+psycopg2"),
        ("postgresql://u:hunter2@h", "names no database"),
        ("postgresql://u:hunter2@h/d?sslmod=require", "an option that PostgreSQL does not know"),
        ("postgresql://u:hun@ter2/x@127.0.0.1/d", "has an @ or / that is not written as %40"),
        ("postgresql://u:hunter2@127.0.0.1/template1", "which is the server's own"),
        ("postgresql://u:hunter2@127.0.0.1/d?service=s", "names a service"),
        ("postgresql://u:hunter2@127.0.0.1/d?sslmode=bogus", "an option that cannot be used"),
        ("postgresql://u:hunter2@127.0.0.1/d?connect_timeout=abc", "an option that cannot be used"),
    ],
)
def test_malformed_url(project: Project, url: str, says: str) -> None:
    project.env["DEV_DATABASE_URL"] = url
    assert "DEV_DATABASE_URL=postgresql://" in refused(project, "db.setup", code=2, says=says)
    shown = project.invoke("db.setup").err + project.invoke("env.status").out
    assert "hunter2" not in shown and "ter2" not in shown


def test_wrong_password_is_not_shown(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = project.url("anything", password="hunter2%40")
    assert "DEV_DATABASE_URL" in refused(project, "db.setup", code=1, says="refuses the password of role skinspire")
    outcome = project.invoke("db.setup")
    assert "hunter2" not in outcome.out + outcome.err


def test_unknown_role_looks_like_a_wrong_password(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = project.url("anything", user="nobody_at_all")
    refused(project, "db.setup", code=1, says="refuses the password of role nobody_at_all")


def test_server_down(project: Project) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    project.env["DEV_DATABASE_URL"] = project.url("anything", port=port)
    remedy = refused(project, "db.setup", code=1, says="Connection refused")
    assert "DEV_DATABASE_URL" in remedy


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--patients=abc", "--patients=abc is not a whole number"),
        ("--patients=1.5", "--patients=1.5 is not a whole number"),
        ("--patients=-5", "--patients=-5 is not between 1 and"),
        ("--patients=0", "--patients=0 is not between 1 and"),
        ("--patients=99999999999", "is not between 1 and"),
        ("--doctors=no", "--doctors=no is not a whole number"),
        ("--random-seed=x", "--random-seed=x is not a whole number"),
    ],
)
def test_nonsense_numbers(project: Project, argument: str, says: str) -> None:
    refused(project, "db.setup", argument, code=2, says=says)
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("no.such:Base", "cannot be loaded"),
        ("json:dumps", "neither a declarative base nor a MetaData"),
        ("json:nothing", "cannot be loaded"),
    ],
)
def test_models_that_cannot_be_loaded(make_project: Callable[..., Project], entry: str, says: str) -> None:
    project = make_project(f'metadata = ["{entry}"]\n')
    assert "pyproject.toml" in refused(project, "db.setup", code=2, says=says)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "division by zero"),
        ("Table('a', Base.metadata); Table('a', Base.metadata, Column('id', Integer))", "Table 'a' is already defined"),
        ("Table('a', Base.metadata, Column('of', ForeignKey('nowhere.id')))", "column a.of points to nowhere.id: no model defines that table"),
        ("Table('a', Base.metadata, Column('of', ForeignKey('patients.no')))", "column a.of points to patients.no: no model defines that column"),
    ],
)  # fmt: skip
def test_models_that_are_wrong(make_project: Callable[..., Project], source: str, says: str) -> None:
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "wrong_models:Base"]\n')
    header = "from sqlalchemy import Column, ForeignKey, Integer, Table\nfrom skinspire_db.clinic.models import Base\n"
    (project.root / "wrong_models.py").write_text(header + source)
    for task in ("db.setup", "migrate.new"):
        outcome = project.process(task, *(["-m", "x"] if task == "migrate.new" else []))
        assert outcome.code == 2 and says in outcome.err and " -> correct " in outcome.err, outcome.err
    assert "wrong_models.py, line 3" in outcome.err or "points to" in outcome.err
    assert project.query(f"SELECT FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_pyproject_that_is_not_toml(project: Project) -> None:
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db\n")
    refused(project, "db.setup", code=2, says="is not valid TOML")


def test_an_unreadable_dotenv_value_never_shows(project: Project) -> None:
    del project.env["DEV_DATABASE_URL"]
    (project.root / ".env").write_text("DEV_DATABASE_URL=postgres://u:hunter2@localhost:1/d\n")
    outcome = project.invoke("db.setup", "--json")
    assert outcome.code == 1 and "hunter2" not in outcome.out + outcome.err
    assert json.loads(outcome.out)["error"]["type"] == "ConnectionFailed"


def test_libpq_variables_do_not_lead_elsewhere(clinic: Project, tmp_path: Path) -> None:
    """A PGHOSTADDR or PGOPTIONS in the user's shell must not change which database is meant, or how it is read."""
    clinic.env |= {
        "PGHOSTADDR": "127.0.0.9",
        "PGOPTIONS": "-c search_path=elsewhere",
        "PGDATABASE": "postgres",
        "PGPORT": "1",
    }
    assert clinic.process("db.verify").code == 0


def test_a_url_without_a_host_means_the_local_socket_whatever_the_shell_says(project: Project) -> None:
    project.env = {"DEV_DATABASE_URL": "postgresql:///anything", "PGHOST": "127.0.0.1", "PGPORT": str(project.address.port)}
    project.env |= {"PGUSER": "skinspire", "PGPASSWORD": "x"}
    outcome = project.process("db.verify")
    assert outcome.code == 1 and "local socket" in outcome.err and "refuses the password" not in outcome.err


def test_an_application_name_in_the_url(clinic: Project) -> None:
    clinic.env["DEV_DATABASE_URL"] += "?application_name=mine"
    assert clinic.invoke("db.verify").code == 0


def test_a_password_among_the_options_is_not_shown(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = "postgresql://127.0.0.1:1/d?user=u&password=hunter2&sslpassword=hunter3"
    shown = project.invoke("env.status").out + project.invoke("db.setup").err
    assert "hunter" not in shown and "password=***" in shown


def test_json_goes_with_one_task_at_a_time(project: Project) -> None:
    outcome = project.invoke("env.status", "--json", "env.status", "--json")
    assert outcome.code == 2 and outcome.json["error"]["type"] == "UsageError"


def test_the_remedy_in_a_row_of_commands_is_for_the_one_that_failed(project: Project) -> None:
    outcome = project.invoke("db.verify", "--env=dev", "db.verify", "--env=test")
    assert outcome.code != 0 and outcome.err.rstrip().endswith("-> invoke db.setup --env=dev"), outcome.err


def test_the_remedy_can_be_typed_whatever_the_databases_name(project: Project) -> None:
    name = "My Db's"
    project.env["DEV_DATABASE_URL"] = project.url("My%20Db's")
    project.execute(f'CREATE DATABASE "{name}"', "postgres")
    try:
        project.execute(FOREIGN, name)
        remedy = refused(project, "db.setup", code=2, says="no stamp")
        assert project.invoke(*shlex.split(remedy.partition("invoke ")[2])).code == 0
        assert project.invoke("db.setup").code == 0
    finally:
        project.execute(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")


def test_an_empty_environment_name(project: Project) -> None:
    refused(project, "db.setup", "--env=", code=2, says="unknown environment ''")


def test_a_reader_that_goes_away_does_not_stop_the_operation(project: Project) -> None:
    task = project.start("db.setup")
    assert task.stdout and task.stderr
    task.stdout.close()
    err = task.stderr.read()
    task.stderr.close()
    assert task.wait(60) == 0, err
    assert "Traceback" not in err
    assert project.query("SELECT count(*) FROM patients") == [(20,)]


def test_a_user_without_a_name(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for task in (["db.verify"], ["db.seed"], ["db.url"], ["--dry", "db.shell"], ["db.doctor"], ["backup.create"]):
        outcome = clinic.invoke(*task)
        assert outcome.code == 0, f"{task}: {outcome.err}"
    missing = refused(clinic, "backup.restore", "--file=~nobody/x.dump", code=2, says="there is no backup ~nobody/x.dump")
    assert "backup.list" in missing
    clinic.env["DEV_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"].replace(f"skinspire:{clinic.address.password}@", "")
    for command, code in (("db.verify", 2), ("db.seed", 2), ("db.doctor", 1)):
        needed = refused(clinic, command, code=code, says="DEV_DATABASE_URL names no role")
        assert "DEV_DATABASE_URL=postgresql://user:password@" in needed
