"""Adopting a database: stamp, journal, ledger and the beginning of its history, in one transaction, after a proved backup."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.adoption import baseline, history, inventory, report
from skinspire_db.adoption.subject import Subject
from skinspire_db.catalog import definitions, objects
from skinspire_db.catalog.fields import Snapshot
from skinspire_db.config import accepted
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import write_atomically
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle import guard, lock, precaution
from skinspire_db.lifecycle import stamp as stamps
from skinspire_db.lifecycle.dry_run import Plan
from skinspire_db.lifecycle.operation import Running
from skinspire_db.lifecycle.pipeline import Pipeline, Step
from skinspire_db.lifecycle.result import Summary
from skinspire_db.migrations import acceptance, origins, position, revisions
from skinspire_db.migrations.drift import Difference
from skinspire_db.objects.files import SqlFile
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, target_of
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

OPERATION = "db.adopt"
DANGER = "take {} under the tools"
# Rows that this transaction has changed, but in the tools' own tables.
CHANGED = f"""
    SELECT format('%I.%I', schemaname, s.relname) FROM pg_stat_xact_all_tables s
    JOIN pg_class c ON c.oid = s.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname NOT IN ('{objects.TOOLS_SCHEMA}', 'pg_catalog', 'pg_toast')
      AND {objects.NOT_ALEMBICS} ORDER BY 1
