"""Databases that are missing, another's, locked, without rights or otherwise not as an operation needs them: refused in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Project
from refusals import FOREIGN, refused


@pytest.mark.parametrize("task", ["db.verify", "db.seed", "triggers.install", "env.stamp"])
def test_a_database_that_does_not_exist(project: Project, task: str) -> None:
    remedy = refused(project, task, code=1, says=f"the database {project.database} does not exist")
    assert remedy == "invoke db.setup --env=dev"


@pytest.mark.parametrize("task", ["db.setup", "db.reset", "db.create", "db.seed", "triggers.install"])
def test_a_database_stamped_prod_behind_the_dev_url(clinic: Project, task: str) -> None:
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'")
    before = clinic.dump()
    refused(clinic, task, code=2, says="is stamped prod, not dev")
    assert clinic.invoke(task, f"--confirm={clinic.database}").code in (1, 2), "no confirmation helps here"
    assert clinic.dump() == before


@pytest.mark.parametrize("task", ["db.setup", "db.reset", "db.create", "db.seed", "triggers.install"])
def test_a_full_database_without_a_stamp(project: Project, task: str) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute(FOREIGN)
    before = project.dump()
    remedy = refused(project, task, code=2, says="holds 1 object and no stamp")
    assert project.dump() == before
    adopt = remedy.partition("invoke ")[2].split()
    assert project.invoke(*adopt).code == 0
    assert project.query("SELECT environment FROM skinspire_tools.stamp") == [("dev",)]
    assert project.query("SELECT a FROM precious") == [(1,)]


def test_an_empty_database_is_taken(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("db.setup").code == 0


def test_stamp_asks_before_it_adopts(clinic: Project) -> None:
    assert clinic.invoke("env.stamp").code == 0, "it is ours already"
    clinic.env["TEST_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"]
    remedy = refused(clinic, "env.stamp", "--env=test", code=2, says="is stamped dev")
    assert remedy == f"invoke env.stamp --env=test --confirm={clinic.database}"
    before = clinic.query("SELECT identity FROM skinspire_tools.stamp")
    assert clinic.invoke("env.stamp", "--env=test", f"--confirm={clinic.database}").code == 0
    [(environment, identity)] = clinic.query("SELECT environment, identity FROM skinspire_tools.stamp")
    assert environment == "test" and [(identity,)] != before


@pytest.mark.parametrize("other", ["dev", "uat"])
def test_a_protected_stamp_is_taken_off_in_its_own_environment_only(
    make_project: Callable[..., Project], template: str, other: str
) -> None:
    """As dev's it could be copied to test, with the patients in it."""
    project = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n'
                           '[tool.skinspire_db.environments.uat]\nextends = "live"\n')  # fmt: skip
    name = project.database
    project.env |= {"LIVE_DATABASE_URL": project.url(name), "UAT_DATABASE_URL": project.url(name)}
    project.execute(f'CREATE DATABASE "{name}" TEMPLATE {template}', "postgres")
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'")
    stamp = "SELECT environment FROM skinspire_tools.stamp"
    adopt = ["env.stamp", f"--env={other}", f"--confirm={name}"]
    for command in (adopt, adopt[:2], ["--dry", *adopt], ["env.unstamp", f"--env={other}", f"--confirm={name}"]):
        remedy = refused(project, *command, code=2, says="live")
        assert remedy == f"correct the URL of {other}, or use --env=live"
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'unknown'")
    assert project.invoke(*adopt).code == 2, "one that this project does not know may be protected"
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'")
    assert project.invoke("db.seed", "--env=live", "--reference-only").code == 0
    project.execute("DELETE FROM skinspire_tools.stamp")
    refused(project, *adopt, code=2, says="is live's, which is protected")
    assert project.invoke("env.stamp", "--env=live", f"--confirm={name}").code == 0
    remedy = refused(project, "env.unstamp", "--env=live", code=2, says="who adopts it may then copy and reset what it holds")
    assert project.query(stamp) == [("live",)] and remedy == f"invoke env.unstamp --env=live --confirm={name}"
    assert project.invoke(*remedy.split()[1:]).code == 0
    assert project.query(stamp) == []
    refused(project, "db.seed", f"--env={other}", code=2, says="objects and no stamp")
    refused(project, *adopt[:2], code=2, says="objects and no stamp")
    assert project.invoke(*adopt).code == 0 and project.query(stamp) == [(other,)]


