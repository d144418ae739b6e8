"""A copy of a database beside it on its server, by CREATE DATABASE ... TEMPLATE; and what every whole copy needs."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.catalog import fingerprint
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle.operation import Running
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.postgres import connections, database_settings, progress
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def need_room(target: Target, size: int) -> None:
    """Look whether the server's disk has room; a server elsewhere is not checked.

    Args:
        target: the database, whose server is meant.
        size: what is needed, in bytes.

    Raises:
        StepFailed: less is free.
    """
    if target.server is None:
        return
    free = shutil.disk_usage(target.server.home).free
    if free < size * 1.05:
        raise StepFailed(
            f"it needs about {round(size / 1e6)} MB, and the server's disk has {round(free / 1e6)} MB free",
            remedy="free some space, and run it again",
        )


def why_not(connection: Connection, near: bool) -> str:
    """Why the database of this connection cannot be closed for the moment and copied as a template; empty when it can."""
    if not near:
        return "it is on another server than the target"
    mine = connection.execute(
        "SELECT pg_has_role(datdba, 'USAGE') OR datistemplate FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    if mine != (True,):
        return "it belongs to another role"
    others = connection.execute(
        "SELECT count(*), string_agg(coalesce(nullif(application_name, ''), usename), ', ') FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ).fetchone()
    return f"{counted(others[0], 'session', 'use', 'uses')} it ({others[1]})" if others and others[0] else ""


def made(running: Running, start: Target, size: int, jobs: int = 2) -> tuple[Target, fingerprint.Fingerprint]:
    """Copy a database of the target's server that no session uses into a scratch database.

    Args:
        running: the operation.
        start: where the source is.
        size: its size in bytes.
        jobs: how many sessions hash rows at once, of both databases together.

    Returns:
        Where the copy is, and its fingerprint.

    Raises:
        StepFailed: others connected to the source, or the copy is another one.
    """
    import psycopg

    with running.step("copy") as summary:
        try:
            with progress.made(running.target, size, running.report.transfer):
                aside = running.scratch(template=start.database)
        except psycopg.errors.ObjectInUse:
            raise StepFailed(
                f"others connected to {start} in the last moment", remedy="run it again with --method=stream"
            ) from None
        copy_properties(start, aside, running)
        summary.numbers = {"method": "template"}
    sessions: fingerprint.Sessions = set()
    with running.step("compare") as summary, fingerprint.meanwhile(sessions, workers=2) as pool:
        take = partial(fingerprint.take, operation=running.operation, jobs=max(1, jobs // 2), watched=(sessions,))
        shares = [pool.submit(take, each) for each in (start, aside)]
        before, after = (share.result() for share in shares)
        compare(before, after, summary)
    return aside, after


def compare(
    before: fingerprint.Fingerprint,
    after: fingerprint.Fingerprint,
    summary: Summary,
    of: Sequence[str] = ("tables", "sequences", "definitions"),
) -> None:
    """Compare a copy with its source, and say how much it holds.

    Args:
        before: the source.
        after: the copy.
        summary: the step's, for the numbers.
        of: the parts that must be the same.

    Raises:
        StepFailed: they differ.
    """
    found = list(fingerprint.differences(before, after, of=of))
    if found:
        raise StepFailed(
            f"the copy is not what the source is: {found[0]}" + (f", and {len(found) - 1} more" if found[1:] else ""),
            remedy="run it again; if the source was written to meanwhile, with --method=stream",
        )
    summary.numbers = after.numbers | {"definitions": len(after.definitions)}


def copy_properties(start: Target, aside: Target, running: Running, *, masked: bool = False) -> None:
    """Give a copy what belongs to the source but is not in it: settings, grants, the comment, the limit.

    Args:
        start: where the source is.
        aside: where the copy is.
        running: the operation, which notes what was left out.
        masked: leave out what can hold secrets: the comment, and settings of the application's own.
    """
    with (
        contextlib.closing(connections.connect(start, running.operation)) as old,
        contextlib.closing(connections.connect(aside, running.operation)) as new,
    ):
        connections.begin(old, start.policy, brief=True)
        connections.autocommit(new)
        kept = database_settings.read(old)
        if masked:  # a comment can hold anything, and a setting of the application's own a secret
            kept = [
                each for each in kept if each[0] != "comment" and not (each[0] == "set" and "." in each[2].partition("=")[0])
            ]
        for left in database_settings.write(new, aside.database, kept):
            running.note(f"left out: {left}")
