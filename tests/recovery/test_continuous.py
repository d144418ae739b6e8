"""Continuous backups: any second can be come back to, what was acknowledged is there, and whatever is missing or damaged is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from conftest import Outcome, Project, throw_away_home
from support import without_names

from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.recovery.archive import Archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WAIT = 60  # seconds, for whatever is waited for


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project on an embedded server of its own, set up, with a receiver and a full base backup."""
    root = tmp_path_factory.mktemp("continuous")
    (root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    server = EmbeddedServer(throw_away_home(root), durable=False)
    project = Project(root, server.start(), {"SKINSPIRE_PG_HOME": str(server.home), "DEV_DATABASE_URL": ""})
    try:
        assert project.invoke("db.setup", "--reference-only").code == 0
        outcome = project.invoke("backup.start", "--json")
        assert outcome.code == 0, outcome.out
        project.address = server.start()
        project.execute(
            "CREATE TABLE seen (n int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())", "skinspire_dev"
        )
        outcome = project.invoke("backup.create", "--physical", "--json")
        assert outcome.code == 0 and outcome.json["backup"].endswith("-full"), outcome.out
        yield project
    finally:
        project.invoke("backup.stop")
        project.invoke("backup.stop", "--kept")
        server.destroy()


def query(project: Project, text: str) -> list[tuple[object, ...]]:
    return project.query(text, "skinspire_dev")


def archive(project: Project) -> Path:
    return project.root / "backups" / "dev.continuous"


def wait(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not until():
        assert time.monotonic() < deadline, "it was waited for in vain"
        time.sleep(0.1)


def received(project: Project) -> float:
    return float(json.loads((archive(project) / "receiver.json").read_text())["at"])


def now(project: Project) -> str:
    return str(query(project, "SELECT clock_timestamp()::text")[0][0])


def rows_then(project: Project, to: str) -> int:
    """How many rows `seen` had then."""
    outcome = project.invoke("backup.restore", f"--to={to}", "--keep", "--json")
    assert outcome.code == 0, outcome.out
    try:
        with psycopg.connect(outcome.json["url"]) as connection:
            row = connection.execute("SELECT count(*) FROM seen").fetchone()
            assert row
            return int(row[0])
    finally:
        assert project.invoke("backup.stop", "--kept").code == 0


def test_any_second_can_be_come_back_to_and_what_was_dropped_is_there(clinic: Project) -> None:
    moments = {}
    for count in (1, 2, 3):
        query(clinic, f"INSERT INTO seen VALUES ({count}) RETURNING 1")
        moments[count] = now(clinic)
        time.sleep(0.05)
    query(clinic, "UPDATE seen SET n = n + 100 RETURNING 1")
    outcome = clinic.invoke("backup.create", "--incremental", "--json")
    assert outcome.code == 0 and outcome.json["backup"].endswith("-incremental"), outcome.out
    late, at = now(clinic), time.time()
    wait(lambda: received(clinic) > at)
    kept = Archive(archive(clinic), "dev")
    kept.keep(kept.marks[-1])  # as the receiver does every ten seconds
    for _ in range(3):  # files of WAL without a transaction
        clinic.execute("SELECT pg_logical_emit_message(false, 'a', 'b')", "skinspire_dev")
        clinic.execute("SELECT pg_switch_wal()", "postgres")
    clinic.execute(
        "CREATE TABLE extra (id int); DELETE FROM seen WHERE n > 101; UPDATE hospitals SET name = name || '!'",
        "skinspire_dev",
    )
    assert rows_then(clinic, moments[2]) == 2
    outcome = clinic.invoke("backup.restore", f"--to={late}", "--json")  # from the incremental one, which needs the full one
    assert outcome.code == 0 and outcome.json["base"].endswith("-incremental"), outcome.out
    log = (archive(clinic) / "recovery.log").read_text()
    assert "recovery ended before configured recovery target was reached" in log, "not with the files up to the mark alone"
    tables = {row["table"]: row["what"] for row in outcome.json["differences"]}
    assert tables['"public"."extra"'] == "is there now only" and tables['"public"."seen"'] == "rows differ"
    assert query(clinic, "SELECT count(*) FROM seen") == [(1,)], "the running server is not touched"
    # Rows of single tables, with what updated_at was then; nothing else changes.
    before = query(clinic, "SELECT hospital_id, updated_at FROM hospitals ORDER BY 1")
    outcome = clinic.invoke("backup.restore", f"--to={late}", "--take=seen,hospitals", "--json")
    assert outcome.code == 0, outcome.out
    assert query(clinic, "SELECT count(*) FROM seen") == [(3,)]
    assert not query(clinic, "SELECT 1 FROM hospitals WHERE name LIKE '%!'")
    assert query(clinic, "SELECT hospital_id, updated_at FROM hospitals ORDER BY 1") != before
    assert query(clinic, "SELECT count(*) FROM extra") == [(0,)]
    # Whole, with the way back.
    clinic.execute("DROP TABLE extra", "skinspire_dev")
    outcome = clinic.invoke("backup.restore", "--before=backup.restore", "--take=whole", "--json")
    assert outcome.code == 0, outcome.out
    assert query(clinic, "SELECT count(*) FROM seen") == [(1,)] and query(clinic, "SELECT count(*) FROM extra") == [(0,)]
    assert clinic.invoke("db.undo").code == 0
    assert query(clinic, "SELECT count(*) FROM seen") == [(3,)]


WARDS = """
    CREATE TYPE mood AS ENUM ('calm', 'busy');
    CREATE ROLE nurse;
    CREATE TABLE floors (id int PRIMARY KEY);
    CREATE TABLE "Wards" (
        id serial PRIMARY KEY, code text COLLATE "C" UNIQUE CHECK (code <> ''), moods mood[] DEFAULT '{calm}', price money, notes json,
        beds int NOT NULL, twice int GENERATED ALWAYS AS (beds * 2) STORED, floor int REFERENCES floors, n int GENERATED ALWAYS AS IDENTITY
    );
    COMMENT ON TABLE "Wards" IS 'it''s a ward'; COMMENT ON COLUMN "Wards".beds IS 'beds';
    CREATE INDEX ON "Wards" (lower(code)) WHERE beds > 1;
    CREATE STATISTICS wards_stats ON code, beds FROM "Wards";
    CREATE FUNCTION add_bed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.beds := NEW.beds + 1; RETURN NEW; END';
    CREATE TRIGGER more BEFORE INSERT OR UPDATE ON "Wards" FOR EACH ROW EXECUTE FUNCTION add_bed();
    CREATE TRIGGER off BEFORE DELETE ON "Wards" FOR EACH ROW EXECUTE FUNCTION add_bed(); ALTER TABLE "Wards" DISABLE TRIGGER off;
    CREATE POLICY with_beds ON "Wards" FOR SELECT USING (beds > 0); ALTER TABLE "Wards" ENABLE ROW LEVEL SECURITY;
    GRANT SELECT, UPDATE (code) ON "Wards" TO nurse;
    INSERT INTO floors VALUES (1);
    INSERT INTO "Wards" (code, moods, price, notes, beds, floor)
        VALUES (E'a\t\\\\.', '{busy,calm}', 3, '{"a":  1}', 1, 1), ('b', NULL, NULL, NULL, 2, NULL);
    CREATE TABLE stays (id int PRIMARY KEY, ward int REFERENCES "Wards" ON DELETE SET NULL); INSERT INTO stays VALUES (1, 1), (2, NULL);
    CREATE TABLE orders (id int PRIMARY KEY, ward int REFERENCES "Wards"); INSERT INTO orders VALUES (1, 2);
    CREATE VIEW full_wards AS SELECT code, beds FROM "Wards"; GRANT SELECT ON full_wards TO nurse;
    CREATE MATERIALIZED VIEW ward_count AS SELECT count(*) FROM full_wards;
    CREATE TABLE visits (at date NOT NULL, id int, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
    CREATE TABLE visits_2026 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO visits VALUES ('2026-02-03', 1);
    CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)
"""


def test_a_dropped_table_comes_back_whole(clinic: Project) -> None:
    """With all that is defined of it and what hung on it; what cannot be made again is said; what does not fit is refused."""

    def contents() -> str:  # the WAL has values of sequences ahead
        return re.sub(r"setval\(('.*?'), \d+", r"setval(\1", without_names(clinic.dump("skinspire_dev")))

    def take(tables: str) -> Outcome:
        return clinic.invoke("backup.restore", f"--to={then}", f"--take={tables}", "--json")

    clinic.execute(WARDS, "skinspire_dev")
    before, then = contents(), now(clinic)
    clinic.execute('DROP TABLE "Wards", visits, cache CASCADE', "skinspire_dev")
    outcome = take('"Wards",visits,cache')
    assert outcome.code == 0, outcome.out
    assert contents() == before
    [step] = [each for each in outcome.json["steps"] if each["name"] == "take"]
    assert step["summary"] == {"tables": 3, "rows_written": 3, "rows_deleted": 0, "tables_brought_back": 4}
    assert "its rows are in no WAL" in " ".join(step["lines"])
    [(number, other)] = query(clinic, 'INSERT INTO "Wards" (beds) VALUES (1) RETURNING id, n')
    assert int(str(number)) > 2 and int(str(other)) > 2, "the sequences go on"
    # Rows of other tables that no longer fit, and one that is there as something else.
    clinic.execute(
        'DROP TABLE "Wards" CASCADE; UPDATE stays SET ward = 7 WHERE id = 1; CREATE TABLE full_wards (code text)',
        "skinspire_dev",
    )
    outcome = take('"Wards",floors')
    [step] = [each for each in outcome.json["steps"] if each["name"] == "take"]
    assert outcome.code == 0 and query(clinic, 'SELECT count(*) FROM "Wards"') == [(2,)], outcome.out
    lines = sorted(step["lines"])
    assert lines[-1].startswith("not back: view public.full_wards") and "stays_ward_fkey" in " ".join(lines), lines
    assert "orders_ward_fkey" not in " ".join(lines) and "(ward)=(7)" not in outcome.out
    assert query(clinic, "SELECT 1 FROM pg_constraint WHERE conname = 'orders_ward_fkey'") == [(1,)]
    # What it needs is gone: all is as it was, and the remedy works.
    clinic.execute('DROP TABLE "Wards", floors, full_wards CASCADE', "skinspire_dev")
    present = contents()
    outcome = take('"Wards"')
    assert outcome.code == 1 and "--take=a,b" in outcome.json["error"]["remedy"], outcome.out
    assert contents() == present
    outcome = take('"Wards",floors,cache')
    assert outcome.code == 1 and 'cache" cannot be what it was' in outcome.json["error"]["message"]
    assert take('"Wards",floors').code == 0
    clinic.execute(
        'DROP TABLE "Wards", floors, stays, orders, visits, cache CASCADE; DROP TYPE mood; DROP FUNCTION add_bed; DROP ROLE nurse',
        "skinspire_dev",
    )


def test_drill_status_doctor(clinic: Project) -> None:
    outcome = clinic.invoke("backup.status", "--json")
    assert outcome.code == 3 and "backup.drill" in outcome.json["error"]["remedy"]
    outcome = clinic.invoke("backup.drill", "--json")
    assert outcome.code == 0, outcome.out
    assert 0 <= outcome.json["rpo_seconds"] <= 60 and outcome.json["rto_seconds"] > 0
    assert {check["name"]: check["status"] for check in outcome.json["checks"]}["position"] == "pass"
    outcome = clinic.invoke("backup.status")
    assert outcome.code == 0 and "last drill" in outcome.out and "RPO" in outcome.out, outcome.err
    assert "last drill" in clinic.invoke("db.doctor").out

    def limited(to: str, noted: str) -> None:
        for statement in (f"ALTER SYSTEM {to}", "SELECT pg_reload_conf()"):
            clinic.execute(statement, "postgres")
        wait(lambda: json.loads((archive(clinic) / "receiver.json").read_text())["limit"] == noted)

    try:
        limited("SET max_slot_wal_keep_size = -1", "-1")
        for command in ("backup.status", "db.doctor"):
            outcome = clinic.invoke(command)
            assert outcome.code and "keeps WAL without limit" in outcome.out + outcome.err, outcome
            assert "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf()" in outcome.out + outcome.err
        assert "without limit" in clinic.invoke("backup.start").err
        limited("SET max_slot_wal_keep_size = '10GB'", "10GB")
        assert clinic.invoke("backup.status").code == 0, "the remedy"
    finally:
        clinic.execute("ALTER SYSTEM RESET max_slot_wal_keep_size", "postgres")
    pyproject = clinic.root / "pyproject.toml"
    try:
        pyproject.write_text('[tool.skinspire_db.environments.dev]\ndrill_every = "1s"\n')
        time.sleep(1.1)
        assert clinic.invoke("backup.status").code == 3
        outcome = clinic.invoke("db.doctor")
        assert outcome.code == 1 and "backup.drill" in outcome.err, outcome.out
        pyproject.write_text('[tool.skinspire_db.environments.dev]\nlongest_rpo = "soon"\n')
        assert clinic.invoke("backup.status").code == 2
    finally:
        pyproject.write_text("[tool.skinspire_db]\n")


def stands(clinic: Project) -> dict[str, tuple[str, str]]:
    """What backup.status says of each thing: its state, and the detail."""
    rows = clinic.invoke("backup.status", "--json").json["findings"]
    return {row["what"]: (row["state"], row["detail"]) for row in rows}


def test_the_receiver_outlives_the_server_and_itself(clinic: Project) -> None:
    assert "runs already" in clinic.invoke("backup.start").err
    former = int(json.loads((archive(clinic) / "receiver.json").read_text())["pid"])
    os.kill(former, signal.SIGKILL)
    wait(lambda: clinic.invoke("backup.status").code == 3)
    outcome = clinic.invoke("backup.start")  # while the pg_receivewal of the dead one may still hold the slot
    assert outcome.code == 0, outcome.err
    assert "--drop-slot" in clinic.invoke("backup.stop").err
    query(clinic, "SELECT pg_switch_wal()")
    assert stands(clinic)["slot"][0] == "ok" and "keeps 0.0 MB" not in stands(clinic)["slot"][1], "asked of the server, now"
    assert clinic.invoke("--dry", "backup.start").code == 0 and clinic.invoke("backup.status").code != 0
    query(clinic, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    assert stands(clinic)["slot"][0] == "COMPLAINT" and "has no slot" in stands(clinic)["slot"][1]
    foreground = clinic.start("backup.start", "--foreground")  # as systemd runs it, and ends it
    began = received(clinic)
    wait(lambda: received(clinic) > began)
    foreground.terminate()
    assert foreground.wait(WAIT) == 0, foreground.communicate()
    foreground.communicate()
    assert clinic.invoke("backup.start").code == 0
    assert clinic.invoke("server.stop").code == 0
    wait(lambda: "does not run" in json.loads((archive(clinic) / "receiver.json").read_text())["said"])
    clinic.env["DEV_DATABASE_URL"] = "postgresql://a:b@127.0.0.1:1/skinspire_dev"
    stopped = stands(clinic)
    clinic.env["DEV_DATABASE_URL"] = ""
    assert stopped["server"][0] == "COMPLAINT" and stopped["slot"][0] == stopped["drill"][0] == "UNKNOWN", stopped
    at = received(clinic)
    clinic.address = EmbeddedServer(Path(clinic.env["SKINSPIRE_PG_HOME"])).start()
    wait(lambda: received(clinic) > at + 0.5)


def test_kill_9_of_the_server_under_load(clinic: Project) -> None:
    """Nothing that was acknowledged before the last received transaction is lost, and that is a moment before the kill."""
    query(clinic, "DELETE FROM seen RETURNING 1")
    acknowledged: list[tuple[int, float]] = []

    def load(first: int) -> None:
        try:
            with clinic.connect("skinspire_dev") as connection:
                for number in range(first, first + 1_000_000):
                    connection.execute("INSERT INTO seen VALUES (%s)", (number,))
                    acknowledged.append((number, time.time()))
        except psycopg.Error:
            pass

    workers = [threading.Thread(target=load, args=(start * 1_000_000,)) for start in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for _ in range(2):  # the receiver's mark follows while all this is written
        began = time.time()
        wait(lambda: received(clinic) > began)  # noqa: B023  # it is called at once
    time.sleep(1)
    server = EmbeddedServer(Path(clinic.env["SKINSPIRE_PG_HOME"]))
    pid = server.status().pid
    assert pid
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    for worker in workers:
        worker.join(WAIT)
    mark = received(clinic)
    wait(lambda: json.loads((archive(clinic) / "receiver.json").read_text())["said"])
    mark = max(mark, received(clinic))
    assert killed - mark < 60, "the default longest_rpo"
    outcome = clinic.invoke("backup.restore", "--to=latest", "--keep", "--json")  # the server is dead
    assert outcome.code == 0, outcome.out
    with psycopg.connect(outcome.json["url"]) as connection:
        there = {number for (number,) in connection.execute("SELECT n FROM seen").fetchall()}
    assert clinic.invoke("backup.stop", "--kept").code == 0
    owed = {number for number, at in acknowledged if at < mark - 0.01}
    assert len(owed) > 100 and not owed - there, f"{len(owed - there)} acknowledged rows are lost"
    for start in (1, 2, 3):  # of each session all up to some row: nothing is missing in between
        mine = sorted(number for number in there if number // 1_000_000 == start)
        assert mine == list(range(start * 1_000_000, start * 1_000_000 + len(mine)))
    clinic.address = server.start()
    wait(lambda: received(clinic) > time.time() - 2)


def test_what_is_missing_or_damaged_is_named(clinic: Project) -> None:
    assert clinic.invoke("backup.create", "--incremental").code == 0
    clinic.execute("SELECT pg_switch_wal()", "postgres")
    query(clinic, "INSERT INTO seen SELECT n + 5000000 FROM generate_series(1, 1000) n RETURNING 1")
    clinic.execute("SELECT pg_switch_wal()", "postgres")
    query(clinic, "INSERT INTO seen VALUES (0) RETURNING 1")
    at = time.time()
    wait(lambda: received(clinic) > at)
    whole = sorted(path for path in (archive(clinic) / "wal").iterdir() if len(path.name) == 24)
    bases = sorted((archive(clinic) / "base").iterdir())
    full = next(path for path in bases if path.name.endswith("full"))

    def fails(says: str, command: tuple[str, ...] = ("backup.restore", "--to=latest")) -> None:
        outcome = clinic.invoke(*command)
        assert outcome.code in (1, 2) and says in outcome.err and "-> " in outcome.err, outcome.err
        home = Path(clinic.env["SKINSPIRE_PG_HOME"])
        assert not list(home.parent.glob(f"{home.name}-recovered-*")), "nothing is left"

    def without(path: Path, says: str) -> None:
        aside = path.with_name(f".{path.name}.aside")
        path.rename(aside)
        try:
            fails(says)
        finally:
            aside.rename(path)

    def altered(path: Path, change: Callable[[bytearray], object], says: str) -> None:
        kept = path.read_bytes()
        content = bytearray(kept)
        change(content)
        path.write_bytes(content)
        try:
            fails(says)
        finally:
            path.write_bytes(kept)

    def flip(position: int) -> Callable[[bytearray], object]:
        return lambda content: content.__setitem__(position, content[position] ^ 1)

    without(whole[-1], f"the WAL file {whole[-1].name} is missing")
    without(full, f"needs {full.name}, which is not there")
    largest = max(
        (path for path in (full / "data" / "base").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    altered(largest, flip(10_000), f"{full.name} is not what was written")
    altered(whole[-1], lambda content: content.__setitem__(slice(4, 8), (9).to_bytes(4, sys.byteorder)), "another timeline")
    altered(whole[-1], lambda content: content.__setitem__(slice(24, 32), bytes(8)), "another server")
    altered(whole[-1], flip(12), "is damaged")
    altered(whole[-1], flip(3000), f"the WAL file {whole[-1].name} is damaged")
    altered(whole[-1], lambda content: content.__delitem__(slice(100, None)), "is cut short")
    # All as before: it can be come back to.
    assert clinic.invoke("backup.restore", "--to=latest").code == 0


def test_a_full_disk(clinic: Project, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        sys.platform == "win32"
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(small)], check=False).returncode
    ):
        pytest.skip("no tmpfs can be mounted here")
    try:
        clinic.env["INVOKE_BACKUP_FOLDER"] = str(small)
        outcome = clinic.invoke("backup.create", "--physical")
        assert outcome.code == 1 and "No space left on device" in outcome.err, outcome.err
        assert not list((small / "dev.continuous" / "base").iterdir()), "nothing half-made is left"
        outcome = clinic.invoke("backup.start")  # a file of WAL has 16 MB
        assert outcome.code == 1 and "No space left on device" in outcome.err, outcome.err
        assert clinic.invoke("backup.stop", "--drop-slot").code == 0
    finally:
        del clinic.env["INVOKE_BACKUP_FOLDER"]
        wait(lambda: subprocess.run(["umount", str(small)], check=False).returncode == 0)  # the receiver's log is there


def test_pruning_keeps_what_a_kept_one_needs(clinic: Project) -> None:
    counts = ("--daily=1", "--weekly=0", "--monthly=0")
    assert clinic.invoke("backup.create", "--incremental").code == 0
    bases = archive(clinic) / "base"
    former = sorted(path.name for path in bases.iterdir())
    outcome = clinic.invoke("backup.prune", *counts, "--json")
    assert outcome.code == 0 and sorted(path.name for path in bases.iterdir()) == former, "it only shows"
    why = outcome.json["base_backups"]["kept"]
    assert former[0] in why and "needs it" in why[former[0]], why
    assert clinic.invoke("backup.create", "--physical").code == 0
    files = len(list((archive(clinic) / "wal").iterdir()))
    manifest = next(path for path in bases.iterdir() if path.name == former[0]) / "verified.json"
    manifest.unlink(missing_ok=True)
    for path in bases.glob("*/verified.json"):
        path.unlink()
    outcome = clinic.invoke("backup.prune", *counts, "--apply", "--json")
    assert outcome.code == 0, outcome.out
    [left] = [path.name for path in bases.iterdir() if not path.name.startswith(".")]
    assert left.endswith("-full") and left not in former
    assert len(list((archive(clinic) / "wal").iterdir())) < files


def test_wrong_input(clinic: Project) -> None:
    naive, old, future = "2026-11-25 14:03:07", "2001-01-01 00:00+00:00", f"{datetime.now(UTC).year + 1}-01-01T00:00:00+05:30"
    for arguments, says in {
        ("backup.restore", f"--to={naive}"): "does not say its zone",
        ("backup.restore", f"--to={old}"): "before the first base backup",
        ("backup.restore", f"--to={future}"): "in the future",
        ("backup.restore", "--to=yesterday"): "is no time",
        ("backup.restore", "--to=latest", "--before=db.setup"): "both a moment",
        ("backup.restore", "--to=latest", "--keep", "--take=seen"): "give one of the two",
        ("backup.restore", "--to=latest", "--take=,"): "names no table",
        ("backup.restore", "--to=latest", "--file=x"): "a backup",
        ("backup.restore", "--take=seen"): "for a moment",
        ("backup.restore", "--before=db.nonesuch"): "no operation db.nonesuch",
        ("backup.create", "--physical", "--masked"): "logical backup",
        ("backup.stop", "--kept", "--drop-slot"): "give one of the two",
        ("backup.start", "--env=nowhere"): "nowhere",
    }.items():
        outcome = clinic.invoke(*arguments)
        assert outcome.code == 2 and says in outcome.err and "-> " in outcome.err, outcome.err
        assert outcome.err.count("\n") == 1, outcome.err


def test_the_command_after_a_backup(clinic: Project) -> None:
    pyproject = clinic.root / "pyproject.toml"
    program = clinic.root / "off_site.py"
    program.write_text(
        "import sys; open('seen.txt', 'w').write(' '.join(sys.argv[1:])); sys.exit('no such remote' if sys.argv[1] == 'x' else 0)"
    )
    try:
        for first, code in (("y", 0), ("x", 1)):
            command = json.dumps([sys.executable, str(program), first, "{folder}", "to:{name}"])
            pyproject.write_text(f"[tool.skinspire_db]\nafter_backup = {command}\n")
            outcome = clinic.invoke("backup.create", "--json")
            assert outcome.code == code, outcome.out
            name = (clinic.root / "seen.txt").read_text().rpartition("to:")[2]
            assert (clinic.root / "backups" / name / "manifest.json").exists()
        assert "ended with 1: no such remote" in outcome.json["error"]["message"]
        pyproject.write_text('[tool.skinspire_db]\nafter_backup = ["no-such-program"]\n')
        outcome = clinic.invoke("backup.create")
        assert outcome.code == 1 and "is complete" in outcome.err and "no-such-program" in outcome.err
        pyproject.write_text('[tool.skinspire_db]\nafter_backup = "rclone copy"\n')
        assert clinic.invoke("backup.create").code == 2
    finally:
        pyproject.write_text("[tool.skinspire_db]\n")
        shutil.rmtree(clinic.root / "backups" / "x", ignore_errors=True)


def test_a_role_that_may_not_replicate(clinic: Project) -> None:
    clinic.execute(
        "CREATE ROLE weak LOGIN PASSWORD 'weak'; GRANT weak TO skinspire; ALTER DATABASE skinspire_dev OWNER TO skinspire",
        "postgres",
    )
    clinic.execute(
        "GRANT USAGE ON SCHEMA skinspire_tools TO weak; GRANT SELECT ON ALL TABLES IN SCHEMA skinspire_tools TO weak",
        "skinspire_dev",
    )
    clinic.env["DEV_DATABASE_URL"] = f"postgresql://weak:weak@127.0.0.1:{clinic.address.port}/skinspire_dev"
    try:
        for command in (("backup.start",), ("backup.create", "--physical")):
            outcome = clinic.invoke(*command)
            assert outcome.code == 1 and 'ALTER ROLE "weak" REPLICATION' in outcome.err, outcome.err
            assert "invoke backup.create --env=dev makes a logical backup" in outcome.err
    finally:
        clinic.env["DEV_DATABASE_URL"] = ""
