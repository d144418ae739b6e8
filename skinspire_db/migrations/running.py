"""Running revisions: apply one or take it back, in the caller's transaction, or write its SQL alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationFailed, MigrationInvalid, NotOurs, SkinspireError
from skinspire_db.lifecycle.result import Summary
from skinspire_db.migrations import concurrent, effects, losses, named_types, obstacles, revisions, version_table
from skinspire_db.migrations.version_table import VersionTable
from skinspire_db.objects import dependents, ledger
from skinspire_db.objects.dependents import Saved
from skinspire_db.objects.refusals import shown
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import is_lost, sentence
from skinspire_db.postgres.sql_text import statements_only
from skinspire_db.schema import extensions
from skinspire_db.schema.alchemy import over

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

Watch = Callable[["sqlalchemy.Connection", list[str]], None]
NO_TRACE = "this revision left no trace"
TRACE = "this revision may have left a trace: it has ended the transaction that it was in"
LOOK = "invoke db.drift --env={env} to see what it left; let it end no transaction"
ENDS_A_TRANSACTION = lazy_regex(  # a savepoint, and a way back to it, does not
    r"(?:^|;)\s*(COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE,
)


def apply(
    connection: Connection,
    project: Project,
    files: ScriptDirectory,
    script: Script,
    *,
    down: bool = False,
    saved: list[Saved] | None = None,
    watch: Watch | None = None,
    done: bool = False,
) -> Summary:
    """Apply one revision, or take it back, in the caller's transaction.

    Args:
        connection: the database; it must be where the revision begins.
        project: the project, for its extensions and its code.
        files: the project's revisions.
        script: the revision.
        down: take it back.
        saved: gets the views and functions of SQL files that were dropped out of its way, to be made again afterwards; None
            leaves the revision to stop at them.
        watch: gets SQLAlchemy's connection before the first statement, and the list of losses, which grows.
        done: the statements of a concurrent revision were run already, and are only looked for; else they run here, in the
            transaction, without CONCURRENTLY.

    Returns:
        What it did to the database's objects and rows, in numbers and lines.

    Raises:
        MigrationFailed: PostgreSQL refuses a statement, or Python fails; with the file and the statement or line.
        psycopg.Error: what is no fault of the revision: a table in use, a full disk, a lost connection, a missing right.
    """
    import sqlalchemy
    from alembic.runtime.migration import MigrationStep

    extensions.create(connection, extensions.wanted(project))
    make = MigrationStep.downgrade_from_script if down else MigrationStep.upgrade_from_script
    table = version_table.find(connection, project)
    version_table.make(connection, table)
    before = effects.state(connection)
    file = revisions.path(script, project)
    called: list[str] = []
    lost: list[str] = []
    ours = dependents.of_entries(ledger.read(connection).values())

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        lost.extend(losses.of(connection, statement))
        if saved is not None:
            saved.extend(obstacles.clear(connection, statement, ours))

    connection.execute(b"SAVEPOINT revision")
    try:
        with over(connection, called) as alchemist:
            sqlalchemy.event.listen(alchemist, "before_cursor_execute", _refuse_transaction_control)
            sqlalchemy.event.listen(alchemist, "before_cursor_execute", note)
            if watch:
                watch(alchemist, lost)
            named_types.reuse(alchemist, connection)
            step = make(files.revision_map, script)
            if concurrent.is_concurrent(script):
                step.migration_fn = _outside(connection, concurrent.statements(project, script, down=down), done)
            step.migration_fn = _of_application(step.migration_fn, connection)
            # Alembic's own statements need no search path; only the revision is the application's.
            _run(
                project, files, lambda _heads, _context: [step], connection=alchemist, version_table=table.name,
                version_table_schema=table.schema,
            )  # fmt: skip
            if called:
                raise MigrationInvalid(f"it calls {called[0]}() of the driver's connection: a revision is one transaction")
        if _is_ended(connection):
            raise MigrationInvalid("it ends the transaction that it is in")
    except sqlalchemy.exc.DBAPIError as error:
        raise _failed(error, file, script, lost, ended=_is_ended(connection)) from None
    except NotOurs as error:
        _is_ended(connection)
        raise NotOurs(f"{file}: {error.message}; {NO_TRACE}", remedy=error.remedy) from None
    except Exception as error:  # a fault in the revision's code
        raise _broken(error, file, script, ended=_is_ended(connection)) from None
    except KeyboardInterrupt:
        if _is_ended(connection):
            raise MigrationFailed(f"{file}: interrupted; {TRACE}", remedy=LOOK) from None
        raise
    taken = {each.address for each in saved or ()}
    numbers, lines = effects.between(effects.without(before, taken), effects.state(connection)) if not done else ({}, [])
    for each in saved or ():
        still = " where it still belongs" if dependents.is_policy(each.key) else ""
        lines.append(f"{shown(each.key)} dropped, and made again in the next step{still}")
    lines += [f"careful: {each}" for each in lost]
    noted = {} if down else {"file_sha256": digest(script)}
    what = {"taken_back" if down else "applied": f"{script.revision} {script.doc}".strip()}
    return Summary(what | numbers, lines=lines, noted=noted)


def _is_ended(connection: Connection) -> bool:
    """Whether the transaction that the revision began in has ended, in whatever way.

    Its savepoint is gone then. Asking for the savepoint also works after an error, when PostgreSQL runs no query.
    """
    import psycopg

    try:
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            connection.execute(b"ROLLBACK TO SAVEPOINT revision")
        connection.execute(b"RELEASE SAVEPOINT revision")
    except psycopg.errors.InvalidSavepointSpecification:
        return True
    except psycopg.Error:  # the connection is lost, which the caller reports
        return False
    return False


def _refuse_transaction_control(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    """A revision that commits leaves a part of it behind when it fails; one that rolls back is reported as done."""
    if found := ENDS_A_TRANSACTION.search(statements_only(statement)):
        raise MigrationInvalid(
            f"it says {found[1].upper()}: a revision is one transaction, with its journal line and its triggers"
        )


def sql(project: Project, files: ScriptDirectory, table: VersionTable, start: list[str], last: str | None) -> str:
    """The SQL of the revisions after those at which a database is, up to `last` or to the heads; nothing is run."""
    written = io.StringIO()
    wanted = revisions.named(files, last).revision if last is not None else "heads"
    with revisions.refusals():
        _run(
            project, files, lambda heads, _: files._upgrade_revs(wanted, heads), starting_rev=start or "base", as_sql=True,
            dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, output_buffer=written, literal_binds=True,
            transaction_per_migration=True, version_table=table.name,
            version_table_schema=None if table.schema == "public" else table.schema,
        )  # fmt: skip
    return written.getvalue()


def digest(script: Script) -> str:
    """The hash of a revision's file, whatever its line ends are."""
    return hashlib.sha256(Path(script.path).read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def statements(project: Project, files: ScriptDirectory, script: Script, written: io.StringIO | None = None) -> str | None:
    """The SQL of one revision, not run; None when it needs a database to read from. `written` gets it as it comes."""
    from alembic.runtime.migration import MigrationStep

    written = written or io.StringIO()
    try:
        _run(
            project, files, lambda _heads, _: [MigrationStep.upgrade_from_script(files.revision_map, script)], as_sql=True,
            dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, output_buffer=written, literal_binds=True,
        )  # fmt: skip
    except Exception:  # its author will read the error when the revision is run
        return None
    return written.getvalue()


def _run(project: Project, files: ScriptDirectory, steps: Callable[..., Any], **options: Any) -> None:
    """Let Alembic run what `steps` gives, in the caller's transaction, or only write its SQL."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    def watched(*arguments: Any) -> list[Any]:
        found = list(steps(*arguments))
        for step in found:
            step.migration_fn = revisions.to_its_end(step.migration_fn, project)
            if known.get("as_sql") and concurrent.is_concurrent(step.revision):
                step.migration_fn = _between_transactions(step.migration_fn)
        return found

    known = {key: options.pop(key) for key in ("as_sql", "starting_rev") if key in options}
    with EnvironmentContext(Config(), files, fn=watched, **known) as environment:
        environment.configure(**options)
        with environment.begin_transaction() if options.get("literal_binds") else contextlib.nullcontext():
            environment.run_migrations()


def _between_transactions(migration: Callable[..., Any]) -> Callable[..., Any]:
    """A concurrent revision as its SQL alone: behind the COMMIT of what comes before, and before the next BEGIN."""

    @functools.wraps(migration)
    def run(*arguments: Any, **options: Any) -> Any:
        from alembic import op

        with op.get_context().autocommit_block():
            return migration(*arguments, **options)

    return run


def _outside(connection: Connection, wanted: list[concurrent.Statement], done: bool) -> Callable[..., None]:
    """What stands for the code of a concurrent revision in a transaction."""

    def run(*_: Any, **_options: Any) -> None:
        from alembic import op

        if done:
            concurrent.require_done(connection, wanted)
        for each in () if done else wanted:
            op.get_bind().exec_driver_sql(each.in_transaction, execution_options={"no_parameters": True})

    return run


def _of_application(migration: Callable[..., Any], connection: Connection) -> Callable[..., Any]:
    @functools.wraps(migration)
    def run(*arguments: Any, **options: Any) -> Any:
        with search_path.application(connection):
            return migration(*arguments, **options)

    return run


def in_one_line(sql: str) -> str:
    """A statement as messages show it: cut where it is long, and without passwords."""
    text = re.sub(r"(?i)(password\s+)'(?:[^']|'')*'", r"\1'...'", " ".join(sql.split()))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _failed(error: sqlalchemy.exc.DBAPIError, file: str, script: Script, lost: list[str], *, ended: bool) -> Exception:
    import psycopg
    from psycopg import errors

    cause = error.orig
    assert isinstance(cause, psycopg.Error)
    if not ended and (
        isinstance(cause, errors.LockNotAvailable | errors.DiskFull | errors.InsufficientPrivilege) or is_lost(cause)
    ):
        return cause
    detail = f" ({'; '.join((cause.diag.message_detail or '').splitlines())})" if _names_objects(cause) else ""
    remedy = "correct the revision, and run it again"
    if _names_objects(cause):
        remedy = f"in {Path(file).name}: drop that first with op.execute('DROP ...'), and make it again after"
    if isinstance(cause, errors.UnsafeNewEnumValueUsage):
        remedy = "add the label in a revision of its own, before this one"
    if isinstance(cause, errors.ActiveSqlTransaction):
        remedy = f"write {concurrent.MARKER} = True into the revision, and the statements of other kinds into another one"
    if isinstance(cause, errors.DuplicateTable | errors.DuplicateColumn | errors.DuplicateObject):
        remedy = (
            "if the database has everything of this revision already, by db.create --update-only for one:"
            f" invoke migrate.stamp --env={{env}} --to={script.revision}"
        )
    because = f" ({'; '.join(lost)})" if lost else ""
    says = f"{file}: {sentence(cause)}{detail}{because}; the statement: {in_one_line(error.statement or '')}"
    return (
        MigrationFailed(f"{says}; {TRACE}", remedy=LOOK) if ended else MigrationFailed(f"{says}; {NO_TRACE}", remedy=remedy)
    )


def _broken(error: Exception, file: str, script: Script, *, ended: bool) -> MigrationFailed:
    """A revision whose Python fails. AssertionError is Alembic's for an autocommit_block, which ends the transaction."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == script.path]
    line = f", line {frames[-1].lineno}" if frames else ""
    says = " ".join(str(getattr(error, "message", error)).split())
    remedy = LOOK if ended else "correct the revision, and run it again"
    if isinstance(error, AssertionError) and not says:
        says = "autocommit_block is not possible, as a revision is one transaction"
        remedy = (
            f"take the block off, and write {concurrent.MARKER} = True into the revision where it holds only"
            f" {concurrent.ALLOWED}"
        )
    elif not isinstance(error, SkinspireError):
        says = f"{type(error).__name__}: {says}" if says else type(error).__name__
    return MigrationFailed(
        f"{file}{line}: {says}; {TRACE if ended else NO_TRACE}",
        remedy=remedy,
    )


def _names_objects(cause: Any) -> bool:
    """Whether DETAIL names views or functions that depend on the object, and no values of rows."""
    import psycopg

    standing = psycopg.errors.FeatureNotSupported | psycopg.errors.DependentObjectsStillExist
    return isinstance(cause, standing) and bool(cause.diag.message_detail)
