"""The embedded server: it starts once, survives kills and reboots, and keeps its secrets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import CHECKOUT, Project, throw_away_home
from server_support import ROOT, opened

from skinspire_db.errors import ServerFailed
from skinspire_db.postgres.cluster import Address
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.programs import find_binaries, unprivileged_account


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(
        throw_away_home(tmp_path_factory.mktemp("server"))
    )  # the durable one: what was committed must survive kill -9
    server.start()
    yield server
    server.destroy()


@pytest.fixture
def embedded(shared: EmbeddedServer) -> EmbeddedServer:
    """A server that runs and holds a row."""
    with opened(shared.start()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (a int); DELETE FROM kept; INSERT INTO kept VALUES (42)")
    return shared


def holds_the_row(address: Address) -> bool:
    with opened(address) as connection:
        return connection.execute("SELECT a FROM kept").fetchall() == [(42,)]


def test_start_again_changes_nothing(embedded: EmbeddedServer) -> None:
    before = embedded.status()
    assert embedded.start() == embedded.address()
    assert embedded.status() == before


def test_stop_and_start_keep_port_and_rows(embedded: EmbeddedServer) -> None:
    port = embedded.start().port
    assert embedded.stop() is True
    assert embedded.status().running is False
    assert embedded.stop() is False
    address = embedded.start()
    assert address.port == port and holds_the_row(address)


def test_kill_9(embedded: EmbeddedServer) -> None:
    pid = embedded.status().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert holds_the_row(embedded.start())


def test_kill_9_of_server_whose_worker_is_busy(embedded: EmbeddedServer) -> None:
    """An orphaned backend keeps the shared memory for a while: starting must wait for it, not fail."""
    connection = opened(embedded.start())

    def work() -> None:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT pg_sleep(2)")

    busy = threading.Thread(target=work)
    busy.start()
    time.sleep(0.3)
    pid = embedded.status().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert holds_the_row(embedded.start())
    busy.join()
    connection.close()


def test_stale_pid_file_that_names_another_program(embedded: EmbeddedServer) -> None:
    """After a reboot the number in postmaster.pid can be any process's; PostgreSQL alone would refuse to start."""
    embedded.stop()
    other = subprocess.Popen(["sleep", "60"], user=embedded.account.uid if embedded.account else None)
    try:
        (embedded.data / "postmaster.pid").write_text(f"{other.pid}\n{embedded.data}\n1\n1\n\n127.0.0.1\n0 0\nready\n")
        assert embedded.status().running is False
        assert holds_the_row(embedded.start())
        assert other.poll() is None, "the other program must not be harmed"
    finally:
        other.kill()
        other.wait()


def test_garbage_in_the_pid_file(embedded: EmbeddedServer) -> None:
    embedded.stop()
    (embedded.data / "postmaster.pid").write_text("")
    assert holds_the_row(embedded.start())


@pytest.mark.slow
def test_port_taken_meanwhile(embedded: EmbeddedServer) -> None:
    port = embedded.start().port
    embedded.stop()
    with socket.create_server(("127.0.0.1", port)):
        address = embedded.start()
        assert address.port != port and holds_the_row(address)
    embedded.stop()
    assert embedded.start().port == address.port, "the new port is kept"


