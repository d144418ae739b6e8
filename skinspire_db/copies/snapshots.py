"""Snapshots: named copies of a database beside it on its server, to come back to.

A snapshot is closed to sessions, so that it stays what it was. The comment on its database is its record: the name that was
given, when it was taken, what it held, and what belongs to the database and is in none.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from shlex import quote
from typing import Any

from skinspire_db.catalog import fingerprint
from skinspire_db.catalog.fingerprint import Fingerprint
from skinspire_db.config.environment import Environment
from skinspire_db.copies import copy, template
from skinspire_db.errors import DatabaseMissing, StepFailed, UsageError
from skinspire_db.lifecycle import guard, journal, scratch, stamp
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.read_only import present, read_only_connection
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.postgres import connections, database_settings, progress
from skinspire_db.postgres.target import Target

RECORD = "skinspire-db snapshot "  # what the comment begins with; JSON follows
LONGEST_NAME, SHOWN = 100, 20
# Any role that may make databases can choose this name and comment: the owner must be the database's own, or the role itself.
LISTED = """
    SELECT s.datname, pg_database_size(s.oid), shobj_description(s.oid, 'pg_database') FROM pg_database s
    WHERE s.datname LIKE '%%\\_snapshot\\_%%' AND shobj_description(s.oid, 'pg_database') IS NOT NULL
      AND (pg_get_userbyid(s.datdba) = current_user
           OR s.datdba = (SELECT t.datdba FROM pg_database t WHERE t.datname = %s))
"""
UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is there; `properties` are the database's own, as database_settings has them."""

    name: str
    database: str
    taken: datetime
    size: int
    held: Fingerprint
    properties: list[list[str]]

    @property
    def row(self) -> dict[str, object]:
        """What a list shows of it."""
        return {
            "name": self.name, "taken": f"{self.taken:%Y-%m-%d %H:%M} UTC", "age": age(self.taken), "rows": self.held.rows,
            "MB": f"{self.size / 1e6:.1f}", "database": self.database,
        }  # fmt: skip


