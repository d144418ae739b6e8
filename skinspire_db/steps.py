"""The steps that pipelines are chained from. Each takes its place in any order, in the pipeline's one transaction.

from skinspire_db import pipeline, steps

pipeline("demo", "dev", steps.reset, steps.create, steps.triggers, steps.seed(patients=500), steps.verify).run()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What only some of the steps need is imported in them: triggers.status is over before verify's modules are loaded.
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, UsageError
from skinspire_db.lifecycle.pipeline import Step
from skinspire_db.lifecycle.result import Report, Summary

if TYPE_CHECKING:
    from skinspire_db.content.seeding import Content
    from skinspire_db.objects.files import SqlFile
    from skinspire_db.postgres.connections import Connection
    from skinspire_db.schema.blueprint import Blueprint

    Run = Callable[[Connection], Summary | None]

HOLDS = "destroy what {} holds"


@dataclass(frozen=True)
class Context:
    """What a step is bound to.

    Args:
        environment: Where the pipeline runs.
        report: Who is told how it goes.
        defaults: What the options of `seed` are where none are given, e.g. {"patients": 20}.
    """

    environment: Environment
    report: Report = field(default_factory=Report)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def project(self) -> Project:
        """The environment's project."""
        return self.environment.project

    @cached_property
    def blueprint(self) -> Blueprint:
        """What the models say.

        Raises:
            ModelsInvalid: they cannot be used.
        """
        from skinspire_db.schema.blueprint import Blueprint

        return Blueprint.of_project(self.project)

    @cached_property
    def sql_files(self) -> list[SqlFile]:
        """The current SQL files.

        Raises:
            SqlFileInvalid: one cannot be used.
        """
        from skinspire_db.objects import tenant_roles, versions

        return versions.current(self.project, roles=tenant_roles.of(self.environment))

    @cached_property
    def content(self) -> Content:
        """The project's reference data and people.

        Raises:
            ModelsInvalid: the models cannot be used.
        """
        from skinspire_db.content.seeding import Content

        return Content(self.environment, self.blueprint.python_defaults)


@dataclass(frozen=True)
class ReusableStep:
    """A step that is not yet bound to an environment. Called with options, it is the same step with these."""

    name: str
    bind: Callable[..., Step]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **options: Any) -> ReusableStep:
        """The step with these options.

        Raises:
            UsageError: It has no such option.
        """
        known = [name for name in inspect.signature(self.bind).parameters if name != "context"]
        if unknown := [name for name in options if name not in known]:
            raise UsageError(
                f"the step {self.name} has no option {unknown[0]}",
                remedy=f"its options are {', '.join(known)}" if known else f"write steps.{self.name} alone",
            )
        return replace(self, options={**self.options, **options})


def _reset(context: Context) -> Step:
    from skinspire_db.schema import tables

    return Step("reset", tables.reset, destroys=HOLDS, needs_database=False)


def _create(context: Context) -> Step:
    """The models' tables are what all revisions lead to, so the database is at the head then."""
    from skinspire_db.migrations import position, revisions
    from skinspire_db.schema import tables

    wanted, heads = context.blueprint, revisions.heads(context.project)

    def run(connection: Connection) -> Summary:
        summary = tables.create(connection, wanted, project=context.project)
        summary.lines += [f"note: {each}" for each in wanted.notes]
        if heads:
            position.mark(connection, context.project, heads)
        return summary

    return Step("create", run, tables.refuse_tables, destroys="", creates=True)


def _create_missing(context: Context) -> Step:
    from skinspire_db.catalog import objects
    from skinspire_db.migrations import position, revisions
    from skinspire_db.schema import extensions, models, tables

    wanted, heads = models.metadata(context.project), revisions.heads(context.project)
    needed = extensions.wanted(context.project)

    def run(connection: Connection) -> Summary:
        empty = objects.count_tables(connection) == 0
        extensions.create(connection, needed)
        summary = tables.create_missing(connection, wanted, context.project)
        if empty and heads:
            position.mark(connection, context.project, heads)
        return summary

    return Step("create", run, destroys="", backs_up=True)


def _triggers(context: Context) -> Step:
    from skinspire_db.objects.kinds import TRIGGER

    files = [file for file in context.sql_files if file.kind is TRIGGER]

    def run(connection: Connection) -> Summary:
        from skinspire_db.objects import adopted, install

        return install.install(connection, adopted.maintained(connection, context.project, files), kinds=(TRIGGER,))

    return Step("triggers", run, destroys="")


def _sql(context: Context) -> Step:
    """All kinds at once: a view may use a function, and a trigger stand on a view."""
    from skinspire_db.objects import kinds

    name = kinds.step_name(file.kind for file in context.sql_files)

    def run(connection: Connection) -> Summary:
        from skinspire_db.objects import adopted, install

        return install.install(connection, adopted.maintained(connection, context.project, context.sql_files))

    return Step(name, run, destroys="")


def _proofs(context: Context) -> Step:
    """A revision can take from a trigger function what it reads; PostgreSQL would say so at a user's next login."""

    def run(connection: Connection) -> Summary:
        from skinspire_db.objects import adopted, proofs

        files = adopted.maintained(connection, context.project, context.sql_files)
        checks = proofs.prove_able(connection, files)
        return Summary({"checks": len(checks), "passed": sum(check.status == "pass" for check in checks)}, checks=checks)

    return Step("proofs", run, destroys="")


