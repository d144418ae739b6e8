"""A server of PostgreSQL 15, the oldest that is supported, with client programs of 17: everything that uses both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project, throw_away_home
from support import database

from skinspire_db.postgres import programs
from skinspire_db.postgres.embedded_server import EmbeddedServer

FOLDER = next(
    (each for each in programs.usual_folders() if programs.major_of(each, "postgres", "initdb", "pg_ctl") == 15), None
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(FOLDER is None, reason="no server programs of PostgreSQL 15 were found")]


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose databases are on a server of PostgreSQL 15; the client programs are the usual ones."""
    root = tmp_path_factory.mktemp("oldest")
    (root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    server = EmbeddedServer(throw_away_home(root / "home"), durable=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKINSPIRE_PG_BIN", str(FOLDER))
        server.start()
        server.allow_replication()
        project = Project(root, server.start())
        patch.delenv("SKINSPIRE_PG_BIN")
        project.env = {f"{name}_DATABASE_URL": project.url(f"{name.lower()}_oldest") for name in ("DEV", "TEST")}
        try:
            assert project.query("SHOW server_version_num", "postgres")[0][0].startswith("15")
            outcome = project.invoke("db.setup")
            assert outcome.code == 0, outcome.err
            yield project
        finally:
            patch.setenv("SKINSPIRE_PG_BIN", str(FOLDER))
            server.destroy()


def test_no_drift_after_setup(oldest: Project) -> None:
    outcome = oldest.invoke("db.drift")
    assert outcome.code == 0, outcome.out


def test_backup_proof_and_restore(oldest: Project) -> None:
    """With rows of many kinds, and a role that owns something and is gone when it is restored."""
    oldest.execute(
        "CREATE ROLE ghost; GRANT CREATE ON SCHEMA public TO ghost; CREATE TABLE theirs AS SELECT generate_series(1, 9) n;"
        "ALTER TABLE theirs OWNER TO ghost; GRANT SELECT ON patients TO ghost; SELECT lo_from_bytea(4711, 'large')"
    )
    rows = oldest.query("SELECT count(*) FROM patients")
    made = oldest.invoke("backup.create")
    assert made.code == 0, made.err
    full = oldest.invoke("backup.verify", "--full", "--json")
    assert full.code == 0 and [check["status"] for check in full.json["checks"]] == ["pass"] * 3, full.out
    oldest.execute("DELETE FROM patients; REASSIGN OWNED BY ghost TO skinspire; DROP OWNED BY ghost; DROP ROLE ghost")
    outcome = oldest.invoke("backup.restore")
    assert outcome.code == 0 and "ghost: what was theirs" in outcome.err, outcome.err
    assert oldest.query("SELECT count(*) FROM patients") == rows
    undone = oldest.invoke("db.undo")
    assert undone.code == 0 and oldest.query("SELECT count(*) FROM patients") == [(0,)], undone.err
    assert oldest.invoke("backup.restore").code == 0


def test_continuous_backups(oldest: Project) -> None:
    """The receiver, a full base backup, a moment that is come back to, and a dropped table; an incremental one is of 17."""
    try:
        outcome = oldest.invoke("backup.start")
        assert outcome.code == 0, outcome.err
        outcome = oldest.invoke("backup.create", "--physical")
        assert outcome.code == 0, outcome.err
        refused = oldest.invoke("backup.create", "--incremental")
        assert (
            refused.code == 2
            and "of PostgreSQL 17 and newer; the server is 15 -> invoke backup.create --env=dev --physical" in refused.err
        )
        [(rows, then)] = oldest.query("SELECT count(*), clock_timestamp()::text FROM login_history")
        oldest.execute("DROP TABLE login_history CASCADE")
        outcome = oldest.invoke("backup.restore", f"--to={then}", "--take=login_history")
        assert outcome.code == 0, outcome.err
        assert oldest.query("SELECT count(*) FROM login_history") == [(rows,)]
    finally:
        oldest.invoke("backup.stop")


@pytest.mark.parametrize("method", ["stream", "template"])
def test_a_copy(oldest: Project, method: str) -> None:
    outcome = oldest.invoke("db.copy", "--source=dev", "--target=test", f"--method={method}")
    assert outcome.code == 0, outcome.err
    of = "SELECT count(*) FROM patients"
    assert oldest.query(of, database(oldest, "TEST")) == oldest.query(of)


def test_a_copy_to_a_newer_server_outlasts_its_time_out(oldest: Project, make_project: Callable[..., Project]) -> None:
    """transaction_timeout is a setting of the target's only; one row takes longer to write than it lasts."""
    newer = make_project()
    newer.env["TEST_DATABASE_URL"] = oldest.url("slow_oldest")
    role = f"hasty_{newer.database}"
    newer.execute(
        f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'p'; ALTER ROLE {role} SET transaction_timeout = '1s'", "postgres"
    )
    newer.env["DEV_DATABASE_URL"] = newer.url(newer.database, user=role, password="p")
    oldest.execute("CREATE DATABASE slow_oldest", "postgres")
    try:
        assert newer.invoke("db.setup", "--env=test", "--reference-only").code == 0
        oldest.execute(
            "CREATE FUNCTION slow(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS"
            " 'BEGIN PERFORM pg_sleep(1.5); RETURN a; END';"
            "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (slow(a)) STORED); INSERT INTO g VALUES (1)",
            "slow_oldest",
        )
        outcome = newer.invoke("db.copy", "--source=test", "--target=dev", "--method=stream")
        assert outcome.code == 0, outcome.err
        assert newer.query("SELECT b FROM g") == [(1,)]
    finally:
        newer.execute(f'DROP DATABASE IF EXISTS "{newer.database}" WITH (FORCE)', "postgres")
        newer.execute(f"DROP ROLE {role}", "postgres")
        oldest.execute("DROP DATABASE slow_oldest WITH (FORCE)", "postgres")


@pytest.fixture
def newer(oldest: Project, make_project: Callable[..., Project]) -> Iterator[Project]:
    """A project on a server of PostgreSQL 17 whose test environment is the old server's dev database."""
    project = make_project()
    project.env["TEST_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    project.env["DEV_DATABASE_URL"] = oldest.env["DEV_DATABASE_URL"]
    oldest.execute("CREATE TABLE optioned (a int, b int DEFAULT 4); ALTER TABLE optioned ALTER b SET (n_distinct = 5)")
    # Debian's 15.20 keeps this number itself; an earlier 15 is given one, which pg_dump writes too.
    oldest.execute(
        "UPDATE pg_attribute SET attoptions = coalesce(attoptions, '{}') || '{pg_attver=7}'"
        " WHERE attrelid = 'optioned'::regclass AND attnum > 0 AND coalesce(attoptions::text !~ 'pg_attver', true)"
    )
    try:
        yield project
    finally:
        oldest.execute("DROP TABLE optioned")


def check_options(newer: Project) -> None:
    of = "SELECT attname, attoptions FROM pg_attribute WHERE attrelid = 'optioned'::regclass AND attnum > 0 ORDER BY 1"
    assert newer.query(of, database(newer, "TEST")) == [("a", None), ("b", ["n_distinct=5"])]
    assert newer.query("SELECT count(*) > 0 FROM patients", database(newer, "TEST")) == [(True,)]


def test_a_stream_to_a_newer_server(newer: Project) -> None:
    outcome = newer.invoke("db.copy", "--source=dev", "--target=test", "--method=stream")
    assert outcome.code == 0, outcome.err
    check_options(newer)


def test_a_backup_restored_by_a_newer_server(newer: Project) -> None:
    made = newer.invoke("backup.create", "--env=dev")
    assert made.code == 0, made.err
    [path] = (newer.root / "backups").glob("dev-*")
    outcome = newer.invoke("backup.restore", "--env=test", f"--file={path}")
    assert outcome.code == 0, outcome.err
    check_options(newer)


@pytest.mark.parametrize("kind", ["-Fp", "-Fc", "-Fd"])
def test_a_dump_restored_by_a_newer_server(oldest: Project, newer: Project, kind: str) -> None:
    from test_hostile_dumps import of_others

    file = of_others(oldest, kind, file=f"to-newer{kind}")
    outcome = newer.invoke("backup.restore", "--env=test", f"--file={file}", f"--confirm={database(newer, 'TEST')}")
    assert outcome.code == 0, outcome.err
    check_options(newer)


@pytest.mark.parametrize("options", [["-Fp"], ["-Fc"], ["-Fd"]])
def test_a_dump_by_others(oldest: Project, options: list[str]) -> None:
    from test_hostile_dumps import of_others

    file = of_others(oldest, *options, file=f"of-others{options[0]}")
    outcome = oldest.invoke("backup.restore", f"--file={file}")
    assert outcome.code == 0, outcome.err


def test_what_is_wrong_in_an_archive_is_not_passed_over(oldest: Project, tmp_path: Path) -> None:
    """pg_restore goes on after its own setting was refused, and every other error counts."""
    from test_hostile_dumps import of_others

    oldest.execute(
        "CREATE FUNCTION fails(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF current_database() ~ 'scratch' THEN RAISE 'no'; END IF; RETURN 1; END $$"
    )
    oldest.execute("CREATE TABLE bait (a int); INSERT INTO bait VALUES (1); CREATE INDEX ON bait (public.fails(a))")
    try:
        file = of_others(oldest, "-Fc", file="fails.dump")
        rows = oldest.query("SELECT count(*) FROM patients")
        outcome = oldest.invoke("backup.restore", f"--file={file}")
        assert (
            outcome.code == 1
            and "pg_restore failed: no" in outcome.err
            and oldest.query("SELECT count(*) FROM patients") == rows
        )
    finally:
        oldest.execute("DROP TABLE bait; DROP FUNCTION fails")
    assert os.environ.get("SKINSPIRE_PG_BIN") is None