def age(moment: datetime) -> str:
    """How long ago that was, in the largest unit that fits."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, length in UNITS:
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return "less than a minute"


def every(target: Target, operation: str) -> list[Snapshot]:
    """The target's snapshots, newest first.

    Raises:
        SkinspireError: what connections.maintenance() raises.
    """
    with contextlib.closing(connections.maintenance(target, operation)) as connection:
        rows = connection.execute(LISTED, (target.database,)).fetchall()
    return sorted(_read(target, rows), key=lambda each: each.taken, reverse=True)


def _read(target: Target, rows: list[Any]) -> Iterator[Snapshot]:
    for database, size, comment in rows:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # not ours, whatever it says
            record = json.loads(comment.removeprefix(RECORD))
            if scratch.snapshot(target, record["name"]).database == database:
                held, taken = Fingerprint(**record["held"]), datetime.fromisoformat(record["taken"]).astimezone(UTC)
                found = Snapshot(record["name"], database, taken, size, held, record["properties"])
                if found.row:
                    yield found


def named(target: Target, name: str, operation: str) -> Snapshot:
    """The target's snapshot of that name.

    Raises:
        StepFailed: there is none.
    """
    for each in every(target, operation):
        if each.name == name:
            return each
    raise StepFailed(
        f"there is no snapshot {name} of {target}",
        remedy=f"invoke snapshot.list --env={target.environment} shows those that there are",
    )


def require_name(name: str | None, command: str) -> str:
    """The name that a user gave.

    Raises:
        UsageError: none was given, or it cannot be shown and typed.
    """
    remedy = f"invoke {command} --name=before-demo"
    if name is None or not name.strip():
        raise UsageError(f"{command} needs the snapshot's name", remedy=remedy)
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise UsageError(f"a snapshot's name has at most {LONGEST_NAME} characters, all of them printable", remedy=remedy)
    return name


def take(environment: Environment, name: str | None) -> Job:
    """Keep a copy of an environment's database beside it, and drop the oldest ones that are more than the policy keeps.

    Args:
        environment: whose database.
        name: what the snapshot will be called.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: the name cannot be used.
    """
    wanted = require_name(name, "snapshot.take")
    steps = ("source", "copy", "compare", "keep")
    look, work = partial(_admit, environment, wanted), partial(_take, environment, wanted)
    return Job("snapshot.take", environment, work, steps, done="taken and compared", look=look)


def _admit(environment: Environment, name: str, running: Running) -> None:
    """Identify and guard the database, and look whether the name is free; nothing is changed."""
    with read_only_connection(present(environment), running.operation) as connection:
        danger = "keep a copy of what {} holds beside it"
        command = f"{running.operation} --name={quote(name)}"
        guard.admit(connection, running.target, command, danger, running.confirm, hold=False)
    if any(each.name == name for each in every(running.target, running.operation)):
        raise UsageError(
            f"there is a snapshot {name} of {running.target} already",
            remedy=f"invoke snapshot.drop --env={environment.name} --name={quote(name)}, or take it under another name",
        )


def _take(environment: Environment, name: str, running: Running) -> None:
    target, operation = running.target, running.operation
    _admit(environment, name, running)
    aside, held = copy.beside(running, environment, target)
    kept = scratch.snapshot(target, name)
    with running.step("keep") as summary, contextlib.closing(connections.connect(target, operation)) as writer:
        connections.begin(writer, target.policy, brief=True)
        writer.execute("SET TRANSACTION READ WRITE")  # whatever the database's own setting
        properties = database_settings.read(writer)
        record = {
            "name": name,
            "taken": datetime.now(UTC).isoformat(),
            "held": _brief(held).as_dict(),
            "properties": properties,
        }
        stamp.write(writer, environment.name)
        journal.record(writer, operation, environment.name, 0.0, [each.as_dict() for each in running.result.steps])
        scratch.keep(aside, kept, operation, RECORD + json.dumps(record))
        writer.commit()
        there = every(target, operation)
        if all(each.name != name for each in there):
            raise StepFailed(f"the snapshot {name} could not be read back", remedy="run it again")
        summary.numbers = {"database": kept.database, "snapshots": len(there)}
        old = there[target.policy.snapshots :]
        for each in old:
            scratch.discard(target, each.database, operation)
        if old:
            which = ", ".join(each.name for each in old)
            summary.lines.append(f"{target.policy.snapshots} are kept by policy; dropped: {which}")
            summary.numbers["snapshots"] = len(there) - len(old)
        summary.lines.append(f"invoke snapshot.restore --env={environment.name} --name={quote(name)} comes back to it")


def _brief(held: Fingerprint) -> Fingerprint:
    """The fingerprint with one hash of all definitions."""
    return replace(held, definitions={"all definitions": fingerprint.digest(json.dumps(held.definitions, sort_keys=True))})


def restore(environment: Environment, name: str | None) -> Replacement:
    """Make an environment's database what it was when a snapshot was taken; what it is now is kept for db.undo.

    Args:
        environment: whose database.
        name: the snapshot's.

    Returns:
        The operation, to be run. The snapshot stays.

    Raises:
        UsageError: the name cannot be used.
    """
    wanted = require_name(name, "snapshot.restore")
    danger = f"replace what {{}} holds by the snapshot {wanted.replace('{', '').replace('}', '')}"
    return Replacement(
        "snapshot.restore", environment, partial(_restore, wanted), ("snapshot", "copy", "compare"), danger=danger,
        arguments=f" --name={quote(wanted)}", look=partial(_foresee, wanted),
    )  # fmt: skip


def _found(name: str, running: Running) -> Snapshot:
    with running.step("snapshot") as summary:
        found = named(running.target, name, running.operation)
        template.need_room(running.target, found.size)
        summary.numbers = {"database": found.database, "MB": round(found.size / 1e6)}
        summary.lines.append(f"taken {found.row['taken']}, {found.row['age']} ago")
    return found


def _foresee(name: str, running: Running) -> None:
    """Name what a restore would lose; nothing is changed."""
    found = _found(name, running)
    with running.step("compare") as summary:
        _name_losses(_now(running.target, running.operation, found.held.row_hash), found.held, summary)


def _restore(name: str, running: Running) -> Target:
    target, operation = running.target, running.operation
    found = _found(name, running)
    sessions: fingerprint.Sessions = set()
    with fingerprint.meanwhile(sessions) as pool:
        now = pool.submit(_now, target, operation, found.held.row_hash, (sessions,))
        with running.step("copy") as summary:
            with progress.made(target, found.size, running.report.transfer):
                aside = running.scratch(template=found.database)
            with contextlib.closing(connections.connect(aside, operation)) as connection:
                connections.begin(connection, target.policy, brief=True)
                stamp.identify(connection, aside)
                connections.autocommit(connection)
                for left in database_settings.write(connection, aside.database, found.properties):
                    running.note(f"left out: {left}")
            summary.numbers = {"method": "template"}
        with running.step("compare") as summary:
            held = fingerprint.take(aside, operation, jobs=1, kind=found.held.row_hash)
            template.compare(found.held, _brief(held), summary)
            summary.numbers["definitions"] = len(held.definitions)
            _name_losses(now.result(), found.held, summary)
    return aside


def _now(target: Target, operation: str, kind: str, watched: tuple[fingerprint.Sessions, ...] = ()) -> Fingerprint | None:
    """What the database holds, with hashes of that kind; None where there is no database."""
    try:
        return _brief(fingerprint.take(target, operation, jobs=1, kind=kind, watched=watched))
    except DatabaseMissing:
        return None


def _name_losses(now: Fingerprint | None, held: Fingerprint, summary: Summary) -> None:
    """Say by table what is another one now than in the snapshot."""
    if now is None:
        return
    lines = []
    for name in sorted(now.tables.keys() | held.tables.keys()):
        present, former = now.tables.get(name), held.tables.get(name)
        if name.startswith('"skinspire_tools".') or present == former:
            continue
        shown = name.replace('"public".', "").replace('"', "")
        if former is None or present is None:
            lines.append(f"{shown}: {'no such table' if present is None else counted(present[0], 'row')} now, "
                         f"{'no such table' if former is None else counted(former[0], 'row')} in the snapshot")  # fmt: skip
        elif present[0] != former[0]:
            lines.append(f"{shown}: {counted(present[0], 'row')} now, {former[0]} in the snapshot")
        elif now.major == held.major:
            lines.append(f"{shown}: {counted(present[0], 'row')}, not the same as in the snapshot")
    if now.major == held.major and now.definitions != held.definitions:
        lines.append("definitions: not the same as in the snapshot")
    summary.numbers["differences_to_now"] = len(lines)
    summary.data = {"lost": lines}
    summary.lines += lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if lines[SHOWN:] else [])


def show(environment: Environment, running: Running) -> None:
    """List the snapshots of an environment's database, newest first.

    Args:
        environment: whose database.
        running: the operation.
    """
    with running.step("snapshots") as summary:
        there = every(present(environment), running.operation)
        summary.numbers = {"snapshots": len(there), "MB": f"{sum(each.size for each in there) / 1e6:.1f}"}
        summary.rows = [each.row for each in there]
        summary.data = {"snapshots": summary.rows}


def drop(environment: Environment, name: str | None) -> Job:
    """Drop a snapshot.

    Args:
        environment: whose database it was taken of.
        name: the snapshot's.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: the name cannot be used.
    """
    wanted = require_name(name, "snapshot.drop")

    def look(running: Running) -> Snapshot:
        found = named(running.target, wanted, running.operation)
        command = f"{running.operation} --name={quote(wanted)}"
        guard.require_confirmation(command, "drop a snapshot of {}", running.target, running.confirm)
        return found

    def work(running: Running) -> None:
        with running.step("drop") as summary:
            found = look(running)
            scratch.discard(running.target, found.database, running.operation)
            summary.numbers = {"database": found.database, "MB": round(found.size / 1e6)}

    return Job("snapshot.drop", environment, work, ("drop",), done="dropped", look=look)
