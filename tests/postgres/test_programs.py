"""PostgreSQL's programs: server programs are for the embedded server, client programs alone serve everything else."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

from skinspire_db.errors import ToolMissing
from skinspire_db.postgres.programs import find_binaries, find_client_programs

posix = pytest.mark.skipif(sys.platform == "win32", reason="the programs here are shell scripts")


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder that holds only these programs, of PostgreSQL `version` if that is given."""

    def make(*names: str, version: int = 0) -> Path:
        folder = tmp_path / f"{'-'.join(names)} {version}"
        folder.mkdir()
        for name in names:
            does = f"echo '{name} (PostgreSQL) {version}.1'" if version else f"exec '{find_binaries().tool(name)}' \"$@\""
            (folder / name).write_text(f"#!/bin/sh\n{does}\n")
            (folder / name).chmod(0o755)
        return folder

    return make


def shell(project: Project, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        project.command("db.shell"), input=script, cwd=project.root, env=project.environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@posix
def test_client_programs_alone_are_enough_for_the_shell_and_for_backups(
    clinic: Project, folder_of: Callable[..., Path]
) -> None:
    clinic.env["SKINSPIRE_PG_BIN"] = str(folder_of("psql", "pg_dump", "pg_restore"))
    done = shell(clinic, "SELECT current_database()")
    assert done.returncode == 0 and clinic.database in done.stdout, done.stderr
    saved = clinic.invoke("backup.create")
    assert saved.code == 0, saved.err


@posix
def test_the_shell_needs_a_psql_as_new_as_the_server(clinic: Project, folder_of: Callable[..., Path]) -> None:
    clinic.env["SKINSPIRE_PG_BIN"] = str(folder_of("psql", version=14))
    done = shell(clinic, "SELECT 1")
    assert done.returncode == 1 and "the server is PostgreSQL 17, and no psql of that version or newer" in done.stderr
    assert "psql 14 has 14" in done.stderr and "Traceback" not in done.stderr, done.stderr


@posix
def test_all_client_programs_must_be_in_one_folder(monkeypatch: pytest.MonkeyPatch, folder_of: Callable[..., Path]) -> None:
    folder = folder_of("psql")
    monkeypatch.setenv("SKINSPIRE_PG_BIN", str(folder))
    assert find_client_programs(170010, "psql").folder == folder
    with pytest.raises(ToolMissing, match="no pg_dump of that version or newer was found"):
        find_client_programs(170010, "pg_dump", "psql")
