"""Revisions and a database: which are applied, applying and taking back one at a time, marking, and the SQL alone."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db import schema
from skinspire_db.connections import sentence
from skinspire_db.errors import MigrationFailed, MigrationInvalid, UsageError
from skinspire_db.migrations import revisions
from skinspire_db.settings import Project
from skinspire_db.summary import Summary

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.connections import Connection

TABLE = "public.alembic_version"


@dataclass(frozen=True)
class RevisionState:
    """A revision and whether the database has it: applied, pending, or unknown, when the database names one without file."""

    revision: str
    state: str
    message: str
    file: str

    def as_dict(self) -> dict[str, str]:
        return dict(vars(self))


def current(connection: Connection) -> list[str]:
    """The revisions that the database says it is at."""
    if connection.execute("SELECT to_regclass(%s)", (TABLE,)).fetchone() == (None,):
        return []
    return [name for (name,) in connection.execute(f"SELECT version_num FROM {TABLE} ORDER BY 1".encode()).fetchall()]  # noqa: S608


def mark(connection: Connection, heads: list[str]) -> None:
    """Note that the database is at these revisions, whatever it was at before. Alembic's own table, as Alembic makes it."""
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {TABLE} (version_num varchar(32) NOT NULL,"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))".encode()
    )
    connection.execute(f"DELETE FROM {TABLE}".encode())  # noqa: S608
    for head in heads:
        connection.execute(f"INSERT INTO {TABLE} VALUES (%s)".encode(), (head,))  # noqa: S608


def states(connection: Connection, here: Project, files: ScriptDirectory) -> list[RevisionState]:
    """Every revision, oldest first, then those that the database names and no file has."""
    at = current(connection)
    known = {script.revision: script for script in files.walk_revisions()}
    applied: set[str] = set()
    for revision in at:
        if revision in known:
            applied |= {script.revision for script in files.iterate_revisions(revision, "base")}
    found = [
        RevisionState(
            script.revision, "applied" if script.revision in applied else "pending", script.doc, revisions.path(script, here)
        )
        for script in reversed(list(known.values()))
    ]
    return found + [RevisionState(revision, "unknown", "", "") for revision in at if revision not in known]


def refuse_unknown(connection: Connection, files: ScriptDirectory) -> None:
    """Raise MigrationInvalid when the database is at a revision that no file has."""
    known = {script.revision for script in files.walk_revisions()}
    if ahead := [revision for revision in current(connection) if revision not in known]:
        raise MigrationInvalid(
            f"the database is at {', '.join(ahead)}, which no revision file has: it is ahead of this code",
            remedy="git pull, or invoke migrate.stamp --env={env} --to=REVISION if you know better",
        )


def next_up(connection: Connection, files: ScriptDirectory, to: str | None) -> Script | None:
    """The next revision to apply on the way to `to`, or to the head; None when there is none."""
    refuse_unknown(connection, files)
    at = current(connection)
    if not at and (tables := _relations(connection)):
        raise MigrationInvalid(
            f"the database has {len(tables)} tables and is at no revision: it was made without migrations",
            remedy="if it is as the models say (invoke migrate.check --env={env}): invoke migrate.stamp --env={env}",
        )
    target = revisions.named(files, to).revision if to else "heads"
    with revisions.refusals():
        steps: list[Any] = list(files._upgrade_revs(target, tuple(at)))  # type: ignore[arg-type]
    return steps[0].revision if steps else None


def next_down(connection: Connection, files: ScriptDirectory) -> Script:
    """The revision that a downgrade takes back. Raises UsageError when there is none."""
    refuse_unknown(connection, files)
    at = current(connection)
    if not at:
        raise UsageError("the database is at no revision: there is nothing to take back", remedy="invoke migrate.status")
    return revisions.named(files, at[-1])


def apply(connection: Connection, here: Project, files: ScriptDirectory, script: Script, *, down: bool = False) -> Summary:
    """Apply a revision, or take it back, in the caller's transaction.

    Raises MigrationFailed with file and statement for what PostgreSQL refuses, psycopg's LockNotAvailable for a table in use.
    """
    import psycopg
    import sqlalchemy

    schema.create_extensions(connection)
    steps = files._downgrade_revs if down else files._upgrade_revs
    target = f"{script.revision}-1" if down else script.revision
    before = _relations(connection)
    try:
        with alchemy(connection) as alchemist, revisions.refusals():
            _run(files, lambda heads, _: steps(target, heads), connection=alchemist)
    except sqlalchemy.exc.DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise error.orig from None  # nothing is wrong with the revision
        raise _failed(error, revisions.path(script, here)) from None
    after = _relations(connection)
    return Summary({
        "revision": f"{script.revision} {script.doc}",
        "tables_added": len(after - before),
        "tables_dropped": len(before - after),
    })  # fmt: skip


def sql(files: ScriptDirectory, start: str, to: str | None) -> str:
    """The SQL of the revisions after `start`, not run."""
    written = io.StringIO()
    target = revisions.named(files, to).revision if to else "heads"
    with revisions.refusals():
        _run(
            files, lambda heads, _: files._upgrade_revs(target, heads), starting_rev=start, as_sql=True,
            dialect_name="postgresql", output_buffer=written, literal_binds=True,
        )  # fmt: skip
    return written.getvalue()


def _run(files: ScriptDirectory, steps: Callable[..., Any], **options: Any) -> None:
    """Let Alembic run what `steps` gives, on a connection whose transaction is the caller's, or onto paper."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    known = {key: options.pop(key) for key in ("as_sql", "starting_rev") if key in options}
    with EnvironmentContext(Config(), files, fn=steps, **known) as environment:
        environment.configure(**options)
        environment.run_migrations()


@contextlib.contextmanager
def alchemy(connection: Connection) -> Iterator[sqlalchemy.Connection]:
    """SQLAlchemy over an open psycopg connection, in its transaction, which SQLAlchemy can neither end nor close."""
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    verbs = ("commit", "rollback", "close")
    for verb in verbs:
        setattr(connection, verb, lambda: None)
    try:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool, pool_reset_on_return=None,
            use_native_hstore=False,
        )  # fmt: skip
        with engine.connect() as opened, opened.begin():
            yield opened
    finally:
        for verb in verbs:
            delattr(connection, verb)


def _relations(connection: Connection) -> set[str]:
    rows = connection.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace NOT IN"
        " (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname IN ('information_schema', 'skinspire_tools'))"
    )
    return {name for (name,) in rows.fetchall() if name not in (TABLE, TABLE.removeprefix("public."))}


def _failed(error: sqlalchemy.exc.DBAPIError, file: str) -> MigrationFailed:
    import psycopg

    cause = error.orig
    assert isinstance(cause, psycopg.Error)
    statement = " ".join((error.statement or "").split())
    shown = statement if len(statement) <= 120 else f"{statement[:117]}..."
    detail = f" ({cause.diag.message_detail})" if _names_objects(cause) else ""
    remedy = "correct the revision, and run it again"
    if _names_objects(cause):
        remedy = f"in {Path(file).name}: drop that first with op.execute('DROP ...'), and make it again after"
    return MigrationFailed(
        f"{file}: {sentence(cause)}{detail}; the statement: {shown}; this revision left no trace", remedy=remedy
    )


def _names_objects(cause: Any) -> bool:
    """Whether DETAIL names views or functions that stand in the way, and no row's values."""
    import psycopg

    standing = psycopg.errors.FeatureNotSupported | psycopg.errors.DependentObjectsStillExist
    return isinstance(cause, standing) and bool(cause.diag.message_detail)
