"""The operations: what a person runs, as pipelines of reusable steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.clinic import reference
from skinspire_db.clinic.seed import Options, refuse_people, refuse_without_tables, seed
from skinspire_db.config.environment import Environment
from skinspire_db.errors import DatabaseMissing, UsageError
from skinspire_db.inspection import verification
from skinspire_db.lifecycle import stamp
from skinspire_db.lifecycle.pipeline import DESTROYS, Pipeline, Series, Step
from skinspire_db.lifecycle.result import Check, Report, Summary
from skinspire_db.migrations import drift, revisions, running
from skinspire_db.objects import install, proofs, status, versions
from skinspire_db.objects.files import TriggerFile
from skinspire_db.operations import migrate
from skinspire_db.postgres import target
from skinspire_db.schema import tables

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def setup(environment: Environment, options: Options, report: Report | None = None) -> Pipeline:
    """reset -> create -> triggers -> seed -> verify, in one transaction."""
    wanted = tables.blueprint(environment.project)
    files = versions.current(environment.project)
    steps = (
        Step("reset", tables.reset),
        _create_step(environment, wanted),
        Step("triggers", partial(install.install, files=files)),
        _seed_step(environment, options, report),
        _verify_step(environment, wanted, files),
    )
    return Pipeline("db.setup", environment, steps, danger=DESTROYS, creates=True, backs_up=True)


def reset(environment: Environment) -> Pipeline:
    """Drop what the application owns; a database that does not exist has nothing of it, and is not made."""
    return Pipeline("db.reset", environment, (Step("reset", tables.reset),), danger=DESTROYS, backs_up=True, removes=True)


def create(environment: Environment) -> Pipeline:
    """Make the tables in an empty database, which itself is made when it does not exist."""
    wanted = tables.blueprint(environment.project)
    return Pipeline("db.create", environment, (_create_step(environment, wanted),), creates=True)


def create_missing(environment: Environment) -> Pipeline:
    """Add what the models have and the database lacks, and the triggers of what was added."""
    here = environment.project
    models, heads = tables.metadata(here), revisions.heads(here)

    def add(connection: Connection) -> Summary:
        empty = objects.count_tables(connection) == 0
        tables.create_extensions(connection, tables.extensions(here))
        summary = tables.create_missing(connection, models)
        if empty and heads:
            running.mark(connection, heads)
        return summary

    steps = (Step("create", add), Step("triggers", partial(install.install, files=versions.current(here))))
    return Pipeline("db.create", environment, steps, arguments=" --update-only", backs_up=True)


def install_triggers(
    environment: Environment, *, name: str | None = None, at_version: str | None = None, verify: bool = False
) -> Pipeline:
    """Make functions, triggers and ledger what the files say, or one file, or one as it was in an earlier version.

    Whatever that changes is proved before it is committed; with `verify` every file is proved, and one that cannot be is no
    pass.
    """
    files = versions.current(environment.project)
    if at_version is not None and name is None:
        raise UsageError(
            "--at-version needs --name", remedy=f"invoke triggers.install --name={files[0].name} --at-version={at_version}"
        )
    chosen = files if name is None else [versions.pick(files, name)]
    if name is not None and at_version is not None:
        chosen = [versions.at(name, at_version)]
        if verify and chosen[0].version != versions.pick(files, name).version:
            raise UsageError(
                f"--verify proves the current version of {name}, not version {at_version}",
                remedy=f"invoke triggers.install --name={name} --at-version={at_version}",
            )
    changed = False

    def make(connection: Connection) -> Summary:
        nonlocal changed
        summary = install.install(connection, chosen, others=name is None)
        changed = any(summary.numbers[what] for what in ("functions", "attached", "dropped"))
        return summary

    def prove(connection: Connection, of: list[TriggerFile]) -> list[Check]:
        if verify:
            return proofs.prove(connection, of)
        # One file's function may be what another's calls: whatever changed, all that can be proved is.
        return proofs.prove_able(connection, of) if changed else []

    proved = files if at_version is None else chosen
    return Pipeline("triggers.install", environment, (Step("triggers", make), _view_step("proofs", prove, proved)))


def switch_triggers(environment: Environment, name: str | None, *, enabled: bool) -> Pipeline:
    """Switch a file's triggers on or off, and record the wish."""
    verb = "enable" if enabled else "disable"
    if name is None:
        raise UsageError(
            f"triggers.{verb} needs the name of a trigger file",
            remedy=f"choose one that invoke triggers.status --env={environment.name} lists",
        )
    step = Step(verb, partial(install.switch, name=name, enabled=enabled), partial(install.refuse_uninstalled, name=name))
    danger = "" if enabled else f"switch off the triggers of {name} in {{}}"
    return Pipeline(f"triggers.{verb}", environment, (step,), danger=danger, arguments=f" --name={name}")


