"""The embedded server's folders: whose they are, when they are copied, abandoned or not ours, and how they go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, throw_away_home
from server_support import ROOT, opened

from skinspire_db.config import project as settings
from skinspire_db.errors import GuardRefused, ServerFailed
from skinspire_db.postgres import data_folders
from skinspire_db.postgres import embedded_server as server_module
from skinspire_db.postgres.embedded_server import EmbeddedServer


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
def test_a_server_that_is_used_outlives_its_checkout(
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
