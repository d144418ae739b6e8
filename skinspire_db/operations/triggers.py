"""The operations of triggers.*: install the trigger files, and look at what is installed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.pipeline import Look, Pipeline, Step
from skinspire_db.lifecycle.result import Check, Summary
from skinspire_db.objects import install as installing
from skinspire_db.objects import proofs, versions
from skinspire_db.objects import status as state
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import TRIGGER

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def install(
    environment: Environment, *, name: str | None = None, at_version: str | None = None, verify: bool = False
) -> Pipeline:
    """Make functions, triggers and ledger what the files say, or one file, or one as it was in an earlier version.

    Whatever that changes is proved before it is committed; with `verify` every file is proved, and one that cannot be is no
    pass.
    """
    files = versions.current(environment.project, (TRIGGER,))
    if at_version is not None and name is None:
        raise UsageError(
            "--at-version needs --name", remedy=f"invoke triggers.install --name={files[0].name} --at-version={at_version}"
        )
    chosen = files if name is None else [versions.pick(files, name)]
    if name is not None and at_version is not None:
        chosen = [versions.at(chosen[0], at_version)]
        if verify and chosen[0].version != versions.pick(files, name).version:
            raise UsageError(
                f"--verify proves the current version of {name}, not version {at_version}",
                remedy=f"invoke triggers.install --name={name} --at-version={at_version}",
            )
    changed = False

    def make(connection: Connection) -> Summary:
        nonlocal changed
        summary = installing.install(connection, chosen, others=name is None)
        changed = any(summary.numbers[what] for what in ("functions", "attached", "dropped"))
        return summary

    def prove(connection: Connection, of: list[SqlFile]) -> list[Check]:
        if verify:
            return proofs.prove(connection, of)
        # One file's function may be what another's calls: whatever changed, all that can be proved is.
        return proofs.prove_able(connection, of) if changed else []

    proved = files if at_version is None else chosen
    return Pipeline(
        "triggers.install", environment, (Step("triggers", make, destroys=""), _view_step("proofs", prove, proved))
    )


def switch(environment: Environment, name: str | None, *, enabled: bool) -> Pipeline:
    """Switch a file's triggers on or off, and record the wish."""
    verb = "enable" if enabled else "disable"
    if name is None:
        raise UsageError(
            f"triggers.{verb} needs the name of a trigger file",
            remedy=f"choose one that invoke triggers.status --env={environment.name} lists",
        )
    danger = "" if enabled else f"switch off the triggers of {name} in {{}}"
    change, check = partial(installing.switch, name=name, enabled=enabled), partial(installing.refuse_uninstalled, name=name)
    return Pipeline(
        f"triggers.{verb}", environment, (Step(verb, change, check, destroys="", confirms=danger),), f" --name={name}"
    )


def status(environment: Environment) -> Look:
    """The state of every function and trigger; exit code 3 when one is not INSTALLED."""
    files = versions.current(environment.project, (TRIGGER,))

    def look(connection: Connection) -> Summary:
        states = state.status(connection, files)
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
            nowhere = all(each.state == "UNATTACHED" and each.note == state.NO_TABLE for each in wrong)
            summary.remedy = enable if all(each.on_purpose for each in wrong) else make if nowhere else install
        return summary

    return Look("triggers.status", environment, (Step("status", look),))


def diff(environment: Environment, name: str | None = None) -> Look:
    """What an install would change; exit code 3 when it would change anything."""
    files = versions.current(environment.project, (TRIGGER,))
    chosen = files if name is None else [versions.pick(files, name)]

    def look(connection: Connection) -> Summary:
        lines = state.diff(connection, chosen, others=name is None)
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

    return Look("triggers.diff", environment, (Step("diff", look),), tries=True)  # it installs on trial, to compare


def verify(environment: Environment, views: Sequence[str] = ()) -> Look:
    """Look at the triggers: the functions, the critical triggers, the counts, the proofs, or those of them that are named."""
    files = versions.current(environment.project, (TRIGGER,))
    steps = (_view_step(name, view, files) for name, view in proofs.VIEWS.items() if name in (views or proofs.VIEWS))
    flags = "".join(f" --{view}" for view in views)
    return Look("triggers.verify", environment, tuple(steps), arguments=flags, tries="proofs" in (views or proofs.VIEWS))


def _overview(states: list[state.TriggerState]) -> list[dict[str, object]]:
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


def _view_step(name: str, view: proofs.View, files: list[SqlFile]) -> Step:
    def run(connection: Connection) -> Summary:
        checks = view(connection, files)
        return Summary({"checks": len(checks), "passed": sum(check.status == "pass" for check in checks)}, checks=checks)

    return Step(name, run, destroys="")
