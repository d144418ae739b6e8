"""Trigger files: reading them, and what refuses one before any database changes; their versions, lock and archive."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Project

from skinspire_db.errors import SqlFileInvalid
from skinspire_db.objects import files, versions

SQL = files.folder().parent
NOW = files.read_file(files.folder() / "timestamps.sql").version
TRACKING = files.read_file(files.folder() / "user_tracking.sql").version
HEADER = '/*\nversion = 1\nsummary = "s"\norder = 1\n*/\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';", ":1: there is no header"),
        ("/*\nversion = 1\nsummary = oops\n*/", ":3: the header is not TOML"),
        ("/*\nversion = 1\norder = 1\n*/", "the header needs summary"),
        ('/*\nversion = "1"\nsummary = "s"\norder = 1\n*/', "the header needs version, int"),
        (HEADER.replace("*/", "colour = 1\n*/"), "unknown key colour"),
        (HEADER + "SELECT 1;\n\nCOMMIT;\n", ":8: COMMIT in an SQL file"),
        (HEADER + "SELECT 1; begin ;", ":6: BEGIN in an SQL file"),
        (HEADER + "SELECT '\\'; COMMIT; SELECT '\\';", ":6: COMMIT in an SQL file"),
        (HEADER.replace("*/", "attach = 5\n*/"), "attach is neither a table nor a list"),
        (
            HEADER.replace("*/", '[[attach]]\ntables = ["t"]\nwhen = "AFTER INSERT"\norder = 1000\n*/'),
            "order is not from 0 to 999",
        ),
        (HEADER.replace("\n", "\r\n"), ":1: line ends are CRLF"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.sql").write_bytes(text.encode())
    with pytest.raises(SqlFileInvalid) as refusal:
        files.read_files(tmp_path)
    assert says in refusal.value.message and str(tmp_path / "bad.sql") in refusal.value.message


def test_keywords_in_strings_comments_and_bodies_are_no_transaction_control(tmp_path: Path) -> None:
    (tmp_path / "good.sql").write_text(
        HEADER
        + "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; -- x; COMMIT;\n/* ; ROLLBACK; */ SELECT '; COMMIT;', \"; END;\", $x$; COMMIT; $x$, $$; BEGIN; $$, E'\\'; COMMIT;';"
    )
    assert len(files.read_files(tmp_path)) == 1


def test_a_long_name(tmp_path: Path) -> None:
    (tmp_path / f"{'x' * 61}.sql").write_text(HEADER.replace("*/", 'when = "AFTER INSERT"\nattach = { tables = ["t"] }\n*/'))
    with pytest.raises(SqlFileInvalid, match="over 63 bytes"):
        files.read_files(tmp_path)


def test_the_fingerprint_is_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "one.sql"
    path.write_text(HEADER)
    [file] = files.read_files(tmp_path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def attached(order: int, target: str) -> str:
    return f'/*\nversion = 1\nsummary = "s"\norder = {order}\nattach = {{ {target} }}\nwhen = "AFTER INSERT"\n*/\n'


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ('tables = ["users"]', 'tables = ["staff", "users"]', True),
        ('columns = ["created_at"]', 'tables = ["users"]', True),
        ('columns = ["created_at"]', 'columns = ["updated_at"]', True),
        ('tables = ["users"]', 'tables = ["staff"]', False),
    ],
)
def test_two_files_with_one_order_and_table(tmp_path: Path, one: str, other: str, refused: bool) -> None:
    (tmp_path / "a.sql").write_text(attached(5, one))
    (tmp_path / "b.sql").write_text(attached(7, 'columns = ["created_at"]'))
    (tmp_path / "c.sql").write_text(attached(5, other))
    if not refused:
        assert [file.name for file in files.read_files(tmp_path)] == ["a", "c", "b"]
        return
    with pytest.raises(SqlFileInvalid) as refusal:
        files.read_files(tmp_path)
    assert f"{tmp_path / 'c.sql'}:4: order 5 is also a.sql's" in refusal.value.message


def test_one_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "bad.sql").write_bytes(HEADER.encode() + b"-- caf\xe9")
    with pytest.raises(SqlFileInvalid, match=r"bad\.sql:6: not UTF-8"):
        files.read_files(tmp_path)


# Versions


def test_the_lock_and_the_archive_agree_with_the_files() -> None:
    """An edit without a new version, and an earlier version that is missing, show here."""
    current = files.read_files(files.folder())
    versions.check(current)
    locked = [name for name in versions.read_lock(SQL) if name.startswith("triggers/")]
    assert locked == sorted(f"triggers/{file.name}" for file in current)


@pytest.mark.parametrize("path", sorted((files.folder() / "archive").glob("*.sql")), ids=lambda path: path.name)
def test_every_archived_version_still_reads(path: Path) -> None:
    name, version = path.stem.split(".")
    file = versions.at(files.read_file(SQL / "triggers" / f"{name}.sql"), version)
    assert (file.name, file.version) == (name, int(version))


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of sql/ under version control, in place of the real one."""
    copy = tmp_path / "checkout" / "sql"
    shutil.copytree(files.folder().parent, copy)
    monkeypatch.setattr("skinspire_db.lifecycle.tool_schema.sql_folder", lambda: copy)
    git(copy, "init", "-q")
    commit(copy)
    return copy


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=folder, check=True)


