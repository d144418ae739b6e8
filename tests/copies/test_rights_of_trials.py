"""A backup computes what a restore would compute; functions of other roles do not run with a superuser's rights for that."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project

ROLE_BACK = "PERFORM set_config('role', 'none', true);"


@pytest.fixture
def poor(clinic: Project) -> Iterator[str]:
    """A role without superuser rights that may create tables and functions."""
    role = f"poor_{secrets.token_hex(4)}"
    clinic.execute(f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}")
    yield role
    clinic.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def owned(role: str, body: str, view_owner: str = "") -> str:
    """The SQL for a materialized view that calls a function of the role."""
    return (
        f"SET ROLE {role}; CREATE TABLE g (a int); INSERT INTO g VALUES (1);"
        f"CREATE FUNCTION called(a int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN {body} RETURN a; END $$;"
        "CREATE MATERIALIZED VIEW m AS SELECT public.called(a) AS b FROM g WITH NO DATA; RESET ROLE;"
        + (f"ALTER MATERIALIZED VIEW m OWNER TO {view_owner};" if view_owner else "")
        + "UPDATE pg_class SET relispopulated = true WHERE oid = 'm'::regclass"
    )


@pytest.mark.parametrize("body", ["", ROLE_BACK, "RESET ROLE;", "RESET SESSION AUTHORIZATION;"])
def test_a_program_is_not_run(clinic: Project, poor: str, body: str) -> None:
    """Nor when the function takes the role back with which the backup is made."""
    file = f"/tmp/skinspire-test-{secrets.token_hex(4)}"
    clinic.execute(owned(poor, f"{body} COPY (SELECT 1) TO PROGRAM 'touch {file}';"))
    outcome = clinic.invoke("backup.create")
    assert outcome.code == 0, outcome.err
    assert not Path(file).exists()


def test_with_the_owners_rights_it_is_still_tried(clinic: Project, poor: str) -> None:
    clinic.execute(owned(poor, "PERFORM missing_one();"))
    outcome = clinic.invoke("backup.create")
    assert outcome.code == 1 and "public.called(integer) calls something by its bare name" in outcome.err, outcome.err


def test_a_superusers_view_of_another_roles_function_is_not_tried(clinic: Project, poor: str) -> None:
    clinic.execute(owned(poor, "PERFORM missing_one();", view_owner="skinspire"))
    outcome = clinic.invoke("backup.create")
    assert outcome.code == 0 and "unknown whether it can be restored: the materialized view public.m" in outcome.err
