"""The drill: a random second is come back to, aside, and what is recovered is proved; how long it took is kept."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import fingerprint
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import write_atomically
from skinspire_db.copies.backup_folder import VERIFIED
from skinspire_db.errors import DatabaseMissing, UsageError
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.result import Check, Summary
from skinspire_db.migrations import version_table
from skinspire_db.objects import ledger
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.recovery import base, base_backup, point, restore, status
from skinspire_db.recovery.archive import Archive
from skinspire_db.recovery.point import Point

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

    Verify = Callable[[Connection], Summary | None]

SLACK = 5.0  # seconds that an operation may need for its commit after it has written into the journal
# Since the database was last swapped for another one, whose journal came along.
JOURNAL = """
    SELECT entry_id, extract(epoch FROM started_at)::float8, extract(epoch FROM started_at)::float8 + seconds
    FROM skinspire_tools.journal WHERE started_at > coalesce(
        (SELECT max(started_at) FROM skinspire_tools.journal WHERE steps @> '[{"name": "stamp"}]'), '-infinity')
"""


def drill(environment: Environment, given: Path | None, verify: Verify) -> Job:
    """Prove by a recovery that continuous backups can be recovered, and measure it.

    Args:
        environment: whose backups they are.
        given: the folder of backups; by default backups/ in the project.
        verify: the checks of db.verify.

    Returns:
        The operation, to be run.
    """
    archive = Archive.of(environment, given)

    def work(running: Running) -> None:
        with contextlib.closing(connections.connect(running.target, running.operation)) as now:
            connections.autocommit(now)
            found, rpo = _choose(archive, now)
            started = time.monotonic()
            with running.step("recover") as summary:
                recovering = restore.aside(archive, found, running.target)
                _, then, what = running.stack.enter_context(recovering)
                rto = time.monotonic() - started
                vars(summary).update(vars(what))
                summary.numbers = {"rpo_seconds": f"{rpo:.1f}", "rto_seconds": f"{rto:.1f}"}
                summary.lines.insert(0, f"as of {found.text}")
                summary.data = {"at": found.text, "rpo_seconds": round(rpo, 3), "rto_seconds": round(rto, 3)}
            try:
                _prove(running, found, then, now, verify)
            except DatabaseMissing:
                running.note(
                    f"{then.database} did not exist at {found.text}: only that the server can be recovered is proved"
                )
        write_atomically(found.base.path / VERIFIED, json.dumps({"how": "restored"}))
        base_backup.record(running)

    def look(running: Running) -> None:
        base.pick(archive)

    done = "what was recovered is what was there"
    return Job("backup.drill", environment, work, ("recover", "verify", "compare"), done=done, look=look)


def _choose(archive: Archive, now: Connection) -> tuple[Point, float]:
    """A random second of the window, and how many seconds before now it ends."""
    marks, (complete, _) = archive.marks, base.complete(archive)
    base.pick(archive)  # raises UsageError with the remedy
    begins = min(each.finished for each in complete)
    if not marks or marks[-1].at <= begins:
        raise UsageError(
            "nothing has been received since the first base backup: there is no window to choose a second of",
            remedy=f"invoke backup.start --env={archive.environment}",
        )
    rpo = max(status.behind(marks[-1].at, now), 0.0)
    return point.find(archive, random.uniform(begins, marks[-1].at)), rpo  # noqa: S311


def _prove(running: Running, found: Point, then: Target, now: Connection, verify: Verify) -> None:
    with running.step("verify") as summary, contextlib.closing(connections.connect(then, running.operation)) as connection:
        connections.begin(connection, then.policy)
        if _definitions(connection) == _definitions(now):
            vars(summary).update(vars(_verified(running, connection, verify)))
        else:
            running.note("db.verify was left out: revisions or SQL files were at other versions then")
        connection.rollback()
    with running.step("compare") as summary:
        contents = fingerprint.take(then, running.operation)
        summary.numbers = {"tables": len(contents.tables), "rows": contents.rows}
        with contextlib.closing(connections.connect(then, running.operation)) as connection:
            connections.begin(connection, then.policy, brief=True)
            summary.checks = [_position(found, connection), _journal(found, connection, now)]


def _definitions(connection: Connection) -> Any:
    """At which versions the database's definitions are."""
    entries = ledger.read(connection) if tool_schema.exists(connection) else {}
    return version_table.noted(connection), {name: entry.version for name, entry in entries.items()}


def _verified(running: Running, then: Connection, verify: Verify) -> Summary:
    """The checks of db.verify; one that fails now as well is no fault of the backups."""
    summary = verify(then) or Summary()
    if all(check.status == "pass" for check in summary.checks):
        return summary
    with contextlib.closing(connections.connect(running.target, running.operation)) as present:
        connections.begin(present, running.target.policy)
        checks = (verify(present) or Summary()).checks
        bad = {check.name: check.detail for check in checks if check.status != "pass"}
        present.rollback()
    same = [check for check in summary.checks if check.status != "pass" and bad.get(check.name) == check.detail]
    for check in same:
        running.note(f"{check.name} does not pass, then as now: invoke db.verify --env={running.target.environment}")
    summary.checks = [check for check in summary.checks if check not in same]
    return summary


def _position(found: Point, then: Connection) -> Check:
    """Whether all is there that the receiver had noted by that moment."""
    row = then.execute("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn").fetchone()
    at, reached = found.at or time.time(), int(row[0] or 0) if row else 0
    noted = max((mark.lsn for mark in found.marks if mark.at <= at and mark.at >= found.base.finished), default=0)
    ok = reached + restore.ROUNDING >= noted
    return Check("position", "pass" if ok else "fail", f"recovered to {reached}, noted by then {noted}")


def _journal(found: Point, then: Connection, now: Connection) -> Check:
    """Whether the journal of then has all of that of now up to that moment, and nothing later."""
    if not (tool_schema.exists(then) and tool_schema.exists(now)):
        return Check("journal", "pass", "there was none")
    former, present = (_entries(each) for each in (then, now))
    at = found.at or time.time()
    late = [entry for entry, (started, _) in former.items() if started > at]
    lost = [entry for entry, (_, ended) in present.items() if ended + SLACK < at and entry not in former]
    if not _comparable(former, present):
        lost = []
    wrong = f"{len(late)} entries are later, {len(lost)} are missing"
    return Check("journal", "fail" if late or lost else "pass", wrong if late or lost else f"{len(former)} entries")


def _entries(connection: Connection) -> dict[Any, tuple[float, float]]:
    return {entry: (started, ended) for entry, started, ended in connection.execute(JOURNAL.encode()).fetchall()}


def _comparable(former: dict[Any, Any], present: dict[Any, Any]) -> bool:
    """Not where the database was swapped for another one since."""
    return not former or not present or bool(former.keys() & present.keys())
