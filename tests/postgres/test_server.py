"""The embedded server survives what servers meet."""

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
from typing import Any

import psycopg
import pytest
from conftest import CHECKOUT, Project, throw_away_home

from skinspire_db.config import project as settings
from skinspire_db.errors import GuardRefused, ServerFailed
from skinspire_db.postgres import data_folders
from skinspire_db.postgres import embedded_server as server_module
from skinspire_db.postgres.cluster import Address
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.programs import find_binaries, unprivileged_account

ROOT = sys.platform != "win32" and os.geteuid() == 0


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


def opened(address: Address) -> psycopg.Connection:
    return psycopg.connect(**address.parameters, dbname="postgres", autocommit=True)


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


def test_interrupted_initdb_is_begun_anew(tmp_path: Path) -> None:
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    (server.home / "data.new").mkdir(parents=True)
    (server.home / "data.new" / "PG_VERSION").write_text("17")
    (server.home / "data").mkdir()
    try:
        with opened(server.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.destroy()
    assert not server.home.exists()


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    mode = tmp_path.stat().st_mode
    with pytest.raises(ServerFailed, match="holds other things"):
        EmbeddedServer(tmp_path).start()
    assert tmp_path.stat().st_mode == mode
    with pytest.raises(GuardRefused, match="no embedded server"):
        server_module.destroy(EmbeddedServer(tmp_path), confirm=tmp_path.name)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_data_that_is_no_cluster_is_not_taken(tmp_path: Path) -> None:
    home = throw_away_home(tmp_path)
    (home / "data").mkdir(parents=True)
    (home / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(ServerFailed, match="no cluster and not empty"):
        EmbeddedServer(home).start()
    assert (home / "data" / "thesis.txt").read_text() == "mine"
    shutil.rmtree(home)


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


@pytest.mark.skipif(not ROOT, reason="ordinary users' servers lie in the checkout")
def test_a_copied_checkout_of_roots_gets_a_server_of_its_own_and_a_moved_one_keeps_it(tmp_path: Path) -> None:
    first, copy, moved = (tmp_path / name for name in ("first", "copy", "moved"))
    first.mkdir()
    home = server_module.project_server(settings.Project(first, {})).home
    assert server_module.project_server(settings.Project(first, {})).home == home
    shutil.copytree(first, copy)
    other = server_module.project_server(settings.Project(copy, {})).home
    assert other != home and server_module.project_server(settings.Project(copy, {})).home == other
    first.rename(moved)
    assert server_module.project_server(settings.Project(moved, {})).home == home
    for nonsense in ("", "/etc", "../../etc\n"):
        (moved / ".skinspire/server-id").write_text(nonsense)
        assert server_module.project_server(settings.Project(moved, {})).home.parent == data_folders.ROOT_HOMES


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where root's servers lie; not the machine's own, which others use."""
    where = throw_away_home(Path())
    where.mkdir(mode=0o755)
    monkeypatch.setattr(data_folders, "ROOT_HOMES", where)
    yield where
    for home in where.iterdir():
        if home.is_dir() and home.name != "checkouts":
            EmbeddedServer(home).destroy()
    shutil.rmtree(where)


@pytest.mark.skipif(not ROOT, reason="ordinary users' servers lie in the checkout and go with it")
@pytest.mark.parametrize("near", [True, False], ids=["one file system", "two file systems"])
def test_the_servers_of_checkouts_that_are_gone(
    make_project: Callable[..., Project], homes: Path, tmp_path: Path, near: bool
) -> None:
    project = make_project()
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    project.env = {}
    own = server_module.project_server(settings.Project(project.root, {})).home
    parent = homes / "checkouts" if near else tmp_path
    at = {name: parent / name for name in ("kept", "gone", "moved", "cleaned", "replaced", "unmounted", "emptied")}
    home = {}
    for name, root in at.items():
        root.mkdir(parents=True)
        home[name] = server_module.project_server(settings.Project(root, {})).home
        (home[name] / "data").mkdir(parents=True)
        (home[name] / "data" / "PG_VERSION").write_text("17\n")
    (homes / "0123456789ab").mkdir()  # from before anything was noted
    for name in ("gone", "replaced", "unmounted"):
        shutil.rmtree(at[name])
    at["replaced"].mkdir()
    assert server_module.project_server(settings.Project(at["replaced"], {})).home != home["replaced"]
    shutil.rmtree(at["cleaned"] / ".skinspire")
    at["moved"].rename(parent / "elsewhere")
    if near:
        assert not any(Path(each["home"]) == home["moved"] for each in orphans(project)), (
            "before any command in its new place"
        )
    assert server_module.project_server(settings.Project(parent / "elsewhere", {})).home == home["moved"]
    (homes / f"{home['unmounted'].name}.checkout").write_text(f"{home['unmounted'].name}\n/mnt/clinic\n/mnt\n")
    states = {Path(each["home"]).name: each["state"] for each in orphans(project)}
    assert states == {
        home["gone"].name: "gone", home["replaced"].name: "gone", home["cleaned"].name: "not known",
        home["unmounted"].name: "not mounted", "0123456789ab": "not known",
    }  # fmt: skip
    assert f"{home['gone']}" in project.invoke("server.status").out
    refused = project.invoke("server.destroy", "--orphans")
    assert refused.code == 2 and str(at["gone"]) in refused.err
    for wrong in (home["kept"].name, home["cleaned"].name, f"{home['gone'].name},{own.name}", "yes"):
        assert project.invoke("server.destroy", "--orphans", f"--confirm={wrong}").code == 2
    command = refused.err.partition("-> invoke ")[2].split()
    assert project.invoke("--dry", *command).code == 0 and home["gone"].exists()
    answer = project.invoke(*command, "--json").json
    assert sorted(answer["homes"]) == sorted(str(home[name]) for name in ("gone", "replaced"))
    assert {name for name, each in home.items() if each.exists()} == at.keys() - {"gone", "replaced"}
    assert project.invoke("server.destroy", "--orphans").code == 2, "there are none any more"


def orphans(project: Project) -> list[dict[str, Any]]:
    return list(project.invoke("server.status", "--json").json["orphans"])


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="ordinary users' servers lie in the checkout and go with it")
def test_a_server_that_somebody_uses_outlives_its_checkout(
    make_project: Callable[..., Project], homes: Path, tmp_path: Path
) -> None:
    """A server that only runs, as it was left, is stopped and goes."""
    project = make_project()
    project.env = {}
    root = tmp_path / "checkout"
    root.mkdir()
    server = server_module.project_server(settings.Project(root, {}))
    address = server.start()
    shutil.rmtree(root)
    confirm = ("server.destroy", "--orphans", f"--confirm={server.home.name}")
    with opened(address) as connection:
        outcome = project.invoke(*confirm)
        assert outcome.code == 2 and "is in use" in outcome.err
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert project.invoke(*confirm).code == 0
    assert not server.home.exists() and not list(homes.glob(f"{server.home.name}*"))


def test_a_folder_that_cannot_be_written(project: Project) -> None:
    """/proc takes nothing, not even from root."""
    project.env = {"SKINSPIRE_PG_HOME": "/proc/skinspire"}
    outcome = project.invoke("db.setup")
    assert outcome.code == 1
    assert "cannot write to the server's folder /proc/skinspire" in outcome.err
    assert "SKINSPIRE_PG_HOME" in outcome.err.partition("->")[2]


def test_destroy_asks_and_then_leaves_nothing(tmp_path: Path) -> None:
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    server.start()
    for wrong in (None, "yes"):
        with pytest.raises(GuardRefused, match="deletes every database"):
            server_module.destroy(server, confirm=wrong)
    assert server.status().running
    server_module.destroy(server, confirm=server.home.name)
    assert not server.home.exists()
    with pytest.raises(GuardRefused, match="no embedded server"):
        server_module.destroy(server, confirm=server.home.name)


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
def test_root_runs_it_as_somebody_else(embedded: EmbeddedServer) -> None:
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
    shutil.rmtree(copy)


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