def commit(folder: Path) -> None:
    git(folder, "add", "-A", ".")
    git(folder, "commit", "-q", "-m", "as it is")


def edit(path: Path, right: str, wrong: str) -> None:
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("now()", "clock_timestamp()", f":2: edited since version {NOW} was locked"),
        (f"version = {NOW}", f"version = {NOW + 1}", f":2: version {NOW + 1} is not in sql.lock"),
        (f"version = {NOW}", f"version = {NOW + 2}", f":2: version {NOW + 2} after version {NOW} leaves a gap"),
        (f"version = {NOW}", "version = 1", f":2: version 1, but {NOW} is locked"),
        ("NEW.updated_at :=", "NEW.updated_at =:", ":2: edited since"),
    ],
)
def test_an_edit_without_a_bump_is_refused_before_anything_changes(
    clinic: Project, sql: Path, right: str, wrong: str, says: str
) -> None:
    edit(sql / "triggers" / "timestamps.sql", right, wrong)
    before = clinic.dump()
    for task in ("triggers.install", "db.setup"):
        outcome = clinic.invoke(task)
        assert outcome.code == 1 and f"timestamps.sql{says}" in outcome.err
        assert "invoke triggers.bump --name=timestamps" in outcome.err or "write " in outcome.err
    assert clinic.dump() == before


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("CREATE OR REPLACE FUNCTION public.timestamps", "CREATE OR REPLACE FUNKTION public.timestamps", "syntax error"),
        ("now());\n        NEW.updated_at", "now();\n        NEW.updated_at", "mismatched parentheses"),
        ("coalesce(NEW.created_at, now())", "coalesce(NEW.made_at, now())", 'record "new" has no field "made_at"'),
        (
            "coalesce(NEW.created_at, now())",
            "nonesuch(NEW.created_at)",
            "function nonesuch(timestamp with time zone)",
        ),
        ("NEW.created_at := coalesce(", "COMMIT; NEW.created_at := coalesce(", "invalid transaction termination"),
    ],
)
def test_sql_that_cannot_be_used_is_refused_with_its_line(
    clinic: Project, sql: Path, right: str, wrong: str, says: str
) -> None:
    """A new version, properly locked; a syntax error PostgreSQL sees, a missing column only the proof."""
    path = sql / "triggers" / "timestamps.sql"
    line = path.read_text()[: path.read_text().index(right)].count("\n") + 1
    edit(path, right, wrong)
    assert clinic.invoke("triggers.bump", "--name=timestamps").code == 0
    before = clinic.dump()
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 1
    assert f"timestamps.sql:{line}: " in outcome.err and says in outcome.err
    assert clinic.invoke("db.setup").code == 1
    assert clinic.dump() == before


