"""Kills, crashes and full disks under operations that build a database aside: what they replace is whole before and after."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Project, dump
from fault_support import (  # noqa: F401
    MIDDLE,
    RUNNING,
    halted,
    killable,
    no_task_left_behind,
    own_server,
    rows_and_definitions,
    wait_until_idle,
)

from skinspire_db.postgres.embedded_server import EmbeddedServer


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a tmpfs"
)
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A server on a small file system: the seed does not fit, the database is as it was, and works on."""
    mount = Path(f"/mnt/skinspire-test-{secrets.token_hex(4)}")
    mount.mkdir(parents=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs", str(mount)], capture_output=True
    ).returncode:
        mount.rmdir()
        pytest.skip("this machine allows no mount")
    server = EmbeddedServer(mount / "server")
    try:
        (tmp_path / "pyproject.toml").write_text("[tool.skinspire_db]\n")
        project = Project(tmp_path, server.start(), {"SKINSPIRE_PG_HOME": str(server.home)})
        assert project.invoke("db.setup").code == 0
        before = rows_and_definitions(project)
        outcome = project.invoke("db.setup", "--patients=200000")
        assert outcome.code == 1
        assert "disk is full" in outcome.err or "the server went away" in outcome.err
        # Without room for its log PostgreSQL stops, and cannot even recover: that is said, and space is all it needs.
        still_full = project.invoke("db.verify")
        assert still_full.code == 0 or "free some space" in still_full.err
        subprocess.run(["mount", "-o", "remount,size=320m", str(mount)], check=True)
        assert project.invoke("db.verify").code == 0
        assert rows_and_definitions(project) == before
        # And a copy that does not fit: estimated before, or found out in the middle.
        subprocess.run(["mount", "-o", "remount,size=900m", str(mount)], check=True)
        assert project.invoke("db.setup", "--env=test", "--patients=90000").code == 0
        subprocess.run(["mount", "-o", f"remount,size={used(mount) + 30}m", str(mount)], check=True)
        for method in ("stream", "template"):
            copied = project.invoke("db.copy", "--source=test", "--target=dev", f"--method={method}")
            assert copied.code == 1 and "MB free" in copied.err, copied.err
        filler = mount / "filler"
        subprocess.run(["mount", "-o", f"remount,size={used(mount) + 200}m", str(mount)], check=True)
        task = halted(project, "copy", "db.copy", "--source=test", "--target=dev", "--method=stream", count=3)
        filler.write_bytes(b"x" * (180 << 20))
        _, err = task.communicate("go on\n", timeout=90)
        # Which of the server's words comes first is its affair: without room for its log it ends all sessions.
        full = (
            "No space left on device", "disk is full", "went away", "crash of another server process", "server closed the connection",
        )  # fmt: skip
        assert task.returncode == 1 and any(each in err for each in full), err
        filler.unlink()
        assert project.invoke("db.verify").code == 0
        assert rows_and_definitions(project) == before
    finally:
        server.destroy()
        subprocess.run(["umount", str(mount)], check=True)
        mount.rmdir()


def used(mount: Path) -> int:
    """Megabytes."""
    return shutil.disk_usage(mount).used >> 20


# Operations that build a database aside: step -> after how many of its statements (0: at its beginning, -1: at its end)

REPLACED = {
    "db.copy --source=test --target=dev --method=stream": [("source", -1), ("copy", 3), ("copy", -1), ("compare", 0), ("stamp", 0), ("stamp", -1), ("swap", 6), ("swap", 7), ("swap", -1)],
    "db.copy --source=test --target=dev --method=template": [("copy", 0), ("copy", -1), ("swap", 6)],
    "backup.restore": [("check", -1), ("restore", 2), ("restore", -1), ("compare", -1), ("stamp", -1), ("swap", 6), ("swap", -1)],
    "db.undo": [("former", -1), ("stamp", -1), ("swap", 6), ("swap", 7), ("swap", -1)],
}  # fmt: skip
POINTS = [(command, *point) for command, points in REPLACED.items() for point in points]
QUICK = [("db.copy --source=test --target=dev --method=stream", "copy", 3), ("backup.restore", "swap", 6)]


@pytest.fixture
def replaced(own_server: Project) -> Project:
    """Dev with a row of the user's, test as it was made, a backup of dev, and a former database of dev."""
    if not list((own_server.root / "backups").glob("dev-*")):
        assert own_server.invoke("db.setup", "--env=test").code == 0
        assert own_server.invoke("backup.create").code == 0
        assert own_server.invoke("backup.restore").code == 0
    own_server.query("UPDATE patients SET last_name = 'Precious' WHERE mrn = 'T000007' RETURNING 1", "skinspire_dev")
    return own_server