def test_protected_needs_the_databases_name(make_project: Callable[..., Project], template: str) -> None:
    project = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    fresh = project.invoke("db.setup", "--env=live", "--json")
    assert fresh.code == 0, "an empty database holds nothing that could be destroyed"
    assert project.query("SELECT count(*) FROM patients") == [(0,)], "and gets no invented people"
    passwords = {each["password"] for each in fresh.json["sign_in"]}
    assert len(passwords) == 2 and not any(password in project.dump() for password in passwords)
    project.execute("UPDATE hospitals SET name = 'Real'")
    before = project.dump()
    for arguments in (
        ["db.setup"],
        ["db.setup", "--confirm=yes"],
        ["db.reset"],
        ["db.reset", f"--confirm={project.database}x"],
    ):
        remedy = refused(project, *arguments, "--env=live", code=2, says=f"would destroy what {project.database}")
        assert remedy == f"invoke {arguments[0]} --env=live --confirm={project.database}"
    assert "test data is never seeded" in project.invoke("db.seed", "--env=live", "--patients=5").err
    assert project.dump() == before
    confirmed = project.invoke("db.setup", "--env=live", f"--confirm={project.database}")
    assert confirmed.code == 0 and "a backup was taken first, and proved by a restore: " in confirmed.err
    assert project.query("SELECT count(*) FROM hospitals WHERE name = 'Real'") == [(0,)]


def test_a_role_that_may_not_create_databases(project: Project) -> None:
    role = f"plain_{project.database}"
    project.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'", "postgres")
    try:
        project.env["DEV_DATABASE_URL"] = project.url(project.database, user=role, password="p")
        remedy = refused(project, "db.setup", code=1, says=f"role {role} may not create the database")
        ask = remedy.removeprefix("ask the administrator for: ")
        project.execute(ask, "postgres")
        outcome = project.invoke("db.setup")
        assert outcome.code == 0, f"after the administrator did what was asked: {outcome.err}"
        project.execute(f'DROP DATABASE "{project.database}" WITH (FORCE)', "postgres")
    finally:
        project.execute(f"DROP ROLE {role}", "postgres")


def test_a_role_that_owns_the_database_but_not_schema_public(project: Project) -> None:
    role = f"owner_{project.database}"
    project.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'", "postgres")
    try:
        project.execute(f'CREATE DATABASE "{project.database}" OWNER {role}', "postgres")
        project.execute(f"ALTER SCHEMA public OWNER TO skinspire; GRANT CREATE ON SCHEMA public TO {role}")
        project.env["DEV_DATABASE_URL"] = project.url(project.database, user=role, password="p")
        for _ in range(2):
            outcome = project.invoke("db.setup")
            assert outcome.code == 0, outcome.err
        assert project.invoke("db.reset").code == 0
        project.execute("CREATE TABLE someone_elses (a int)")
        remedy = refused(project, "db.reset", code=1, says="reset cannot drop what another role owns")
        assert "REASSIGN OWNED" in remedy
        project.execute(f'DROP DATABASE "{project.database}" WITH (FORCE)', "postgres")
    finally:
        project.execute(f"DROP ROLE {role}", "postgres")


def test_a_table_locked_by_an_open_transaction_is_named(make_project: Callable[..., Project], template: str) -> None:
    project = make_project("[tool.skinspire_db.environments.dev]\nlock_timeout = 0.3\n")
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    before = project.dump()
    with project.connect(application_name="a long report") as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM patients")
        refused(project, "db.setup", code=1, says=f"held by pid {other.info.backend_pid} (a long report, for ")
        other.execute("ROLLBACK")
    assert project.dump() == before


