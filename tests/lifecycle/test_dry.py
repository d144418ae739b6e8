"""--dry: what the real run would begin with, its refusal or its exit code, and nothing is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Project, throw_away_home

LIVE = '[tool.skinspire_db.environments.live]\nextends = "prod"\n'
WRITES = (
    ["db.setup"], ["db.prepare"], ["db.reset"], ["db.create"], ["db.create", "--update-only"], ["db.seed"], ["db.undo"],
    ["db.copy", "--source=test"], ["env.stamp"], ["env.unstamp"], ["triggers.install"], ["triggers.disable", "--name=timestamps"],
    ["triggers.enable", "--name=timestamps"], ["migrate.new", "--message=x"], ["migrate.upgrade"], ["migrate.downgrade"],
    ["migrate.stamp"], ["backup.create"], ["backup.restore"], ["backup.verify"],
)  # fmt: skip


def of(task: list[str], name: str) -> list[str]:
    return [*task, f"--target={name}" if task[0] == "db.copy" else f"--env={name}"]


def state(project: Project) -> Any:
    """All that could change: databases, what they hold, files but for caches."""
    names = [name for (name,) in project.query("SELECT datname FROM pg_database ORDER BY 1", "postgres")]
    mine = [name for name in names if project.database.partition("_")[2] in name]
    files = [
        (path, path.read_bytes())
        for path in sorted(project.root.rglob("*"))
        if path.is_file() and not {"__pycache__", ".skinspire"} & {*path.parts}
    ]
    return mine, {name: project.dump(name) for name in mine}, files


@contextlib.contextmanager
def unchanged(project: Project) -> Iterator[None]:
    before = state(project)
    yield
    assert state(project) == before


def dry(project: Project, *task: str) -> Outcome:
    with unchanged(project):
        return project.invoke("--dry", *task)


@pytest.fixture
def live(make_project: Callable[..., Project], template: str) -> Project:
    """A protected environment, set up."""
    project = make_project(LIVE)
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    project.env["TEMPLATE"] = template
    return prepare(project, "protected")


def prepare(project: Project, case: str) -> Project:
    """Put the database into the state of that case."""
    project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
    if case != "missing":
        made = "template0" if case == "empty" else project.env["TEMPLATE"]
        project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {made} STRATEGY FILE_COPY', "postgres")
    if case in ("protected", "another's stamp"):
        project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'")
    if case == "no stamp":
        project.execute("DELETE FROM skinspire_tools.stamp")
    return project


CASES = pytest.mark.parametrize("case", ["protected", "another's stamp", "no stamp", "missing", "empty"])


def ends(live: Project, case: str) -> dict[str, tuple[list[str], Outcome]]:
    """How the dry runs of all tasks end."""
    prepare(live, case)
    tasks = {" ".join(task): of(task, "live" if case == "protected" else "dev") for task in WRITES}
    with unchanged(live):
        return {name: (task, live.invoke("--dry", *task)) for name, task in tasks.items()}


@pytest.mark.parametrize(
    "case",
    [
        "protected",
        "missing",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("another's stamp", "no stamp", "empty")),
    ],
)
def test_it_is_refused_as_the_real_run_is(live: Project, case: str) -> None:
    """The same words and the same exit code."""
    for task, looked in ends(live, case).values():
        if looked.code == 0:
            assert "would run" in looked.out and "nothing was changed" in looked.out
        else:
            real = live.invoke(*task)
            assert (looked.code, looked.err) == (real.code, real.err.replace("; the database is as it was", "")), task


@pytest.mark.slow
@CASES
def test_the_real_run_does_what_the_dry_one_let_pass(live: Project, case: str) -> None:
    for task, looked in ends(live, case).values():
        if looked.code == 0:
            prepare(live, case)
            real = live.invoke(*task)
            assert real.code == 0, f"{task}: {real.err}"


def test_what_is_confirmed_and_the_backup_are_said(live: Project) -> None:
    outcome = dry(live, "db.setup", "--env=live", f"--confirm={live.database}")
    assert outcome.code == 0, outcome.err
    where = live.root / "backups"
    assert f"would take a backup in {where} first, and prove it by a restore\n" in outcome.out
    assert f"as --confirm={live.database} allows\n" in outcome.out and "would destroy what" in outcome.out
    answer = dry(live, "db.setup", "--env=live", f"--confirm={live.database}", "--json").json
    assert (answer["dry"], answer["ok"], answer["exit_code"], answer["backup"]) == (True, True, 0, str(where))
    assert answer["plan"] == ["reset", "create", "triggers", "seed", "verify"]
    refused = dry(live, "db.setup", "--env=live", "--json").json
    assert (refused["dry"], refused["ok"], refused["exit_code"]) == (True, False, 2)
    assert refused["error"]["remedy"] == f"invoke db.setup --env=live --confirm={live.database}"
    assert not where.exists()


@pytest.mark.parametrize("task", ["db.setup", "db.reset", "db.undo", "migrate.stamp", "backup.restore"])
def test_a_confirmation_that_names_another_database(live: Project, task: str) -> None:
    live.invoke("backup.create", "--env=live")
    outcome = dry(live, task, "--env=live", "--confirm=other")
    assert outcome.code == 2 and "--confirm=other does not name it" in outcome.err


def test_invented_people_are_refused_in_a_protected_environment(live: Project) -> None:
    for task in ("db.seed", "db.setup", "db.prepare"):
        outcome = dry(
            live, task, "--env=live", "--patients=3", f"--confirm={live.database}" if task != "db.seed" else "--doctors=2"
        )
        assert outcome.code == 2 and "test data is never seeded" in outcome.err


def test_a_database_in_use_is_said(clinic: Project) -> None:
    with clinic.connect(application_name="skinspire-db db.setup") as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(%s)", (0x5C1F_DB,))
        outcome = clinic.invoke("--dry", "db.reset")
        other.execute("ROLLBACK")
    assert outcome.code == 0 and "would wait for skinspire-db db.setup (pid " in outcome.out


def test_a_copy_looks_at_its_source(clinic: Project) -> None:
    outcome = dry(clinic, "db.copy", "--source=dev", "--target=test")
    assert outcome.code == 0 and "would create the database" in outcome.out and "template" in outcome.out
    assert "does not exist" in dry(clinic, "db.copy", "--source=test", "--target=dev").err


def test_pending_reference_data_is_not_tried(clinic: Project) -> None:
    """Trying it takes numbers from sequences, which no rollback gives back."""
    clinic.execute("DELETE FROM role_module_access; DELETE FROM parameter_settings")
    outcome = dry(clinic, "db.prepare")
    assert outcome.code == 0 and "would run upgrade -> triggers -> seed" in outcome.out


def test_a_role_that_may_not_create_databases(clinic: Project) -> None:
    role = f"plain_{clinic.database}"
    clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'", "postgres")
    try:
        clinic.env["TEST_DATABASE_URL"] = clinic.url(f"test_{clinic.database}", user=role, password="p")
        for task in (["db.setup"], ["db.create"], ["db.prepare"]):
            outcome = dry(clinic, *of(task, "test"))
            assert outcome.code == 1 == clinic.invoke(*of(task, "test")).code and "may not create databases" in outcome.err
    finally:
        clinic.execute(f"DROP ROLE {role}", "postgres")


def test_backups_are_looked_at_and_left_alone(clinic: Project) -> None:
    assert clinic.invoke("backup.create").code == 0
    [backup] = (clinic.root / "backups").glob("dev-*")
    assert dry(clinic, "backup.verify").code == 0
    assert dry(clinic, "backup.restore").code == 0
    clinic.invoke("backup.create")
    outcome = dry(clinic, "backup.prune", "--daily=0", "--weekly=0", "--monthly=0", "--apply")
    assert outcome.code == 0 and "1 to delete" in outcome.out
    damaged = next(path for path in sorted((backup / "data").iterdir()) if path.name != "toc.dat")
    damaged.write_bytes(damaged.read_bytes() + b"x")
    for task in ("backup.verify", "backup.restore"):
        assert dry(clinic, task, f"--file={backup.name}").code == clinic.invoke(task, f"--file={backup.name}").code == 1


def test_one_head_is_nothing_to_merge(project: Project) -> None:
    assert dry(project, "migrate.merge").code == project.invoke("migrate.merge").code == 2


@pytest.mark.slow
def test_no_server_is_made_and_its_end_is_guarded(project: Project, tmp_path: Path) -> None:
    home = throw_away_home(tmp_path)
    project.env = {"SKINSPIRE_PG_HOME": str(home)}
    expected = {"db.setup": 0, "db.prepare": 0, "db.reset": 0, "db.seed": 1, "migrate.upgrade": 1, "db.undo": 1}
    for task, code in (expected | {"server.start": 0, "backup.create": 1, "server.destroy": 2}).items():
        outcome = project.invoke("--dry", task)
        assert (outcome.code, home.exists()) == (code, False), f"{task}: {outcome.out}{outcome.err}"
    try:
        assert project.invoke("server.start").code == 0
        assert project.invoke("--dry", "server.destroy").err == project.invoke("server.destroy").err
        outcome = project.invoke("--dry", "server.destroy", f"--confirm={home.name}")
        assert outcome.code == 0 and f"would delete {home}" in outcome.out
        assert project.invoke("server.stop").code == 0
        outcome = project.invoke("--dry", "db.setup")
        assert outcome.code == 0 and "would create the database skinspire_dev" in outcome.out
    finally:
        assert project.invoke("server.destroy", f"--confirm={home.name}").code == 0
