"""Revisions and a database: which are applied, applying and taking back one at a time, marking, and the SQL alone."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.config import project_code
from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationFailed, MigrationInvalid, ProjectCodeEnded, UsageError
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.migrations import effects, losses, named_types, revisions
from skinspire_db.objects.files import statements_only
from skinspire_db.postgres import search_path
from skinspire_db.postgres.failures import is_lost, sentence
from skinspire_db.schema import extensions, models

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

# A database that was made without migrations: what it lacks is made, then it is noted where it stands.
ADOPT = (
    "invoke db.create --update-only --env={env}, then, where invoke db.drift --env={env} finds nothing,"
    " invoke migrate.stamp --env={env}"
)
AHEAD = "git pull; or, where invoke db.drift --env={env} finds nothing, invoke migrate.stamp --env={env}"
TABLE = "public.alembic_version"
NO_TRACE = "this revision left no trace"
TRACE = "this revision may have left a trace: it has ended the transaction that it was in"
LOOK = "invoke db.drift --env={env} to see what it left; let it end no transaction"
ENDS_A_TRANSACTION = re.compile(  # a savepoint, and a way back to it, does not
    r"(?:^|;)\s*(COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RevisionState:
    """A revision and whether the database has it: applied, pending, or unknown.

    Unknown is one that the database names and no file has, and each that may have come before it.
    """

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


def states(connection: Connection, project: Project, files: ScriptDirectory) -> list[RevisionState]:
    """Every revision, oldest first, then those that the database names and no file has."""
    at = current(connection)
    known = {script.revision: script for script in files.walk_revisions()}
    applied = _applied(files, [revision for revision in at if revision in known])
    other = "unknown" if set(at) - known.keys() else "pending"  # what came before a file that is missing, nobody can say
    found = [
        RevisionState(
            script.revision, "applied" if script.revision in applied else other, script.doc, revisions.path(script, project)
        )
        for script in reversed(list(known.values()))
    ]
    return found + [RevisionState(revision, "unknown", "", "") for revision in at if revision not in known]


def _applied(files: ScriptDirectory, at: list[str]) -> set[str]:
    """These revisions, which have files, and all that came before them."""
    return {script.revision for revision in at for script in files.iterate_revisions(revision, "base")}


def refuse_unknown(connection: Connection, files: ScriptDirectory) -> None:
    """Raise MigrationInvalid when the database is at a revision that no file has."""
    known = {script.revision for script in files.walk_revisions()}
    if ahead := [revision for revision in current(connection) if revision not in known]:
        raise MigrationInvalid(
            f"the database is at {', '.join(ahead)}, which no revision file has: it is ahead of this code",
            remedy=AHEAD,
        )


def way_on(connection: Connection, project: Project) -> str:
    """What brings a database to the head that is not there: the remedy of a look, which must not lead to a refusal."""
    at = current(connection)
    if not at:
        return ADOPT if _relations(connection) else "invoke migrate.upgrade --env={env}"
    known = {script.revision for script in revisions.directory(project).walk_revisions()}
    return AHEAD if set(at) - known else "invoke migrate.upgrade --env={env}"


def next_up(connection: Connection, files: ScriptDirectory, to: str | None) -> Script | None:
    """The next revision to apply on the way to `to`, or to the head; None when there is none."""
    refuse_unknown(connection, files)
    at = current(connection)
    if not at and (tables := _relations(connection)):
        raise MigrationInvalid(
            f"the database has {counted(len(tables), 'table')} and is at no revision: it was made without migrations",
            remedy=ADOPT,
        )
    target = revisions.named(files, to).revision if to is not None else "heads"
    if to is not None and target not in at and target in _applied(files, at):
        raise UsageError(
            f"{to} is applied, and there are later ones", remedy="invoke migrate.downgrade --env={env} --steps=1"
        )
    with revisions.refusals():
        steps: list[Any] = list(files._upgrade_revs(target, tuple(at)))  # type: ignore[arg-type]
    return steps[0].revision if steps else None


def next_down(connection: Connection, files: ScriptDirectory) -> Script:
    """The revision that a downgrade takes back: of several heads, that which comes last in the files. Raises UsageError when
    there is none, MigrationInvalid for one that has no way back.
    """
    refuse_unknown(connection, files)
    at = set(current(connection))
    script = next((each for each in files.walk_revisions() if each.revision in at), None)
    if script is None:
        raise UsageError("the database is at no revision: there is nothing to take back", remedy="invoke migrate.status")
    if not callable(getattr(script.module, "downgrade", None)):
        raise MigrationInvalid(f"{Path(script.path).name} has no downgrade()", remedy="write it, and run it again")
    return script


def apply(connection: Connection, project: Project, files: ScriptDirectory, script: Script, *, down: bool = False) -> Summary:
    """Apply a revision, or take it back, and no other, in the caller's transaction.

    Raises MigrationFailed with file and statement or line for what PostgreSQL refuses or Python cannot run;
    psycopg's errors for what is no fault of it: a table in use, a full disk, a lost connection, a missing right.
    """
    import sqlalchemy
    from alembic.runtime.migration import MigrationStep

    extensions.create(connection, extensions.wanted(project))
    make = MigrationStep.downgrade_from_script if down else MigrationStep.upgrade_from_script
    before = effects.state(connection)
    file = revisions.path(script, project)
    called: list[str] = []
    lost: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        lost.extend(losses.of(connection, statement))

    connection.execute(b"SAVEPOINT revision")
    try:
        with alchemy(connection, called) as alchemist:
            sqlalchemy.event.listen(alchemist, "before_cursor_execute", _refuse_transaction_control)
            sqlalchemy.event.listen(alchemist, "before_cursor_execute", note)
            named_types.reuse(alchemist, connection)
            step = make(files.revision_map, script)
            step.migration_fn = _of_application(step.migration_fn, connection)
            # Alembic's own statements need no search path; only the revision is the application's.
            _run(project, files, lambda _heads, _context: [step], connection=alchemist, version_table_schema="public")
            if called:
                raise MigrationInvalid(f"it calls {called[0]}() of the driver's connection: a revision is one transaction")
        if _is_ended(connection):
            raise MigrationInvalid("it ends the transaction that it is in")
    except sqlalchemy.exc.DBAPIError as error:
        raise _failed(error, file, script, lost, ended=_is_ended(connection)) from None
    except Exception as error:  # the revision's author wrote it, and reads this
        raise _broken(error, file, script, ended=_is_ended(connection)) from None
    except KeyboardInterrupt:
        if _is_ended(connection):
            raise MigrationFailed(f"{file}: interrupted; {TRACE}", remedy=LOOK) from None
        raise
    numbers, lines = effects.between(before, effects.state(connection))
    lines += [f"careful: {each}" for each in lost]
    return Summary({"taken_back" if down else "applied": f"{script.revision} {script.doc}".strip()} | numbers, lines=lines)


def _is_ended(connection: Connection) -> bool:
    """Whether the transaction that the revision began in is over, whoever ended it by whatever way.

    Its savepoint is gone then; this works after an error too, where PostgreSQL answers no question.
    """
    import psycopg

    try:
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            connection.execute(b"ROLLBACK TO SAVEPOINT revision")
        connection.execute(b"RELEASE SAVEPOINT revision")
    except psycopg.errors.InvalidSavepointSpecification:
        return True
    except psycopg.Error:  # lost: that is what will be said
        return False
    return False


def _refuse_transaction_control(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    """What a revision committed by itself would stay when it fails; one that is rolled back would be called done."""
    if found := ENDS_A_TRANSACTION.search(statements_only(statement)):
        raise MigrationInvalid(
            f"it says {found[1].upper()}: a revision is one transaction, with its journal line and its triggers"
        )


def sql(project: Project, files: ScriptDirectory, start: str, to: str | None) -> str:
    """The SQL of the revisions after `start`, not run."""
    written = io.StringIO()
    target = revisions.named(files, to).revision if to is not None else "heads"
    with revisions.refusals():
        _run(
            project, files, lambda heads, _: files._upgrade_revs(target, heads), starting_rev=start, as_sql=True,
            dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, output_buffer=written, literal_binds=True,
            transaction_per_migration=True,
        )  # fmt: skip
    return written.getvalue()


def statements(project: Project, files: ScriptDirectory, script: Script) -> str | None:
    """The SQL of one revision, not run; None for one that reads the database, and has none without."""
    from alembic.runtime.migration import MigrationStep

    written = io.StringIO()
    try:
        _run(
            project, files, lambda _heads, _: [MigrationStep.upgrade_from_script(files.revision_map, script)], as_sql=True,
            dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, output_buffer=written, literal_binds=True,
        )  # fmt: skip
    except Exception:  # whatever it says when it is run for real, its author reads then
        return None
    return written.getvalue()


def _run(project: Project, files: ScriptDirectory, steps: Callable[..., Any], **options: Any) -> None:
    """Let Alembic run what `steps` gives, on a connection whose transaction is the caller's, or onto paper."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    def watched(*arguments: Any) -> list[Any]:
        found = list(steps(*arguments))
        for step in found:
            step.migration_fn = _to_its_end(step.migration_fn, project)
        return found

    known = {key: options.pop(key) for key in ("as_sql", "starting_rev") if key in options}
    with EnvironmentContext(Config(), files, fn=watched, **known) as environment:
        environment.configure(**options)
        with environment.begin_transaction() if options.get("literal_binds") else contextlib.nullcontext():
            environment.run_migrations()


