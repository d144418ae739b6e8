"""Policy files: what makes one unusable, and what their policies are on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project

from skinspire_db.config import tenancy
from skinspire_db.errors import SqlFileInvalid
from skinspire_db.objects.files import read_file
from skinspire_db.objects.kinds import POLICY

TENANT = """
    CREATE TABLE hospitals (hospital_id uuid PRIMARY KEY DEFAULT gen_random_uuid());
    CREATE TABLE visits (visit_id int, hospital_id uuid NOT NULL REFERENCES hospitals);
    CREATE TABLE codes (code int, hospital_id uuid REFERENCES hospitals);
    CREATE TABLE log (hospital_id uuid NOT NULL, day int) PARTITION BY RANGE (day);
    CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (1) TO (2);
    CREATE TABLE settings (name text)
"""


@pytest.fixture
def tenants(make_project: Callable[..., Project]) -> Iterator[Project]:
    """An application with a few tables, whose models the tools do not know, with tenancy on; nothing is installed."""
    project = make_project('tenancy = true\nmetadata = ["app:metadata"]\n')
    (project.root / "app.py").write_text("from sqlalchemy import MetaData\nmetadata = MetaData()\n")
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("env.stamp").code == 0
    project.execute(TENANT)
    yield project
    project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
    for role in (tenancy.application_role(project.database), tenancy.system_role(project.database)):
        project.execute(f'DROP ROLE IF EXISTS "{role}"', "postgres")


def states(project: Project) -> dict[str, str]:
    objects = project.invoke("sql.status", "--json").json["objects"]
    return {each["object"]: each["state"] for each in objects if each["file"] == "policies/tenant"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "there is no [[policy]]"),
        ('[[policy]]\nname = "a"\ncolumns = ["b"]', "a policy needs using"),
        ('[[policy]]\nname = "a"\nusing = "true"', "a policy needs columns or tables"),
        ('[[policy]]\nname = "a"\ncolumns = ["b"]\nusing = "true"\nto = "root"', "to one of public, application, system"),
        ('[[policy]]\nname = "a"\ncolumns = ["b"]\nusing = 5', "using = 5 of a policy is not understood"),
        ('[[policy]]\nname = "a"\ncolumns = ["b"]\nusing = "true"\n' * 2, "two policies have one name"),
        ('[[policy]]\nname = "a"\ncolumns = ["b"]\nusing = "true"\n*/ SELECT 1; /*', "a policy file is a header alone"),
    ],
)
def test_a_header_that_cannot_be_used(tmp_path: Path, header: str, says: str) -> None:
    path = tmp_path / "policy.sql"
    path.write_text(f'/*\nversion = 1\nsummary = "s"\n{header}\n*/\n')
    with pytest.raises(SqlFileInvalid) as raised:
        read_file(path, kind=POLICY)
    assert says in raised.value.message


def test_policies_are_made_repaired_and_taken_away(tenants: Project) -> None:
    """On tables and partitions, where they belong; a second install changes nothing; tenancy off takes them away again."""
    assert states(tenants) == {"(all of it)": "MISSING"}
    outcome = tenants.invoke("sql.install")
    assert outcome.code == 0, outcome.err
    expected = {f"policy {name} on public.{table}" for table in ("hospitals", "visits", "codes", "log", "log_1")
                for name in ("tenant", "tenant_all")}  # fmt: skip
    expected |= {f"row security on public.{table}" for table in ("hospitals", "visits", "codes", "log", "log_1")}
    assert states(tenants) == dict.fromkeys(expected | {"policy tenant_of_system on public.codes"}, "INSTALLED")
    rows = (
        "SELECT xmin::text, oid FROM pg_policy UNION ALL SELECT xmin::text, oid FROM pg_class WHERE relrowsecurity ORDER BY 2"
    )
    before = tenants.query(rows)
    assert tenants.invoke("sql.install").code == 0
    assert tenants.query(rows) == before, "what is right already was touched"

    tenants.execute(
        "DROP POLICY tenant ON visits; ALTER POLICY tenant_all ON codes USING (false); ALTER TABLE log NO FORCE ROW LEVEL SECURITY;"
        "CREATE TABLE later (hospital_id uuid); ALTER TABLE log_1 RENAME TO log_of_1; CREATE POLICY by_hand ON settings USING (true)"
    )
    wrong = {name: state for name, state in states(tenants).items() if state != "INSTALLED"}
    assert wrong == {
        "policy tenant on public.visits": "MISSING", "policy tenant_all on public.codes": "DRIFTED",
        "row security on public.log": "DRIFTED", "row security on public.later": "UNATTACHED",
        "policy tenant on public.later": "UNATTACHED", "policy tenant_of_system on public.later": "UNATTACHED",
        "policy tenant_all on public.later": "UNATTACHED", "policy tenant on public.log_of_1": "OUTDATED",
        "policy tenant_all on public.log_of_1": "OUTDATED", "row security on public.log_of_1": "UNATTACHED",
    }  # fmt: skip
    diff = tenants.invoke("sql.diff")
    assert diff.code == 3 and "policy tenant on public.visits" in diff.out, diff.out
    assert tenants.invoke("sql.install").code == 0
    assert set(states(tenants).values()) == {"INSTALLED"}

    turned(tenants, on=False)
    assert states(tenants) == {"(all of it)": "ORPHANED"}
    assert tenants.invoke("sql.install").code == 0
    assert states(tenants) == {"(all of it)": "NOT APPLICABLE"}
    assert tenants.query("SELECT polname FROM pg_policy") == [("by_hand",)], "what others made by hand stays"
    assert tenants.query("SELECT relname FROM pg_class WHERE relrowsecurity OR relforcerowsecurity") == []
    assert tenants.query(RIGHTS) == [] == roles_of(tenants), "the tools made the roles, and nothing else needs them"


RIGHTS = """
    SELECT c.relname::text, a.privilege_type FROM pg_class c, aclexplode(c.relacl) AS a WHERE a.grantee::regrole::text ~ '_(app|system)"?$'
    UNION SELECT 'default', a.privilege_type FROM pg_default_acl d, aclexplode(d.defaclacl) AS a
    WHERE a.grantee::regrole::text ~ '_(app|system)"?$'
    UNION SELECT n.nspname, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) AS a
    WHERE a.grantee::regrole::text ~ '_(app|system)"?$' ORDER BY 1, 2
