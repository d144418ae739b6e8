"""Rehearsing the pending revisions of an environment on a copy of its database, which goes away again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import definitions, row_security
from skinspire_db.config.environment import Environment
from skinspire_db.errors import Drifted, GuardRefused, SkinspireError, UsageError
from skinspire_db.lifecycle import journal, stamp
from skinspire_db.lifecycle.failures import translated
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.read_only import present
from skinspire_db.lifecycle.result import Check, StepResult, Summary
from skinspire_db.migrations import concurrent, drift, position, rehearsed, revision_steps, revisions, version_table
from skinspire_db.migrations.rehearsed import OPERATION
from skinspire_db.objects import tenant_roles, versions
from skinspire_db.postgres import connections, search_path
from skinspire_db.postgres.target import Target
from skinspire_db.rehearsal import contents, verdict
from skinspire_db.rehearsal import source as sources
from skinspire_db.rehearsal.measure import Measure
from skinspire_db.rehearsal.queue import Queue
from skinspire_db.rehearsal.source import Choice
from skinspire_db.rehearsal.verdict import Findings
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

STEPS = ("pending", "copy", "before", "revisions", "after", "again", "drift")


def rehearse(
    environment: Environment,
    *,
    source: str = "backup",
    on: str | None = None,
    keep: bool = False,
    longest_lock: str | float = 1,
    last: str | None = None,
) -> Job:
    """Apply the pending revisions to a copy, take them back and apply them again, and say what that costs and loses.

    Args:
        environment: whose revisions; its database is only read, but for the journal.
        source: what the copy is made of: "backup" (the newest that a restore has proved), "copy", or "masked".
        on: "embedded" for a copy on the embedded server; None for the environment's own server.
        keep: keep the copy.
        longest_lock: seconds that a lock which stops readers or writers may be held.
        last: the revision that is rehearsed last; None for all.

    Returns:
        The operation, to be run. It raises Drifted (exit code 3) where a lock is held longer, a value is lost or a check
        fails.

    Raises:
        UsageError: an argument means nothing.
        GuardRefused: a copy of a protected environment that is not masked would stay on another server.
    """
    if source not in sources.SOURCES:
        raise UsageError(f"--from={source} is no source of a copy", remedy=f"use --from={', --from='.join(sources.SOURCES)}")
    if on not in (None, "embedded"):
        raise UsageError(f"--on={on} is no server", remedy="--on=embedded, or leave --on out for the environment's own")
    longest = verdict.seconds(longest_lock)
    if keep and on and environment.policy.protected and source != "masked":
        raise GuardRefused(
            f"{environment.name} is protected: a copy of its rows does not stay on another server",
            remedy=f"invoke {OPERATION} --env={environment.name} --from=masked --on=embedded --keep",
        )
    if last is None:
        revisions.refuse_forks(environment.project)
    choice = Choice(source, on is not None, keep, longest, last)
    done = "no pending revision holds a lock too long, loses a value or fails a check"
    work, look = partial(_work, environment, choice), partial(sources.look, environment, choice)
    return Job(OPERATION, environment, work, STEPS, keeps=False, writes=True, done=done, look=look)


@dataclass
class Rehearsal:
    """A rehearsal as it runs, on the copy."""

    environment: Environment
    running: Running
    files: ScriptDirectory
    aside: Target
    connection: Connection
    findings: Findings
    applied: list[tuple[Script, Measure]] = field(default_factory=list)

    def transaction(
        self,
        script: Script,
        *,
        down: bool = False,
        watch: Any = None,
        meet: Callable[[str, Callable[[], object]], object] = lambda _name, _attempt: None,
    ) -> list[Check]:
        """Apply a revision to the copy, or take it back, as an upgrade does, and commit.

        Args:
            script: the revision.
            down: take it back.
            watch: a Measure or a Queue.
            meet: is told of the step after the revision's statements, and gets what runs it.

        Returns:
            The proofs of its triggers.

        Raises:
            SkinspireError: it fails; the copy is as it was before it.
        """
        connection = self.connection
        done: list[StepResult] = []
        try:
            apart = concurrent.is_concurrent(script)
            if apart:
                self._outside(script, down=down, measure=watch if isinstance(watch, Measure) else None)
            for step in revision_steps.of(self.environment, self.files, script, down=down, watch=watch, done=apart):
                measured = isinstance(watch, Measure) and step.name not in ("revision", "proofs")
                with translated(self.aside, OPERATION, f"{script.revision}: {step.name}", connection):
                    if step.name not in ("revision", "proofs"):
                        meet(step.name, partial(step.run, connection))
                    if measured:
                        watch.begin()
                    summary = step.run(connection) or Summary()
                    if measured:
                        watch.end(step.name, only_if_it_stops=True)
                done.append(StepResult(step.name, True, 0.0, summary))
            journal.record(connection, "migrate.upgrade", self.environment.name, 0.0, [each.as_dict() for each in done])
            connection.commit()
        finally:
            connection.rollback()
            self.begin()
        return [check for each in done for check in each.summary.checks]

    def _outside(self, script: Script, *, down: bool, measure: Measure | None) -> None:
        """Run the statements of a concurrent revision, which no transaction holds together and no session waits for."""
        connection, file = self.connection, revisions.path(script, self.environment.project)
        statements = concurrent.statements(self.environment.project, script, down=down)
        with search_path.application(connection):
            [path] = connection.execute("SELECT current_setting('search_path')").fetchone() or [""]
        connections.autocommit(connection)
        try:
            with translated(self.aside, OPERATION, script.revision, connection):
                connection.execute("SELECT set_config('search_path', %s, false)", (path,))
                for each in statements:
                    if measure:
                        measure.begin()
                    concurrent.run(connection, each, file)
                    if measure:
                        measure.end(str(each))
        finally:
            connection.autocommit = False
            self.begin()

    def begin(self) -> None:
        """Begin a transaction that waits for tables as long as a revision does."""
        policy = self.environment.policy
        connections.begin(self.connection, replace(policy, lock_timeout=policy.ddl_lock_timeout))

    def up(self, script: Script) -> None:
        """Apply a revision, each statement measured."""
        with self.running.step(script.revision) as summary:
            table = version_table.find(self.connection, self.environment.project)
            measure = Measure(self.connection, table.name)
            try:
                summary.checks += self.transaction(script, watch=measure)
            except SkinspireError as error:
                summary.checks.append(verdict.failed(f"revision {script.revision}", error))
                return
            measure.finish()
            self.applied.append((script, measure))
            self.findings.measured(script, measure)
            summary.noted = rehearsed.note(script)
            summary.numbers = {"statements": len(measure.statements), "WAL_MB": f"{measure.wal / 1e6:.1f}"}
            summary.lines = [script.doc, *map(str, measure.statements)]

    def again(self) -> None:
        """Take the revisions back, and apply them again, behind long transactions."""
        before = self.findings.definitions
        with self.running.step("again") as summary:
            back = []
            for script, _ in reversed(self.applied):
                try:
                    self.transaction(script, down=True)
                except SkinspireError as error:
                    summary.checks.append(verdict.failed(f"downgrade {script.revision}", error))
                    break
                back.append(script)
            else:
                now = contents.names(definitions.snapshot(self.connection))
                summary.checks.append(verdict.same(before, now))
            for script in reversed(back):
                statements = next(measure.statements for each, measure in self.applied if each is script)
                with contextlib.closing(Queue(self.connection, self.aside, statements, self.longest)) as queue:
                    try:
                        self.transaction(script, watch=queue, meet=queue.meet)
                    except SkinspireError as error:
                        summary.checks.append(verdict.failed(f"revision {script.revision} again", error))
                        break
                    finally:
                        self.findings.queue += queue.waits
            summary.checks += verdict.queued(self.findings.queue)
            summary.numbers = {"taken_back": len(back), "tables_waited_for": len(self.findings.queue)}

    @property
    def longest(self) -> int:
        """Milliseconds that the policy lets a revision wait for a table."""
        return round(self.environment.policy.ddl_lock_timeout * 1000)


def _work(environment: Environment, choice: Choice, running: Running) -> None:
    plan = sources.look(environment, choice, running)
    if not plan.pending:
        running.note("nothing is pending")
        running.result.ending = "nothing was rehearsed"
        return
    away = replace(running, target=sources.server_of(environment, choice))
    aside = sources.made(environment, choice, plan, away)
    connection = running.stack.enter_context(contextlib.closing(connections.connect(aside, OPERATION)))
    rehearsal = Rehearsal(
        environment, running, revisions.directory(environment.project), aside, connection, Findings(choice.longest)
    )
    _rehearse(rehearsal, choice, plan.pending, away.target)
    findings = rehearsal.findings
    with running.step("verdict") as summary:
        summary.lines, summary.data = findings.words(environment.policy), {"rehearsal": findings.as_dict()}
        summary.numbers = {"findings": len(findings.all(running.result))}
    if choice.keep:
        connection.close()
        sources.keep(aside, away.target, running)
    _record(environment, running)
    if found := findings.all(running.result):
        more = f", and {len(found) - 1} more" if found[1:] else ""
        raise Drifted(f"{found[0]}{more}", remedy="correct the revision, and rehearse it again")


def _rehearse(rehearsal: Rehearsal, choice: Choice, wanted: list[str], server: Target) -> None:
    environment, connection, running = rehearsal.environment, rehearsal.connection, rehearsal.running
    project, findings = environment.project, rehearsal.findings
    connections.begin(connection, environment.policy)
    with running.step("before") as summary, translated(rehearsal.aside, OPERATION, "before", connection):
        row_security.require_all_rows(connection)
        try:
            scripts = position.pending(connection, project, rehearsal.files, choice.last)
        except SkinspireError as error:
            raise _of_another_state(f"the copy: {error.message}", environment) from None
        _refuse_ahead(wanted, [each.revision for each in scripts], environment)
        before = contents.tables(connection)
        doubtful = set(contents.unproved(connection))
        findings.definitions = contents.names(definitions.snapshot(connection))
        summary.numbers = {"tables": len(before), "rows": sum(each.rows for each in before.values())}
    connection.rollback()
    rehearsal.begin()
    for script in scripts:
        rehearsal.up(script)
        if len(rehearsal.applied) < scripts.index(script) + 1:
            break
    with running.step("after") as summary, translated(rehearsal.aside, OPERATION, "after", connection):
        touched = {oid for _, measure in rehearsal.applied for oid in measure.touched}
        former = {oid: each for oid, each in before.items() if oid in touched}
        after = contents.tables(connection, but=before.keys() - former.keys())  # new ones can take the place of others
        findings.compare(former, after, [loss for _, measure in rehearsal.applied for loss in measure.lost])
        summary.checks = list(contents.checks(connection, doubtful))
        summary.numbers = {"tables": len(former), "losses": len(findings.losses)}
    rehearsal.again()
    if len(rehearsal.applied) == len(scripts) and choice.last is None:
        with running.step("drift") as summary, translated(rehearsal.aside, OPERATION, "drift", connection):
            files = versions.current(project, roles=tenant_roles.of(environment))
            found = drift.look(connection, server, project, Blueprint.of_project(project), files)
            summary.lines, summary.numbers = found.lines, found.numbers
            findings.drift = found.drift
    connection.rollback()


def _refuse_ahead(wanted: list[str], there: list[str], environment: Environment) -> None:
    """A backup can be of a database that is further than the present one."""
    if missing := [each for each in wanted if each not in there]:
        raise _of_another_state(f"the copy has {missing[0]} already, which is pending here", environment)


def _of_another_state(what: str, environment: Environment) -> UsageError:
    """A backup can have been taken before the database was adopted, or when it was further than now."""
    name = environment.name
    return UsageError(
        f"{what}: it is of another state of the database",
        remedy=f"use --from=copy; or invoke backup.create --env={name}, then invoke backup.verify --env={name} --full",
    )


def _record(environment: Environment, running: Running) -> None:
    """Write the journal's line of what was rehearsed, whatever was found."""
    start = present(environment)
    steps = [step.as_dict() for step in running.result.steps]
    seconds = sum(each.seconds for each in running.result.steps)
    connection = running.stack.enter_context(contextlib.closing(connections.connect(start, OPERATION)))
    with translated(start, OPERATION, "journal", connection):
        connections.begin(connection, start.policy, brief=True)
        stamp.identify(connection, start)
        journal.record(connection, OPERATION, environment.name, seconds, steps)
        connection.commit()
