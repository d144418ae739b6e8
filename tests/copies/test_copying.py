"""db.copy and db.undo: the target is an exact copy or what it was; the source is what it was, whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from conftest import Project, dump, throw_away_home

from skinspire_db.config.policy import Policy
from skinspire_db.copies.streaming import Table
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import connections
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.target import Target, target_of

METHODS = ["template", "stream"]
# Everything that a database can hold.
EVERYTHING = """
CREATE SCHEMA "Odd schema"; COMMENT ON SCHEMA "Odd schema" IS 'it''s odd';
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN email AS citext CHECK (VALUE ~ '@'); CREATE TYPE pair AS (a int, b text);
CREATE SEQUENCE loose INCREMENT 5 MAXVALUE 1000 CYCLE; SELECT nextval('loose'), nextval('loose');
CREATE TABLE "Odd schema"."Odd ""table"" %" (
    "a b" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Zürich" text COLLATE "C" DEFAULT 'x', doubled int GENERATED ALWAYS AS ("a b" * 2) STORED,
    mood mood, address email, pairs pair[], facts json, when_ timestamptz DEFAULT now(), amount numeric, EXCLUDE USING gist (circle(point("a b", 0), 0.1) WITH &&)
);
INSERT INTO "Odd schema"."Odd ""table"" %" ("Zürich", mood, address, pairs, facts, amount)
    SELECT E'line\\nbreak \\\\ ' || n, 'happy', 'A@b', ARRAY[ROW(n, 'x,"y')]::pair[], '{"b":1, "a":  2}', n / 3.0 FROM generate_series(1, 50) n;
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; CREATE TABLE no_rows (id int);
CREATE UNLOGGED TABLE quick (id int); INSERT INTO quick VALUES (7);
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE INDEX ON parts (id); ALTER TABLE parts ADD PRIMARY KEY (id, at); INSERT INTO parts VALUES (1, '2026-01-05');
CREATE TABLE parent (id int); CREATE TABLE child (extra text) INHERITS (parent); INSERT INTO child VALUES (1, 'c'); INSERT INTO parent VALUES (2);
CREATE TABLE one (id int PRIMARY KEY, other int); CREATE TABLE two (id int PRIMARY KEY, other int REFERENCES one DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE one ADD CONSTRAINT circular FOREIGN KEY (other) REFERENCES two NOT VALID; INSERT INTO one VALUES (1, NULL); INSERT INTO two VALUES (1, 1); SET CONSTRAINTS ALL IMMEDIATE;
CREATE VIEW some_view AS SELECT id FROM one; CREATE MATERIALIZED VIEW a_later AS SELECT 1 AS n; CREATE MATERIALIZED VIEW z_first AS SELECT count(*) AS n FROM one;
DROP MATERIALIZED VIEW a_later; CREATE MATERIALIZED VIEW a_later AS SELECT n FROM z_first; CREATE MATERIALIZED VIEW never AS SELECT 1 WITH NO DATA;
CREATE INDEX ON z_first (n);
CREATE FUNCTION of_mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER by_hand BEFORE UPDATE ON one FOR EACH ROW EXECUTE FUNCTION of_mine(); ALTER TABLE one DISABLE TRIGGER by_hand;
CREATE RULE never AS ON DELETE TO one DO INSTEAD NOTHING; CREATE STATISTICS together ON id, other FROM one;
ALTER TABLE one ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON one USING (id > 0);
GRANT SELECT (id) ON one TO PUBLIC; GRANT USAGE ON SCHEMA "Odd schema" TO PUBLIC; GRANT UPDATE ON SEQUENCE loose TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; REVOKE EXECUTE ON FUNCTION of_mine FROM PUBLIC;
COMMENT ON TABLE one IS 'first'; COMMENT ON COLUMN one.id IS 'which'; COMMENT ON INDEX one_pkey IS 'key';
CREATE INDEX only_some ON two (other) INCLUDE (id) WHERE other > 0;
SELECT lo_from_bytea(4711, 'a large object');
CREATE TABLE "a\\.
it's \\n :a %" (id int); INSERT INTO "a\\.
it's \\n :a %" VALUES (1); CREATE TABLE price (amount money); INSERT INTO price VALUES (12345.67);
CREATE TABLE large (id int PRIMARY KEY, facts jsonb, what text); CREATE INDEX ON large (what); -- too large to go with others
INSERT INTO large SELECT n, '{"a": 1}', repeat(md5(n::text), 8) FROM generate_series(1, 32000) n;
CREATE PUBLICATION all_of_it FOR TABLE one;
"""


@pytest.fixture
def two(project: Project, template: str) -> Iterator[Project]:
    """A project with a dev and a test database, both set up; test holds everything that a database can hold."""
    everything(project, template)
    yield project
    for left in leftovers(project):
        project.execute(f'DROP DATABASE "{left}" WITH (FORCE)', "postgres")


def everything(project: Project, template: str) -> None:
    for name in ("DEV", "TEST"):
        project.execute(f'CREATE DATABASE "{database(project, name)}" TEMPLATE {template}', "postgres")
    test = database(project, "TEST")
    with psycopg.connect(**project.address.parameters, dbname=test) as connection:
        connection.execute("UPDATE skinspire_tools.stamp SET environment = 'test', identity = gen_random_uuid()")
        connection.execute(EVERYTHING.encode())
    project.execute(
        f'ALTER DATABASE "{test}" SET search_path = public, "Odd schema"; ALTER DATABASE "{test}" SET work_mem = \'7MB\';'
        f'COMMENT ON DATABASE "{test}" IS \'for tests\'; REVOKE TEMP ON DATABASE "{test}" FROM PUBLIC; ALTER DATABASE "{test}" CONNECTION LIMIT 50',
        "postgres",
    )


def database(project: Project, name: str) -> str:
    return project.env[f"{name}_DATABASE_URL"].rpartition("/")[2]


def leftovers(project: Project) -> list[str]:
    """The databases beside the project's two."""
    rows = project.query("SELECT datname FROM pg_database", "postgres")
    return sorted(name for (name,) in rows if name.startswith((f"{project.database}_", f"{database(project, 'TEST')}_")))


def without_names(text: str) -> str:
    """A dump without what says which database it is: the stamp, and the journal's last line."""
    text = re.sub(r"COPY skinspire_tools\.(stamp|journal) .*?\n\\\.\n", "", text, flags=re.DOTALL)
    return re.sub(r"(dev|test)_[0-9a-f]{8}", "NAME", text)


def test_a_copy_alone_is_of_test_to_dev(two: Project) -> None:
    """Whichever environment is active."""
    two.env["SKINSPIRE_ENV"] = "test"
    outcome = two.process("db.copy", "--json")
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
    """Whoever uses the source is left alone; whoever uses the target is sent away, and that is said."""
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


@pytest.mark.slow
def test_a_source_that_changes_meanwhile(two: Project) -> None:
    """The stream is of one moment, whatever is written meanwhile."""
    with two.connect(database(two, "TEST")) as writer:
        task = two.start("db.copy", "--source=test", "--target=dev", "--method=stream")
        while task.poll() is None:
            writer.execute("INSERT INTO no_rows SELECT generate_series(1, 10)")
            writer.execute("UPDATE patients SET last_name = 'x' || length(last_name) WHERE mrn = 'T000001'")
            time.sleep(0.01)
        _, err = task.communicate()
        assert task.returncode == 0, err
    [(rows,)] = two.query("SELECT count(*) FROM no_rows")
    assert rows % 10 == 0


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


def test_another_operation_at_work(two: Project) -> None:
    with two.connect() as holder, holder.transaction():
        holder.execute("SELECT pg_advisory_xact_lock(6037467)")
        (two.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\noperation_wait = 0.2\n")
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 2 and "is in use by" in outcome.err


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
def test_truncated_while_it_is_copied(two: Project) -> None:
    """TRUNCATE and a rewrite do not go by snapshots. They wait for the copy, which gives up rather than wait for them."""
    test, before = database(two, "TEST"), two.dump()
    (two.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.test]\nlock_timeout = 0.5\n")
    two.execute(
        "INSERT INTO no_rows SELECT generate_series(1, 1500000); CREATE TABLE small AS SELECT generate_series(1, 1000) AS a",
        test,
    )
    task = two.start("db.copy", "--source=test", "--target=dev", "--method=stream", "--jobs=1")
    while not two.query(f"SELECT FROM pg_stat_progress_copy WHERE datname = '{test}'", "postgres"):
        assert task.poll() is None
    two.execute("ALTER TABLE small ALTER a TYPE bigint", test)
    _, err = task.communicate(timeout=60)
    if task.returncode == 0:  # it had come that far already
        assert two.query("SELECT count(*) FROM small") == [(1000,)]
    else:
        assert "lock timeout" in err and two.dump() == before, err
    assert two.query("SELECT count(*) FROM small", test) == [(1000,)]


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


def test_somebody_elses_database_of_nearly_that_name(two: Project) -> None:
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
    table = Table("public", "patients", 0, ["id", "name"], True, frozenset(), expressions={"name": "md5(name)"})
    assert table.read == 'COPY (SELECT "id", md5(name) FROM ONLY "public"."patients") TO STDOUT (FORMAT binary)'


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


@pytest.mark.slow
def test_a_look_that_fails_ends_no_other(two: Project) -> None:
    """Of two looks at once, each fails for its own reason, or not at all."""
    from concurrent.futures import ThreadPoolExecutor

    from skinspire_db.catalog import fingerprint
    from skinspire_db.config import environment
    from skinspire_db.config import project as settings

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        for name, value in {"SKINSPIRE_PROJECT": str(two.root), **two.env}.items():
            patch.setenv(name, value)
        settings._tool_table.cache_clear()
        dev, test = (target_of(environment.resolve(name)) for name in ("dev", "test"))
        test_name = database(two, "TEST")
        two.execute("CREATE TABLE slow AS SELECT n, n::numeric AS m FROM generate_series(1, 1500000) n")
        at_it = "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' AND {}"
        with two.connect(test_name) as holder:
            holder.execute("BEGIN; LOCK TABLE patients")
            bad = pool.submit(fingerprint.take, test, "look")
            while not (waiting := two.query(at_it.format(test_name, "wait_event_type = 'Lock'"), "postgres")):
                time.sleep(0.01)
            good = pool.submit(fingerprint.take, dev, "look")
            while not two.query(at_it.format(two.database, "query LIKE '%count(*)%slow%'"), "postgres"):
                assert not good.done()
            two.query(f"SELECT pg_terminate_backend({waiting[0][0]})", "postgres")
            assert isinstance(
                bad.exception(), psycopg.errors.AdminShutdown | psycopg.errors.LockNotAvailable
            )  # on a slow machine
            assert good.result().rows > 1500000


def test_definitions_are_compared_when_roles_are_missing(two: Project) -> None:
    from skinspire_db.catalog.fingerprint import Fingerprint, differences

    whole = {"index a on t": "1", "table t": "2", "grant t to ghost": "3", "policy p on t": "4", "constraint c on t": "5"}
    less = {"table t": "of another owner", "constraint c on t": "other"}
    found = differences(Fingerprint({}, {}, whole, 17), Fingerprint({}, {}, less, 17), of=("unowned",))
    assert list(found) == ["constraint c on t differs", "index a on t is missing"]


def exchange(project: Project, name: str) -> dict[str, int]:
    """Rename the database of that name away, and one that is stamped prod to its name. Returns what all are called, and are."""
    prod = f"{project.database}_prod"
    template = database(project, "TEST")
    with psycopg.connect(**project.address.parameters, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{prod}" TEMPLATE "{template}"'.encode())
        project.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'", prod)
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        admin.execute(ended, (name,))
        if project.query(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres"):
            admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{project.database}_away"'.encode())
        admin.execute(f'ALTER DATABASE "{prod}" RENAME TO "{name}"'.encode())
    return all_databases(project)


def all_databases(project: Project) -> dict[str, int]:
    """Name and oid of the project's databases, scratch databases left out."""
    rows = project.query("SELECT datname, oid FROM pg_database WHERE datname !~ '_scratch_'", "postgres")
    mine = (project.database, database(project, "TEST"))
    return {name: oid for name, oid in rows if name.startswith(mine)}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["_send_away", "_wait_for_leaving"])
@pytest.mark.parametrize("victim", ["target", "former", "new former"])
@pytest.mark.parametrize("operation", ["db.copy", "db.undo"])
def test_a_database_exchanged_before_the_swap(
    two: Project, monkeypatch: pytest.MonkeyPatch, operation: str, victim: str, moment: str
) -> None:
    """The swap goes by name: prod's would be moved away, or dropped by it or by the next copy."""
    if victim != "new former":
        assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    elif operation == "db.undo":
        pytest.skip("without a former database there is nothing to undo")
    former = scratch.former(Target("dev", Policy(), {"dbname": two.database})).database
    real = getattr(scratch, moment)
    after: dict[str, Any] = {}

    def attack(*arguments: Any) -> Any:
        if not after:
            after.update(exchange(two, two.database if victim == "target" else former))
        return real(*arguments)

    monkeypatch.setattr(scratch, moment, attack)
    outcome = two.invoke(operation, *(("--source=test", "--target=dev") if operation == "db.copy" else ()))
    assert after and outcome.code == 1 and "as it was" in outcome.err, outcome.err
    assert all_databases(two) == after
    prod = two.database if victim == "target" else former
    assert two.query("SELECT environment FROM skinspire_tools.stamp", prod) == [("prod",)]
    again = two.invoke("db.copy", "--source=test", "--target=dev")
    assert again.code == 2 and "is stamped prod, not dev" in again.err
    assert all_databases(two) == after


def test_a_former_database_that_is_not_ours_is_never_dropped(two: Project) -> None:
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    (kept,) = leftovers(two)
    for command in ("UPDATE skinspire_tools.stamp SET environment = 'prod'", "DROP SCHEMA skinspire_tools CASCADE"):
        two.execute(command, kept)
        before = all_databases(two)
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 2 and f"{kept} on" in outcome.err and "would drop" in outcome.err, outcome.err
        assert all_databases(two) == before
    two.execute(outcome.err.partition("in psql: ")[2], "postgres")
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    assert two.query("SELECT count(*) > 0 FROM patients", f"{kept}_not_ours") == [(True,)]


@pytest.mark.slow
def test_a_copy_whose_lock_was_lost_changes_nothing(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody ended the session that holds the operation lock: another operation may be at work."""
    before, real = all_databases(two), scratch.swap

    def lose(to: Any, new: Any, operation: str, holder: Any) -> Any:
        two.query(f"SELECT pg_terminate_backend({holder.info.backend_pid}, 5000)", "postgres")
        return real(to, new, operation, holder)

    monkeypatch.setattr(scratch, "swap", lose)
    outcome = two.invoke("db.copy", "--source=test", "--target=dev")
    assert outcome.code == 1 and "ended this session" in outcome.err and "as it was" in outcome.err
    assert all_databases(two) == before


@pytest.mark.slow
def test_a_role_that_is_shut_out_meanwhile(two: Project) -> None:
    """What was made aside goes over the connection that is there."""
    role, test = f"shut_{secrets.token_hex(4)}", database(two, "TEST")
    two.execute(
        f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'secret'; ALTER ROLE {role} SET statement_timeout = '10ms'", "postgres"
    )
    two.execute("INSERT INTO no_rows SELECT generate_series(1, 3000000)", test)
    before = two.dump()
    for name in ("DEV", "TEST"):
        two.env[f"{name}_DATABASE_URL"] = two.url(database(two, name), user=role, password="secret")
    try:
        task = two.start("db.copy", "--source=test", "--target=dev", "--method=stream")
        made = f"SELECT FROM pg_database WHERE datname ~ '^{two.database}_scratch_'"
        while not two.query(made, "postgres"):
            assert task.poll() is None, task.communicate()
            time.sleep(0.01)
        two.execute(f"ALTER ROLE {role} NOLOGIN", "postgres")
        _, err = task.communicate(timeout=120)
        assert task.returncode == 1 and "->" in err and "Traceback" not in err, err
        assert two.query(made, "postgres") == [] and two.dump() == before
        two.execute(f"ALTER ROLE {role} LOGIN", "postgres")
        outcome = two.invoke("db.copy", "--source=test", "--target=dev", "--method=stream")
        assert outcome.code == 0, outcome.err
    finally:
        for name in ("DEV", "TEST"):
            two.env[f"{name}_DATABASE_URL"] = two.url(database(two, name))
        for name in (two.database, test, *leftovers(two)):
            two.execute(f"REASSIGN OWNED BY {role} TO skinspire", name)
        two.execute(f"DROP ROLE {role}", "postgres")


def test_what_killed_processes_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to a process that lives, or to another tool, stays."""
    from skinspire_db.postgres import scripts

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, theirs = (
        tmp_path / f"{scripts.FOLDER}left",
        [tmp_path / "tmpx", tmp_path / "skinspire-db-clone", tmp_path / f"{scripts.FOLDER}x"],
    )
    for folder in (left, *theirs):
        folder.mkdir()
        (folder / "definitions").write_text("x")
        if folder is left:
            (folder / scripts.LOCK).touch()
        os.utime(folder, (1, 1))
    with scripts.private_folder() as living:
        os.utime(living, (1, 1))
        with scripts.private_folder():
            assert not left.exists() and living.exists() and all(each.exists() for each in theirs)
    assert sorted(tmp_path.iterdir()) == sorted(theirs)
