"""Dumps of other servers: extensions that this one has not got, no rows, a newer PostgreSQL, and many tables."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import Outcome, Project
from support import database, leftovers, pg_dump

from skinspire_db.config import environment
from skinspire_db.copies import absent_extensions
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import connections, databases
from skinspire_db.postgres.target import target_of

HEAD = """--
-- PostgreSQL database dump
--

-- Dumped from database version 17.10
-- Dumped by pg_dump version 17.10

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
"""
EXTENSION = """
CREATE EXTENSION IF NOT EXISTS "no-such" WITH SCHEMA public;
COMMENT ON EXTENSION "no-such" IS 'generate what nobody has';
"""
TABLE = """
CREATE TABLE public.visits (id integer NOT NULL, note text);
COPY public.visits (id, note) FROM stdin;
1\tfirst
2\tsecond
\\.
"""
GRANTS = """
REVOKE ALL ON FUNCTION public.no_such_key(namespace uuid, name text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.no_such_key(namespace uuid, name text) TO PUBLIC;
GRANT SELECT ON TABLE public.visits TO PUBLIC;
"""
TAIL = "\n--\n-- PostgreSQL database dump complete\n--\n"


def write(project: Project, *parts: str, name: str = "elsewhere.sql") -> Path:
    file = project.root / name
    file.write_text("".join([HEAD, *parts, TAIL]))
    return file


def restore(project: Project, file: Path, *flags: str) -> Outcome:
    return project.invoke("backup.restore", f"--file={file}", f"--confirm={project.database}", *flags)


def test_an_extension_that_nothing_needs_is_left_out_and_said(project: Project) -> None:
    outcome = restore(project, write(project, EXTENSION, TABLE, GRANTS))
    assert outcome.code == 0, outcome.err
    assert (
        "left out: the extension no-such, which the server has not got; nothing that the dump defines needs it" in outcome.err
    )
    assert project.query("SELECT count(*), has_table_privilege('public', 'visits', 'SELECT') FROM visits") == [(2, True)]


NEEDING = {
    "a column's type": (
        "CREATE TABLE public.scans (id integer, code public.no_such_vector);",
        ["table public.scans", "no_such_vector"],
    ),
    "a default": (
        "CREATE TABLE public.scans (id uuid DEFAULT public.no_such_key() NOT NULL);\n"
        "CREATE TABLE public.rooms (id uuid);\n"
        "ALTER TABLE ONLY public.rooms ALTER COLUMN id SET DEFAULT public.no_such_key();",
        ["table public.scans, table public.rooms", "no_such_key"],
    ),
    "a view": (
        "CREATE VIEW public.scanned AS SELECT public.no_such_key() AS id;",
        ["view public.scanned", "no_such_key"],
    ),
    "an index": (
        "CREATE INDEX ix_note ON public.visits USING gin (note public.no_such_ops);",
        ["index public.visits", "no_such_ops"],
    ),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind != "a default" else []) for kind in NEEDING]
)
def test_what_needs_an_absent_extension_is_named(project: Project, kind: str) -> None:
    definition, words = NEEDING[kind]
    outcome = restore(project, write(project, EXTENSION, TABLE, definition))
    assert outcome.code == 1 and outcome.err.count("\n") == 1, outcome.err
    assert "the server has not got the extension no-such" in outcome.err
    assert "install the extension no-such on that server" in outcome.err
    assert [word for word in words if word not in outcome.err] == [], outcome.err
    assert leftovers(project) == []


@pytest.mark.slow
def test_an_error_about_something_else_is_not_blamed_on_an_extension(project: Project) -> None:
    outcome = restore(project, write(project, EXTENSION, "CREATE TABLE public.scans (id integer, id integer);"))
    assert outcome.code == 1 and "specified more than once" in outcome.err and "no-such" not in outcome.err


@pytest.mark.slow
def test_functions_that_call_an_absent_extension_are_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL looks into a body only when it runs, so that the restore goes through."""
    monkeypatch.setitem(absent_extensions.CALLS, "no-such", "no_such_key")
    body = "CREATE FUNCTION public.next_key() RETURNS uuid LANGUAGE plpgsql AS $$ BEGIN RETURN public.no_such_key(); END $$;"
    outcome = restore(project, write(project, EXTENSION, TABLE, body))
    assert outcome.code == 0 and "these functions call it, and will fail: public.next_key" in outcome.err, outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["-Fc", "-Fd", "-Ft"])
def test_archives_with_an_absent_extension(clinic: Project, kind: str) -> None:
    """The entries of an extension in an archive are changed to those of one that no server has; lengths stay as they were."""
    clinic.invoke("db.copy", "--source=dev", "--target=test")
    test = database(clinic, "TEST")
    clinic.execute(
        """CREATE EXTENSION tablefunc; CREATE TABLE visits (id integer); INSERT INTO visits VALUES (1), (2);
        GRANT ALL ON FUNCTION crosstab(text) TO pg_monitor; COMMENT ON TABLE visits IS 'EXTENSION tablefunc'""",
        test,
    )
    file = pg_dump(
        clinic, f"archive{kind}", kind, "--exclude-schema=skinspire_tools", "--compress=none" if kind != "-Ft" else "-v"
    )
    contents = file / "toc.dat" if file.is_dir() else file
    contents.write_bytes(contents.read_bytes().replace(b"tablefunc", b"tablefunk").replace(b"crosstab(", b"crosstap("))
    outcome = restore(clinic, file)
    assert outcome.code == 0, outcome.err
    assert "left out: the extension tablefunk" in outcome.err
    comment = "SELECT count(*), obj_description('visits'::regclass) FROM visits"
    assert clinic.query(comment) == [(2, "EXTENSION tablefunk")], "the comment on the table is no entry of the extension"


