"""The operations of db.* that make, fill and check a database, written with the public steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any

# What only some of the operations need is imported in them: db.verify loads half of what all of them need.
from skinspire_db import steps
from skinspire_db.config.environment import Environment
from skinspire_db.errors import DatabaseMissing, InvalidSetting, UsageError
from skinspire_db.lifecycle.operation import Operation
from skinspire_db.lifecycle.pipeline import Look, Pipeline, Series, Step
from skinspire_db.lifecycle.read_only import look_at
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres import side_by_side
from skinspire_db.steps import Context, ReusableStep, bound

if TYPE_CHECKING:
    from skinspire_db.lifecycle.replacement import Replacement
    from skinspire_db.migrations.acceptance import Acceptance
    from skinspire_db.postgres.connections import Connection


def setup(context: Context, seed: ReusableStep = steps.seed) -> Pipeline:
    """reset -> create -> sql -> seed -> verify, in one transaction.

    Args:
        context: the environment, the report, and the defaults of the tasks.
        seed: the step that brings rows.
    """
    chain = steps.reset, steps.create, steps.sql, seed, steps.verify
    return Pipeline("db.setup", context.environment, bound(context, *chain))


def reset(context: Context) -> Pipeline:
    """Drop what the application owns; a database that does not exist has nothing of it, and is not made."""
    return Pipeline("db.reset", context.environment, bound(context, steps.reset))


def create(context: Context) -> Pipeline:
    """Make the tables in an empty database, which itself is made when it does not exist."""
    return Pipeline("db.create", context.environment, bound(context, steps.create))


def create_missing(context: Context) -> Pipeline:
    """Add what the models have and the database lacks, and the functions, views and triggers of the SQL files."""
    chain = bound(context, steps.create_missing, steps.sql)
    return Pipeline("db.create", context.environment, chain, " --update-only")


def seed(context: Context, seed: ReusableStep = steps.seed) -> Pipeline:
    """Bring the reference data, and people where the project has them.

    Args:
        context: the environment, the report, and the defaults of the tasks.
        seed: the step that does so.
    """
    return Pipeline("db.seed", context.environment, bound(context, seed))


def verify(context: Context) -> Look:
    """All checks; nothing is written."""
    return Look("db.verify", context.environment, bound(context, steps.verify(writes=False)), any_stamp=True)


def drift(context: Context, asked: Acceptance | None = None) -> Look:
    """Models and trigger files against the live database, everything; exit code 3 when anything differs.

    Args:
        context: the environment, and the report.
        asked: which differences are written into the file of accepted ones, or dropped from it; None only looks.
    """
    if asked is None:
        return Look("db.drift", context.environment, bound(context, steps.drift))
    from skinspire_db.migrations import acceptance
    from skinspire_db.migrations import drift as drifting
    from skinspire_db.postgres.target import target_of

    project = context.project

    def changed(connection: Connection) -> acceptance.Change:
        target = target_of(context.environment)
        every = drifting.differences(connection, target, project, context.blueprint, context.sql_files)
        return acceptance.change(connection, project, every, asked)

    def phrases(connection: Connection | None) -> list[str]:
        return changed(connection).phrases if connection else []

    step = Step(
        "accept" if asked.accept else "forget",
        lambda connection: acceptance.write(project, changed(connection)),
        plans=phrases,
    )
    return Look("db.drift", context.environment, (step,), writes=True)


def advise(context: Context, fail_on: str = "error") -> Look:
    """All lints, of the package and of the project; nothing is written.

    Args:
        context: the environment, and the report.
        fail_on: the level from which a finding is exit code 3, as it was typed: error, warning or info.

    Raises:
        UsageError: it is no level.
        SqlFileInvalid: a lint's file cannot be used.
        InvalidSetting: the file of waivers cannot be used.
    """
    from skinspire_db.config import waivers
    from skinspire_db.inspection import advice

    environment, level = context.environment, advice.level_of(fail_on)
    every = advice.lints(context.project)
    waived = waivers.read(context.project)
    advice.require_lints(waived, every)

    def look(connection: Connection) -> Summary:
        answers = advice.look(connection, environment, every)
        return advice.summary(answers, advice.waive(answers, waived, date.today()), level)

    return Look("db.advise", environment, (Step("advise", look),))


def adopt(context: Context, *, confirm: str | None = None, reason: str | None = None) -> Operation:
    """Report on a database that was there before the tools; with its name as the confirmation, adopt it.

    Args:
        context: the environment, and the report.
        confirm: the database's name; None only reports.
        reason: why the differences are accepted, for the file that lists them.
    """
    from skinspire_db.adoption import adopt as adopting
    from skinspire_db.adoption import report

    work = adopting.Work(context.environment, context.blueprint, context.sql_files, adopting.reason(reason))
    if confirm is not None:
        return adopting.Adoption.of(work)
    return Look(adopting.OPERATION, context.environment, report.steps(work.subject))


def prepare(context: Context, seed: ReusableStep = steps.seed) -> Series:
    """What a developer runs after every pull: make the database if there is none, else bring it up to date.

    Where each branch has a database of its own, a new one is made from that of the branch that it came from. Pending
    revisions are applied, then triggers and reference data brought to what the files say, where they are not; nothing is
    ever reset. Looks first, and runs nothing where all is right.

    Args:
        context: the environment, the report, and the defaults of the tasks.
        seed: the step that brings rows.
    """
    from skinspire_db.migrations import revisions
    from skinspire_db.objects import kinds

    revisions.refuse_forks(context.project)
    bound(context, seed)  # refuses test data where the policy does
    following = partial(next, _prepare(context, seed), None)
    parts = "upgrade", kinds.step_name(file.kind for file in context.sql_files), "seed"
    return Series("db.prepare", context.environment, following, parts)


def _prepare(context: Context, seed: ReusableStep) -> Iterator[Operation]:
    """What is to do, one operation after the other; each is looked for when the one before it is committed."""
    environment, late = context.environment, partial(_late, context)
    todo = _missing(context, late)
    if "database" in todo:
        from skinspire_db.copies import branch_databases

        if origin := branch_databases.origin(environment):
            yield branch_databases.make(environment, origin)
            todo = _missing(context, late)
    if "everything" in todo:
        chain = steps.create, steps.sql, seed, steps.verify
        yield Pipeline("db.prepare", environment, bound(context, *chain))
        return
    if "upgrade" in todo:
        from skinspire_db.operations import migrate

        upgrading = migrate.upgrade(environment)
        while (revision := upgrading.next()) is not None:
            yield revision
        todo = look_at(environment, late)
    if behind := [each for each in (steps.sql, seed(reference_only=True)) if each.name in todo]:
        yield Pipeline("db.prepare", environment, bound(context, *behind))
    if "models" in todo:  # nothing that is prepared here makes them the same: a revision is yet to be written
        yield Look("db.prepare", environment, (Step("models", partial(_compare_models, environment)),))


def _missing(context: Context, late: Callable[[Connection], set[str]]) -> set[str]:
    """What is to do: everything (and the database itself), upgrade, or some of sql, seed and models. Alembic, which takes
    long to load, is not asked where the database is at the head.
    """
    from skinspire_db.catalog import objects
    from skinspire_db.migrations import position, revisions
    from skinspire_db.schema import extensions

    heads, needed = revisions.heads(context.project), extensions.wanted(context.project)

    def look(connection: Connection) -> set[str]:
        asked: list[Callable[[Connection], Any]] = [
            objects.count_tables,
            lambda reader: position.current(reader, context.project),
            lambda reader: extensions.missing(reader, needed),
        ]
        count, at, lacks = side_by_side.run(connection, *asked)
        if count == 0:
            return {"everything"}
        return {"upgrade"} if at != heads or lacks else late(connection)

    try:
        return look_at(context.environment, look)
    except DatabaseMissing:
        return {"everything", "database"}


def _late(context: Context, connection: Connection) -> set[str]:
    """Which of the steps sql and seed have something to do."""
    from skinspire_db.content import seeding
    from skinspire_db.objects import adopted, status

    def states(reader: Connection) -> list[status.ObjectState]:
        return status.status(reader, adopted.maintained(reader, context.project, context.sql_files))

    asked: list[Callable[[Connection], Any]] = [
        lambda reader: [each for each in states(reader) if not each.right and not each.on_purpose],
        lambda reader: seeding.pending(reader, context.content),
        lambda reader: _differences(context.environment, reader),
    ]
    found = zip(("sql", "seed", "models"), side_by_side.run(connection, *asked), strict=True)
    return {name for name, wrong in found if wrong}


def _differences(environment: Environment, connection: Connection) -> list[str]:
    """How the database differs from the models, but for what is accepted."""
    from skinspire_db.config import accepted
    from skinspire_db.schema import tables
    from skinspire_db.schema.blueprint import Blueprint

    wanted = Blueprint.of_project(environment.project).accepting(accepted.read(environment.project))
    return tables.compare(connection, wanted)


def _compare_models(environment: Environment, connection: Connection) -> Summary:
    differences = _differences(environment, connection)
    summary = Summary({"differences": len(differences)}, lines=differences)
    if differences:
        summary.drift = f"no revision makes the database what the models say: {differences[0]}"
        summary.remedy = "invoke migrate.new --env={env} --message=changes, then invoke migrate.upgrade --env={env}"
    return summary


def run(context: Context, name: str | None) -> Pipeline:
    """A pipeline that the project declares in [tool.skinspire_db.pipelines].

    It is a list of steps: names of the public ones, SQL files, functions as `module:name`, and tables as
    {step = "seed", patients = 500}.

    Args:
        context: the environment, the report, and the defaults of the tasks.
        name: the pipeline's name.

    Raises:
        UsageError: None of that name is declared.
        InvalidSetting: What is declared is no list of steps.
    """
    declared = context.project.config.get("pipelines", {})
    wrong = InvalidSetting(
        f"pipeline {name} in pyproject.toml is no list of steps", remedy='write it as fair = ["reset", "create", "triggers"]'
    )
    if not isinstance(declared, dict):
        raise InvalidSetting("pipelines in pyproject.toml is no table", remedy="write [tool.skinspire_db.pipelines]")
    if name is None or name not in declared:
        which = f"there is no pipeline {name}" if name else "db.run needs the name of a pipeline"
        remedy = (
            f"invoke db.run --pipeline={next(iter(declared))}" if declared else "declare it in [tool.skinspire_db.pipelines]"
        )
        raise UsageError(f"{which}; declared are: {', '.join(declared) or 'none'}", remedy=remedy)
    if not isinstance(declared[name], list) or not declared[name]:
        raise wrong
    chain = []
    for each in declared[name]:
        options = dict(each) if isinstance(each, dict) else {"step": each}
        text = options.pop("step", None)
        if not isinstance(text, str):
            raise wrong
        chain.append(steps.named(text)(**options))
    return Pipeline("db.run", context.environment, bound(context, *chain), f" --pipeline={quote(name)}")


def end_session(context: Context, pid: str) -> Operation:
    """End a session that others wait for.

    Args:
        context: the environment, and the report.
        pid: the number of its process, as it was typed.
    """
    from skinspire_db.inspection import ending

    return ending.end(context.environment, pid)


def copy(context: Context, source: str | None, **options: Any) -> Replacement:
    """Make the environment's database an exact copy of another one's.

    Args:
        context: the environment that gets the copy, and the report.
        source: the environment that is copied.
        options: as copies.copy.copy() has them.
    """
    from skinspire_db.copies import copy as copying

    return copying.copy(source, context.environment, **options)


def undo(context: Context) -> Replacement:
    """Bring back the database that the last copy or restore replaced."""
    from skinspire_db.lifecycle import replacement

    return replacement.undo(context.environment)