@pytest.mark.slow
def test_another_server_on_our_port_is_not_taken_for_ours(embedded: EmbeddedServer, tmp_path: Path) -> None:
    """One that lets every client in would be believed without SCRAM proving that it knows the password."""
    embedded.stop()
    impostor = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        impostor.start()
        impostor.stop()
        (impostor.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
        port = embedded.address().port  # type: ignore[union-attr]
        arguments = ("start", "-w", "-D", str(impostor.data), "-o", f"-c port={port}", "-l", str(impostor.log))
        done = impostor.binaries.run("pg_ctl", *arguments, account=impostor.account, folder=impostor.home)
        assert done.returncode == 0
        assert embedded.status().running is False
        assert holds_the_row(embedded.start())
    finally:
        impostor.destroy()


def test_two_tasks_starting_it_at_once(embedded: EmbeddedServer) -> None:
    embedded.stop()
    env = {**os.environ, "SKINSPIRE_PG_HOME": str(embedded.home)}
    command = [sys.executable, "-m", "invoke", "-r", str(CHECKOUT), "server.start", "--json"]
    tasks = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [json.loads(task.communicate(timeout=60)[0]) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0]
    assert len({answer["pid"] for answer in answers}) == 1


def test_secrets_are_the_owners_alone(embedded: EmbeddedServer) -> None:
    assert stat.S_IMODE(embedded.home.stat().st_mode) == 0o700
    assert stat.S_IMODE((embedded.home / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(embedded.data.stat().st_mode) == 0o700
    address = embedded.start()
    assert address.password not in repr(address)
    with opened(address) as connection:
        settings: dict[str, str] = dict(
            connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name IN ('listen_addresses', 'unix_socket_directories', 'password_encryption')"
            ).fetchall()
        )
    assert settings == {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
    }
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(**{**address.parameters, "password": "wrong"}, dbname="postgres")


def test_a_copied_server_is_a_server_of_its_own(embedded: EmbeddedServer, tmp_path: Path) -> None:
    """As `cp -a` of a checkout makes one, while the original runs."""
    embedded.stop()
    home = throw_away_home(tmp_path)
    subprocess.run(["cp", "-a", str(embedded.home), str(home)], check=True)
    original = embedded.start()
    shutil.copy(embedded.data / "postmaster.pid", home / "data" / "postmaster.pid")
    copy = EmbeddedServer(home)
    try:
        assert copy.status().running is False and copy.address() is None
        address = copy.start()
        assert address.port != original.port
        with opened(address) as connection:
            connection.execute("DELETE FROM kept")
        assert holds_the_row(original)
    finally:
        copy.destroy()
    assert holds_the_row(original)


def test_binaries_that_are_named_but_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKINSPIRE_PG_BIN", str(tmp_path))
    with pytest.raises(ServerFailed, match="no usable PostgreSQL server programs"):
        find_binaries()


def test_binaries_that_are_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("postgres", "initdb", "pg_ctl"):
        (tmp_path / tool).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.3'\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("SKINSPIRE_PG_BIN", str(tmp_path))
    with pytest.raises(ServerFailed, match="is PostgreSQL 12; needed is 15 or newer"):
        find_binaries()


@pytest.mark.skipif(not ROOT, reason="only root needs another account")
def test_root_runs_it_as_another_account(embedded: EmbeddedServer) -> None:
    status = Path(f"/proc/{embedded.status().pid}/status").read_text()
    uid = int(status.partition("Uid:\t")[2].split()[0])
    assert embedded.account and uid == embedded.account.uid != 0


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="only root's binaries can lie where another account cannot enter")
def test_root_with_binaries_in_a_closed_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    shutil.copytree(find_binaries().folder.parent, closed / "pg install", symlinks=True)
    closed.chmod(0o700)
    monkeypatch.setenv("SKINSPIRE_PG_BIN", str(closed / "pg install" / "bin"))
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        with opened(server.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        copy = server.binaries.folder.parent
        assert not copy.is_relative_to(closed)
    finally:
        server.destroy()
    shutil.rmtree(copy, ignore_errors=True)  # in the server's own folder it went with that


@pytest.mark.skipif(not ROOT, reason="only root chooses an account")
def test_an_account_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKINSPIRE_PG_ACCOUNT", "nobody-at-all")
    with pytest.raises(ServerFailed, match="refuses to run as root"):
        unprivileged_account(tmp_path / "new")


@pytest.mark.slow
def test_the_server_of_the_tests(make_project: Callable[..., Project], tmp_path: Path) -> None:
    """It is stopped and deleted together with the other one, and alone where there is no other."""
    project = make_project()
    home = throw_away_home(tmp_path)
    project.env = {"SKINSPIRE_PG_HOME": str(home)}
    tests = EmbeddedServer(home.with_name(f"{home.name}-test"), durable=False)
    try:
        tests.start()
        status = project.invoke("server.status", "--json").json
        assert (status["running"], status["tests"]["running"]) == (False, True)
        assert project.invoke("server.stop").out == "the server was not running; that of the tests has stopped too\n"
        assert project.invoke("server.destroy").code == 2
        assert project.invoke("server.destroy", f"--confirm={tests.home.name}").code == 0
        assert not tests.exists
        tests.start(), project.invoke("server.start")
        assert project.invoke("server.destroy", f"--confirm={home.name}").code == 0
        assert not tests.exists and not home.exists()
    finally:
        for server in (tests, EmbeddedServer(home)):
            server.destroy()


def test_a_throw_away_server_is_made_anew_after_a_boot(tmp_path: Path) -> None:
    """What it had not written when the power went is lost, and it would not notice."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        first = server.start()
        server.stop()
        assert server.start().password == first.password
        server.stop()
        (server.home / "boot").write_text("another run of the computer")
        assert server.start().password != first.password
    finally:
        server.destroy()


def test_the_server_tasks(make_project: Callable[..., Project], tmp_path: Path) -> None:
    project = make_project()
    project.env = {"SKINSPIRE_PG_HOME": str(throw_away_home(tmp_path))}
    assert project.invoke("server.status", "--json").json["running"] is False
    assert project.invoke("--dry", "server.start").code == 0
    assert project.invoke("server.status", "--json").json["port"] is None
    try:
        answer = project.invoke("server.start", "--json").json
        assert answer["running"] and answer["version"] == "17"
        assert project.invoke("server.stop").out == "the server has stopped\n"
        assert project.invoke("server.stop").out == "the server was not running\n"
        assert project.invoke("db.setup", "--env=test").code == 0, "started on demand"
        refused = project.invoke("server.destroy")
        assert refused.code == 2
    finally:
        command = refused.err.partition("-> invoke ")[2].split()
        assert project.invoke(*command).code == 0
    assert not Path(project.env["SKINSPIRE_PG_HOME"]).exists()
