"""The migrate.* operations, as pipelines: each revision with its journal line and its triggers is one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import definitions
from skinspire_db.config import accepted
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.operation import Job
from skinspire_db.lifecycle.pipeline import Look, Pipeline, Series, Step
from skinspire_db.lifecycle.read_only import look_at
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.migrations import (
    concurrent,
    drift,
    foresight,
    lines,
    losses,
    origins,
    position,
    revisions,
    running,
    version_table,
    writing,
)
from skinspire_db.migrations import lint as linting
from skinspire_db.migrations import revision_operations as applying
from skinspire_db.objects import tenant_roles, versions
from skinspire_db.objects.files import SqlFile
from skinspire_db.postgres.target import Target, target_of
from skinspire_db.rehearsal import rehearse as rehearsing
from skinspire_db.schema import extensions
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

TAKES_BACK = "take back a revision of {}, with what its tables hold"


def upgrade(environment: Environment, to: str | None = None) -> Series:
    """Apply the pending revisions, and make what extensions are missing.

    Args:
        environment: whose database is changed.
        to: the last revision to apply; None for all.
    """
    files = revisions.directory(environment.project)
    if to is None:
        revisions.refuse_forks(environment.project)

    first = True

    def missing(connection: Connection) -> list[str]:
        return extensions.missing(connection, extensions.wanted(environment.project))

    def following_one(connection: Connection) -> Script | None:
        return position.next_up(connection, environment.project, files, to)

    def foreseen(connection: Connection) -> Script | None:
        pending = position.pending(connection, environment.project, files, to)
        concurrent.refuse(environment.project, pending, lambda each: running.statements(environment.project, files, each))
        foresight.refuse_unknown_views(connection, environment.project, files, pending)
        return pending[0] if pending else None

    def following() -> list[Pipeline]:
        nonlocal first
        script = look_at(environment, foreseen if first else following_one)
        backs_up, first = first, False
        if script is None:
            return [_extensions(environment)] if look_at(environment, missing) else []
        danger = _danger(environment, files, script)
        return applying.of(environment, "migrate.upgrade", files, script, danger=danger, backs_up=backs_up)

    return Series("migrate.upgrade", environment, applying.one_by_one(following), applying.step_names(environment))


def _extensions(environment: Environment) -> Pipeline:
    """Every revision makes them, too: this is for where none is pending."""
    wanted = extensions.wanted(environment.project)

    def make(connection: Connection) -> Summary:
        missing = extensions.missing(connection, wanted)
        extensions.create(connection, wanted)
        return Summary({"extensions_created": len(missing)}, lines=[f"extension {each}" for each in missing])

    return Pipeline("migrate.upgrade", environment, (Step("extensions", make, destroys=""),))


def _danger(environment: Environment, files: ScriptDirectory, script: Script) -> str:
    """What a protected environment must confirm to before this revision, empty where it loses nothing."""
    if not environment.policy.protected:
        return ""
    text = running.statements(environment.project, files, script)
    if text is None:
        return f"apply {script.revision} to {{}}, and what that loses cannot be told beforehand: it reads the database"
    lost = look_at(environment, lambda connection: losses.of(connection, text))
    said = "; ".join(lost).replace("{}", "{ }")
    return f"apply {script.revision} to {{}}, and lose what it holds: {said}" if lost else ""


def downgrade(environment: Environment, steps: str | int = 1) -> Series:
    """Take back the last revisions.

    Args:
        environment: whose database is changed.
        steps: how many, as it was typed.
    """
    if not str(steps).isdecimal() or int(steps) < 1:
        raise UsageError(f"--steps={steps} is no number of revisions", remedy="invoke migrate.downgrade --steps=1")
    files = revisions.directory(environment.project)
    left = int(steps)

    def enough(connection: Connection) -> None:
        states = position.states(connection, environment.project, files)
        applied = sum(each.state == "applied" for each in states)
        if 0 < applied < left:
            raise UsageError(
                f"--steps={steps}, but the database has {counted(applied, 'revision')}",
                remedy=f"invoke migrate.downgrade --env={environment.name} --steps={applied}",
            )

    def last(connection: Connection) -> Script:
        script = position.next_down(connection, environment.project, files)
        origins.refuse_others(connection, script)
        return script

    def following() -> list[Pipeline]:
        nonlocal left
        if left == int(steps):
            look_at(environment, enough)
        if left == 0:
            return []
        backs_up = left == int(steps)
        left -= 1
        script = look_at(environment, last)
        return applying.of(environment, "migrate.downgrade", files, script, danger=TAKES_BACK, backs_up=backs_up, down=True)

    return Series(
        "migrate.downgrade",
        environment,
        applying.one_by_one(following),
        applying.step_names(environment),
    )


def status(environment: Environment) -> Look:
    """Which revisions are applied, pending, or unknown to the files."""
    files = revisions.directory(environment.project)

    def look(connection: Connection) -> Summary:
        states = position.states(connection, environment.project, files)
        numbers: dict[str, int | str] = {
            state: sum(each.state == state for each in states) for state in ("applied", "pending", "unknown")
        }
        heads = revisions.heads(environment.project)
        away = {each.revision: position.elsewhere(environment.project, each.revision) for each in states if not each.file}
        careful = version_table.advice(connection, environment.project)
        careful += [f"{name} is applied, and not in this checkout: {position.said(where)}" for name, where in away.items()]
        return Summary(
            numbers | {"heads": len(heads)},
            [f"careful: {each}" for each in careful],
            rows=[
                {"revision": each.revision, "state": each.state, "what": each.message, "file": each.file} for each in states
            ],
            data={"revisions": [each.as_dict() for each in states], "heads": heads, "elsewhere": away},
        )

    return Look("migrate.status", environment, (Step("status", look),))


def check(environment: Environment) -> Look:
    """For CI: exit code 3 when a revision is pending, or the models differ from the database."""
    files = revisions.directory(environment.project)
    revisions.refuse_forks(environment.project)
    wanted = _wanted(environment)

    def pending(connection: Connection) -> Summary:
        position.refuse_unknown(connection, environment.project, files)
        found = [each for each in position.states(connection, environment.project, files) if each.state == "pending"]
        summary = Summary({"pending": len(found)}, lines=[f"{each.revision} {each.message}" for each in found])
        if found:
            summary.drift = f"{counted(len(found), 'revision', 'are', 'is')} pending: {found[0].revision} {found[0].message}"
            summary.remedy = position.way_on(connection, environment.project)
        return summary

    def models(connection: Connection) -> Summary:
        return drift.look(connection, *wanted)

    return Look("migrate.check", environment, (Step("revisions", pending), Step("drift", models)))


def lint(environment: Environment) -> Look:
    """What is risky about the pending revisions, and which applied ones have other files now: exit code 3 for a finding."""
    files = revisions.directory(environment.project)
    linting.require()

    step = Step("lint", lambda connection: linting.look(connection, environment.project, files))
    return Look("migrate.lint", environment, (step,))


def rehearse(environment: Environment, **options: Any) -> Job:
    """Apply the pending revisions to a copy, and say what they lock and lose; arguments as `rehearsal.rehearse.rehearse`."""
    return rehearsing.rehearse(environment, **options)


def new(
    environment: Environment,
    message: str | None,
    *,
    keep: bool = False,
    all_of_it: bool = False,
    head: str | None = None,
    online: bool = False,
) -> Look:
    """Write a revision from the difference between models and database.

    Args:
        environment: whose database is compared.
        message: what the revision is for.
        keep: keep the file of a revision that fails when it is tried.
        all_of_it: take in the accepted differences, too.
        head: a label or a revision of the line that it goes on, where there are several; None to find it.
        online: divide it into revisions that stop no session, also for tables with fewer rows than the policy says.
    """
    files = revisions.directory(environment.project)
    if not message or not message.strip():
        raise UsageError("migrate.new needs a message", remedy='invoke migrate.new -m "add appointments"')
    if head is not None:
        lines.following(environment.project, files, head)  # a wrong one is refused before anything is compared
    wanted = _wanted(environment)

    def write(connection: Connection) -> Summary:
        expected = drift.expected(connection, *wanted)
        signed = {} if all_of_it else accepted.read(environment.project)
        if signed:
            expected = drift.accept(definitions.snapshot(connection), expected, signed)
        attempt = not environment.policy.protected
        written = writing.new(
            connection, environment.project, message, expected, attempt=attempt, keep=keep, head=head,
            online_above=0 if online else environment.policy.online_above,
        )  # fmt: skip
        if written is None:
            left = writing.remaining(connection, environment.project, expected)
            says = [_by_hand(each, environment) for each in left]
            says += ["accepted differences are left out: --accepted takes them in"] if signed else []
            return Summary({"changes": 0}, lines=says, data={"revision": None, "file": None, "warnings": left})
        faults = [f"{kind} {name}: {reason}" for kind, name, _, reason in expected.faults]
        warnings = [*written.warnings, *(f"PostgreSQL refuses it, and it is left out: {each}" for each in faults)]
        notes = [f"note: {each}" for each in Blueprint.of_project(environment.project).notes]
        says = [*(file for _, file in written.every), *(f"careful: {each}" for each in warnings), *notes]
        data: dict[str, Any] = {"revision": written.revision, "file": written.file, "warnings": warnings}
        data["revisions"] = [{"revision": name, "file": file} for name, file in written.every]
        found = linting.of_new(connection, environment.project, [name for name, _ in written.every])
        data["lint"] = [vars(each) for each in found]
        says += [f"lint: {each}" for each in found]
        return Summary({"changes": written.changes}, lines=says, data=data)

    def behind(connection: Connection) -> None:
        writing.refuse_behind(connection, environment.project, revisions.directory(environment.project))

    revisions.refuse_forks(environment.project)
    return Look("migrate.new", environment, (Step("compare", write, behind),), writes=True, tries=True)


def _by_hand(missing: str, environment: Environment) -> str:
    """What is to do about a difference of which no revision can be made."""
    if missing.startswith("extension ") and missing.endswith(" missing"):
        return f"careful: invoke migrate.upgrade --env={environment.name} makes it: {missing}"
    return f"careful: no revision can make it, do it by hand: {missing}"


def stamp(environment: Environment, to: str | None = None) -> Pipeline:
    """Note that the database is at a revision, and run nothing.

    Args:
        environment: whose database is marked.
        to: the revision, or `base` for none; None for the head.
    """
    files = revisions.directory(environment.project)
    if to is None:
        marked = revisions.refuse_forks(environment.project)
    else:
        marked = [] if to == "base" else [revisions.named(files, to).revision]

    def mark(connection: Connection) -> Summary:
        before = position.current(connection, environment.project)
        position.mark(connection, environment.project, marked)
        wrong = origins.disagreements(connection, target_of(environment), environment.project, files, marked)
        numbers: dict[str, int | str] = {"revision": ", ".join(marked) or "none", "before": ", ".join(before) or "none"}
        return Summary(numbers, lines=[f"careful: {each}" for each in wrong], data={"warnings": wrong})

    marking = Step("stamp", mark, destroys="", confirms="change what {} says of its revisions")
    return Pipeline("migrate.stamp", environment, (marking,))


def sql(environment: Environment, to: str | None = None) -> tuple[str, str]:
    """The SQL of what is pending, not run.

    Args:
        environment: whose database is looked at.
        to: the last revision; None for all.

    Returns:
        The database's name, and the SQL.
    """
    files = revisions.directory(environment.project)

    def written(connection: Connection) -> str:
        position.refuse_unknown(connection, environment.project, files)
        at = position.current(connection, environment.project)
        table = version_table.find(connection, environment.project)
        text = running.sql(environment.project, files, table, at, to)
        return foresight.with_views(
            connection, text, versions.current(environment.project, roles=tenant_roles.of(environment))
        )

    return target_of(environment).database, look_at(environment, written)


def merge(environment: Environment, message: str | None, *, dry: bool = False) -> writing.Written | None:
    """Write a revision that joins two heads.

    Args:
        environment: whose project has them.
        message: what the revision is for; None for a message that names the heads.
        dry: only look whether there are two.

    Returns:
        The revision; None with `dry`.

    Raises:
        UsageError: there are fewer than two heads.
    """
    files = revisions.directory(environment.project)
    writing.refuse_one_head(files)
    return None if dry else writing.merge(environment.project, files, message)


def _wanted(environment: Environment) -> tuple[Target, Project, Blueprint, list[SqlFile]]:
    """What drift is measured against."""
    project = environment.project
    return (
        target_of(environment),
        project,
        Blueprint.of_project(project),
        versions.current(project, roles=tenant_roles.of(environment)),
    )