"""


@dataclass
class Work:
    """One adoption as it runs: what it found, and the files that it wrote.

    Attributes:
        environment: whose database it becomes.
        wanted: what the models say.
        files: the project's SQL files.
        reason: why the differences are accepted.
        written: each file that was written, with its text from before; None where there was none.
    """

    environment: Environment
    wanted: Blueprint
    files: list[SqlFile]
    reason: str
    written: dict[Path, str | None] = field(default_factory=dict)
    before: Snapshot = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    drafted: baseline.Baseline | None = None

    @property
    def target(self) -> Target:
        """Where the database is."""
        return target_of(self.environment)

    def subject(self, connection: Connection) -> Subject:
        """The database as the report looks at it."""
        return Subject(connection, self.target, self.environment.project, self.wanted, self.files)

    def compare(self, connection: Connection) -> Summary:
        """Find the differences, and read the schema for the baseline: both as they are before anything is written."""
        subject = self.subject(connection)
        self.before, self.differences = definitions.snapshot(connection), subject.differences
        beginning = history.beginning(connection, self.environment.project)
        if not beginning.kept and not beginning.revisions:
            unused = [name for name, used in subject.rows(inventory.EXTENSIONS) if not used]
            self.drafted = baseline.draft(connection, self.target, self.environment.project, unused)
        return Summary({"differences": len(self.differences)})

    def stamp(self, connection: Connection) -> Summary:
        """Write the stamp; the schema of the tools is made with it."""
        stamps.write(connection, self.environment.name)
        return Summary({"stamp": self.environment.name})

    def note_history(self, connection: Connection) -> Summary:
        """Note where the database stands among the revisions."""
        project = self.environment.project
        wrong: list[str] = []
        drafted = self.drafted
        noted = [drafted.revision] if drafted else history.beginning(connection, project).revisions
        if position.current(connection, project) != noted:
            position.mark(connection, project, noted)
            if drafted is None:  # the baseline is another database's: this one may not be as it says
                wrong = origins.disagreements(connection, self.target, project, revisions.directory(project), noted)
        lines = [f"careful: {each}" for each in wrong]
        return Summary({"revision": ", ".join(noted)}, lines, data={"warnings": wrong} if wrong else {})

    def read_back(self, connection: Connection) -> Summary:
        """Make sure that the transaction has changed nothing of the owner's.

        Raises:
            StepFailed: it has, by a trigger or an event trigger of the owner's.
        """
        after = definitions.snapshot(connection)
        changed = sorted(key for key in after.keys() | self.before.keys() if after.get(key) != self.before.get(key))
        changed += [f"rows of {name}" for (name,) in connection.execute(CHANGED.encode()).fetchall()]
        if changed:
            raise StepFailed(
                f"adopting would change what is the owner's: {', '.join(changed[:3])}; the database is as it was",
                remedy="switch off the trigger or event trigger that does so, then again",
            )
        return Summary({"definitions": len(after)}, lines=["the owner's definitions and rows are as they were"])

    def write_files(self, connection: Connection) -> Summary:
        """Write the baseline and the accepted differences. Last, so that little can happen before the commit."""
        project = self.environment.project
        texts = dict(self.drafted.files) if self.drafted is not None else {}
        signed = accepted.read(project)
        new = acceptance.unsigned(self.differences, signed, self.reason)
        if new:
            texts[accepted.path(project)] = accepted.edited(project, new)
        for path, text in texts.items():
            self.written[path] = path.read_text(encoding="utf-8") if path.exists() else None
            write_atomically(path, text)
        shown = [str(path.relative_to(project.root)) if path.is_relative_to(project.root) else str(path) for path in texts]
        careful = inventory.policies_left(connection, self.files, self.environment.name)
        return Summary({"accepted": len(new), "files": len(texts)}, lines=[*shown, *careful], data={"files": shown})

    def take_back_files(self) -> None:
        """Put the files back that were written for a transaction that was not committed."""
        for path, text in self.written.items():
            with contextlib.suppress(OSError):
                path.unlink() if text is None else write_atomically(path, text)


@dataclass(frozen=True)
class Adoption(Pipeline):
    """`db.adopt --confirm`: the steps of the work, behind its own guard.

    Attributes:
        work: what the steps share.
    """

    work: Work = field(kw_only=True)

    @classmethod
    def of(cls, work: Work) -> Adoption:
        """The operation for this work."""
        steps = (
            Step("compare", work.compare), Step("stamp", work.stamp), Step("history", work.note_history),
            Step("owner", work.read_back), Step("files", work.write_files),
        )  # fmt: skip
        return cls(OPERATION, work.environment, steps, work=work)

    @property
    def backs_up(self) -> bool:
        """A proved backup is taken first, in every environment."""
        return True

    def carry_out(self, running: Running) -> None:
        """Adopt; the files go again when the transaction is not committed."""
        try:
            super().carry_out(running)
        except BaseException:
            if running.result.commit == "not begun":
                self.work.take_back_files()
            raise

    def admit(self, connection: Connection, running: Running) -> None:
        """Lock, identify, look whether there is anything to adopt, and take the backup."""
        self._refuse(connection, running)
        if not lock.try_take(connection):
            lock.take(connection, running.target)
            self._refuse(connection, running)
        running.note(precaution.take(self.environment, running.backups, running.report, OPERATION))

    def admit_ahead(self, connection: Connection, plan: Plan, running: Running) -> None:
        """What admit() would refuse, and which backup would be taken."""
        self._refuse(connection, running)
        plan.backup = precaution.folder(self.environment, running.backups)
        plan.would.insert(0, f"take a backup in {plan.backup} first, and prove it by a restore")
        plan.may_create_databases()
        plan.would += history.beginning(connection, self.environment.project).phrases

    def _refuse(self, connection: Connection, running: Running) -> None:
        target = running.target
        connections.require_direct(target, OPERATION)
        stamped = stamps.read(connection)
        if former := stamped.environment if stamped else stamps.last_owner(connection):
            stamps.refuse_protected(former, target.environment, str(target))
        report.refuse(connection, target, self.environment.project)
        guard.require_confirmation(OPERATION, DANGER, target, running.confirm)
        history.beginning(connection, self.environment.project)


def reason(given: str | None) -> str:
    """Why the differences are accepted, where nothing is said."""
    return given or f"there when the database was adopted, {datetime.now(UTC):%Y-%m-%d}"
