"""db.page: one file, written whole or not at all, that holds what the other commands answer and runs nothing but its own script."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

HOSTILE = """
    CREATE TABLE "<img src=x onerror=alert(1)>" (id int PRIMARY KEY, "</script><script>alert(2)</script>" text DEFAULT '<b>x</b>', "@@DATA@@" int);
    COMMENT ON TABLE "<img src=x onerror=alert(1)>" IS '<script>alert(3)</script>';
"""


def data_of(path: Path) -> list[dict[str, Any]]:
    """What the page's script reads."""
    found = re.search(r'<script id="data" type="text/plain">([^<]*)</script>', path.read_text(encoding="utf-8"))
    assert found
    contents = json.loads(gzip.decompress(base64.b64decode(found[1])))
    assert isinstance(contents, list)
    return contents


def test_the_page_holds_what_the_commands_answer_and_no_name_is_markup(clinic: Project) -> None:
    clinic.execute(HOSTILE)
    outcome = clinic.invoke("db.page", "--output=a page.html", "--json")
    answer = json.loads(outcome.out)
    path = clinic.root / "a page.html"
    assert (outcome.code, answer["ok"], answer["file"]) == (0, True, str(path))
    page = path.read_text(encoding="utf-8")
    assert "onerror" not in page and "alert(" not in page and page.count("<script") == page.count("</script>") == 3
    [contents] = data_of(path)
    parts = contents["parts"]
    assert not contents["unknown"]
    tables = {table["table"]: table for table in parts["schema"]["tables"]}
    assert len(tables) == 14 and tables["<img src=x onerror=alert(1)>"]["comment"] == "<script>alert(3)</script>"
    columns = {column["column"]: column for column in tables["patients"]["columns"]}
    assert columns["updated_at"]["written_by"] == ["_100_timestamps"] and columns["first_name"]["written_by"] == []
    [timestamps] = [each for each in tables["patients"]["triggers"] if each["trigger"] == "_100_timestamps"]
    assert (
        timestamps["file"] == "timestamps"
        and timestamps["proved_at"]
        and "BEFORE INSERT OR UPDATE" in timestamps["definition"]
    )
    assert {check["name"] for check in parts["verify"]} >= {"tables", "triggers"} and parts["doctor"]
    assert [each["state"] for each in parts["migrations"]] == ["applied"] * 2 and all(
        each["at"] for each in parts["migrations"]
    )
    assert parts["journal"][0]["operation"] == "db.setup" and parts["drift"] and parts["sql_files"] and parts["masks"]


def test_the_browser_may_load_nothing_and_run_only_the_two_scripts_of_the_page(clinic: Project) -> None:
    assert clinic.invoke("db.page").code == 0
    page = (clinic.root / f"{clinic.database}.html").read_text(encoding="utf-8")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert found
    policy = dict(each.strip().split(" ", 1) for each in found[1].split(";"))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts]
    assert policy["default-src"] == "'none'" and policy["script-src"].split() == hashes and len(hashes) == 2
    assert "unsafe" not in found[1]


@pytest.mark.slow
def test_two_environments_beside_each_other(clinic: Project, template: str) -> None:
    test = clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    clinic.execute(f'CREATE DATABASE "{test}" TEMPLATE {template} STRATEGY FILE_COPY', "postgres")
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'test'", test)
    clinic.execute("ALTER TABLE patients ADD nickname text")
    outcome = clinic.invoke("db.page", "--compare=test", "--output=both.html")
    assert outcome.code == 0, outcome.err
    dev, other = data_of(clinic.root / "both.html")
    assert (dev["environment"], other["environment"]) == ("dev", "test")


def test_a_server_that_cannot_be_reached_still_has_a_page_that_says_what_is_unknown(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = "postgresql://someone:secret-word@127.0.0.1:1/skinspire_dev"
    outcome = project.invoke("db.page", "--output=page.html")
    assert outcome.code == 3 and "invoke db.doctor --env=dev" in outcome.err
    path = project.root / "page.html"
    [contents] = data_of(path)
    assert set(contents["unknown"]) >= {"schema", "verify", "drift", "journal"} and contents["parts"]["doctor"]
    assert "secret-word" not in path.read_text(encoding="utf-8") + json.dumps(contents) + outcome.err


@pytest.mark.parametrize(
    ("output", "said"),
    [("notes.md", "no page of db.page"), ("nowhere/page.html", "there is no folder"), (".", "is a folder")],
)
def test_what_is_no_page_is_never_replaced(project: Project, output: str, said: str) -> None:
    (project.root / "notes.md").write_text("mine")
    outcome = project.invoke("db.page", f"--output={output}")
    assert outcome.code == 2 and said in outcome.err and "--output=" in outcome.err
    assert (project.root / "notes.md").read_text() == "mine"


def test_the_remedy_is_for_the_environment_that_is_not_known(clinic: Project) -> None:
    outcome = clinic.invoke("db.page", "--compare=test")
    assert outcome.code == 3 and outcome.err.rstrip().endswith("-> invoke db.doctor --env=test"), outcome.err


def test_unknown_environments_are_named(project: Project) -> None:
    outcome = project.invoke("db.page", "--compare=nowhere")
    assert outcome.code == 2 and "nowhere" in outcome.err
