"""Tenancy: db.verify and db.doctor name by what one hospital could reach another one's rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.config import tenancy
from skinspire_db.config.tenancy import Roles
from skinspire_db.objects import tenant_faults, versions

VIEW = "/*\nversion = 1\nsummary = 's'\n*/\nCREATE OR REPLACE VIEW patient_names AS SELECT hospital_id, last_name FROM patients;\n"
# What is done to the database, and what db.verify then says.
MUTATIONS = {
    "ALTER TABLE patients NO FORCE ROW LEVEL SECURITY": "row security on public.patients: DRIFTED",
    "ALTER TABLE patients DISABLE ROW LEVEL SECURITY": "row security on public.patients: DRIFTED",
    "DROP POLICY tenant ON staff": "policy tenant on public.staff: MISSING",
    "ALTER POLICY tenant ON staff USING (true)": "policy tenant on public.staff: DRIFTED",
    "ALTER POLICY tenant_all ON staff TO PUBLIC": "policy tenant_all on public.staff: DRIFTED",
    "CREATE POLICY open ON staff USING (true)": "policy open on staff, which no file made, opens rows",
    "ALTER TABLE staff OWNER TO {app}": "role {app} owns tables",
    "ALTER ROLE {app} BYPASSRLS": "role {app} has BYPASSRLS",
    "ALTER ROLE {app} SUPERUSER": "role {app} is a superuser",
    "ALTER ROLE {app} LOGIN": "role {app} may log in",
    "GRANT {system} TO {app}": "role {app} is a member of {system}",
    "GRANT {owner} TO {app}": "role {app} is a superuser as a member of {owner}",
    "GRANT TRUNCATE ON users TO PUBLIC": "role {app} has TRUNCATE on users, which no policy limits",
    "ALTER VIEW patient_names RESET (security_invoker)": "view patient_names reads rows with the rights of its owner",
    "CREATE VIEW outer_names AS SELECT * FROM patient_names; GRANT SELECT ON outer_names TO {app}": "view outer_names reads rows",
    "CREATE MATERIALIZED VIEW all_names AS SELECT * FROM patient_names": "materialized view all_names has rows of all hospitals",
    "CREATE TABLE wards (hospital_id uuid)": "row security on public.wards: UNATTACHED",
    "CREATE TABLE logs (hospital_id uuid NOT NULL, day int) PARTITION BY RANGE (day);"
    " CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (1) TO (2)": "row security on public.logs_1: UNATTACHED",
    "CREATE TABLE bills (patient_id uuid REFERENCES patients)": "table bills has no hospital_id, and its rows belong to rows of patients",
    "CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw;"
    " CREATE FOREIGN TABLE far (hospital_id uuid) SERVER s": "foreign table far has hospital_id",
}  # fmt: skip


@pytest.fixture
def tenants(make_project: Callable[..., Project]) -> Iterator[Project]:
    """The core with tenancy on, and a view of the project's."""
    project = make_project("tenancy = true\n")
    (project.root / "sql" / "views").mkdir(parents=True)
    (project.root / "sql" / "views" / "names.sql").write_text(VIEW.replace("'s'", '"s"'))
    assert project.invoke("sql.bump", "--name=names").code == 0
    outcome = project.invoke("db.setup")
    assert outcome.code == 0, outcome.err
    yield project
    project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
    for role in (tenancy.application_role(project.database), tenancy.system_role(project.database)):
        project.execute(f'DROP ROLE IF EXISTS "{role}"', "postgres")


def tenancy_check(project: Project, command: str = "db.verify") -> dict[str, Any]:
    outcome = project.invoke(command, "--json")
    found = outcome.json
    checks = found["checks"]
    assert "tenancy" in [each["name"] for each in checks], checks[-1]
    [check] = [each for each in checks if each["name"] == "tenancy"]
    return dict(check) | {"code": outcome.code, "remedy": (found["error"] or {}).get("remedy")}


@pytest.fixture
def login(tenants: Project) -> Iterator[str]:
    """A login as the application should have: a member of both roles, which inherits the rights of none."""
    name = f"login_{secrets.token_hex(4)}"
    app, system = (role(tenants.database) for role in (tenancy.application_role, tenancy.system_role))
    tenants.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' NOINHERIT; GRANT {app}, {system} TO {name}")
    tenants.env["DEV_ADMIN_URL"] = tenants.env["DEV_DATABASE_URL"]
    tenants.env["DEV_DATABASE_URL"] = tenants.url(tenants.database, user=name, password="x")
    yield name
    tenants.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.slow
