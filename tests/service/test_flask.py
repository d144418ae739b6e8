"""The Flask application of docs/service.md, as it stands there: a session per request, the signed-in user, nothing left by a failure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import CHECKOUT, Project
from service_app import checked_out, service  # noqa: F401

EXAMPLE = re.search(r"```python\n(from flask import.*?)```", (CHECKOUT / "docs/service.md").read_text(), re.DOTALL)


@pytest.fixture
def client(clinic: Project, service: Callable[[Project], Project]) -> Iterator[Any]:
    service(clinic)
    assert EXAMPLE
    module: dict[str, Any] = {"__name__": "app"}
    exec(compile(EXAMPLE[1], "service.md", "exec"), module)
    with module["app"].test_client() as opened:
        yield opened


def test_a_request_is_one_unit_of_work(clinic: Project, client: Any) -> None:
    answer = client.post("/hospitals", json={"name": "t:a"}, headers={"X-User": "9876543210"})
    assert answer.status_code == 201
    found = clinic.query("SELECT hospital_id::text, created_by FROM hospitals WHERE name = 't:a'")
    assert found == [(answer.json, "9876543210")]
    before = clinic.dump()
    assert "t:a" in client.get("/hospitals", headers={"X-User": "1"}).json
    assert client.get(f"/hospitals/{answer.json}", headers={"X-User": "1"}).json == "t:a"
    assert clinic.dump() == before, "a GET changes nothing"


def test_a_view_that_raises_leaves_nothing_behind(clinic: Project, client: Any) -> None:
    assert client.post("/hospitals", json={"name": "t:b"}).status_code == 401
    unknown_key = "00000000-0000-0000-0000-000000000000"
    assert client.get(f"/hospitals/{unknown_key}", headers={"X-User": "1"}).status_code == 500
    assert client.post("/hospitals", json={}, headers={"X-User": "1"}).status_code == 500
    clinic.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$;"
                   "CREATE CONSTRAINT TRIGGER no AFTER INSERT ON hospitals DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
                   " WHEN (NEW.name = 't:late') EXECUTE FUNCTION no()")  # fmt: skip
    late = client.post("/hospitals", json={"name": "t:late"}, headers={"X-User": "1"})
    assert late.status_code == 500, "the answer waits for the commit"
    assert clinic.query("SELECT count(*) FROM hospitals WHERE name LIKE 't:%'") == [(0,)]
    assert client.post("/hospitals", json={"name": "t:c"}, headers={"X-User": "2"}).status_code == 201
    assert clinic.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%'") == [("t:c", "2")]
    assert checked_out() == 0
