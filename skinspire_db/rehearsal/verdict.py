"""What an operator decides by: locks that are held too long, values that are lost, checks that fail, in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.config.policy import Policy
from skinspire_db.errors import ConnectionFailed, SkinspireError, UsageError
from skinspire_db.lifecycle.remedies import shortened
from skinspire_db.lifecycle.result import Check, Result
from skinspire_db.rehearsal import contents
from skinspire_db.rehearsal.contents import Table
from skinspire_db.rehearsal.measure import Lock, Measure, strongest
from skinspire_db.rehearsal.queue import Wait

if TYPE_CHECKING:
    from alembic.script import Script

SHOWN = 8  # locks that are told in the verdict


def seconds(value: str | float) -> float:
    """The seconds that a lock may be held, as they were typed.

    Raises:
        UsageError: it is no positive number.
    """
    try:
        if 0 < (number := float(value)) < float("inf"):
            return number
    except ValueError:
        pass
    raise UsageError(f"--longest-lock={value} is no number of seconds", remedy="--longest-lock=1, or leave it out")


def failed(name: str, error: SkinspireError) -> Check:
    """A part of the rehearsal that failed, as a check. A server that went away is no fault of a revision, and is raised."""
    if isinstance(error, ConnectionFailed):
        raise error
    return Check(name, "fail", error.message, error.remedy)


def same(before: set[str], after: set[str]) -> Check:
    """Whether the downgrades leave what was there before the revisions."""
    wrong = [
        *(f"{each} is missing" for each in sorted(before - after)),
        *(f"{each} stays" for each in sorted(after - before)),
    ]
    detail = "; ".join(wrong[:3]) or "what was there before is there again"
    return Check("downgrade", "fail" if wrong else "pass", detail)


def queued(waits: list[Wait]) -> list[Check]:
    """Whether the revision lets others pass, for each table that it locks."""
    wrong = {each.table: each.says or "it does not give up" for each in waits if each.says or not each.gave_up}
    tables = dict.fromkeys(each.table for each in waits)
    return [
        Check(
            f"queue of {table}", "fail" if table in wrong else "pass", wrong.get(table, "it gives up, and gets through later")
        )
        for table in tables
    ]


@dataclass
class Findings:
    """What came of a rehearsal.

    Attributes:
        longest: seconds that a lock which stops readers or writers may be held.
        revisions: what was measured of each.
        locks: those that stop readers or writers.
        losses: what would be lost, a sentence each.
        tables: the tables that were touched, before and after.
        queue: what became of revisions behind long transactions.
        drift: how the end differs from models and files; "" for not at all.
        definitions: the objects before the revisions.
    """

    longest: float
    revisions: list[dict[str, Any]] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    queue: list[Wait] = field(default_factory=list)
    drift: str = ""
    definitions: set[str] = field(default_factory=set)

    def measured(self, script: Script, measure: Measure) -> None:
        """Take in a revision that was applied."""
        statements = [each.as_dict() for each in measure.statements]
        said = {"revision": script.revision, "what": script.doc, "seconds": round(measure.seconds, 3), "wal": measure.wal}
        self.revisions.append(said | {"statements": statements})
        self.locks += [lock for each in measure.statements for lock in each.locks if lock.stops]

    def compare(self, before: dict[int, Table], after: dict[int, Table], said: list[str]) -> None:
        """Take in what the tables hold before and after."""
        self.losses = list(contents.lost(before, after, said))
        self.tables = [
            {"table": each.name, "before": each.as_dict(), "after": after[oid].as_dict() if oid in after else None}
            for oid, each in before.items()
        ]

    def all(self, result: Result) -> list[str]:
        """What an operator must know before the upgrade, a sentence each; none where all is well."""
        found = [
            f"{each} for longer than {self.longest:g} s" for each in strongest(self.locks) if each.seconds > self.longest
        ]
        bad = [check for step in result.steps for check in step.summary.checks if check.status != "pass"]
        checks = [f"{check.name}: {shortened(check.detail)}" for check in bad]
        return [*found, *self.losses, *checks, *([f"drift at the end: {self.drift}"] if self.drift else [])]

    def words(self, policy: Policy) -> list[str]:
        """The verdict in sentences."""
        held = [f"{lock} for {lock.seconds:.1f} s: {lock.stops} wait" for lock in strongest(self.locks)[:SHOWN]]
        tables = ", ".join(dict.fromkeys(each.table for each in self.queue))
        longest = f"{policy.ddl_lock_timeout:g} s"
        patience = f"a revision gives up a table in use after {longest}, and no session waits longer behind it"
        if any(each.says or not each.gave_up for each in self.queue):
            patience = f"a revision does not give up a table in use: sessions can wait longer than {longest}"
        tried = f": proved with a reader on {tables}" if tables else ": there is none to wait for"
        return [*(held or ["no lock stops readers or writers"]), *self.losses, patience + tried]

    def as_dict(self) -> dict[str, Any]:
        """The findings for JSON."""
        return {
            "revisions": self.revisions,
            "longest_lock": round(max((each.seconds for each in self.locks), default=0.0), 3),
            "losses": self.losses,
            "tables": self.tables,
            "queue": [each.as_dict() for each in self.queue],
            "drift": self.drift,
        }
