"""Coming back to a moment: a server recovered aside, compared with now, then dropped, kept, or taken over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote

from skinspire_db.catalog import fingerprint
from skinspire_db.catalog.fingerprint import Fingerprint
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import current_project
from skinspire_db.copies import copy, own_roles
from skinspire_db.copies.copy import Choice
from skinspire_db.copies.restore import REPLACES
from skinspire_db.errors import BackupInvalid, SkinspireError, UsageError
from skinspire_db.lifecycle.operation import Job, Operation, Running
from skinspire_db.lifecycle.pipeline import Pipeline, Step
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import end_all, physical_tools
from skinspire_db.postgres.target import Target, libpq_parameters, target_of
from skinspire_db.recovery import base, point, take
from skinspire_db.recovery.archive import Archive, moment
from skinspire_db.recovery.point import Point
from skinspire_db.recovery.server import TOO_SHORT, RecoveredServer, recovered

WHOLE = "whole"
ROUNDING = 64  # bytes: a position at the beginning of a page may be said before or after the page's header


@dataclass(frozen=True)
class Request:
    """What is to be come back to: a time as it was typed, or the moment before an operation of the journal."""

    environment: Environment
    archive: Archive
    to: str | None
    before: str | None

    def find(self) -> Point:
        """The moment, and what it takes.

        Raises:
            UsageError: there is no such moment; BackupInvalid: what it takes is missing or damaged.
        """
        if self.before is not None:
            return point.find(self.archive, point.before(target_of(self.environment), self.before))
        return point.find(self.archive, point.parsed(self.to or point.LATEST))

    @property
    def arguments(self) -> str:
        """As they were typed."""
        return f" --before={quote(self.before)}" if self.before is not None else f" --to={quote(self.to or point.LATEST)}"


def restore(
    environment: Environment,
    given: Path | None = None,
    *,
    to: str | None = None,
    before: str | None = None,
    keep: bool = False,
    tables: str | None = None,
) -> Operation:
    """Come back to a moment, aside; the running server is not touched.

    Args:
        environment: whose server.
        given: the folder of backups; by default backups/ in the project.
        to: a time with its zone, or "latest".
        before: the name of an operation in the journal: the moment before the last one.
        keep: leave the recovered server running, to be looked into.
        tables: "whole", or names with commas between: what is taken over from then; None for nothing.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: the arguments do not go together, or the time is none.
    """
    if to is not None and before is not None:
        raise UsageError("--to and --before are both a moment", remedy="give one of the two")
    if keep and tables is not None:
        raise UsageError("--keep leaves the recovered server, --take takes over from it", remedy="give one of the two")
    if to is not None:
        point.parsed(to)
    request = Request(environment, Archive.of(environment, given), to, before)
    ahead = partial(_ahead, request)
    if tables is None:
        done = (
            "it runs until invoke backup.stop --kept" if keep else "nothing was changed; --keep leaves it, --take takes over"
        )
        look = partial(_look_into, request, keep)
        return Job(
            "backup.restore", environment, look, ("recover", "compare"), keeps=False, writes=True, done=done, look=ahead,
            needs_server=False,
        )  # fmt: skip
    arguments = f"{request.arguments} --take={quote(tables)}"
    if tables.strip().lower() == WHOLE:
        work, steps = partial(own_roles.settled, environment, partial(_whole, request)), ("recover", "copy", "compare")
        return Replacement("backup.restore", environment, work, steps, danger=REPLACES, arguments=arguments, look=ahead)
    names = take.named(tables)

    def run(connection: connections.Connection) -> Summary:
        with aside(request.archive, request.find(), target_of(environment)) as (_, then, _summary):
            return take.over(connection, then, names)

    danger = f"replace the rows of {', '.join(names)} in {{}}"
    return Pipeline("backup.restore", environment, (Step("take", run, lambda _: request.find(), destroys=danger),), arguments)


def _ahead(request: Request, running: Running) -> None:
    found = request.find()
    running.note(f"it would be recovered from {found.base.name} and {len(found.segments)} files of WAL")


@contextlib.contextmanager
def aside(archive: Archive, found: Point, of: Target) -> Iterator[tuple[RecoveredServer, Target, Summary]]:
    """A server recovered to a moment, its database of that environment, and what it took; gone at the end of the block.

    Raises:
        BackupInvalid: something that is needed is missing or damaged.
        StepFailed: there is no room.
    """
    with recovered(current_project(), found.base.server_version) as server:
        tools = physical_tools(found.base.server_version)
        with _verified(found, of):  # one reads what the other reads, and each waits for the disk
            server.fill(found.chain, tools, of)
            server.bring({path.name: path for path in found.histories})
        server.user = str(libpq_parameters(of, "").get("user") or of.user)
        to_the_end = _recover(server, found, archive)
        then = server.target(of)
        if to_the_end:
            _reached(found, then)
        summary = Summary({"base_backups": len(found.chain), "WAL_files": len(found.segments)}, [f"from {found.base.name}"])
        if last := server.last_transaction():
            summary.lines.append(f"the last transaction that is in it was committed at {last}")
        yield server, then, summary


def _recover(server: RecoveredServer, found: Point, archive: Archive) -> bool:
    """Recover from the WAL up to the first mark from the moment on, and where no transaction ends it there, from all of it.

    Returns:
        Whether to the end: nothing was committed after the moment.
    """
    recover = partial(server.recover, settings=found.base.settings, log=archive.folder / "recovery.log")
    parts = found.segments[: found.near], found.segments[found.near :]
    for number, segments in enumerate(parts):
        if segments or number == 0:
            server.bring({each.name: each.path for each in segments})
            try:
                recover(found.at)
                return found.at is None
            except BackupInvalid as error:
                if TOO_SHORT not in error.message or found.at is None:
                    raise
                failure = error
    if found.at is None or found.at > found.received:
        raise failure
    recover(None)
    return True


@contextlib.contextmanager
def _verified(found: Point, of: Target) -> Iterator[None]:
    """Verify the base backups while the block runs; at its end they are.

    Raises:
        BackupInvalid: one is not what was written.
    """

    def verify() -> None:
        for each in found.chain:
            base.verify(of, each)

    with ThreadPoolExecutor(max_workers=1) as pool:
        verified = pool.submit(verify)
        try:
            yield
        except Exception:
            verified.result()  # what is damaged is why files could not be put together
            raise
        except BaseException:  # Ctrl-C
            end_all()
            raise
        verified.result()


def _reached(found: Point, then: Target) -> None:
    """PostgreSQL takes damaged WAL for its end: look whether it came to what is known to have been received."""
    with contextlib.closing(connections.connect(then, "backup.restore")) as connection:
        row = connection.execute(
            "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn, timeline_id FROM pg_control_checkpoint()"
        ).fetchone()
    position = int(row[0] or 0) if row else 0
    if position + ROUNDING < found.reach:
        name = found.wal.name_at(position, found.segments[-1].timeline if found.segments else found.base.timeline)
        times = [mark.at for mark in found.marks if mark.lsn <= position]
        remedy = f'invoke backup.restore --env={{env}} --to="{moment(times[-1])}"' if times else "make a new base backup"
        raise BackupInvalid(f"the WAL file {name} is damaged: nothing after it can be recovered", remedy=remedy)


def _look_into(request: Request, keep: bool, running: Running) -> None:
    with running.step("recover") as summary:
        found = request.find()
        server, then, what = running.stack.enter_context(aside(request.archive, found, running.target))
        vars(summary).update(vars(what))
        summary.data = {"at": found.text, "base": found.base.name}
        if keep:
            url = server.url(running.target)
            summary.lines.append(url)
            summary.data["url"] = url
    with running.step("compare") as summary:
        compare(then, running.target, running.operation, summary)
    server.stays = keep


def compare(then: Target, now: Target, operation: str, summary: Summary) -> None:
    """Say table by table what differs between then and now."""
    former = fingerprint.take(then, operation)
    try:
        present: Fingerprint | None = fingerprint.take(now, operation)
    except SkinspireError as error:
        present = None
        summary.lines.append(f"now cannot be looked at: {error.message}")
    summary.numbers = {"tables": len(former.tables), "rows": former.rows}
    if present is None:
        return
    names = sorted(former.tables.keys() | present.tables.keys())
    rows = [(name, former.tables.get(name), present.tables.get(name)) for name in names]
    summary.rows = [
        {"table": name, "then": there[0] if there else "-", "now": here[0] if here else "-", "what": _what(there, here)}
        for name, there, here in rows
        if there != here
    ]
    defined = former.definitions.keys() | present.definitions.keys()
    changed = sum(former.definitions.get(name) != present.definitions.get(name) for name in defined)
    summary.numbers |= {"tables_that_differ": len(summary.rows), "definitions_that_differ": changed}
    summary.data = {"differences": summary.rows}


def _what(there: object, here: object) -> str:
    return "rows differ" if there and here else "is there now only" if here else "was there then only"


def _whole(request: Request, running: Running) -> Target:
    with running.step("recover") as summary:
        _, then, what = running.stack.enter_context(aside(request.archive, request.find(), running.target))
        vars(summary).update(vars(what))
    connection = running.stack.enter_context(contextlib.closing(connections.connect(then, running.operation)))
    connections.begin(connection, then.policy, brief=True)
    connection.rollback()
    new, _ = copy.stream(running, request.environment, then, connection, Choice(None, False, (), 2, None))
    return new
