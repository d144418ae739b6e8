"""db.copy and db.undo: the target is an exact copy or what it was; the source is what it was, whatever happens."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from conftest import Project, dump, throw_away_home
from support import both, database, leftovers, without_names

from skinspire_db.copies import streaming
from skinspire_db.copies.copied_tables import Reading, Table, divided
from skinspire_db.postgres import connections
from skinspire_db.postgres.embedded_server import EmbeddedServer

METHODS = ["template", "stream"]


@pytest.fixture
def two(project: Project, template: str) -> Iterator[Project]:
    """A project with a dev and a test database, both set up; test holds everything that a database can hold."""
    with both(project, template):
        yield project


def test_a_copy_alone_is_of_test_to_dev(two: Project) -> None:
    """Whichever environment is active."""
    two.env["SKINSPIRE_ENV"] = "test"
    outcome = two.forked("db.copy", "--json")
    assert outcome.code == 0 and outcome.json["database"] == two.database, outcome.err
    assert two.query("SELECT to_regclass('loose') IS NOT NULL") == [(True,)]
    assert two.invoke("db.copy", "--source=dev").code == 0, "to the active one"
    assert two.invoke("db.copy", "--target=dev").code == 0, "from test"


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_copied(two: Project, method: str) -> None:
    before = dump(two.address, database(two, "TEST"), "--create", "--large-objects")
    outcome = two.invoke("db.copy", "--source=test", "--target=dev", f"--method={method}", "--json")
    assert outcome.code == 0, outcome.out
    assert dump(two.address, database(two, "TEST"), "--create", "--large-objects") == before, "the source was only read"
    after = dump(two.address, two.database, "--create", "--large-objects")
    assert without_names(after) == without_names(before)
    assert outcome.json["steps"][1]["summary"]["method"] == method
    assert two.query("SELECT environment FROM skinspire_tools.stamp") == [("dev",)]
    assert two.query("SELECT operation FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1") == [("db.copy",)]
    assert [name[:-7] for name in leftovers(two)] == [f"{two.database}_former"]


def test_undo_and_undo_again(two: Project) -> None:
    two.execute("UPDATE patients SET last_name = 'Precious' WHERE mrn = 'T000007'")
    precious, copied = two.dump(), dump(two.address, database(two, "TEST"))
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    assert without_names(two.dump()) == without_names(copied)
    outcome = two.invoke("db.undo")
    assert outcome.code == 0 and without_names(two.dump()) == without_names(precious)
    assert two.invoke("db.undo").code == 0 and without_names(two.dump()) == without_names(copied)
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    assert [name[:-7] for name in leftovers(two)] == [f"{two.database}_former"], (
        "one former database is kept, not one of each operation"
    )


@pytest.mark.slow
def test_onto_a_database_that_does_not_exist(two: Project) -> None:
    two.execute(f'DROP DATABASE "{two.database}"', "postgres")
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    assert leftovers(two) == []
    outcome = two.invoke("db.undo")
    assert outcome.code == 1 and "no former database is kept" in outcome.err


def test_people_at_work(two: Project) -> None:
    """Sessions on the source are left alone; those on the target are ended, and that is said."""
    with two.connect(database(two, "TEST"), application_name="reader") as reader, two.connect(application_name="writer"):
        outcome = two.invoke("db.copy", "--source=test", "--target=dev", "--json")
        assert outcome.code == 0 and outcome.json["steps"][1]["summary"]["method"] == "stream"
        assert any("1 session was ended: writer" in note for note in outcome.json["notes"])
        assert reader.execute("SELECT 1").fetchone() == (1,)
        refused = two.invoke("db.copy", "--source=test", "--target=dev", "--method=template")
        assert refused.code == 2 and "1 session uses it (reader)" in refused.err and "--method=stream" in refused.err


@pytest.mark.slow
def test_definitions_only_and_some_tables(two: Project) -> None:
    assert two.invoke("db.copy", "--source=test", "--target=dev", "--schema-only").code == 0
    assert two.query("SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM hospitals)") == [(0, 0)]
    assert two.invoke("triggers.status").code == 0, "the ledger came along"
    assert two.invoke("db.copy", "--source=test", "--target=dev", "--tables=patients,two").code == 0
    counts = "SELECT (SELECT count(*) FROM patients) > 0, (SELECT count(*) FROM hospitals) > 0, (SELECT count(*) FROM one), (SELECT count(*) FROM users)"
    assert two.query(counts) == [(True, True, 1, 0)], "what they need through foreign keys, and no more"


@pytest.mark.slow
def test_across_servers(two: Project, tmp_path: Path) -> None:
    other = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        address = other.start()
        role, common = f"only_here_{two.database}", f"everywhere_{two.database}"
        with psycopg.connect(**address.parameters, dbname="postgres") as there:
            there.execute(f"CREATE ROLE {common}".encode())
        two.execute(
            f"""CREATE ROLE {role}; GRANT SELECT ON one TO {role}; GRANT UPDATE ON one TO PUBLIC;
            GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE large OWNER TO {role};
            CREATE POLICY "a TO b" ON one FOR UPDATE TO {role}, pg_monitor USING (id > 1
            );
            COMMENT ON POLICY "a TO b" ON one IS 'whose'; GRANT SELECT ON LARGE OBJECT 4711 TO {role};
            CREATE ROLE {common}; GRANT CREATE ON SCHEMA public TO {common}; ALTER TABLE price OWNER TO {common};
            SELECT lo_from_bytea(4712, 'theirs'); ALTER LARGE OBJECT 4712 OWNER TO {role};
            CREATE TABLE "one POLICY more" (what text); COMMENT ON TABLE "one POLICY more" IS 'kept';
            CREATE POLICY words ON "one POLICY more" USING (what <> 'give TO bob;');
            CREATE POLICY theirs ON "one POLICY more" TO {role} USING (true);
            COMMENT ON POLICY theirs ON "one POLICY more" IS 'of those who are not here'""",
            database(two, "TEST"),
        )
        two.env["DEV_DATABASE_URL"] = (
            f"postgresql://{address.user}:{address.password}@127.0.0.1:{address.port}/{two.database}"
        )
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 0 and f"{role}: what was theirs is skinspire's now" in outcome.err, outcome.err
        assert f"{role}: policies are not for them, those for them alone left out" in outcome.err
        with psycopg.connect(**address.parameters, dbname=two.database) as there:
            policy = (
                "SELECT polroles::regrole[]::text, obj_description(oid, 'pg_policy') FROM pg_policy WHERE polname = 'a TO b'"
            )
            assert there.execute(policy).fetchone() == ("{pg_monitor}", "whose")
            owners = "SELECT relowner::regrole::text FROM pg_class WHERE relname IN ('large', 'price') ORDER BY relname"
            assert there.execute(owners).fetchall() == [("skinspire",), (common,)], "who is there too keeps what is his"
            large = "SELECT lomowner::regrole::text FROM pg_largeobject_metadata WHERE oid = 4712"
            assert there.execute(large).fetchone() == ("skinspire",)
            assert there.execute("SELECT obj_description('\"one POLICY more\"'::regclass)").fetchone() == ("kept",)
            policies = "SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = '\"one POLICY more\"'::regclass"
            assert there.execute(policies).fetchall() == [("words", "(what <> 'give TO bob;'::text)")]
            assert there.execute("SELECT has_table_privilege('public', 'one', 'UPDATE')").fetchone() == (True,)
        two.execute(
            'DROP POLICY "a TO b" ON one; DROP TABLE "one POLICY more"; SELECT lo_unlink(4712)', database(two, "TEST")
        )
        two.execute(f"REASSIGN OWNED BY {role}, {common} TO skinspire", database(two, "TEST"))
        two.execute(f"DROP OWNED BY {role}, {common}; DROP ROLE {role}, {common}", database(two, "TEST"))
        before = dump(two.address, database(two, "TEST"))
        assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
        assert without_names(dump(address, two.database)) == without_names(before)
    finally:
        other.destroy()


@pytest.mark.slow
def test_more_tables_than_one_transaction_may_lock(two: Project) -> None:
    two.execute(
        """DO $$ BEGIN FOR n IN 1..3600 LOOP
               EXECUTE format('CREATE TABLE many_%s AS SELECT %1$s AS id, ''x''::text AS what', n);
               IF n % 500 = 0 THEN COMMIT; END IF;
           END LOOP; END $$""",
        database(two, "TEST"),
    )
    outcome = two.invoke("db.copy", "--source=test", "--target=dev", "--method=stream")
    assert outcome.code == 0, outcome.err
    assert two.query("SELECT count(*) FROM pg_class WHERE relname ~ '^many_'") == [(3600,)]


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--source=dev"], "source and target are both dev", 2),
        (["--source=prod"], "never copied to another environment", 2),
        (["--source=test", "--target=prod"], "prod is protected: nothing is copied over it", 2),
        (["--source=nonesuch"], "unknown environment 'nonesuch' (from --source)", 2),
        (["--source=test", "--target=nonesuch"], "unknown environment 'nonesuch' (from --target)", 2),
        (["--source=test", "--method=magic"], "there is no method magic", 2),
        (["--source=test", "--tables=nonesuch"], "there is no table nonesuch", 2),
        (["--source=test", "--tables=one", "--method=template"], "a template is copied whole", 2),
        (["--source=test", "--tables=one", "--schema-only"], "give one of the two", 2),
        (["--source=test", "--tables=,"], "--tables names no table", 2),
        (["--source=test", "--jobs=none"], "--jobs=none is no number", 2),
    ],
)
def test_wrong_arguments(two: Project, arguments: list[str], says: str, code: int) -> None:
    before = two.dump()
    two.env["PROD_DATABASE_URL"] = two.env["DEV_DATABASE_URL"]
    outcome = two.invoke("db.copy", *arguments)
    assert outcome.code == code and says in outcome.err, outcome.err
    assert two.dump() == before and leftovers(two) == []


@pytest.mark.slow
def test_wrong_databases(two: Project) -> None:
    before = two.dump()
    for change, says in {
        "UPDATE skinspire_tools.stamp SET environment = 'prod'": "is stamped prod, not test",
        "DROP TABLE skinspire_tools.stamp": "no stamp",
    }.items():
        two.execute(change, database(two, "TEST"))
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 2 and says in outcome.err
    two.env["TEST_DATABASE_URL"] = two.env["DEV_DATABASE_URL"].replace("127.0.0.1", "localhost")
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 2
    two.env["TEST_DATABASE_URL"] = two.url("nonesuch")
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 1
    assert two.dump() == before


@pytest.mark.slow
def test_a_role_that_may_not_create_databases(two: Project) -> None:
    role = f"poor_{secrets.token_hex(4)}"
    two.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT pg_read_all_data TO {role}")
    for name in ("DEV", "TEST"):
        two.execute(
            f"GRANT ALL ON SCHEMA skinspire_tools TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA skinspire_tools TO {role}",
            database(two, name),
        )
        two.env[f"{name}_DATABASE_URL"] = two.url(database(two, name), user=role, password="secret")
    try:
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 1 and f'ALTER ROLE "{role}" CREATEDB' in outcome.err, outcome.err
    finally:
        for name in ("DEV", "TEST"):
            two.env[f"{name}_DATABASE_URL"] = two.url(database(two, name))
            two.execute(f"DROP OWNED BY {role}", database(two, name))
        two.execute(f"DROP ROLE {role}")


@pytest.mark.slow
def test_settings_that_would_get_in_the_way(two: Project) -> None:
    test = database(two, "TEST")
    for setting in (
        "datestyle = 'SQL, DMY'",
        "default_transaction_read_only = on",
        "transaction_timeout = '1s'",
        "statement_timeout = '1s'",
    ):
        two.execute(f'ALTER DATABASE "{test}" SET {setting}', "postgres")
    for method in METHODS:
        outcome = two.invoke("db.copy", "--source=test", "--target=dev", f"--method={method}")
        assert outcome.code == 0, outcome.err
    assert two.query(
        "SELECT count(*) FROM pg_db_role_setting, unnest(setconfig) WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ) == [(6,)]


@pytest.mark.slow
def test_the_sources_locale(two: Project) -> None:
    test = database(two, "TEST")
    two.execute(f'DROP DATABASE "{test}"', "postgres")
    two.execute(f"CREATE DATABASE \"{test}\" TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", "postgres")
    assert two.invoke("db.setup", "--env=test", "--reference-only").code == 0
    assert two.invoke("db.copy", "--source=test", "--target=dev", "--method=stream").code == 0
    what = "SELECT DISTINCT encoding, datlocprovider, datcollate, datctype, datlocale FROM pg_database WHERE datname IN ('{}', '{}')"
    assert len(two.query(what.format(test, two.database), "postgres")) == 1


def test_another_projects_database_of_nearly_that_name(two: Project) -> None:
    others = [f"{two.database}_former", f"{two.database}_scratch_deadbeefdead"]
    for name in others:
        two.execute(f'CREATE DATABASE "{name}"', "postgres")
    for _ in range(2):
        assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    assert set(others) < set(leftovers(two)) and len(leftovers(two)) == 3


def test_a_transaction_begins_without_a_snapshot(clinic: Project) -> None:
    """What is committed until the tables are locked is copied too."""
    policy: Any = SimpleNamespace(lock_timeout=5)
    with psycopg.connect(**clinic.address.parameters, dbname=clinic.database) as connection:
        connections.begin(connection, policy, brief=True, isolation="REPEATABLE READ READ ONLY")
        clinic.execute("DELETE FROM role_module_access")
        assert connection.execute("SELECT count(*) FROM public.role_module_access").fetchone() == (0,)


def test_dry_and_expressions(two: Project) -> None:
    outcome = two.invoke("--dry", "db.copy", "--source=test", "--target=dev")
    assert outcome.code == 0 and "would run source -> copy -> compare -> stamp -> swap" in outcome.out
    table = Table(
        "public", "patients", 0, ["id", "name"], True, frozenset(), reading=Reading({"name": "md5(t.name)"}, "t.id > 1")
    )
    chosen = 'SELECT t."id", md5(t.name) FROM ONLY "public"."patients" AS t WHERE t.id > 1'
    assert table.read == f"COPY ({chosen}) TO STDOUT (FORMAT binary)"
    table = replace(table, reading=replace(table.reading, by_value=frozenset({"name"})))
    rows = '(SELECT t.* FROM ONLY "public"."patients" AS t WHERE t.id > 1 OFFSET 0) AS t'
    chosen = f'SELECT t."id", v0.v FROM {rows} CROSS JOIN LATERAL (SELECT md5(t.name) AS v OFFSET 0) AS v0'
    assert table.read == f"COPY ({chosen}) TO STDOUT (FORMAT binary)", "the condition comes before the expressions"


@pytest.mark.slow
def test_progress_on_a_terminal(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from skinspire_db.config import environment
    from skinspire_db.config import project as settings
    from skinspire_db.copies import copy
    from skinspire_db.lifecycle.result import Report

    told: list[Any] = []

    class Told(Report):
        def transfer(self, done: int, total: int, rows: int) -> None:
            told.append((done, total, rows))

    for name, value in {"SKINSPIRE_PROJECT": str(two.root), **two.env}.items():
        monkeypatch.setenv(name, value)
    settings._tool_table.cache_clear()
    two.execute("INSERT INTO no_rows SELECT generate_series(1, 2000000)", database(two, "TEST"))
    copy.copy("test", environment.resolve("dev"), method="stream").run(report=Told())
    assert told and all(done <= total for done, total, _ in told) and max(rows for _, _, rows in told) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX's kind")
def test_a_template_shows_how_far_it_is(two: Project) -> None:
    """On a terminal, from the files that grow."""
    import fcntl
    import pty
    import struct
    import termios

    rows = "SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 40000) n"
    two.execute(f"CREATE TABLE much AS {rows}", database(two, "TEST"))
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = two.command("db.copy", "--source=test", "--target=dev", "--method=template")
    with subprocess.Popen(command, env=two.environment, cwd=two.root, stdout=subprocess.DEVNULL, stderr=theirs) as task:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal is gone
            while block := os.read(mine, 4096):
                shown += block
    os.close(mine)
    assert task.returncode == 0 and b"copied:" in shown and b"B/s" in shown, shown


def test_definitions_are_compared_when_roles_are_missing(two: Project) -> None:
    from skinspire_db.catalog.fingerprint import Fingerprint, differences

    whole = {"index a on t": "1", "table t": "2", "grant t to ghost": "3", "policy p on t": "4", "constraint c on t": "5"}
    less = {"table t": "of another owner", "constraint c on t": "other"}
    found = differences(Fingerprint({}, {}, whole, 17), Fingerprint({}, {}, less, 17), of=("unowned",))
    assert list(found) == ["constraint c on t differs", "index a on t is missing"]


@pytest.mark.slow
def test_a_large_table_is_several_streams(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """From three jobs on, on one snapshot; a session waits as long as a key takes to be made."""
    read, real, timers = [], streaming._Pipes.large, []

    def large(pipes: streaming._Pipes, table: Table) -> None:
        read.append(table)
        real(pipes, table)
        if table.quoted == '"public"."large"' and sum(each.quoted == table.quoted for each in read) == 3:
            holder = psycopg.connect(**pipes.aside.parameters)
            holder.execute("LOCK TABLE public.large IN ACCESS EXCLUSIVE MODE")
            timers.append(threading.Timer(1, holder.close))
            timers[-1].start()

    (two.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nlock_timeout = 0.3\n")
    monkeypatch.setattr(streaming._Pipes, "large", large)
    monkeypatch.setattr(streaming, "PART", 1 << 20)
    two.execute("DELETE FROM large WHERE id % 7 = 0; INSERT INTO large VALUES (0, '{}', 'last')", database(two, "TEST"))
    before = dump(two.address, database(two, "TEST"))
    copy = ("db.copy", "--source=test", "--target=dev", "--method=stream")

    def lines(dumped: str) -> list[str]:
        return sorted(without_names(dumped).splitlines())  # the parts' rows come in any order

    outcome = two.invoke(*copy, "--jobs=3")
    for timer in timers:
        timer.join()
    assert outcome.code == 0 and timers, outcome.err
    assert lines(dump(two.address, two.database)) == lines(before)
    assert [each.part for each in read if each.quoted == '"public"."large"'] == [True] * 3
    read.clear()
    assert two.invoke(*copy, "--jobs=2").code == 0
    assert [each.part for each in read] == [False], "of two jobs both are busy with one stream"


def test_parts_have_every_block_once() -> None:
    table = Table("public", "t", 90, ["id"], True, frozenset(), reading=Reading(where="t.id > 1"))
    parts = divided(table, 10, 3)
    assert [each.reading.where for each in parts] == [
        "(t.id > 1) AND t.ctid >= '(0,0)' AND t.ctid < '(3,0)'",
        "(t.id > 1) AND t.ctid >= '(3,0)' AND t.ctid < '(6,0)'",
        "(t.id > 1) AND t.ctid >= '(6,0)'",
    ]
    assert all(each.write == ['COPY "public"."t" ("id") FROM STDIN (FORMAT binary)'] for each in parts), "no TRUNCATE"
