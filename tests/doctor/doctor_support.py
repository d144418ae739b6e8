"""What the tests of db.doctor share: the diagnosis ends at one link or finds nothing; projects and a role to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Project

ASK = "ask the administrator for: "
QUICK = "[tool.skinspire_db.environments.dev]\nconnect_timeout = 1\nlock_timeout = 0.3\n"


def broken(project: Project, link: str, says: str) -> str:
    """The diagnosis ends at this link, which says this; all before it hold. Returns the remedy."""
    outcome = project.invoke("db.doctor", "--json")
    assert outcome.code == 1, outcome.out + outcome.err
    answer: dict[str, Any] = outcome.json
    assert (answer["ok"], answer["exit_code"], answer["error"]["type"]) == (False, 1, "ChecksFailed")
    *before, last = answer["checks"]
    assert (last["name"], last["status"]) == (link, "fail"), answer["checks"]
    assert says in last["detail"], last["detail"]
    assert {check["status"] for check in before} <= {"pass"}, before
    assert answer["error"]["message"] == f"{link}: {last['detail']}"
    remedy: str = answer["error"]["remedy"]
    assert remedy
    return remedy


def healthy(project: Project) -> dict[str, str]:
    """The diagnosis finds nothing. Returns what each link says."""
    outcome = project.invoke("db.doctor", "--json")
    assert outcome.code == 0, outcome.out + outcome.err
    return {check["name"]: check["detail"] for check in outcome.json["checks"]}


def follow(project: Project, remedy: str) -> None:
    """Type the remedy, or as the administrator run what is to be asked for."""
    if remedy.startswith(ASK):
        project.execute(remedy.removeprefix(ASK))
        return
    assert remedy.startswith("invoke "), remedy
    outcome = project.invoke(*remedy.split(",")[0].split()[1:])
    assert outcome.code == 0, outcome.err


@pytest.fixture
def quick(make_project: Callable[..., Project], template: str) -> Project:
    """A clinic whose connections and locks are not waited for long."""
    project = make_project(QUICK)
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    return project


@pytest.fixture
def nowhere(make_project: Callable[..., Project]) -> Project:
    """A project whose connections are not waited for long, and that has no database yet."""
    return make_project(QUICK)


@pytest.fixture
def role(clinic: Project) -> Iterator[str]:
    """An ordinary role that may do everything in the clinic, and that the URL names."""
    name = f"plain {clinic.database}"
    clinic.execute(
        f'CREATE ROLE "{name}" LOGIN CREATEDB PASSWORD \'p\'; GRANT ALL ON ALL TABLES IN SCHEMA public, skinspire_tools TO "{name}";'
        f' GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{name}"; GRANT USAGE ON SCHEMA public, skinspire_tools TO "{name}"'
    )
    clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database, user=name.replace(" ", "%20"), password="p")
    yield name
    clinic.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')