def test_an_empty_dump_over_rows_asks_for_more_than_a_confirmation(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE TABLE visits AS SELECT 1 AS id")
    assert project.invoke("env.stamp", f"--confirm={project.database}").code == 0
    no_rows = "CREATE TABLE public.visits (id integer);\nCOPY public.visits (id) FROM stdin;\n\\.\n"
    for name, text in {"empty.sql": "", "no rows.sql": no_rows}.items():
        file = write(project, text, name=name)
        outcome = restore(project, file, "--dry")
        assert outcome.code == 2 and "has rows in public.visits" in outcome.err, outcome.err
        assert f"--confirm={project.database} --empty" in outcome.err
    assert restore(project, file).code == 2
    assert project.query("SELECT count(*) FROM visits") == [(1,)]
    assert restore(project, file, "--empty").code == 0
    assert restore(project, file, "--dry").code == 0, "there is nothing to lose now"
    assert project.query("SELECT count(*) FROM visits") == [(0,)]


@pytest.mark.slow
def test_an_empty_archive_or_backup_over_rows(clinic: Project) -> None:
    copy = ("db.copy", "--source=dev", "--target=test")
    assert clinic.invoke(*copy).code == 0
    test = database(clinic, "TEST")
    tables = "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    clinic.execute(f"SET session_replication_role = replica; TRUNCATE {clinic.query(tables)[0][0]}", test)
    file = pg_dump(clinic, "empty.dump", "-Fc")
    outcome = restore(clinic, file)
    assert outcome.code == 2 and "--empty" in outcome.err, outcome.err
    assert clinic.invoke("backup.create", "--env=test").code == 0
    assert clinic.invoke("backup.restore", "--env=test").code == 0, "both are empty"
    assert clinic.invoke(*copy).code == 0
    outcome = clinic.invoke("backup.restore", "--env=test")
    assert outcome.code == 2 and "--empty" in outcome.err, outcome.err
    assert clinic.invoke("backup.restore", "--env=test", "--empty").code == 0


@pytest.mark.parametrize("version", ["18.1", pytest.param("99.1", marks=pytest.mark.slow)])
def test_a_dump_of_a_newer_server_is_called_newer(project: Project, version: str) -> None:
    file = write(project, TABLE)
    file.write_text(file.read_text().replace("database version 17.10", f"database version {version}"))
    outcome = restore(project, file)
    major = version.partition(".")[0]
    assert outcome.code == 1 and f"the dump is of PostgreSQL {major}, newer than the server's 17" in outcome.err, outcome.err


@pytest.mark.slow
def test_an_archive_in_a_newer_format(clinic: Project) -> None:
    clinic.execute(f'CREATE DATABASE "{database(clinic, "TEST")}"', "postgres")
    file = pg_dump(clinic, "newer.dump", "-Fc")
    text = bytearray(file.read_bytes())
    text[6] += 5  # the minor number of the format, behind PGDMP and the major one
    file.write_bytes(text)
    outcome = restore(clinic, file)
    assert outcome.code == 1 and "newer than the programs here, which are PostgreSQL" in outcome.err, outcome.err


def test_the_swap_does_not_wait_for_the_disk(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """DROP DATABASE of the one before the former waits for a checkpoint of all that was restored; the server ends it alone."""
    monkeypatch.setattr(databases, "PATIENCE", 0.0)
    for name, value in clinic.environment.items():
        monkeypatch.setenv(name, value)
    target = target_of(environment.resolve("dev"))
    aside = scratch.new_name(target)
    clinic.execute(f'CREATE DATABASE "{aside.database}" TEMPLATE "{clinic.database}"', "postgres")
    with clinic.connect("postgres") as watch:
        # A lock on the row keeps the DROP waiting, as a slow checkpoint would.
        with watch.transaction():
            watch.execute("SELECT FROM pg_database WHERE datname = %s FOR UPDATE", (aside.database,))
            databases.drop_without_waiting(aside, "test")
            with connections.maintenance(target, "test") as other:
                assert scratch.sweep(target, "test", other) == [], "it is at work on it, and lives"
        deadline = time.monotonic() + 20
        while aside.database in leftovers(clinic):
            assert time.monotonic() < deadline, "the server has not ended it"
            time.sleep(0.02)


@pytest.mark.slow
def test_what_the_embedded_server_adds_is_restored(project: Project) -> None:
    """25 of 25 real dumps ask for uuid-ossp."""
    table = "CREATE TABLE public.visits (id uuid DEFAULT public.uuid_generate_v4() NOT NULL);\n"
    extension = EXTENSION.replace("no-such", "uuid-ossp")
    outcome = restore(project, write(project, extension, table))
    assert outcome.code == 0 and "left out" not in outcome.err, outcome.err
    project.execute("INSERT INTO visits DEFAULT VALUES")
    assert project.query("SELECT extname FROM pg_extension WHERE extname ~ 'uuid'") == [("uuid-ossp",)]