def test_a_seed_that_violates_a_constraint(clinic: Project) -> None:
    """A patient already has the phone number of the next invented person."""
    phone = "SELECT user_id FROM users WHERE entity_type = 'patient' ORDER BY 1 LIMIT 1"
    [(taken,)] = clinic.query(phone)
    clinic.execute(f"UPDATE patients SET mrn = mrn || 'x'; DELETE FROM users WHERE user_id = '{taken}'")
    clinic.execute("INSERT INTO users (user_id, entity_type, entity_id) SELECT user_id, 'staff', gen_random_uuid() FROM "
                   f"(VALUES ('{taken}')) v (user_id)")  # fmt: skip
    before = clinic.dump()
    refused(clinic, "db.seed", code=1, says="seed: duplicate key value violates unique constraint")
    assert clinic.dump() == before


def test_the_seed_error_shows_no_row(clinic: Project) -> None:
    """PostgreSQL's DETAIL holds the whole row, and that can be a patient's."""
    clinic.execute("ALTER TABLE patients ADD CONSTRAINT odd CHECK (mrn <> 'T000021')")
    outcome = clinic.invoke("db.seed", "--patients=21", "--json")
    assert outcome.code == 1
    assert "odd" in outcome.out and "Allergies" not in outcome.out and "T000021" not in outcome.out


@pytest.mark.parametrize("task", ["db.seed", "triggers.install"])
def test_steps_on_an_empty_database(project: Project, task: str) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    if task == "db.seed":
        assert refused(project, task, code=1, says="the tables are not there") == "invoke db.setup --env=dev"
    else:
        assert project.invoke(task).code == 0, "there is nothing to attach them to, and that is no error"


def test_create_on_a_database_that_has_tables(clinic: Project) -> None:
    assert "--update-only" in refused(clinic, "db.create", code=2, says="has 13 tables already")


def test_pgcrypto_in_a_schema_of_its_own(project: Project) -> None:
    """As hosted servers have it."""
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE SCHEMA extensions; CREATE EXTENSION pgcrypto SCHEMA extensions")
    outcome = project.invoke("db.setup")
    assert outcome.code == 0, outcome.err


def test_a_role_without_rights_on_schema_public(project: Project) -> None:
    role = f"bare_{project.database}"
    project.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'", "postgres")
    try:
        project.execute(f'CREATE DATABASE "{project.database}" OWNER {role}', "postgres")
        project.execute("ALTER SCHEMA public OWNER TO skinspire")
        project.env["DEV_DATABASE_URL"] = project.url(project.database, user=role, password="p")
        remedy = refused(project, "db.setup", code=1, says=f"role {role} lacks a right")
        project.execute(remedy.removeprefix("ask the administrator for: "))
        assert project.invoke("db.setup").code == 0
        project.execute(f'DROP DATABASE "{project.database}" WITH (FORCE)', "postgres")
    finally:
        project.execute(f"DROP ROLE {role}", "postgres")


def test_what_settings_of_the_database_cannot_spoil(clinic: Project) -> None:
    """An administrator's ALTER DATABASE SET, and a client encoding in the user's shell."""
    for setting in ("default_transaction_isolation = 'repeatable read'", "quote_all_identifiers = on", "statement_timeout = '10ms'",
                    "transaction_timeout = '20ms'", "search_path = nowhere", "TimeZone = 'Asia/Tokyo'"):  # fmt: skip
        clinic.execute(f'ALTER DATABASE "{clinic.database}" SET {setting}')
    clinic.env["PGCLIENTENCODING"] = "SQL_ASCII"
    outcome = clinic.process("db.setup")
    assert outcome.code == 0, outcome.err


def test_a_schema_of_another_owner_makes_a_database_not_empty(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE SCHEMA legacy; CREATE COLLATION legacy.c (locale = 'C')")
    refused(project, "db.setup", code=2, says="holds 1 object and no stamp")


def test_a_protected_database_with_functions_alone_holds_something(make_project: Callable[..., Project]) -> None:
    project = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    assert project.invoke("db.setup", "--env=live").code == 0
    assert project.invoke("db.reset", "--env=live", f"--confirm={project.database}").code == 0
    project.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    refused(project, "db.reset", "--env=live", code=2, says="would destroy")