def test_a_version_that_is_missing_in_the_archive_is_a_gap(clinic: Project, sql: Path) -> None:
    (sql / "triggers" / "archive" / "timestamps.1.sql").unlink()
    outcome = clinic.invoke("triggers.install")
    assert (
        outcome.code == 1
        and f"timestamps.sql:2: version {NOW}, but archive/timestamps.1.sql is missing: a gap" in outcome.err
    )


def test_a_damaged_lock(clinic: Project, sql: Path) -> None:
    lock = sql / "sql.lock"
    line = lock.read_text()[: lock.read_text().index("triggers/timestamps 2")].count("\n") + 1
    edit(lock, "triggers/timestamps 2", "triggers/timestamps two")
    outcome = clinic.invoke("triggers.status")
    assert outcome.code == 1 and f"sql.lock:{line}: not name, version and sha256" in outcome.err
    lock.unlink()
    assert "sql.lock:1: cannot be read" in clinic.invoke("triggers.status").err


def test_an_archived_version_that_was_edited(clinic: Project, sql: Path) -> None:
    edit(sql / "triggers" / "archive" / "timestamps.1.sql", "now()", "clock_timestamp()")
    outcome = clinic.invoke("triggers.install", "--name=timestamps", "--at-version=1")
    assert outcome.code == 1 and "archive/timestamps.1.sql:1: edited since it was frozen" in outcome.err


def test_bump_freezes_the_former_text(clinic: Project, sql: Path) -> None:
    path = sql / "triggers" / "timestamps.sql"
    former = path.read_text()
    edit(path, "when its bytes have", "if its bytes have")
    assert clinic.invoke("--dry", "triggers.bump", "--name=timestamps").code == 0
    assert f"version = {NOW}" in path.read_text()
    outcome = clinic.invoke("triggers.bump", "--name=timestamps")
    assert (outcome.code, outcome.out) == (
        0,
        f"timestamps is version {NOW + 1}; version {NOW} is in archive/timestamps.{NOW}.sql\n",
    )
    assert (sql / "triggers" / "archive" / f"timestamps.{NOW}.sql").read_text() == former
    assert versions.read_lock(sql)["triggers/timestamps"][NOW + 1] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert clinic.invoke("triggers.status", "--json").code == 3
    assert clinic.invoke("triggers.install", "--verify").code == 0
    assert clinic.query("SELECT version FROM skinspire_tools.ledger WHERE name = 'timestamps'") == [(NOW + 1,)]
    # Edited again before it was committed: no other checkout has that version.
    edit(path, "if its bytes have", "as soon as its bytes have")
    assert f"is version {NOW + 1}\n" in clinic.invoke("triggers.bump", "--name=timestamps").out
    commit(sql)
    edit(path, f"version = {NOW + 1}", f"version = {NOW + 2}")
    assert f"is version {NOW + 2}; version {NOW + 1} is in" in clinic.invoke("triggers.bump", "--name=timestamps").out
    assert versions.at(files.read_file(path), str(NOW + 1)).version == NOW + 1


def test_bump_before_the_edit(clinic: Project, sql: Path) -> None:
    assert "edit it, and run this again" in clinic.invoke("triggers.bump", "--name=timestamps").out
    edit(sql / "triggers" / "timestamps.sql", "when its bytes have", "if its bytes have")
    assert f"is version {NOW + 1}\n" in clinic.invoke("triggers.bump", "--name=timestamps").out
    assert clinic.invoke("triggers.install").code == 0


def test_bump_of_a_new_file_and_of_one_whose_former_text_is_lost(clinic: Project, sql: Path) -> None:
    (sql / "triggers" / "novel.sql").write_text(HEADER)
    assert "novel.sql:2: version 1 is not in sql.lock" in clinic.invoke("triggers.install").err
    assert "novel is version 1\n" in clinic.invoke("triggers.bump", "--name=novel").out
    assert clinic.invoke("triggers.install").code == 0
    shutil.rmtree(sql / ".git")
    edit(sql / "triggers" / "timestamps.sql", "when its bytes have", "if its bytes have")
    before = (sql / "sql.lock").read_text()
    outcome = clinic.invoke("triggers.bump", "--name=timestamps")
    assert outcome.code == 1 and f"the text of version {NOW} is neither here nor in git's history" in outcome.err
    assert (sql / "sql.lock").read_text() == before
    for arguments in ([], ["--name=nonesuch"]):
        outcome = clinic.invoke("triggers.bump", *arguments)
        assert outcome.code == 2 and "timestamps" in outcome.err


