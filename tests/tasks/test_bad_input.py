"""What a person can get wrong: one line, the right exit code, a remedy, and nothing lost."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

FOREIGN = "CREATE TABLE precious (a int); INSERT INTO precious VALUES (1)"


def refused(project: Project, *arguments: str, code: int, says: str, process: bool = False) -> str:
    """The command fails with this exit code and one line that says this; the same through --json. Returns the remedy."""
    run = project.process if process else project.invoke
    outcome = run(*arguments)
    assert outcome.code == code, outcome.out + outcome.err
    assert says in outcome.err, outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, f"not one line: {outcome.err}"
    answer = run(*arguments, "--json").json
    assert (answer["ok"], answer["exit_code"]) == (False, code)
    assert says in answer["error"]["message"]
    return answer["error"]["remedy"] or ""


def test_unknown_environment(project: Project) -> None:
    assert (
        refused(project, "db.setup", "--env=bogus", code=2, says="unknown environment 'bogus'")
        == "use one of: dev, test, prod"
    )


def test_prod_without_a_url(project: Project) -> None:
    assert "PROD_DATABASE_URL=" in refused(project, "db.setup", "--env=prod", code=2, says="PROD_DATABASE_URL is not set")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql//u:hunter2@h/d", "DEV_DATABASE_URL is not a database URL"),
        ("postgresql://u:hunter2@h:port/d", "DEV_DATABASE_URL is not a database URL"),
        ("mysql://u:hunter2@h/d", "a URL for mysql"),
        ("postgresql+psycopg2://u:hunter2@h/d", "a URL for postgresql+psycopg2"),
        ("postgresql://u:hunter2@h", "names no database"),
        ("postgresql://u:hunter2@h/d?sslmod=require", "an option that PostgreSQL does not know"),
        ("postgresql://u:hun@ter2/x@127.0.0.1/d", "has an @ or / that is not written as %40"),
        ("postgresql://u:hunter2@127.0.0.1/template1", "which is the server's own"),
        ("postgresql://u:hunter2@127.0.0.1/d?service=s", "names a service"),
        ("postgresql://u:hunter2@127.0.0.1/d?sslmode=bogus", "an option that cannot be used"),
        ("postgresql://u:hunter2@127.0.0.1/d?connect_timeout=abc", "an option that cannot be used"),
    ],
)
def test_malformed_url(project: Project, url: str, says: str) -> None:
    project.env["DEV_DATABASE_URL"] = url
    assert "DEV_DATABASE_URL=postgresql://" in refused(project, "db.setup", code=2, says=says)
    shown = project.invoke("db.setup").err + project.invoke("env.status").out
    assert "hunter2" not in shown and "ter2" not in shown


def test_wrong_password_is_not_shown(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = project.url("anything", password="hunter2%40")
    assert "DEV_DATABASE_URL" in refused(project, "db.setup", code=1, says="refuses the password of role skinspire")
    outcome = project.invoke("db.setup")
    assert "hunter2" not in outcome.out + outcome.err


def test_unknown_role_looks_like_a_wrong_password(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = project.url("anything", user="nobody_at_all")
    refused(project, "db.setup", code=1, says="refuses the password of role nobody_at_all")


def test_server_down(project: Project) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    project.env["DEV_DATABASE_URL"] = project.url("anything", port=port)
    remedy = refused(project, "db.setup", code=1, says="Connection refused")
    assert "DEV_DATABASE_URL" in remedy


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


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--patients=abc", "--patients=abc is not a whole number"),
        ("--patients=1.5", "--patients=1.5 is not a whole number"),
        ("--patients=-5", "--patients=-5 is not between 1 and"),
        ("--patients=0", "--patients=0 is not between 1 and"),
        ("--patients=99999999999", "is not between 1 and"),
        ("--doctors=no", "--doctors=no is not a whole number"),
        ("--random-seed=x", "--random-seed=x is not a whole number"),
    ],
)
def test_nonsense_numbers(project: Project, argument: str, says: str) -> None:
    refused(project, "db.setup", argument, code=2, says=says)
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


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


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("no.such:Base", "cannot be loaded"),
        ("json:dumps", "neither a declarative base nor a MetaData"),
        ("json:nothing", "cannot be loaded"),
    ],
)
def test_models_that_cannot_be_loaded(make_project: Callable[..., Project], entry: str, says: str) -> None:
    project = make_project(f'metadata = ["{entry}"]\n')
    assert "pyproject.toml" in refused(project, "db.setup", code=2, says=says)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "division by zero"),
        ("Table('a', Base.metadata); Table('a', Base.metadata, Column('id', Integer))", "Table 'a' is already defined"),
        ("Table('a', Base.metadata, Column('of', ForeignKey('nowhere.id')))", "column a.of points to nowhere.id: no model defines that table"),
        ("Table('a', Base.metadata, Column('of', ForeignKey('patients.no')))", "column a.of points to patients.no: no model defines that column"),
    ],
)  # fmt: skip
def test_models_that_are_wrong(make_project: Callable[..., Project], source: str, says: str) -> None:
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "wrong_models:Base"]\n')
    header = "from sqlalchemy import Column, ForeignKey, Integer, Table\nfrom skinspire_db.clinic.models import Base\n"
    (project.root / "wrong_models.py").write_text(header + source)
    for task in ("db.setup", "migrate.new"):
        outcome = project.process(task, *(["-m", "x"] if task == "migrate.new" else []))
        assert outcome.code == 2 and says in outcome.err and " -> correct " in outcome.err, outcome.err
    assert "wrong_models.py, line 3" in outcome.err or "points to" in outcome.err
    assert project.query(f"SELECT FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_pyproject_that_is_not_toml(project: Project) -> None:
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db\n")
    refused(project, "db.setup", code=2, says="is not valid TOML")


def test_an_unreadable_dotenv_value_never_shows(project: Project) -> None:
    del project.env["DEV_DATABASE_URL"]
    (project.root / ".env").write_text("DEV_DATABASE_URL=postgres://u:hunter2@localhost:1/d\n")
    outcome = project.invoke("db.setup", "--json")
    assert outcome.code == 1 and "hunter2" not in outcome.out + outcome.err
    assert json.loads(outcome.out)["error"]["type"] == "ConnectionFailed"


def test_libpq_variables_do_not_lead_elsewhere(clinic: Project, tmp_path: Path) -> None:
    """A PGHOSTADDR or PGOPTIONS in the user's shell must not change which database is meant, or how it is read."""
    clinic.env |= {
        "PGHOSTADDR": "127.0.0.9",
        "PGOPTIONS": "-c search_path=elsewhere",
        "PGDATABASE": "postgres",
        "PGPORT": "1",
    }
    assert clinic.process("db.verify").code == 0