"""


def turned(project: Project, *, on: bool) -> None:
    pyproject = project.root / "pyproject.toml"
    former, now = f"tenancy = {str(not on).lower()}", f"tenancy = {str(on).lower()}"
    pyproject.write_text(pyproject.read_text().replace(former, now))


def roles_of(project: Project) -> list[str]:
    query = f"SELECT rolname FROM pg_roles WHERE rolname IN ('{project.database}_app', '{project.database}_system')"
    return [name for (name,) in project.query(query)]


@pytest.mark.slow
def test_turned_off_and_on_again(make_project: Callable[..., Project]) -> None:
    """With the core's tables and a view: no difference is left. What an operator granted stays, and so does the role that has it."""
    project = make_project("tenancy = true\n")
    views = project.root / "sql" / "views"
    views.mkdir(parents=True)
    view = "CREATE OR REPLACE VIEW patient_names AS SELECT hospital_id, last_name FROM patients;"
    (views / "names.sql").write_text(f'/*\nversion = 1\nsummary = "s"\n*/\n{view}\n')
    assert project.invoke("sql.bump", "--name=names").code == 0
    app, system = f"{project.database}_app", f"{project.database}_system"
    try:
        assert project.invoke("db.setup").code == 0
        for _ in range(2):
            turned(project, on=False)
            outcome = project.invoke("db.prepare")
            assert outcome.code == 0 and "role" not in outcome.out, outcome.out
            assert project.query(RIGHTS) == [] == roles_of(project)
            outcome = project.invoke("db.drift")
            assert outcome.code == 0, outcome.out + outcome.err
            assert project.query("SELECT FROM pg_class WHERE relrowsecurity") == []
            turned(project, on=True)
            assert project.invoke("db.prepare").code == 0
            outcome = project.invoke("db.drift")
            assert outcome.code == 0, outcome.out + outcome.err
            assert len(roles_of(project)) == 2 and project.query("SELECT FROM pg_class WHERE relrowsecurity")
        by_hand = (
            f"GRANT TRUNCATE, SELECT ON staff TO {app}; GRANT UPDATE (last_name) ON patients TO {app};"
            f" GRANT SELECT ON users TO {app} WITH GRANT OPTION; GRANT SELECT ON users TO {system}"
        )
        project.execute(by_hand)
        turned(project, on=False)
        outcome = project.invoke("sql.install")
        said = " ".join(outcome.out.split())
        assert outcome.code == 0 and f"role {app} stays, as other databases, or rights that an operator gave" in said, said
        assert f'DROP OWNED BY "{app}"; DROP ROLE "{app}"' in said
        assert project.query(RIGHTS) == [("staff", "TRUNCATE"), ("users", "SELECT")]
        assert project.query(f"SELECT has_column_privilege('{app}', 'patients', 'last_name', 'UPDATE')") == [(True,)]
        assert roles_of(project) == [app]
    finally:
        project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
        for role in (app, system):
            project.execute(f'DROP ROLE IF EXISTS "{role}"', "postgres")


@pytest.mark.slow
def test_a_column_of_another_type_is_named(tenants: Project) -> None:
    tenants.execute("CREATE TABLE wards (hospital_id integer)")
    outcome = tenants.invoke("sql.install")
    assert outcome.code == 1
    assert "policy tenant on public.wards (hospital_id): operator does not exist: integer = uuid" in outcome.err, outcome.err
    assert tenants.query("SELECT FROM pg_policy") == []


@pytest.mark.slow
def test_a_projects_own_file_wins_by_name(tenants: Project) -> None:
    """With a table left out, and with columns of its own."""
    own = tenants.root / "sql" / "policies"
    own.mkdir(parents=True)
    header = 'version = 1\nsummary = "s"\n[[policy]]\nname = "own"\ncolumns = ["hospital_id"]\nusing = "false"\nexclude = ["codes"]'
    (own / "tenant.sql").write_text(f"/*\n{header}\n*/\n")
    assert tenants.invoke("sql.bump", "--name=policies/tenant").code == 0
    assert tenants.invoke("sql.install").code == 0
    found = tenants.query("SELECT polname, polrelid::regclass::text FROM pg_policy ORDER BY 2")
    assert found == [("own", table) for table in ("hospitals", "log", "log_1", "visits")]