def test_an_earlier_version_can_be_installed(clinic: Project) -> None:
    assert clinic.invoke("triggers.install", "--name=user_tracking", "--at-version=1").code == 0
    assert clinic.query("SELECT to_regproc('creator_tracking') IS NULL") == [(True,)]
    outcome = clinic.invoke("triggers.status", "--json")
    assert outcome.code == 3
    assert {(each["file"], each["state"]) for each in outcome.json["triggers"] if each["state"] != "INSTALLED"} == {
        ("user_tracking", "OUTDATED")
    }
    clinic.execute("UPDATE patients SET title = 'Dr'")
    assert clinic.invoke("triggers.install", "--name=user_tracking", f"--at-version={TRACKING}", "--verify").code == 0
    assert clinic.invoke("triggers.status").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--name=nonesuch"], "has no trigger file nonesuch"),
        (["--at-version=1"], "--at-version needs --name"),
        (["--name=timestamps", f"--at-version={NOW + 1}"], f"timestamps has no version {NOW + 1}; it has 1 to {NOW}"),
        (["--name=timestamps", "--at-version=0"], "has no version 0"),
        (["--name=timestamps", "--at-version=01"], "has no version 01"),
        (["--name=timestamps", "--at-version=latest"], "has no version latest"),
        (["--name=timestamps", "--at-version=1", "--verify"], "proves the current version"),
    ],
)
def test_wrong_arguments_of_install(clinic: Project, arguments: list[str], says: str) -> None:
    before = clinic.dump()
    outcome = clinic.invoke("triggers.install", *arguments)
    assert outcome.code == 2 and says in outcome.err and " -> " in outcome.err
    assert clinic.dump() == before


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("SELECT 1; DO $$ BEGIN COMMIT; END $$;", 1, "novel.sql:6: invalid transaction termination"),
        ("CREATE OR REPLACE FUNCTION integer_parameter(code text, fallback integer, lowest integer, highest integer)"
         " RETURNS integer LANGUAGE sql AS 'SELECT 1';", 1, "is made by novel and by parameters"),
        ("CREATE FUNCTION unsafe() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';", 1, "unsafe() is SECURITY DEFINER without"),
        ("CREATE OR REPLACE FUNCTION theirs() RETURNS int LANGUAGE sql AS 'SELECT 1';", 2, "theirs() exists already"),
    ],
)  # fmt: skip
def test_a_new_file_that_must_not_be_installed(clinic: Project, sql: Path, text: str, code: int, says: str) -> None:
    clinic.execute("CREATE FUNCTION theirs() RETURNS int LANGUAGE sql AS 'SELECT 2'")
    (sql / "triggers" / "novel.sql").write_text(HEADER + text + "\n")
    assert clinic.invoke("triggers.bump", "--name=novel").code == 0
    before = clinic.dump()
    outcome = clinic.invoke("triggers.install")
    assert (outcome.code, says in outcome.err) == (code, True), outcome.err
    assert clinic.dump() == before


@pytest.mark.parametrize(
    "header",
    [
        'attach = { tables = ["users"], function = "nope" }\nwhen = "BEFORE UPDATE"',
        'attach = { tables = ["users"], condition = "NEW.nope = 1" }\nwhen = "BEFORE UPDATE"',
        'attach = { tables = ["users"] }\nwhen = "BEFORE UPDATE OF nope"',
        'attach = { tables = ["users"] }\nwhen = "BEFORE UPDTE"',
    ],
)
def test_an_attachment_that_postgresql_refuses(clinic: Project, sql: Path, header: str) -> None:
    folder = sql / "triggers"
    body = "CREATE FUNCTION novel() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';\n"
    (folder / "novel.sql").write_text(HEADER.replace("*/", f"{header}\n*/") + body)
    assert clinic.invoke("triggers.bump", "--name=novel").code == 0
    assert "novel.sql:5: there is no verify/novel.sql" in clinic.invoke("triggers.install").err
    (folder / "verify" / "novel.sql").write_text("SELECT 1")
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 1 and "novel.sql:5: " in outcome.err


