"""Tenancy under an owner that is no superuser: every operation works over all rows, or refuses; copies have their own roles."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from conftest import Outcome, Project

from skinspire_db.config.tenancy import Roles

COUNTS = "SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM users), (SELECT count(*) FROM hospitals)"
ROLES_OF_POLICIES = "SELECT DISTINCT pg_get_userbyid(r)::text FROM pg_policy, unnest(polroles) AS r WHERE r <> 0"
GRANTEES = """
    SELECT DISTINCT pg_get_userbyid(a.grantee)::text FROM pg_class c, aclexplode(c.relacl) AS a
    WHERE c.relnamespace = 'public'::regnamespace AND pg_get_userbyid(a.grantee) ~ '_(app|system)$'
    UNION SELECT pg_get_userbyid(a.grantee)::text FROM pg_default_acl d, aclexplode(d.defaclacl) AS a ORDER BY 1
"""


@pytest.fixture
def owned(make_project: Callable[..., Project]) -> Iterator[Project]:
    """The core with tenancy on; the tools' role may create databases, but no roles, and the application has another login."""
    project = make_project("tenancy = true\n")
    names = {env: project.env[f"{env}_DATABASE_URL"].rpartition("/")[2] for env in ("DEV", "TEST")}
    owner, login = f"owner_{secrets.token_hex(4)}", f"login_{secrets.token_hex(4)}"
    project.execute(f"CREATE ROLE {owner} LOGIN CREATEDB PASSWORD 'x'; CREATE ROLE {login} LOGIN PASSWORD 'x'", "postgres")
    for env, name in names.items():
        project.env[f"{env}_ADMIN_URL"] = project.url(name, user=owner, password="x")
        project.env[f"{env}_DATABASE_URL"] = project.url(name, user=login, password="x")
        project.execute(f"CREATE DATABASE {name} OWNER {owner}", "postgres")
        outcome = project.invoke("db.setup", f"--env={env.lower()}")
        assert outcome.code == 1 and "may not make them -> ask the administrator for: CREATE ROLE" in outcome.err, outcome.err
        statements = outcome.err.rpartition("ask the administrator for: ")[2]
        project.execute(f"CREATE DATABASE {name} OWNER {owner}", "postgres") if not _exists(project, name) else None
        project.execute(statements, "postgres")
    yield project
    project.execute(f"DROP DATABASE IF EXISTS {names['DEV']} WITH (FORCE)", "postgres")
    project.execute(f"DROP DATABASE IF EXISTS {names['TEST']} WITH (FORCE)", "postgres")
    for (kept,) in project.query("SELECT quote_ident(datname) FROM pg_database WHERE datname ~ '_former_'", "postgres"):
        project.execute(f"DROP DATABASE {kept} WITH (FORCE)", "postgres")
    for role in (owner, login, *(role for name in names.values() for role in (Roles(name).application, Roles(name).system))):
        project.execute(f"DROP ROLE IF EXISTS {role}", "postgres")


def _exists(project: Project, name: str) -> bool:
    return bool(project.query(f"SELECT FROM pg_database WHERE datname = '{name}'", "postgres"))


def done(project: Project, *arguments: str) -> Outcome:
    outcome = project.invoke(*arguments)
    assert outcome.code == 0, (arguments, outcome.out, outcome.err)
    return outcome


@pytest.mark.slow
def test_an_owner_under_the_policies_works_over_all_rows(owned: Project) -> None:
    done(owned, "db.setup", "--patients=30")
    whole = owned.query(COUNTS)
    assert whole[0][0] == 30
    for command in ("db.verify", "db.doctor", "db.drift", "sql.verify", "backup.create"):
        done(owned, command)
    done(owned, "backup.verify", "--full")
    owned.execute("DELETE FROM patients")
    done(owned, "backup.restore")
    assert owned.query(COUNTS) == whole
    done(owned, "db.verify")
    assert len(done(owned, "mask.preview", "--table=patients", "--json").json["rows"]) == 10
    done(owned, "db.copy", "--source=dev", "--target=test", "--masked")
    other = owned.env["TEST_DATABASE_URL"].rpartition("/")[2]
    assert owned.query(COUNTS, other) == whole
    assert not set(owned.query("SELECT mrn FROM patients", other)) & set(owned.query("SELECT mrn FROM patients"))
    done(owned, "db.drift", "--env=test")

    roles = Roles(owned.database)
    for method in ("stream", "template"):
        done(owned, "db.copy", "--source=dev", "--target=test", f"--method={method}")
        assert owned.query(COUNTS, other) == whole
        assert owned.query(ROLES_OF_POLICIES, other) == [(Roles(other).system,)], method
        assert owned.query(GRANTEES, other) == [(Roles(other).application,), (Roles(other).system,)], method
        done(owned, "db.verify", "--env=test")
        done(owned, "db.drift", "--env=test")
    assert owned.query(ROLES_OF_POLICIES) == [(roles.system,)]

    settings = owned.root / "pyproject.toml"
    text = settings.read_text()
    settings.write_text(text.replace("tenancy = true", "tenancy = false"))
    outcome = done(owned, "sql.install", "--env=test")
    assert f"role {Roles(other).application} stays, as the tools did not make it" in " ".join(outcome.out.split())
    assert owned.query(GRANTEES, other) == [] and owned.query(COUNTS, other) == whole
    done(owned, "db.drift", "--env=test")
    settings.write_text(text)

    owned.execute(f"REVOKE {roles.system} FROM {owned.env['DEV_ADMIN_URL'].partition('://')[2].partition(':')[0]}")
    for command in ("backup.create", "db.seed", "db.copy", "db.verify", "db.doctor"):
        arguments = ("--source=dev", "--target=test", "--method=stream") if command == "db.copy" else ()
        outcome = owned.invoke(command, *arguments)
        assert outcome.code != 0, command
        assert "row security hides rows" in outcome.err or "tenancy" in outcome.err + outcome.out, (command, outcome.err)
