"""A rehearsal whose task or server is killed: the database is as it was, and the next one leaves nothing beside it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Project, dump, throw_away_home
from fault_support import halted, no_task_left_behind, wait_until_idle  # noqa: F401
from migration_support import revision
from test_rehearsing import MODELS, NICK, TABLES

from skinspire_db.postgres.embedded_server import EmbeddedServer

# step -> after how many of its statements it is killed; -1 is its end
PHASES = {"copy": -1, "second": 9, "again": -1}


@pytest.mark.slow
def test_kill_9_of_task_and_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.skinspire_db]\nmetadata = ["shop:Base"]\nmigrations = "migrations"\nreference = []\nsql = []\n'
    )
    (tmp_path / "shop.py").write_text(MODELS)
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    server = EmbeddedServer(throw_away_home(tmp_path))
    project = Project(tmp_path, server.start(), {"SKINSPIRE_PG_HOME": str(server.home)})
    try:
        project.execute("CREATE DATABASE skinspire_dev", "postgres")
        revision(project, "first", None, TABLES)
        assert project.invoke("migrate.upgrade").code == 0
        revision(project, "second", "first", *NICK)
        before = dump(project.address, "skinspire_dev")
        rehearse = "migrate.rehearse", "--from=copy", "--longest-lock=1000"
        with monkeypatch.context() as full:
            full.setattr("skinspire_db.copies.template.shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
            outcome = project.invoke(*rehearse)
        assert outcome.code == 1 and "it needs about" in outcome.err and "has 1 MB free" in outcome.err, outcome
        for step, count in PHASES.items():
            halted(project, step, *rehearse, count=count).kill()
            wait_until_idle(project)
            assert dump(project.address, "skinspire_dev") == before, step
            names = project.query("SELECT datname FROM pg_database WHERE datname LIKE 'skinspire_dev%'", "postgres")
            assert len(names) == 2, f"{step}: that of the killed task is swept up by the next one"
        task = halted(project, "drift", *rehearse, count=0)
        postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)
        err = task.communicate("\n")[1]
        assert task.returncode == 1 and "Traceback" not in err and err.count("\n") == 1, err
        project.address = server.start()
        assert dump(project.address, "skinspire_dev") == before
        outcome = project.invoke(*rehearse)
        assert outcome.code == 0, outcome
        assert project.query("SELECT count(*) FROM pg_database WHERE datname LIKE 'skinspire_dev%'", "postgres") == [(1,)]
    finally:
        server.destroy()