def test_each_hole_is_named(tenants: Project) -> None:
    """Every change is seen alone, in a transaction that is rolled back."""
    roles = Roles(tenants.database)
    names = {"app": roles.application, "system": roles.system, "owner": tenants.address.user}
    files = versions.current(settings.Project(tenants.root, {"tenancy": True}), roles=roles)
    with tenants.connect() as connection:
        assert tenant_faults.of_database(connection, roles, files) == []
        for statement, says in MUTATIONS.items():
            with connection.transaction(force_rollback=True):
                connection.execute(statement.format(**names).encode())
                connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
                found = tenant_faults.of_database(connection, roles, files)
                assert says.format(**names) in "; ".join(fault.says for fault in found), (statement, found)
                assert all(fault.remedy for fault in found)
        with connection.transaction(force_rollback=True):
            connection.execute(
                "CREATE FUNCTION all_of_them() RETURNS bigint SECURITY DEFINER RETURN (SELECT count(*) FROM patients)"
            )
            assert tenant_faults.definers(connection, roles) == ["all_of_them()"], (
                "db.verify notes that the application may call it"
            )


@pytest.mark.slow
def test_commands_fail_for_holes_of_the_database_and_of_the_login(tenants: Project, login: str) -> None:
    """db.verify for those of the database, which an install or the statement of the remedy mends; both for the login's."""
    app, system = (role(tenants.database) for role in (tenancy.application_role, tenancy.system_role))
    owner = tenants.address.user
    assert tenancy_check(tenants)["status"] == tenancy_check(tenants, "db.doctor")["status"] == "pass"
    for statement, says in {
        "ALTER TABLE patients NO FORCE ROW LEVEL SECURITY": "row security on public.patients: DRIFTED",
        "DROP POLICY tenant ON staff": "policy tenant on public.staff: MISSING",
        "ALTER VIEW patient_names RESET (security_invoker)": "view patient_names reads rows with the rights of its owner",
    }.items():
        tenants.execute(statement)
        check = tenancy_check(tenants)
        assert check["status"] == "fail" and says in check["detail"] and check["code"] == 1, (statement, check)
        assert check["remedy"], check
        assert tenants.invoke("sql.install").code == 0
        assert tenancy_check(tenants)["status"] == "pass", statement
    accepted = tenants.root / "accepted.toml"
    accepted.write_text('"file policies/tenant missing" = "an adoption left it alone"\n')
    tenants.execute("CREATE TABLE kept AS SELECT * FROM skinspire_tools.ledger WHERE name = 'policies/tenant'")
    tenants.execute("DELETE FROM skinspire_tools.ledger WHERE name = 'policies/tenant'")
    assert "policies/tenant was never installed here" in tenancy_check(tenants)["detail"]
    tenants.execute("INSERT INTO skinspire_tools.ledger SELECT * FROM kept; DROP TABLE kept")
    accepted.unlink()
    tenants.execute(f"ALTER TABLE parameter_settings OWNER TO {app}")
    assert f"role {app} owns tables" in tenancy_check(tenants)["detail"]
    tenants.execute(
        f"ALTER TABLE parameter_settings OWNER TO {owner}; CREATE TABLE of_login (); ALTER TABLE of_login OWNER TO {login}"
    )
    assert tenants.invoke("sql.install").code == 0, "which gives the application its rights on the table again"
    for change, says in {
        "SELECT 1": "owns tables: the policies do not bind it",
        f"DROP TABLE of_login; ALTER ROLE {login} SUPERUSER": "is a superuser: the policies do not bind it",
        f"ALTER ROLE {login} NOSUPERUSER BYPASSRLS": "has BYPASSRLS: the policies do not bind it",
        f"ALTER ROLE {login} NOBYPASSRLS; REVOKE {app} FROM {login}": "is no member of the roles of tenancy",
        f"GRANT {app} TO {login}; ALTER ROLE {login} INHERIT; REVOKE {system} FROM {login}; GRANT {system} TO {login}":
            f"has the rights of {system} without SET ROLE",
    }.items():  # fmt: skip
        tenants.execute(change)
        for command in ("db.verify", "db.doctor")[: 2 if " SUPERUSER" in change else 1]:
            check = tenancy_check(tenants, command)
            assert check["status"] == "fail" and f"the login {login} {says}" in check["detail"], (change, check)
            assert check["code"] != 0 and check["remedy"], check
