"""How continuous backups stand: for backup.status, and in a sentence for db.doctor."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import Environment
from skinspire_db.config.policy import seconds_of
from skinspire_db.lifecycle import tool_schema
from skinspire_db.recovery.archive import Archive, moment

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

LAST_DRILL = """
    SELECT extract(epoch FROM clock_timestamp() - started_at)::float8, steps FROM skinspire_tools.journal
    WHERE operation = 'backup.drill' ORDER BY started_at DESC LIMIT 1
"""
DOCTOR = "invoke db.doctor --env={env}"
NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"


SLOT = """
    SELECT coalesce(greatest(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
                             - restart_lsn, 0), 0)::float8, wal_status,
           current_setting('max_slot_wal_keep_size')
    FROM pg_replication_slots WHERE slot_name = %s
"""
ENLARGE = "ask the administrator for: ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf()"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: no `remedy` where it is as it should be, `unknown` where it could not be looked at."""

    what: str
    detail: str
    remedy: str | None = None
    unknown: bool = False

    @property
    def row(self) -> dict[str, object]:
        """A line of the table."""
        state = "UNKNOWN" if self.unknown else "COMPLAINT" if self.remedy else "ok"
        return {"what": self.what, "state": state, "detail": self.detail}


def findings(environment: Environment, archive: Archive, connection: Connection | None) -> list[Finding]:
    """All that is to be said of an environment's continuous backups.

    Args:
        environment: whose they are.
        archive: where they are.
        connection: an open one to its database; None where there is none to be had.
    """
    found = _receiver(environment, archive, connection)
    if connection is None:
        asks = ["slot", "drill"] if archive.state and archive.state.reach else ["drill"]
        return [*found, *(Finding(each, "the server cannot be asked", DOCTOR, unknown=True) for each in asks)]
    return [*found, *_slot(archive, connection), _drill(environment, connection)]


def _receiver(environment: Environment, archive: Archive, connection: Connection | None) -> list[Finding]:
    state, longest = archive.state, seconds_of(environment.policy.longest_rpo)
    if not archive.runs:
        return [
            Finding("receiver", "none runs: what is committed from now on is not received", "invoke backup.start --env={env}")
        ]
    assert state
    if state.said:
        return [Finding("receiver", f"receives nothing: {state.said}", DOCTOR)]
    late = behind(state.at, connection)
    detail = f"all up to {moment(state.at)} is received, {late:.1f} s ago; the last file is {last_file(archive)}"
    if late < -1:
        return [Finding("receiver", f"{detail}: the server's clock went back", "set the server's clock")]
    remedy = f"look into {archive.log}: longest_rpo is {environment.policy.longest_rpo}" if late > longest else None
    return [Finding("receiver", detail, remedy)]


def behind(at: float, connection: Connection | None) -> float:
    """How many seconds ago that was, by the server's clock where it can be asked."""
    if connection is None:
        return time.time() - at
    row = connection.execute(NOW).fetchone()
    assert row
    return float(row[0]) - at


def last_file(archive: Archive) -> str:
    """The name of the newest file of WAL; "none" where there is none."""
    names = [file.name for file in archive.wal.glob("*") if len(file.name.partition(".")[0]) == 24]
    return max(names, default="none")


def _slot(archive: Archive, connection: Connection) -> list[Finding]:
    """What the server keeps for the receiver now: the more, the longer none has run."""
    if (state := archive.state) is None or not state.reach:
        return []
    rows = connection.execute(SLOT.encode(), (state.slot,)).fetchall()
    if not rows:
        gone = f"the server has no slot {state.slot}: WAL that it has removed cannot be received"
        return [Finding("slot", gone, "invoke backup.start --env={env}")]
    kept, reach, limit = rows[0]
    if limit == "-1":
        says = f"{state.slot} keeps WAL without limit: should the receiver die, the server's disk fills"
        return [Finding("slot", says, ENLARGE)]
    detail = f"{state.slot} keeps {kept / 1e6:.1f} MB of WAL on the server, at most {limit}"
    if reach in ("lost", "unreserved"):
        detail = (
            f"{detail}: the server is about to give it up" if reach == "unreserved" else f"the server gave {state.slot} up"
        )
        return [Finding("slot", f"{detail} ({reach})", "invoke backup.start --env={env}")]
    return [Finding("slot", detail)]


def last_drill(connection: Connection) -> tuple[float, dict[str, Any]] | None:
    """The age of the last drill in seconds, and what it measured; None where there was none."""
    if not tool_schema.exists(connection):
        return None
    rows = connection.execute(LAST_DRILL.encode()).fetchall()
    if not rows:
        return None
    numbers: dict[str, Any] = {}
    for step in rows[0][1]:
        numbers |= step.get("summary", {})
    return float(rows[0][0]), numbers


def _drill(environment: Environment, connection: Connection) -> Finding:
    due, remedy = environment.policy.drill_every, "invoke backup.drill --env={env}"
    last = None
    with contextlib.suppress(LookupError):
        last = last_drill(connection)
    if last is None:
        return Finding("drill", "there was none: that these backups can be recovered is not proved", remedy)
    age, numbers = last
    detail = f"last drill {ago(age)} ago: RPO {numbers.get('rpo_seconds')} s, RTO {numbers.get('rto_seconds')} s"
    return Finding("drill", detail, remedy) if age > seconds_of(due) else Finding("drill", detail)


def ago(seconds: float) -> str:
    """A duration in its largest unit: 3 days."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // size)) >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{int(seconds)} s"
