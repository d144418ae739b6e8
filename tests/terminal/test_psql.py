"""db.url and db.shell: the way into a database, without its password anywhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import CHECKOUT, Project
from psycopg import sql

from skinspire_db.config import environment

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
