"""A database for each branch: made from the branch it came from, found again after a switch, dropped when merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Project
from service_app import service as service
from support import leftovers
from test_trigger_files import git

from skinspire_db.database_service import close_db_connections, get_db_session


@pytest.fixture
def checkout(clinic: Project, service: Callable[[Project], Project]) -> Iterator[Project]:
    """A project under git, on main, whose dev has a database for each branch; the plain one is set up."""
    (clinic.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\ndatabase_per_branch = true\n")
    git(clinic.root, "init", "-q", "-b", "main")
    git(clinic.root, "add", "-A")
    git(clinic.root, "commit", "-q", "-m", "1")
    yield service(clinic)
    close_db_connections()
    for left in leftovers(clinic):
        clinic.execute(f'DROP DATABASE "{left}" WITH (FORCE)', "postgres")


def on(checkout: Project, branch: str, option: str = "", *start: str) -> Any:
    """Switch, prepare, and what that answers."""
    git(checkout.root, "switch", "-q", *([option] if option else []), branch, *start)
    done = checkout.invoke("db.prepare", "--json")
    assert done.code == 0, done.out
    return done.json


def steps(done: Any) -> list[str]:
    return [step["name"] for step in done["steps"]]


@pytest.mark.slow
def test_each_branch_finds_its_database_as_it_left_it(checkout: Project) -> None:
    plain = checkout.database
    absent = checkout.invoke("db.verify")
    assert absent.code == 1 and f"{plain}__main does not exist" in absent.err and "db.prepare --env=dev" in absent.err
    planned = checkout.invoke("--dry", "db.prepare", "--json")
    assert planned.code == 0 and f"create the database {plain}__main" in planned.json["would"], planned.out
    first = checkout.invoke("db.prepare", "--json")
    assert first.code == 0 and first.json["database"] == f"{plain}__main", first.out
    assert first.json["steps"][0]["summary"] == {"database": plain, "MB": 9, "method": "template"}
    checkout.execute("UPDATE patients SET last_name = 'OfMain'", f"{plain}__main")
    feature = on(checkout, "feature/Über", "-c")
    name = feature["database"]
    assert feature["steps"][0]["summary"]["database"] == f"{plain}__main" and name.startswith(f"{plain}__feature_ber_")
    assert checkout.query("SELECT DISTINCT last_name FROM patients", name) == [("OfMain",)]
    # A database with a revision that this branch has not got is no origin; the next likely one is.
    checkout.execute("INSERT INTO alembic_version VALUES ('0ther')", f"{plain}__main")
    assert on(checkout, "older", "-c", "main")["steps"][0]["summary"]["database"] == name
    checkout.execute("DELETE FROM alembic_version WHERE version_num = '0ther'", f"{plain}__main")
    git(checkout.root, "switch", "-q", "feature/Über")
    with get_db_session("dev") as session:
        session.connection().exec_driver_sql("UPDATE patients SET last_name = 'OfFeature'")
    assert checkout.invoke("db.url").out.strip().endswith(name)
    assert name in checkout.invoke("--dry", "db.shell").out and "feature/Über" in checkout.invoke("env.status").out
    assert steps(on(checkout, "main")) == []
    for branch, patient in (("main", "OfMain"), ("feature/Über", "OfFeature"), ("main", "OfMain")):
        git(checkout.root, "switch", "-q", branch)
        with get_db_session("dev") as session:  # the running application follows
            assert session.connection().exec_driver_sql("SELECT DISTINCT last_name FROM patients").scalar() == patient
    # What is merged, and what has no branch, is offered.
    (checkout.root / "f").write_text("1")
    git(checkout.root, "add", "-A")
    git(checkout.root, "commit", "-q", "-m", "2")
    assert steps(on(checkout, "gone", "-c"))[:3] == ["source", "copy", "compare"]
    git(checkout.root, "switch", "-q", "main")
    git(checkout.root, "branch", "-q", "-D", "gone")
    close_db_connections()
    assert checkout.invoke("snapshot.take", "--name=before").code == 0
    shown = checkout.invoke("snapshot.list", "--json").json
    assert {(each["branch"], each["state"]) for each in shown["branches"]} == {
        ("main", "present"), ("feature/Über", "merged"), ("older", "merged"), ("gone", "no such branch")
    }  # fmt: skip
    assert [each["name"] for each in shown["snapshots"]] == ["before"]
    refused = checkout.invoke("snapshot.drop", "--branch=main")
    assert refused.code == 2 and "main is checked out here" in refused.err
    with checkout.connect(name, application_name="the web"):
        refused = checkout.invoke("snapshot.drop", "--branch=feature/Über")
        assert refused.code == 2 and "in use by the web" in refused.err
    for branch in ("feature/Über", "gone"):
        dropped = checkout.invoke("snapshot.drop", f"--branch={branch}")
        assert dropped.code == 0, dropped.err
        assert checkout.invoke("snapshot.drop", f"--branch={branch}").code == 1
    assert checkout.invoke("snapshot.drop", "--branch=x", "--name=y").code == 2
    assert checkout.invoke("snapshot.drop", "--branch=x", "--env=test").code == 2
    # A detached head, and no git at all.
    git(checkout.root, "switch", "-q", "--detach")
    assert "__commit-" in on(checkout, "HEAD", "--detach")["database"]
    (checkout.root / ".git").rename(checkout.root / "elsewhere")
    listed = checkout.invoke("snapshot.list", "--json").json
    assert listed["database"] == plain and "is in no git checkout" in listed["notes"][0]
