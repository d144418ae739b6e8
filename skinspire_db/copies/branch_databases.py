"""The databases of branches, where each branch of a checkout has its own: making one, listing them, dropping them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from shlex import quote
from typing import Any

from skinspire_db.config import branches
from skinspire_db.config.environment import Environment
from skinspire_db.copies import copy, own_roles, snapshots
from skinspire_db.errors import DatabaseMissing, OperationLocked, SkinspireError, StepFailed, UsageError
from skinspire_db.lifecycle import scratch, stamp
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.read_only import present, read_only_connection
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.migrations import position, revisions
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, target_of

BESIDE = lazy_regex(r"_(?:former|scratch|rehearsed|snapshot_\w*)_[0-9a-f]{6,12}$")  # what belongs to another database
THERE = (
    "SELECT datname, pg_database_size(oid) FROM pg_database WHERE pg_has_role(datdba, 'USAGE') AND starts_with(datname, %s)"
)


def origin(environment: Environment) -> str | None:
    """The database that a new branch's is made from: of the branch that it came from, or the one without a branch.

    Args:
        environment: whose database; None is the answer where branches have none of their own, or there is nothing to copy.

    Raises:
        SkinspireError: what connections.maintenance() raises.
    """
    if (branch := environment.branch) is None:
        return None
    plain = target_of(environment.without_branches, start=False).database
    names = [branches.database(plain, each) for each in branches.origins(environment.project.root, branch)]
    try:
        there = _there(present(environment), "")
    except DatabaseMissing:  # the embedded server was never made
        return None
    return next((name for name in (*names, plain) if name in there and _will_do(environment, name)), None)


def _will_do(environment: Environment, database: str) -> bool:
    """Whether the database is this environment's, and has no revision that this branch has not got."""
    target = present(environment)
    try:
        with read_only_connection(
            replace(target, parameters=target.parameters | {"dbname": database}), "lookup"
        ) as connection:
            found = stamp.read(connection)
            if position.current(connection, environment.project):
                position.refuse_unknown(connection, environment.project, revisions.directory(environment.project))
    except SkinspireError:
        return False
    return found is not None and found.environment == environment.name


def _there(target: Target, beginning: str) -> dict[str, int]:
    """The databases of the role on the target's server whose names begin so, and their sizes in bytes."""
    with contextlib.closing(connections.maintenance(target, "lookup")) as connection:
        return dict(connection.execute(THERE, (beginning,)).fetchall())


def make(environment: Environment, database: str) -> Replacement:
    """Make the branch's database as an exact copy of another one beside it.

    Args:
        environment: whose database.
        database: the name of the one that is copied; it must have this environment's stamp.
    """

    def work(running: Running) -> Target:
        start = replace(running.target, parameters=running.target.parameters | {"dbname": database})
        return copy.beside(running, environment, start)[0]

    return Replacement(
        "db.prepare", environment, partial(own_roles.settled, environment, work), ("source", "copy", "compare")
    )


def show(environment: Environment, running: Running) -> None:
    """List the databases of the branches, and which can be dropped.

    Args:
        environment: whose databases.
        running: the operation.
    """
    plain = target_of(environment.without_branches).database
    known = branches.merged(environment.project.root)
    current = environment.branch
    with running.step("branches") as summary:
        by_name = {branches.database(plain, name): name for name in (*known, *([current] if current else []))}
        for name, size in sorted(_there(running.target, f"{plain}__").items()):
            if BESIDE.search(name) and name not in by_name:
                continue
            branch = by_name.get(name)
            state = (
                "no such branch" if branch is None else "present" if branch == current else "merged" if known[branch] else ""
            )
            shown = branch if branch is not None else name.removeprefix(f"{plain}__")
            summary.rows.append({"branch": shown, "MB": f"{size / 1e6:.1f}", "state": state, "database": name})
            if state in ("merged", "no such branch"):
                summary.lines.append(
                    f"{shown}, {state}: invoke snapshot.drop --env={environment.name} --branch={quote(shown)}"
                )
        summary.numbers = {"databases": len(summary.rows)}
        summary.data = {"branches": summary.rows}
        if current is None:
            running.note(f"{environment.project.root} is in no git checkout: the database has its plain name, {plain}")


def drop(environment: Environment, branch: str) -> Job:
    """Drop the database of a branch that is not checked out, with what was kept beside it.

    Args:
        environment: whose database.
        branch: the branch's name, or where the branch is gone, what snapshot.list shows for it.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: branches have no databases of their own, or it is that of the checkout's branch.
    """
    if not environment.policy.database_per_branch:
        raise UsageError(
            f"the branches of {environment.name} have no databases of their own",
            remedy=f"write database_per_branch = true into [tool.skinspire_db.environments.{environment.name}]",
        )
    if branch == environment.branch:
        raise UsageError(f"{branch} is checked out here", remedy="git switch to another branch first")

    def look(running: Running) -> Target:
        plain = target_of(environment.without_branches).database
        there = _there(running.target, "")
        names = (branches.database(plain, branch), f"{plain}__{branch}")
        found = next((name for name in names if name in there and name != running.target.database), None)
        if found is None:
            raise StepFailed(
                f"there is no database of a branch {branch}",
                remedy=f"invoke snapshot.list --env={environment.name} shows them",
            )
        target = replace(running.target, parameters=running.target.parameters | {"dbname": found})
        scratch.identify(target, running.operation)
        with contextlib.closing(connections.maintenance(target, running.operation)) as connection:
            query = "SELECT string_agg(coalesce(nullif(application_name, ''), usename), ', ') FROM pg_stat_activity"
            row: Any = connection.execute(f"{query} WHERE datname = %s".encode(), (found,)).fetchone()
        if row[0]:
            raise OperationLocked(f"{target} is in use by {row[0]}", remedy="run it again when that has ended")
        return target

    def work(running: Running) -> None:
        with running.step("drop") as summary:
            target = look(running)
            snapshot = [each.database for each in snapshots.every(target, running.operation)]
            own = [name for name in (scratch.former(target).database, *snapshot) if name in _there(target, "")]
            for name in (*own, target.database):
                scratch.discard(target, name, running.operation)
            summary.numbers = {"databases": 1 + len(own)}
            summary.lines = [target.database, *own]

    return Job("snapshot.drop", environment, work, ("drop",), done="dropped", look=look)