def test_a_file_can_be_renamed_and_a_function_can_move(clinic: Project, sql: Path) -> None:
    """What another file makes now is not dropped with the file that made it before."""
    folder = sql / "triggers"
    for part in (folder, folder / "verify"):
        (part / "role_assignment.sql").rename(part / "role_rules.sql")
    (folder / "role_rules.sql").write_text((folder / "role_rules.sql").read_text().replace("version = 3", "version = 1"))
    header = (folder / "role_rules.sql").read_text()
    (folder / "role_rules.sql").write_text(header)
    hashing = (folder / "password_hashing.sql").read_text()
    moved = hashing[hashing.index("-- Recognised") : hashing.index("CREATE OR REPLACE FUNCTION public.password_hashing")]
    (folder / "password_hashing.sql").write_text(hashing.replace(moved, ""))
    (folder / "parameters.sql").write_text((folder / "parameters.sql").read_text() + moved)
    for name in ("role_rules", "password_hashing", "parameters"):
        assert clinic.invoke("triggers.bump", f"--name={name}").code == 0
    outcome = clinic.invoke("triggers.install", "--verify")
    assert outcome.code == 0, outcome.err
    assert clinic.invoke("triggers.status").code == 0
    assert clinic.query("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^_150'") == [(10,)]


def test_a_helper_that_others_need_cannot_be_left_out(clinic: Project) -> None:
    (clinic.root / "pyproject.toml").write_text('[tool.skinspire_db]\ndisabled_triggers = ["parameters"]\n')
    before = clinic.dump()
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 1 and "function public.integer_parameter" in outcome.err and "does not exist" in outcome.err
    assert clinic.dump() == before


def test_a_locked_version_is_not_given_another_text(clinic: Project, sql: Path) -> None:
    """Committed without a bump: in a shallow clone the text of the locked version cannot be found, which is no licence."""
    edit(sql / "triggers" / "timestamps.sql", "when its bytes have", "if its bytes have")
    commit(sql)
    shallow = sql.parent / "shallow"
    git(sql, "clone", "-q", "--depth", "1", f"file://{sql}", str(shallow))
    shutil.rmtree(sql / ".git")
    shutil.copytree(shallow / ".git", sql / ".git")
    outcome = clinic.invoke("triggers.bump", "--name=timestamps")
    assert outcome.code == 1 and f"the text of version {NOW} is neither here nor in git's history" in outcome.err


def test_a_project_can_leave_a_file_out(clinic: Project) -> None:
    toml = clinic.root / "pyproject.toml"
    toml.write_text('[tool.skinspire_db]\ndisabled_triggers = ["session_management", "user_tracking"]\n')
    assert "session_management, (all of it): ORPHANED" in clinic.invoke("triggers.status").err
    assert clinic.invoke("triggers.install").code == 0
    assert clinic.query("SELECT to_regproc('session_limit') IS NULL") == [(True,)]
    for task in ("triggers.status", "triggers.verify", "db.verify"):
        assert clinic.invoke(task).code == 0, task
    assert "has no trigger file user_tracking" in clinic.invoke("triggers.install", "--name=user_tracking").err
    toml.write_text('[tool.skinspire_db]\ndisabled_triggers = ["nonesuch"]\n')
    outcome = clinic.invoke("triggers.install")
    assert outcome.code == 2 and "disabled_triggers = ['nonesuch'] in pyproject.toml" in outcome.err


def test_a_setup_without_a_file_that_is_left_out(make_project) -> None:  # type: ignore[no-untyped-def]
    project = make_project('disabled_triggers = ["session_management"]')
    assert project.invoke("db.setup").code == 0
    assert project.query("SELECT to_regproc('session_limit') IS NULL") == [(True,)]