def _of_application(migration: Callable[..., Any], connection: Connection) -> Callable[..., Any]:
    @functools.wraps(migration)
    def run(*arguments: Any, **options: Any) -> Any:
        with search_path.application(connection):
            return migration(*arguments, **options)

    return run


def _to_its_end(migration: Callable[..., Any], project: Project) -> Callable[..., Any]:
    """A revision's upgrade() or downgrade(), whose return says that all of it was run."""

    @functools.wraps(migration)
    def run(*arguments: Any, **options: Any) -> None:
        with models.kept(), project_code.running(project):
            left = migration(*arguments, **options)
        if inspect.isawaitable(left) or inspect.isgenerator(left) or inspect.isasyncgen(left):
            if inspect.iscoroutine(left):
                left.close()
            raise MigrationInvalid(f"{migration.__name__}() is async or has a yield: nothing of it was run")

    return run


@contextlib.contextmanager
def alchemy(connection: Connection, called: list[str] | None = None) -> Iterator[sqlalchemy.Connection]:
    """SQLAlchemy over an open psycopg connection, in its transaction, which SQLAlchemy can neither end nor close.

    What was tried of that from here on, commit(), rollback() or close(), is in `called`.
    """
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    verbs = ("commit", "rollback", "close")
    called = [] if called is None else called
    for verb in verbs:
        setattr(connection, verb, functools.partial(called.append, verb))
    try:
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool, pool_reset_on_return=None,
            use_native_hstore=False,
        )  # fmt: skip
        with search_path.application(connection):  # SQLAlchemy asks for the schema that names without one belong to
            opened = engine.connect()
        with opened, opened.begin():
            called.clear()  # SQLAlchemy has asked the server what it is, and rolled back
            yield opened
    finally:
        for verb in verbs:
            delattr(connection, verb)