def test_a_url_without_a_host_means_the_local_socket_whatever_the_shell_says(project: Project) -> None:
    project.env = {"DEV_DATABASE_URL": "postgresql:///anything", "PGHOST": "127.0.0.1", "PGPORT": str(project.address.port)}
    project.env |= {"PGUSER": "skinspire", "PGPASSWORD": "x"}
    outcome = project.process("db.verify")
    assert outcome.code == 1 and "local socket" in outcome.err and "refuses the password" not in outcome.err


def test_an_application_name_in_the_url(clinic: Project) -> None:
    clinic.env["DEV_DATABASE_URL"] += "?application_name=mine"
    assert clinic.invoke("db.verify").code == 0


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


def test_a_password_among_the_options_is_not_shown(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = "postgresql://127.0.0.1:1/d?user=u&password=hunter2&sslpassword=hunter3"
    shown = project.invoke("env.status").out + project.invoke("db.setup").err
    assert "hunter" not in shown and "password=***" in shown


def test_what_settings_of_the_database_cannot_spoil(clinic: Project) -> None:
    """An administrator's ALTER DATABASE SET, and a client encoding in the user's shell."""
    for setting in ("default_transaction_isolation = 'repeatable read'", "quote_all_identifiers = on", "statement_timeout = '10ms'",
                    "transaction_timeout = '20ms'", "search_path = nowhere", "TimeZone = 'Asia/Tokyo'"):  # fmt: skip
        clinic.execute(f'ALTER DATABASE "{clinic.database}" SET {setting}')
    clinic.env["PGCLIENTENCODING"] = "SQL_ASCII"
    outcome = clinic.process("db.setup")
    assert outcome.code == 0, outcome.err


def test_a_schema_of_somebody_elses_makes_a_database_not_empty(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE SCHEMA legacy; CREATE COLLATION legacy.c (locale = 'C')")
    refused(project, "db.setup", code=2, says="holds 1 object and no stamp")


def test_json_goes_with_one_task_at_a_time(project: Project) -> None:
    outcome = project.invoke("env.status", "--json", "env.status", "--json")
    assert outcome.code == 2 and outcome.json["error"]["type"] == "UsageError"


def test_the_remedy_can_be_typed_whatever_the_databases_name(project: Project) -> None:
    name = "My Db's"
    project.env["DEV_DATABASE_URL"] = project.url("My%20Db's")
    project.execute(f'CREATE DATABASE "{name}"', "postgres")
    try:
        project.execute(FOREIGN, name)
        remedy = refused(project, "db.setup", code=2, says="no stamp")
        assert project.invoke(*shlex.split(remedy.partition("invoke ")[2])).code == 0
        assert project.invoke("db.setup").code == 0
    finally:
        project.execute(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")


def test_an_empty_environment_name(project: Project) -> None:
    refused(project, "db.setup", "--env=", code=2, says="unknown environment ''")


def test_a_reader_that_goes_away_does_not_stop_the_operation(project: Project) -> None:
    task = project.start("db.setup")
    assert task.stdout and task.stderr
    task.stdout.close()
    err = task.stderr.read()
    task.stderr.close()
    assert task.wait(60) == 0, err
    assert "Traceback" not in err
    assert project.query("SELECT count(*) FROM patients") == [(20,)]


def test_a_protected_database_with_functions_alone_holds_something(make_project: Callable[..., Project]) -> None:
    project = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    assert project.invoke("db.setup", "--env=live").code == 0
    assert project.invoke("db.reset", "--env=live", f"--confirm={project.database}").code == 0
    project.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    refused(project, "db.reset", "--env=live", code=2, says="would destroy")


def test_a_user_without_a_name(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for task in (["db.verify"], ["db.seed"], ["db.url"], ["--dry", "db.shell"], ["db.doctor"], ["backup.create"]):
        outcome = clinic.invoke(*task)
        assert outcome.code == 0, f"{task}: {outcome.err}"
    missing = refused(clinic, "backup.restore", "--file=~nobody/x.dump", code=2, says="there is no backup ~nobody/x.dump")
    assert "backup.list" in missing
    clinic.env["DEV_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"].replace(f"skinspire:{clinic.address.password}@", "")
    for command, code in (("db.verify", 2), ("db.seed", 2), ("db.doctor", 1)):
        needed = refused(clinic, command, code=code, says="DEV_DATABASE_URL names no role")
        assert "DEV_DATABASE_URL=postgresql://user:password@" in needed
