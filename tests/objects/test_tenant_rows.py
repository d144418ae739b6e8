"""No hospital sees, changes or takes another one's rows: each operation on each table, and queries in many forms."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator

import pytest
from conftest import OLD_CLINIC, Project
from tenant_matrix import check, fuzz, telling

from skinspire_db.config.tenancy import Roles
from skinspire_db.lifecycle import tool_schema

VALUES = {
    "users": {"entity_type": "staff"},
    "login_history": {"status": "failed", "user_id": "u{n}"},
    "role_module_access": {"role_id": "-{n}", "module_id": "-{n}"},
    "user_role_mapping": {"role_id": "-{n}", "user_id": "u{n}"},
    "user_sessions": {"user_id": "u{n}"},
}
BILLS = """
CREATE VIEW open_bills_view AS SELECT bill_id, gross, hospital_id FROM bills;
CREATE VIEW doctor_day_view AS SELECT staff_id, 1 AS patients FROM staff;
"""
VIEW = "CREATE OR REPLACE VIEW patient_names AS SELECT p.*, h.name AS of_hospital FROM patients p JOIN hospitals h USING (hospital_id);"
FUNCTION = "CREATE OR REPLACE FUNCTION all_patients() RETURNS SETOF patients LANGUAGE sql STABLE AS 'SELECT * FROM patients';"


@pytest.fixture
def login(make_project: Callable[..., Project]) -> Iterator[Callable[[Project], str]]:
    """Makes the application's login of a project, and says its URL."""
    made: list[tuple[Project, str]] = []

    def make(project: Project) -> str:
        name, roles = f"login_{secrets.token_hex(4)}", Roles(project.database)
        project.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'x' NOINHERIT; GRANT {roles.application}, {roles.system} TO {name}"
        )
        made.append((project, name))
        return project.url(project.database, user=name, password="x")

    yield make
    for project, name in made:
        project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
        for role in (name, Roles(project.database).application, Roles(project.database).system):
            project.execute(f"DROP ROLE IF EXISTS {role}", "postgres")


def write(project: Project, name: str, text: str) -> None:
    path = project.root / "sql" / f"{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'/*\nversion = 1\nsummary = "s"\n{text}\n')
    outcome = project.invoke("sql.bump", f"--name={name}")
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_the_core(make_project: Callable[..., Project], login: Callable[[Project], str]) -> None:
    project = make_project("tenancy = true\n")
    write(project, "views/patient_names", f"*/\n{VIEW}")
    write(project, "functions/all_patients", f"*/\n{FUNCTION}")
    outcome = project.invoke("db.setup")
    assert outcome.code == 0, outcome.err
    url = login(project)
    assert check(project, url, VALUES) == 11
    assert fuzz(project, url, ["patients", "users", "role_master", "patient_names", "all_patients()"]) > 100
    tried, found = telling(project, url)
    assert found == [], "\n".join(found)
    assert tried == 7


@pytest.mark.slow
def test_an_application(make_project: Callable[..., Project], login: Callable[[Project], str]) -> None:
    """Tables that lead to a hospital's rows and have no hospital_id are named, unless the project's own file leaves them out."""
    project = make_project()
    shutil.copytree(OLD_CLINIC, project.root, dirs_exist_ok=True)
    settings = project.root / "pyproject.toml"
    settings.write_text(settings.read_text() + "tenancy = true\n")
    write(project, "views/bills", f"*/\n{BILLS}")
    outcome = project.invoke("db.setup")
    assert outcome.code == 1
    said = " ".join(outcome.out.split())
    for table, needed in {"bill_lines": "bills", "claims.claim_files": "bills", "slips": "staff"}.items():
        assert f"table {table} has no hospital_id, and its rows belong to rows of {needed}" in said, outcome.out
    text = (tool_schema.sql_folder() / "policies" / "tenant.sql").read_text().partition("\n*/")[0].partition("summary")[2]
    text = text.replace('["hospital_id"]', '["hospital_id"]\nexclude = ["bill_lines", "claims.claim_files", "slips"]', 1)
    write(project, "policies/tenant", f"summary{text}\n*/".replace("summary =", "# summary =", 1))
    outcome = project.forked("db.setup")
    assert outcome.code == 0, outcome.out + outcome.err
    url = login(project)
    assert check(project, url, {"users": VALUES["users"]}) == 6
    assert fuzz(project, url, ["bills", "users", "open_bills_view"]) > 50