def _relations(connection: Connection) -> set[str]:
    rows = search_path.rows(
        connection,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"  # noqa: S608
        f" WHERE c.relkind IN ('r', 'p') AND {objects.APPLICATION_SCHEMA} AND {objects.NOT_ALEMBICS}",
    )
    return {name for (name,) in rows}


def _failed(error: sqlalchemy.exc.DBAPIError, file: str, script: Script, lost: list[str], *, ended: bool) -> Exception:
    import psycopg
    from psycopg import errors

    cause = error.orig
    assert isinstance(cause, psycopg.Error)
    if not ended and (
        isinstance(cause, errors.LockNotAvailable | errors.DiskFull | errors.InsufficientPrivilege) or is_lost(cause)
    ):
        return cause
    statement = re.sub(r"(?i)(password\s+)'(?:[^']|'')*'", r"\1'...'", " ".join((error.statement or "").split()))
    shown = statement if len(statement) <= 120 else f"{statement[:117]}..."
    detail = f" ({'; '.join((cause.diag.message_detail or '').splitlines())})" if _names_objects(cause) else ""
    remedy = "correct the revision, and run it again"
    if _names_objects(cause):
        remedy = f"in {Path(file).name}: drop that first with op.execute('DROP ...'), and make it again after"
    if isinstance(cause, errors.DuplicateTable | errors.DuplicateColumn | errors.DuplicateObject):
        remedy = (
            "if the database has everything of this revision already, by db.create --update-only for one:"
            f" invoke migrate.stamp --env={{env}} --to={script.revision}"
        )
    because = f" ({'; '.join(lost)})" if lost else ""
    says = f"{file}: {sentence(cause)}{detail}{because}; the statement: {shown}"
    return (
        MigrationFailed(f"{says}; {TRACE}", remedy=LOOK) if ended else MigrationFailed(f"{says}; {NO_TRACE}", remedy=remedy)
    )


def _broken(error: Exception, file: str, script: Script, *, ended: bool) -> MigrationFailed:
    """A revision whose Python fails. AssertionError is Alembic's for an autocommit_block, which ends the transaction."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == script.path]
    line = f", line {frames[-1].lineno}" if frames else ""
    says = " ".join(str(getattr(error, "message", error)).split())
    if isinstance(error, AssertionError) and not says:
        says = "autocommit_block is not possible: a revision is one transaction; run CREATE INDEX CONCURRENTLY by hand first"
    if not isinstance(error, MigrationInvalid | ProjectCodeEnded):
        says = f"{type(error).__name__}: {says}" if says else type(error).__name__
    return MigrationFailed(
        f"{file}{line}: {says}; {TRACE if ended else NO_TRACE}",
        remedy=LOOK if ended else "correct the revision, and run it again",
    )


def _names_objects(cause: Any) -> bool:
    """Whether DETAIL names views or functions that stand in the way, and no row's values."""
    import psycopg

    standing = psycopg.errors.FeatureNotSupported | psycopg.errors.DependentObjectsStillExist
    return isinstance(cause, standing) and bool(cause.diag.message_detail)
