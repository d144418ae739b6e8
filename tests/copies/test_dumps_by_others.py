"""Dumps by pg_dump that are no backups of ours: restored as they are, or refused."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, dump
from support import both, database, leftovers, pg_dump, without_names

from skinspire_db.copies.dump_sql import pieces


@pytest.fixture
def kept(project: Project, template: str) -> Iterator[Project]:
    """A project with a dev and a test database, both set up; test holds everything that a database can hold."""
    with both(project, template):
        yield project


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
    assert kept.query(whose, test) == [("some_of_theirs", "{pg_monitor}")], "no other role is let in instead of them"
    assert "those for them alone left out" in outcome.err
    assert kept.query("SELECT has_table_privilege('public', 'one', 'UPDATE')", test) == [(True,)]
    assert (
        kept.query(
            "SELECT line, pg_get_functiondef('tricky()'::regprocedure), obj_description('tricky'::regclass) FROM tricky", test
        )
        == wanted
    )


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