def _seed(
    context: Context,
    *,
    patients: int | str | None = None,
    doctors: int | str | None = None,
    random_seed: int | str | None = None,
    reference_only: bool | None = None,
    scenario: str | None = None,
) -> Step:
    """A protected environment gets reference data only, unless people are asked for, which is refused."""
    from skinspire_db.content import scenarios, seeding

    if scenario and reference_only:
        raise UsageError("a scenario is test data, and --reference-only is for none", remedy="leave one of the two out")
    content = context.content
    told = scenarios.named(context.project, scenario, core=content.has_core) if scenario is not None else None
    asked = patients is not None or doctors is not None or bool(told and told.numbers)
    given = {"patients": patients, "doctors": doctors, "random_seed": random_seed}
    fallback = vars(seeding.Options()) | dict(context.defaults) | (told.numbers if told else {})
    numbers = {name: str(fallback[name] if value is None else value) for name, value in given.items()}
    policy = context.environment.policy
    only = ((told or not policy.test_data) and not asked) if reference_only is None else reference_only
    options = seeding.Options.parse(**numbers, reference_only=bool(only))
    if asked and not only:
        seeding.refuse_without_people(content)
    seeding.refuse_people(policy, options, told)
    return Step(
        "seed",
        partial(seeding.seed, source=content, options=options, progress=context.report.progress, scenario=told),
        seeding.refuse_without_tables,
        destroys="",
        plans=partial(seeding.plan, source=content, options=options, scenario=told),
    )


def _verify(context: Context, *, writes: bool = True) -> Step:
    from skinspire_db.config import accepted
    from skinspire_db.inspection import checks, verification
    from skinspire_db.objects import adopted

    environment, wanted = context.environment, context.blueprint.accepting(accepted.read(context.project))

    def run(connection: Connection) -> Summary:
        triggers = adopted.maintained(connection, context.project, context.sql_files)
        subject = checks.Subject(connection, environment, wanted, triggers, writes)
        return verification.verify(subject)

    return Step("verify", run, destroys="")


def _drift(context: Context) -> Step:
    from skinspire_db.migrations import drift as drifting
    from skinspire_db.postgres.target import target_of

    target, wanted, triggers = target_of(context.environment), context.blueprint, context.sql_files

    def run(connection: Connection) -> Summary:
        return drifting.look(connection, target, context.project, wanted, triggers)

    return Step("drift", run, destroys="")


def _sql_file(context: Context, *, path: str) -> Step:
    from skinspire_db.objects import sql_script

    file = context.project.root / path
    text = sql_script.read(file)

    def run(connection: Connection) -> Summary:
        return Summary({"statements": sql_script.run(connection, file, text)})

    return Step(file.stem, run, destroys=f"run {file.name} in {{}}")  # what a file does is not known beforehand


def sql_file(path: str | Path) -> ReusableStep:
    """A step that runs an SQL file of the project, in the pipeline's transaction.

    Args:
        path: The file, from the project's folder. It may not end the transaction.

    Raises:
        InvalidSetting: When the pipeline is made: the file is not there, is not UTF-8, or has transaction control in it.
    """
    return ReusableStep(Path(path).stem, _sql_file, {"path": str(path)})


def step(run: Run, *, name: str | None = None, destroys: str | None = None) -> ReusableStep:
    """A step of one's own.

    Args:
        run: Takes the open connection, in the pipeline's transaction, and answers a Summary or None.
        name: As it is shown; by default the function's.
        destroys: What is lost by it, a phrase with {} for the database, as "delete the old visits of {}". Empty says that
            nothing is lost. Without it that is not known: a protected environment must confirm, and is backed up first.
    """
    called = name or str(getattr(run, "__name__", "step"))

    def bind(context: Context) -> Step:
        from skinspire_db.lifecycle import own_code

        return Step(called, partial(own_code.run, run, called, context.project), destroys=destroys)

    return ReusableStep(called, bind)


reset = ReusableStep("reset", _reset)
create = ReusableStep("create", _create)
create_missing = ReusableStep("create_missing", _create_missing)
triggers = ReusableStep("triggers", _triggers)
sql = ReusableStep("sql", _sql)
seed = ReusableStep("seed", _seed)
verify = ReusableStep("verify", _verify)
drift = ReusableStep("drift", _drift)
NAMED = {each.name: each for each in (reset, create, create_missing, triggers, sql, seed, verify, drift)}


def named(text: str) -> ReusableStep:
    """The step that a declared pipeline calls by this text: a step's name, an SQL file, or `module:function`.

    Raises:
        InvalidSetting: It is none of these.
    """
    if text in NAMED:
        return NAMED[text]
    if text.endswith(".sql"):
        return sql_file(text)
    if ":" in text:
        return ReusableStep(text.rpartition(":")[2], _from_module, {"text": text})
    raise InvalidSetting(
        f"there is no step {text!r}",
        remedy=f"use {', '.join(NAMED)}, an SQL file as sql/demo.sql, or a function as app.steps:demo",
    )


def _from_module(context: Context, *, text: str) -> Step:
    from skinspire_db.config import project_code

    found = project_code.attribute(context.project, text)
    [made] = bound(context, found)
    return made


def bound(context: Context, *chosen: ReusableStep | Run) -> tuple[Step, ...]:
    """The steps for this environment; a plain function becomes a step of its name.

    Raises:
        SkinspireError: A step cannot be bound: test data in a protected environment, models that cannot be read, a file that
            is not there.
        UsageError: Something that is no step.
    """
    made = []
    for each in chosen:
        if not isinstance(each, ReusableStep) and not callable(each):
            raise UsageError(f"{each!r} is no step", remedy="use those of skinspire_db.steps, or a function of a connection")
        reusable = each if isinstance(each, ReusableStep) else step(each)
        made.append(reusable.bind(context, **reusable.options))
    return tuple(made)