def trigger_status(environment: Environment) -> Pipeline:
    """The state of every function and trigger; exit code 3 when one is not INSTALLED."""
    files = versions.current(environment.project)

    def look(connection: Connection) -> Summary:
        states = status.status(connection, files)
        wrong = [each for each in states if each.state != "INSTALLED"]
        summary = Summary({"files": len(files), "objects": len(states), "installed": len(states) - len(wrong)})
        summary.rows = _overview(states)
        summary.data = {"triggers": [each.as_dict() for each in states]}
        if wrong:
            first = wrong[0]
            summary.drift = (
                f"{len(wrong)} of {len(states)} {'is' if len(wrong) == 1 else 'are'} not installed as the files say:"
                f" {first.file}, {first.object}: {first.state}"
            )
            enable = f"invoke triggers.enable --name={first.file} --env={{env}}"
            install = "invoke triggers.diff --env={env}, then invoke triggers.install --env={env}"
            make = f"make the table (invoke db.create --update-only --env={{env}}), or correct tables in {first.file}.sql"
            nowhere = all(each.state == "UNATTACHED" and each.note == status.NO_TABLE for each in wrong)
            summary.remedy = enable if all(each.on_purpose for each in wrong) else make if nowhere else install
        return summary

    return Pipeline("triggers.status", environment, (Step("status", look),), keeps=False)


def diff_triggers(environment: Environment, name: str | None = None) -> Pipeline:
    """What an install would change; exit code 3 when it would change anything."""
    files = versions.current(environment.project)
    chosen = files if name is None else [versions.pick(files, name)]

    def look(connection: Connection) -> Summary:
        lines = status.diff(connection, chosen, others=name is None)
        titles = sum(not line.startswith(" ") for line in lines)
        summary = Summary({"files": len(chosen), "differences": titles}, lines=lines)
        if titles:
            summary.drift = (
                f"{titles} functions and triggers differ from the files"
                if titles > 1
                else "1 function or trigger differs from the files"
            )
            summary.remedy = "invoke triggers.install --env={env}"
        return summary

    return Pipeline("triggers.diff", environment, (Step("diff", look),), keeps=False)


def verify_triggers(environment: Environment, views: Sequence[str] = ()) -> Pipeline:
    """Look at the triggers: the functions, the critical triggers, the counts, the proofs, or those of them that are named."""
    files = versions.current(environment.project)
    steps = (_view_step(name, view, files) for name, view in proofs.VIEWS.items() if name in (views or proofs.VIEWS))
    flags = "".join(f" --{view}" for view in views)
    return Pipeline("triggers.verify", environment, tuple(steps), keeps=False, arguments=flags)


def _overview(states: list[status.TriggerState]) -> list[dict[str, object]]:
    """For a reader: a line for what is installed of each file, and one for each object that is not."""
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(each.file for each in states):
        of_file = [each for each in states if each.file == name]
        right = [each for each in of_file if each.state == "INSTALLED"]
        if right:
            triggers = sum(" on " in each.object for each in right)
            counted = [
                f"{n} {what}{'s'[: n != 1]}" for n, what in ((len(right) - triggers, "function"), (triggers, "trigger")) if n
            ]
            what = ", ".join(counted)
            rows.append({"file": name, "version": right[0].installed, "state": "INSTALLED", "what": what})
        rows += [
            {"file": name, "version": each.installed or "-", "state": each.state, "what": f"{each.object}: {each.note}"}
            for each in of_file
            if each.state != "INSTALLED"
        ]
    return rows


def prepare(environment: Environment, options: Options, report: Report | None = None) -> Series:
    """What a developer runs after every pull: make the database if there is none, else bring it up to date.

    Pending revisions are applied, then triggers and reference data brought to what the files say, where they are not; nothing
    is ever reset. Looks first, and runs nothing where all is right.
    """
    revisions.one_head(environment.project)
    refuse_people(environment.policy, options)
    files = versions.current(environment.project)
    queue = _what_to_prepare(environment, files, options, report)
    # What is late is found by trying it, which takes numbers from sequences: a plan stays at what can be read.
    plan = _what_to_prepare(environment, files, options, report, lambda _: {"triggers", "seed"})
    following, first = partial(next, queue, None), partial(next, plan, None)
    return Series("db.prepare", environment, following, ("upgrade", "triggers", "seed"), first=first)


def _what_to_prepare(
    environment: Environment,
    triggers: list[TriggerFile],
    options: Options,
    report: Report | None,
    late: Callable[[Connection], set[str]] | None = None,
) -> Iterator[Pipeline]:
    heads, needed = revisions.heads(environment.project), tables.extensions(environment.project)
    late = late or partial(_late, environment=environment, triggers=triggers)

    def look(connection: Connection) -> set[str]:
        """What is to do; Alembic, which takes long to load, is not asked where the database is at the head."""
        if objects.count_tables(connection) == 0:
            return {"everything"}
        behind = running.current(connection) != heads or tables.missing_extensions(connection, needed)
        return {"upgrade"} if behind else late(connection)

    def install_step() -> Step:
        return Step("triggers", partial(install.install, files=triggers))

    try:
        todo = migrate.look(environment, look)
    except DatabaseMissing:
        todo = {"everything"}
    if "everything" in todo:
        wanted = tables.blueprint(environment.project)
        steps = [_create_step(environment, wanted), install_step(), _seed_step(environment, options, report)]
        steps.append(_verify_step(environment, wanted, triggers))
        yield Pipeline("db.prepare", environment, tuple(steps), creates=True)
        return
    if "upgrade" in todo:
        upgrading = migrate.upgrade(environment)
        while (revision := upgrading.next()) is not None:
            yield revision
        todo = migrate.look(environment, late)
    steps = [install_step(), _seed_step(environment, replace(options, reference_only=True), report)]
    if behind := tuple(step for step in steps if step.name in todo):
        yield Pipeline("db.prepare", environment, behind)
    if "models" in todo:  # nothing that is prepared here makes them the same: somebody has yet to write a revision
        yield Pipeline("db.prepare", environment, (Step("models", partial(_compare_models, environment)),), keeps=False)