@pytest.mark.parametrize("command", ["db.seed", "db.undo"])
def test_what_was_called_done_outlives_the_server(command: str, replaced: Project) -> None:
    """Even for a role that does not wait for its commits."""
    server, settings = EmbeddedServer(Path(replaced.env["SKINSPIRE_PG_HOME"])), "postgres"
    replaced.execute("ALTER ROLE skinspire SET synchronous_commit = off", settings)
    replaced.execute("ALTER SYSTEM SET wal_writer_delay = '10s'", settings)  # or it would be there in a moment by itself
    replaced.query("SELECT pg_reload_conf()", settings)
    pid = server.status().pid
    assert pid
    done = replaced.invoke(command)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    server.start()
    replaced.execute("ALTER ROLE skinspire RESET synchronous_commit", settings)
    replaced.execute("ALTER SYSTEM RESET wal_writer_delay", settings)
    replaced.query("SELECT pg_reload_conf()", settings)
    last = "SELECT operation FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1"
    assert done.code == 0 and replaced.query(last, "skinspire_dev") == [(command,)]


def contents(project: Project, name: str) -> str | None:
    """Rows and definitions, without what says which database it is; None when it is not there."""
    if not project.query(f"SELECT FROM pg_database WHERE datname = '{name}'", "postgres"):
        return None
    text = "\n".join(line for line in dump(project.address, name).splitlines() if "pg_catalog.setval" not in line)
    return re.sub(r"COPY skinspire_tools\.(stamp|journal) .*?\n\\\.\n", "", text, flags=re.DOTALL)


def old_and_new(project: Project, command: str) -> tuple[str | None, str | None]:
    old = contents(project, "skinspire_dev")
    if command.startswith("db.copy"):
        return old, contents(project, "skinspire_test")
    if command == "db.undo":
        [(former,)] = project.query("SELECT datname FROM pg_database WHERE datname ~ '^skinspire_dev_former'", "postgres")
        return old, contents(project, former)
    assert project.invoke("backup.create").code == 0  # the newest: what is there now
    project.query("UPDATE patients SET last_name = 'Later' WHERE mrn = 'T000007' RETURNING 1", "skinspire_dev")
    return contents(project, "skinspire_dev"), old


def judge(project: Project, command: str, before: tuple[str | None, str | None], done: bool) -> None:
    """The target is the old one or the complete new one; and after the next run nothing else is there."""
    old, new = before
    after = contents(project, "skinspire_dev")
    assert after in (old, new) and (not done or after == new)
    names = "SELECT datname FROM pg_database WHERE datname ~ '^skinspire_(dev|test)' ORDER BY 1"
    assert project.invoke("db.copy", "--source=test", "--target=dev").code == 0, "and the next one goes through"
    found = {re.sub("_former_[0-9a-f]{6}$", "_former", name) for (name,) in project.query(names, "postgres")}
    assert found == {"skinspire_dev", "skinspire_dev_former", "skinspire_test"}
    assert not list((project.root / "backups").glob(".*"))


@pytest.mark.parametrize(
    ("command", "step", "count"), [pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow) for each in POINTS]
)
def test_kill_9_of_a_task_that_replaces(command: str, step: str, count: int, replaced: Project) -> None:
    before = old_and_new(replaced, command)
    task = halted(replaced, step, *command.split(), count=count)
    task.kill()
    task.communicate()
    wait_until_idle(replaced)
    judge(replaced, command, before, done=(step, count) == ("swap", -1))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "step", "count"), POINTS)
def test_kill_9_of_the_server_under_a_task_that_replaces(command: str, step: str, count: int, replaced: Project) -> None:
    before = old_and_new(replaced, command)
    task = halted(replaced, step, *command.split(), count=count)
    server = EmbeddedServer(Path(replaced.env["SKINSPIRE_PG_HOME"]))
    pid = server.status().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    out, err = task.communicate("go on\n", timeout=90)
    assert "Traceback" not in err, err
    server.start()
    done = contents(replaced, "skinspire_dev") == before[1]
    assert task.returncode == 1 or (task.returncode == 0 and done), out + err
    judge(replaced, command, before, done=task.returncode == 0)
