"""db.activity and db.history: who is at work, and what was done."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from conftest import Project
from inspection_support import harmless, inspect

from skinspire_db.inspection import ending

# Who is at work, and who was


@contextlib.contextmanager
def blocked(project: Project) -> Iterator[tuple[int, int]]:
    """Two sessions, the second of which waits for the first; their pids."""
    with (
        project.connect(application_name="a \x1b[31mlong\nreport") as holder,
        project.connect(application_name="the web") as waiter,
    ):
        holder.execute("BEGIN; LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=lambda: waiter.execute("SELECT count(*) FROM patients"))
        thread.start()
        waits = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {waiter.info.backend_pid}"
        deadline = time.monotonic() + 60
        try:
            while project.query(waits) != [(1,)]:
                assert time.monotonic() < deadline
            yield holder.info.backend_pid, waiter.info.backend_pid
        finally:  # closing the waiter would wait for its query
            holder.execute("ROLLBACK")
            thread.join(60)


def test_activity_says_who_blocks_whom(clinic: Project) -> None:
    with blocked(clinic) as (holder, waiter):
        for answer in (clinic.invoke("db.activity", "--json").json, inspect(clinic, "--section=activity")):
            rows = {row["pid"]: row for row in answer["activity"]}
            assert rows[waiter]["blocked_by"] == [holder] and rows[waiter]["wants"] == "patients AccessShareLock"
            assert rows[waiter]["query"] == "SELECT count(*) FROM patients" and rows[waiter]["state"] == "active"
            assert rows[holder]["state"] == "idle in transaction" and rows[holder]["transaction_seconds"] >= 0
        outcome = harmless(clinic.invoke("db.activity"))
        assert outcome.code == 0 and re.search(rf"^ +{waiter} +the web .* {holder} ", outcome.out, re.MULTILINE), outcome.out
    assert clinic.invoke("db.activity", "--json").json["activity"] == []


def test_history(clinic: Project) -> None:
    assert clinic.invoke("db.seed", "--patients=25").code == 0
    rows = clinic.invoke("db.history", "--json").json["journal"]
    assert [row["operation"] for row in rows] == ["db.seed", "db.setup"]
    assert "5 patients" in rows[0]["result"] and rows[0]["seconds"] > 0 and rows[0]["os_user"]
    assert len(clinic.invoke("db.history", "--limit=1", "--json").json["journal"]) == 1
    out = clinic.invoke("db.history").out
    assert re.search(r"^  20\d\d-\d\d-\d\d \d\d:\d\d UTC +db.seed ", out, re.MULTILINE)
    for limit in ("0", "-1", "x", "1.5", "99999999999", ""):
        assert clinic.invoke("db.history", f"--limit={limit}").code == 2, limit


def test_one_operation_whole(clinic: Project) -> None:
    """By the id that the list shows; what the list cuts short is there."""
    [row] = clinic.invoke("db.history", "--json").json["journal"]
    assert row["id"] == row["entry"][:8] and f" {row['id']} " in clinic.invoke("db.history").out
    whole = clinic.invoke("db.history", f"--operation={row['id']}", "--json").json
    assert [step["step"] for step in whole["entry_steps"]] == ["reset", "create", "triggers", "seed", "verify"]
    assert {"fact": "id", "value": row["entry"]} in whole["entry"] and whole["operation"] == "db.history"
    assert len(whole["checks"]) > 10 and {check["status"] for check in whole["checks"]} == {"pass"}
    out = clinic.invoke("db.history", f"--operation={row['entry']}").out
    assert "12 tables created, 14 indexes created" in out and "patients" in out and "..." not in out
    for wrong, says in (
        ("x", "is no id"),
        ("%%%%", "is no id"),
        ("'; SELECT", "is no id"),
        ("", "is no id"),
        ("0000", "no operation has"),
    ):
        outcome = clinic.invoke("db.history", f"--operation={wrong}")
        assert outcome.code == 2 and says in outcome.err, outcome.err


def test_history_of_hostile_operations(clinic: Project) -> None:
    clinic.execute("""INSERT INTO skinspire_tools.journal (entry_id, operation, environment, seconds, os_user, host, tool_version, steps)
                      VALUES (gen_random_uuid(), E'evil\\x1b[2J\\n|', 'dev', 1, E'\\u202e', 'h', '0', '[{"summary": {"a\\n": "b\\u001b"}, "lines": 7, "x\\n": {"y": "\\u001b"}}, 7]')""")
    outcome = harmless(clinic.invoke("db.history"))
    assert outcome.code == 0 and "evil\\x1b[2J\\n|" in outcome.out
    [(entry,)] = clinic.query("SELECT entry_id::text FROM skinspire_tools.journal WHERE os_user <> '' AND tool_version = '0'")
    assert harmless(clinic.invoke("db.history", f"--operation={entry}")).code == 0


@pytest.mark.slow
def test_a_blocker_is_ended_as_the_remedy_of_what_waited_says(clinic: Project) -> None:
    (clinic.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nlock_timeout = 0.2\n")
    name = clinic.database
    with clinic.connect(application_name="a report {x} of 'it'") as holder:
        holder.execute("BEGIN; LOCK TABLE patients IN ACCESS SHARE MODE")
        pid = holder.info.backend_pid
        waited = clinic.invoke("db.reset")
        remedy = f"db.activity --env=dev --end={pid} --confirm={name}"
        assert waited.code == 1 and f"invoke {remedy} ends it" in waited.err, waited.err
        for extra in ([], ["--confirm=other"]):
            refused = clinic.invoke("db.activity", f"--end={pid}", *extra)
            assert refused.code == 2 and f"invoke {remedy}" in refused.err, refused.err
        planned = clinic.invoke("--dry", *remedy.split())
        assert planned.code == 0 and holder.execute("SELECT 1").fetchone() == (1,)
        ended = clinic.invoke(*remedy.split(), "--json")
        assert ended.code == 0 and ended.json["ended"] == pid, ended.out
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
        assert clinic.invoke("db.history", "--limit=1", "--json").json["journal"][0]["operation"] == "db.activity --end"
        gone = clinic.invoke(*remedy.split())
        assert gone.code == 1 and f"no session with the pid {pid}" in gone.err
        assert clinic.invoke("db.reset").code == 0
    assert clinic.invoke("db.setup").code == 0
    for wrong in ("0", "-1", "x", "1;2", "", "9999999999"):
        assert clinic.invoke("db.activity", f"--end={wrong}", f"--confirm={name}").code == 2, wrong
    [(checkpointer,)] = clinic.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    refused = clinic.invoke("db.activity", f"--end={checkpointer}", f"--confirm={name}")
    assert refused.code == 2 and "PostgreSQL's own process (checkpointer)" in refused.err
    role = f"weak_{name}"
    try:
        clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA skinspire_tools TO {role};"
                       f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA skinspire_tools TO {role}")  # fmt: skip
        with clinic.connect("postgres") as other, clinic.connect() as superuser:
            refused = clinic.invoke("db.activity", f"--end={other.info.backend_pid}", f"--confirm={name}")
            assert refused.code == 2 and f"is on the database postgres, not on {name}" in refused.err, refused.err
            clinic.env["DEV_DATABASE_URL"] = clinic.url(name, user=role, password="secret")
            refused = clinic.invoke("db.activity", f"--end={superuser.info.backend_pid}", f"--confirm={name}")
            assert refused.code == 1 and "may not end pid" in refused.err and "ask a superuser" in refused.err, refused.err
            assert superuser.execute("SELECT 1").fetchone() == (1,)
    finally:
        clinic.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", name)


@pytest.mark.slow
def test_a_number_that_another_session_has_now_is_not_ended(clinic: Project) -> None:
    with clinic.connect() as other, clinic.connect() as own:
        row = own.execute(ending.END, (1000, other.info.backend_pid, datetime(2026, 1, 1, tzinfo=UTC))).fetchone()
        assert row is None and other.execute("SELECT 1").fetchone() == (1,)
