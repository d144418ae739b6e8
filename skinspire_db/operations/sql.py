"""The operations of sql.*: install the SQL files, look at what is installed, and write one from a live object.

Those of triggers.* are the same for trigger files alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import current_project
from skinspire_db.errors import NotApplicable, UsageError
from skinspire_db.lifecycle.pipeline import Look, Pipeline, Step
from skinspire_db.lifecycle.result import Check, Summary, counted
from skinspire_db.objects import adopted, live, needs, tenant_roles, versions
from skinspire_db.objects import status as state
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import KINDS, POLICY, TRIGGER, Kind

if TYPE_CHECKING:
    from skinspire_db.objects import proofs, writing
    from skinspire_db.postgres.connections import Connection


@dataclass(frozen=True)
class Scope:
    """The collection whose operation it is, and the kinds of files that it is for."""

    collection: str
    kinds: tuple[Kind, ...]


WORDS = ("function", "view", "materialized view", "index", "trigger", "policy")
SQL, TRIGGERS = Scope("sql", KINDS), Scope("triggers", (TRIGGER,))


def install(
    environment: Environment,
    *,
    scope: Scope = SQL,
    name: str | None = None,
    at_version: str | None = None,
    verify: bool = False,
) -> Pipeline:
    """Make functions, views, triggers and ledger what the files say.

    Whatever that changes is proved before it is committed.

    Args:
        environment: whose database is changed.
        scope: of which kinds of files.
        name: one file; None for all.
        at_version: an earlier version of that file, as it was typed.
        verify: prove every file, and take one that cannot be proved for no pass.
    """
    from skinspire_db.objects import install as installing
    from skinspire_db.objects import proofs

    files = _files(environment, scope)
    if at_version is not None and name is None:
        raise UsageError(
            "--at-version needs --name",
            remedy=f"invoke {scope.collection}.install --name={files[0].name if files else 'NAME'} --at-version={at_version}",
        )
    chosen = files if name is None else [versions.pick(files, name)]
    if name is not None and at_version is not None:
        now, chosen = chosen[0], [versions.at(chosen[0], at_version)]
        if verify and chosen[0].version != now.version:
            raise UsageError(
                f"--verify proves the current version of {name}, not version {at_version}",
                remedy=f"invoke {scope.collection}.install --name={name} --at-version={at_version}",
            )
    changed = False

    def make(connection: Connection) -> Summary:
        nonlocal changed
        if name is not None:
            _refuse_not_applicable(connection, chosen[0])
        summary = installing.install(connection, chosen, others=name is None, kinds=scope.kinds)
        changed = any(summary.numbers.get(what) for what in ("functions", "views", "attached", "dropped"))
        return summary

    def prove(connection: Connection, of: list[SqlFile]) -> list[Check]:
        if verify:
            return proofs.prove(connection, of)
        # One file's function may be what another's calls: whatever changed, all that can be proved is.
        return proofs.prove_able(connection, of) if changed else []

    proved = files if at_version is None else chosen
    making_them = Step(scope.collection, make, destroys="")
    return Pipeline(f"{scope.collection}.install", environment, (making_them, _view_step("proofs", prove, proved)))


def _files(environment: Environment, scope: Scope, *, every: bool = False) -> list[SqlFile]:
    return versions.current(environment.project, scope.kinds, roles=tenant_roles.of(environment), every=every)


def _refuse_not_applicable(connection: Connection, file: SqlFile) -> None:
    """What was asked for by name cannot be left out silently. Raises NotApplicable."""
    if lack := needs.lacks(connection, [file]).get(file.name):
        raise NotApplicable(
            f"{file.name} is not applicable: {lack}", remedy=f"invoke {file.kind.collection}.status --env={{env}}"
        )


def status(environment: Environment, scope: Scope = SQL) -> Look:
    """The state of every function, view and trigger; exit code 3 when one is not INSTALLED.

    Args:
        environment: whose database is looked at.
        scope: of which kinds of files.
    """
    files = _files(environment, scope, every=True)

    def look(connection: Connection) -> Summary:
        states = state.status(connection, files, scope.kinds)
        left = adopted.left_alone(connection, environment.project, files)
        states = [replace(each, note="accepted", on_purpose=True) if each.file in left else each for each in states]
        wrong = [each for each in states if not each.right and each.file not in left]
        idle = sum(each.state == state.IDLE for each in states)
        there = len(states) - idle
        numbers: dict[str, int | str] = {"files": len(files), "objects": there, "installed": there - len(wrong)}
        summary = Summary(numbers | ({"not_applicable": idle} if idle else {}))
        summary.rows = _overview(states)
        summary.data = {"triggers" if scope is TRIGGERS else "objects": [each.as_dict() for each in states]}
        if wrong:
            first = wrong[0]
            summary.drift = (
                f"{len(wrong)} of {there} {'is' if len(wrong) == 1 else 'are'} not installed as the files say:"
                f" {first.file}, {first.object}: {first.state}"
            )
            enable = f"invoke triggers.enable --name={first.file} --env={{env}}"
            install = f"invoke {scope.collection}.diff --env={{env}}, then invoke {scope.collection}.install --env={{env}}"
            make = f"make the table (invoke db.create --update-only --env={{env}}), or correct tables in {first.file}.sql"
            nowhere = all(each.state == "UNATTACHED" and each.note == state.NO_TABLE for each in wrong)
            summary.remedy = enable if all(each.on_purpose for each in wrong) else make if nowhere else install
        return summary

    return Look(f"{scope.collection}.status", environment, (Step("status", look),))


def diff(environment: Environment, name: str | None = None, scope: Scope = SQL) -> Look:
    """What an install would change; exit code 3 when it would change anything.

    Args:
        environment: whose database is looked at.
        name: one file; None for all.
        scope: of which kinds of files.
    """
    from skinspire_db.objects import diff as differing

    files = _files(environment, scope)
    chosen = files if name is None else [versions.pick(files, name)]

    def look(connection: Connection) -> Summary:
        lines = differing.diff(connection, chosen, others=name is None, kinds=scope.kinds)
        titles = sum(not line.startswith(" ") for line in lines)
        summary = Summary({"files": len(chosen), "differences": titles}, lines=lines)
        if titles:
            one, several = ("function or trigger", "functions and triggers") if scope is TRIGGERS else ("object", "objects")
            summary.drift = f"{titles} {several} differ from the files" if titles > 1 else f"1 {one} differs from the files"
            summary.remedy = f"invoke {scope.collection}.install --env={{env}}"
        return summary

    return Look(
        f"{scope.collection}.diff", environment, (Step("diff", look),), tries=True
    )  # it installs on trial, to compare


def verify(environment: Environment, views: Sequence[str] = (), scope: Scope = SQL) -> Look:
    """Look at the functions, the views, the critical triggers, the counts and the proofs.

    Args:
        environment: whose database is looked at.
        views: the names of those checks that are wanted; none for all.
        scope: of which kinds of files.
    """
    from skinspire_db.objects import proofs

    files = _files(environment, scope)
    known = {name: view for name, view in proofs.VIEWS.items() if name != "views" or scope is SQL}
    steps = (_view_step(name, view, files) for name, view in known.items() if name in (views or known))
    flags = "".join(f" --{view}" for view in views)
    return Look(f"{scope.collection}.verify", environment, tuple(steps), arguments=flags, tries="proofs" in (views or known))


def from_database(environment: Environment, wanted: Mapping[str, str | None]) -> Look:
    """Write a file of a live view or function, as version 1; the database is not changed.

    Args:
        environment: Where it is.
        wanted: The name for one of view and function.

    Raises:
        UsageError: Not one of the two is named.
    """
    from skinspire_db.objects import refusals, writing

    kind, name = _chosen(wanted)
    if kind in (TRIGGER, POLICY):
        raise UsageError(
            f"a {kind.word} file says on which tables it belongs, which no database knows",
            remedy=f"invoke sql.new --{kind.word}={name}",
        )

    def write(connection: Connection, *, dry: bool = False) -> Summary:
        made = writing.from_database(connection, environment.project, kind, name, dry=dry)
        data = {"name": made.name, "file": str(made.path), "objects": made.objects}
        return Summary({"objects": len(made.objects)}, lines=[str(made.path), *map(refusals.shown, made.objects)], data=data)

    return Look("sql.new", environment, (Step("write", write, partial(write, dry=True)),), writes=True)


def skeleton(wanted: Mapping[str, str | None], *, dry: bool = False) -> writing.Written:
    """Write a file to be edited.

    Args:
        wanted: the kind of file -> its name.
        dry: only look whether it can be written.

    Raises:
        UsageError: not one kind and name is given, or the file exists.
    """
    from skinspire_db.objects import writing

    kind, name = _chosen(wanted)
    return writing.skeleton(current_project(), kind, name, dry=dry)


def _chosen(wanted: Mapping[str, str | None]) -> tuple[Kind, str]:
    """The kind and name of the file to be written."""
    chosen = [(kind, name) for kind in KINDS if (name := wanted.get(kind.word))]
    if len(chosen) != 1:
        raise UsageError(
            "sql.new needs one of --view, --function, --trigger and --policy",
            remedy="for a new view: invoke sql.new --view=patient_list",
        )
    return chosen[0]


def _word(name: str) -> str:
    if name.startswith(("policy ", "row security ")):
        return "policy" if name.startswith("policy ") else ""
    return "trigger" if " on " in name and name.startswith("_") else live.split(name)[0]


def _overview(states: list[state.ObjectState]) -> list[dict[str, object]]:
    """For a reader: a line for what is installed of each file, and one for each object that is not."""
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(each.file for each in states):
        of_file = [each for each in states if each.file == name]
        right = [each for each in of_file if each.state == "INSTALLED"]
        if right:
            what = ", ".join(counted(n, word) for word in WORDS if (n := sum(_word(each.object) == word for each in right)))
            rows.append({"file": name, "version": right[0].installed, "state": "INSTALLED", "what": what})
        rows += [
            {
                "file": name,
                "version": each.installed or "-",
                "state": each.state,
                "what": each.note if each.state == state.IDLE else f"{each.object}: {each.note}",
            }
            for each in of_file
            if each.state != "INSTALLED"
        ]
    return rows


def _view_step(name: str, view: proofs.View, files: list[SqlFile]) -> Step:
    def run(connection: Connection) -> Summary:
        checks = view(connection, files)
        return Summary({"checks": len(checks), "passed": sum(check.status == "pass" for check in checks)}, checks=checks)

    return Step(name, run, destroys="")
