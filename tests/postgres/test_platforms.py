"""What Windows and macOS do otherwise, as far as Linux can try it: each function with what its platform would tell it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT, throw_away_home

from skinspire_db.errors import ServerFailed
from skinspire_db.postgres import processes, programs
from skinspire_db.postgres.embedded_server import EmbeddedServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="tries with ps, a shell and file modes")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    made = EmbeddedServer(throw_away_home(tmp_path_factory.mktemp("server")), durable=False)
    made.start()
    yield made
    made.destroy()


def pid_file(server: EmbeddedServer) -> tuple[int, float]:
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    return int(lines[0]), float(lines[2])


def test_a_server_and_a_reused_pid_as_ps_tells_them(server: EmbeddedServer) -> None:
    """On macOS the number in postmaster.pid may be that of a server that was started later, another cluster's."""
    pid, started = pid_file(server)
    alive, program, created = processes.ask_ps(pid)
    assert alive and program and "postgres" in program and created is not None and abs(created - started) < 60
    assert processes._is_postgres(alive, program, created, started)
    assert not processes._is_postgres(alive, program, created, started - 3600), "it began after the file was written"
    assert processes._is_postgres(alive, program, None, started), "what is not known is not no"
    assert not processes._is_postgres(*processes.ask_ps(os.getpid()), time.time()), "another program"
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert processes.ask_ps(ended.pid) == (False, None, None)


def test_what_the_system_does_not_say_is_not_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ps at all
    assert processes._is_postgres(*processes.ask_ps(os.getpid()), time.time())
    (tmp_path / "ps").write_text("#!/bin/sh\necho 'ps: not permitted' >&2; exit 1\n")
    (tmp_path / "ps").chmod(0o755)
    assert processes._is_postgres(*processes.ask_ps(os.getpid()), time.time())
    (tmp_path / "ps").write_text("#!/bin/sh\nprintf 'Mit 25 Nov 23:12:30 2026 /usr/bin/postgr\\351s\\n'\n")
    assert processes.ask_ps(1)[0] is True, "in another language and code page"


def test_a_pid_file_that_cannot_be_read_is_not_taken_for_a_dead_server(tmp_path: Path) -> None:
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    server.start()
    file = server.data / "postmaster.pid"
    try:
        aside = file.rename(file.with_name("postmaster.aside"))
        file.mkdir()
        try:
            with pytest.raises(ServerFailed, match="cannot read"):
                server.stop()
            with pytest.raises(ServerFailed, match="cannot read"):
                server.destroy()
            assert server.exists
        finally:
            file.rmdir()
            aside.rename(file)
        lines = file.read_bytes().splitlines()
        os.truncate(file, 0)
        file.write_bytes(b"\n".join([lines[0], "/srv/klinik-Zürich".encode("latin-1"), *lines[2:], b""]))
        assert server.status().pid == int(lines[0]), "a folder's name in another encoding"
    finally:
        server.destroy()


def test_the_folders_of_every_installer_are_found_newest_first(tmp_path: Path) -> None:
    root = tmp_path / "disk 99"  # whose own number says nothing
    folders = [
        "Applications/Postgres.app/Contents/Versions/18/bin",
        "opt/homebrew/opt/postgresql@17/bin",
        "Library/PostgreSQL/16/bin",
        "Program Files/PostgreSQL/15/bin",
        "opt/local/lib/postgresql14/bin",
        "usr/local/opt/postgresql@13/bin",
        "usr/lib/postgresql/12/bin",
        "usr/pgsql-11/bin",
        "opt/PostgreSQL/10/bin",
    ]
    for folder in reversed(folders):
        (root / folder).mkdir(parents=True)
    (root / "Library/PostgreSQL/9").mkdir()
    assert [each.relative_to(root).as_posix() for each in programs.usual_folders(root)] == folders


def test_programs_that_windows_cannot_load() -> None:
    """They end with a number and no text; how Python writes the number depends on its version."""
    assert processes.missing_library(0xC0000135) and processes.missing_library(0xC0000135 - (1 << 32))
    assert not any(processes.missing_library(code) for code in (0, 1, -11, 127))


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="needs another account than root's, whom no mode stops"
)
@pytest.mark.parametrize("patience, renamed", [(10, True), (0, False)])
def test_what_cannot_be_renamed_for_the_moment_is_tried_again(patience: int, renamed: bool) -> None:
    """As on Windows, where a scanner has the file open."""
    folder = throw_away_home(Path("/tmp"))
    folder.mkdir(mode=0o700)
    (folder / "new").write_text("whole")
    os.chown(folder, 65534, 65534)
    folder.chmod(0o500)
    code = (
        "import os; from pathlib import Path; from skinspire_db.config import project\n"
        f"os.setgroups([]); os.setgid(65534); os.setuid(65534); project.PATIENCE = {patience}; print('begun', flush=True)\n"
        f"project.replace(Path({str(folder / 'new')!r}), Path({str(folder / 'file')!r}))"
    )
    try:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"begun\n", process.communicate()[1]
        opener = threading.Timer(0.5, folder.chmod, (0o700,))
        if renamed:
            opener.start()
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode == 0) is renamed, complaint
        assert (folder / "file").exists() is renamed
    finally:
        (folder / "new").unlink(missing_ok=True)
        (folder / "file").unlink(missing_ok=True)
        folder.rmdir()


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="needs another account than root's, whom no mode stops"
)
def test_a_cluster_that_cannot_be_deleted_whole_is_not_called_gone(tmp_path: Path) -> None:
    """As on Windows, where a scanner has a file open."""
    home = throw_away_home(tmp_path)
    (home / "data" / "base").mkdir(parents=True)
    for name in ("PG_VERSION", "base/1"):
        (home / "data" / name).write_text("17\n")
    for path in (home, home / "data", home / "data" / "PG_VERSION"):
        os.chown(path, 65534, 65534)
    code = (
        "import os, filelock, psycopg; from pathlib import Path; from skinspire_db.errors import ServerFailed\n"
        "from skinspire_db.postgres.embedded_server import EmbeddedServer\n"
        f"os.setgroups([]); os.setgid(65534); os.setuid(65534); server = EmbeddedServer(Path({str(home)!r}))\n"
        "try:\n    server.destroy()\nexcept ServerFailed as error:\n    print(error.message)\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
        assert f"not all of {home / 'data.new'} could be deleted" in done.stdout, done.stderr
    finally:
        EmbeddedServer(home).destroy()
    assert not home.exists()


def test_ci_checks_the_types_of_every_platform() -> None:
    text = (CHECKOUT / ".ci/run").read_text()
    assert re.search(r"^\.venv/bin/mypy$", text, re.MULTILINE)
    for name in ("win32", "darwin"):  # each runs beside the others, and is waited for
        assert re.search(rf"^\.venv/bin/mypy --platform {name} .*skinspire_db tasks & {name}=\$!$", text, re.MULTILINE)
        assert f'wait "${name}"' in text