def _late(connection: Connection, environment: Environment, triggers: list[TriggerFile]) -> set[str]:
    """Which of the steps triggers and seed have something to do; what trying it did is rolled back by the caller."""
    states = status.status(connection, triggers)
    late = {"models"} if tables.compare(connection, tables.blueprint(environment.project)) else set()
    late |= {"triggers"} if any(each.state != "INSTALLED" and not each.on_purpose for each in states) else set()
    done = reference.apply(connection, environment.policy)
    return late | ({"seed"} if any(done.numbers.values()) else set())


def _compare_models(environment: Environment, connection: Connection) -> Summary:
    differences = tables.compare(connection, tables.blueprint(environment.project))
    summary = Summary({"differences": len(differences)}, lines=differences)
    if differences:
        summary.drift = f"no revision makes the database what the models say: {differences[0]}"
        summary.remedy = "invoke migrate.new --env={env} --message=changes, then invoke migrate.upgrade --env={env}"
    return summary


def seed_data(environment: Environment, options: Options, report: Report | None = None) -> Pipeline:
    """Reference data and invented people."""
    return Pipeline("db.seed", environment, (_seed_step(environment, options, report),))


def verify(environment: Environment) -> Pipeline:
    """All checks; nothing is kept."""
    step = _verify_step(environment, tables.blueprint(environment.project), versions.current(environment.project))
    return Pipeline("db.verify", environment, (step,), keeps=False, any_stamp=True)


def find_drift(environment: Environment) -> Pipeline:
    """Models and trigger files against the live database, everything; exit code 3 when anything differs."""
    wanted = tables.blueprint(environment.project)
    files = versions.current(environment.project)
    to = target.target(environment)

    def look(connection: Connection) -> Summary:
        return drift.look(connection, to, environment.project, wanted, files)

    return Pipeline("db.drift", environment, (Step("drift", look),), keeps=False)


def adopt(environment: Environment) -> Pipeline:
    """Stamp the database as this environment's."""

    def write(connection: Connection) -> Summary:
        before = stamp.read(connection)
        stamp.write(connection, environment.name)
        return Summary({"stamp": environment.name, "before": before.environment if before else "none"})

    return Pipeline("env.stamp", environment, (Step("stamp", write),), adopts=True)


def give_up(environment: Environment) -> Pipeline:
    """Take this environment's stamp off its database. From then on another environment can adopt it."""

    def take_off(connection: Connection) -> Summary:
        connection.execute("DELETE FROM skinspire_tools.stamp")
        lines = [f"it is not {environment.name}'s any more: the tools leave it alone until an environment adopts it"]
        return Summary({"stamps_taken_off": 1}, lines=lines)

    danger = (
        f"take {environment.name}'s stamp off {{}}, and its protection: who adopts it may then copy and reset what it holds"
    )
    return Pipeline(stamp.GIVEN_UP, environment, (Step("unstamp", take_off),), danger=danger)


def _create_step(environment: Environment, wanted: tables.Blueprint) -> Step:
    """The models' tables are what all revisions lead to, so the database is at the head then."""
    heads = revisions.heads(environment.project)

    def run(connection: Connection) -> Summary:
        summary = tables.create(connection, wanted)
        if heads:
            running.mark(connection, heads)
        return summary

    return Step("create", run, tables.refuse_tables)


def _seed_step(environment: Environment, options: Options, report: Report | None) -> Step:
    refuse_people(environment.policy, options)
    progress = report.progress if report else None
    run = partial(seed, policy=environment.policy, options=options, progress=progress)
    return Step("seed", run, refuse_without_tables)


def _view_step(name: str, view: proofs.View, files: list[TriggerFile]) -> Step:
    def run(connection: Connection) -> Summary:
        checks = view(connection, files)
        return Summary({"checks": len(checks), "passed": sum(check.status == "pass" for check in checks)}, checks=checks)

    return Step(name, run)


def _verify_step(environment: Environment, wanted: tables.Blueprint, files: list[TriggerFile]) -> Step:
    def run(connection: Connection) -> Summary:
        return verification.verify(verification.Subject(connection, environment.name, environment.policy, wanted, files))

    return Step("verify", run)
