"""Backups: complete or not there, as they were written or refused; a restore is all of one or leaves everything as it was."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT, Project, dump
from support import backups, both, database, edit, leftovers, pg_dump, without_names

from skinspire_db.catalog import fingerprint, row_hash
from skinspire_db.config.policy import Policy
from skinspire_db.postgres.target import Target


@pytest.fixture
def kept(project: Project, template: str) -> Iterator[Project]:
    """A project with a dev and a test database, both set up; test holds everything that a database can hold."""
    with both(project, template):
        yield project


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


@pytest.mark.slow
def test_the_runbook_of_a_dropped_table(clinic: Project) -> None:
    """docs/production.md, "A table was dropped", without continuous backups: rows that came since stay, in all other tables."""
    clinic.env["PROD_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"]
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'")
    prod, confirmed = ("--env=prod",), ("--env=prod", f"--confirm={clinic.database}")
    file = clinic.root / "sessions.copy"

    def copied(how: str) -> None:
        done = subprocess.run(
            clinic.command("db.shell", *prod), input=f"\\copy user_sessions {how} '{file}'", cwd=clinic.root,
            env=clinic.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    clinic.execute(
        "INSERT INTO user_sessions (user_id, hospital_id, token, expires_at)"
        " SELECT user_id, hospital_id, 'token-' || user_id, now() + interval '1 h' FROM users"
    )
    sessions = clinic.query("SELECT * FROM user_sessions ORDER BY 1")
    assert sessions and clinic.invoke("backup.create", *prod).code == 0
    clinic.execute("DROP TABLE user_sessions CASCADE; UPDATE patients SET last_name = 'Later'")
    outcome = clinic.invoke("backup.restore", *confirmed)
    assert outcome.code == 0, outcome.err
    copied("TO")
    for command in (["db.undo", *confirmed], ["db.create", *prod, "--update-only"]):
        outcome = clinic.invoke(*command)
        assert outcome.code == 0, outcome.err
    copied("FROM")
    for command in (["triggers.install", *prod], ["db.verify", *prod], ["db.drift", *prod]):
        outcome = clinic.invoke(*command)
        assert outcome.code == 0, (command, outcome)
    assert clinic.query("SELECT * FROM user_sessions ORDER BY 1") == sessions
    assert clinic.query("SELECT DISTINCT last_name FROM patients") == [("Later",)]


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


@pytest.mark.slow
def test_a_backup_of_before_has_the_former_hashes(kept: Project) -> None:
    """Its manifest names no kind; what it holds is compared all the same, in the restore too."""
    source = Target("test", Policy(), kept.address.parameters | {"dbname": database(kept, "TEST")})
    former = fingerprint.take(source, "test", kind=row_hash.FORMER).as_dict()
    assert kept.invoke("backup.create", "--env=test").code == 0  # which then has a line in the journal
    (backup,) = backups(kept)
    assert former.pop("row_hash") == row_hash.FORMER
    current = json.loads((backup / "manifest.json").read_text())["fingerprint"]
    assert current["row_hash"] == row_hash.CURRENT and former["tables"].keys() == current["tables"].keys()
    edit(backup, fingerprint=former, format=1)
    for command in (("backup.verify", "--env=test", "--full"), ("backup.restore", "--env=test")):
        outcome = kept.invoke(*command)
        assert outcome.code == 0, outcome.err
    former["tables"]['"public"."patients"'][1] = "1"
    edit(backup, fingerprint=former, format=1)
    outcome = kept.invoke("backup.verify", "--env=test", "--full")
    assert outcome.code == 1 and 'table "public"."patients" differs' in outcome.out + outcome.err, outcome.out
    edit(backup, fingerprint=former | {"row_hash": "nonesuch"})
    assert "damaged" in kept.invoke("backup.verify", f"--file={backup}").err


SLOW_HASH = """
from skinspire_db.catalog import row_hash
from invoke.main import program
row_hash._of = lambda elements: "(SELECT 0 FROM pg_sleep(60))"
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
    assert kept.forked("backup.create").code == 0


def test_a_proof_that_fails_is_taken_back(kept: Project) -> None:
    assert kept.invoke("backup.create").code == 0 and kept.invoke("backup.verify", "--full").code == 0
    os.truncate(largest(backups(kept)[0]), 10)
    assert kept.invoke("backup.verify").code == 1
    assert kept.invoke("backup.list", "--json").json["backups"][0]["verified"] == "no"
    assert kept.invoke("db.setup", "--env=test").code == 0 and kept.invoke("backup.create", "--env=test").code == 0
    (backups(kept)[-1] / "verified.json").write_text("[]")
    (backups(kept)[0] / "manifest.json").write_text('{"format": 1}')
    assert kept.invoke("backup.list").code == 0, "one that is damaged does not hide the others"


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
        assert elsewhere.code == 2, "also where that environment is not declared"
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
    outcome = kept.forked("backup.create")
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
        outcome = kept.forked("backup.create", "--env=test")
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


def test_a_folder_that_cannot_be_read(project: Project) -> None:
    """It is not said to hold nothing: a file, a link to what is not there, and for others than root what is closed."""
    assert project.invoke("backup.list").code == 0, "one that does not exist yet"
    (project.root / "a-file").write_text("x")
    (project.root / "dangling").symlink_to(project.root / "unmounted")
    for name in ("a-file", "dangling"):
        project.env["INVOKE_BACKUP_FOLDER"] = str(project.root / name)
        for task in ("backup.list", "backup.prune", "backup.verify", "backup.restore"):
            outcome = project.forked(task)
            assert outcome.code == 1 and "cannot be read" in outcome.err and " MB" not in outcome.out, (
                name,
                task,
                outcome.out,
                outcome.err,
            )
