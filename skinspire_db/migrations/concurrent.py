"""Concurrent revisions: their statements run outside a transaction, so that no session waits, and can be run again."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationFailed, MigrationInvalid, SkinspireError
from skinspire_db.migrations import revisions
from skinspire_db.migrations.losses import NAME, WORD
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path, sql_text
from skinspire_db.postgres.error_text import is_lost, sentence

if TYPE_CHECKING:
    from alembic.script import Script

    from skinspire_db.postgres.connections import Connection

MARKER = "concurrently"  # the variable that such a revision sets
TEXT = r"'(?:[^']|'')*'"
KINDS = {
    kind: lazy_regex(rf"\s*{pattern}\s*", re.IGNORECASE | re.DOTALL)
    for kind, pattern in {
        "create": rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>{WORD})"
        rf"\s+ON\s+(?:ONLY\s+)?(?P<table>{NAME})(?=[\s(]).*",
        "drop": rf"DROP\s+INDEX\s+CONCURRENTLY\s+(?:IF\s+EXISTS\s+)?(?P<name>{NAME})(?:\s+RESTRICT)?",
        "validate": rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(?P<table>{NAME})(?:\s*\*)?"
        rf"\s+VALIDATE\s+CONSTRAINT\s+(?P<name>{WORD})",
        "label": rf"ALTER\s+TYPE\s+(?P<table>{NAME})\s+ADD\s+VALUE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>{TEXT})"
        rf"(?:\s+(?:BEFORE|AFTER)\s+{TEXT})?",
    }.items()
}
RERUN = "correct what it stops at, then invoke migrate.upgrade --env={env}, which goes on from there"
ALLOWED = "CREATE and DROP INDEX CONCURRENTLY of a named index, VALIDATE CONSTRAINT, ALTER TYPE ... ADD VALUE"
OUTSIDE = lazy_regex(r"^\s*(?:CREATE\s+(?:UNIQUE\s+)?|DROP\s+|REINDEX\s.*?)INDEX\s+CONCURRENTLY\b", re.IGNORECASE | re.DOTALL)
# Whether an index is valid, what it is, where it lies, and which session builds it now.
INDEX = """
    SELECT x.indisvalid AND x.indrelid = t.oid, x.indisvalid, x.indrelid = t.oid AND i.relkind = 'i',
           pg_get_indexdef(x.indexrelid), i.oid::regclass::text,
           (SELECT min(pid) FROM pg_stat_progress_create_index WHERE index_relid = i.oid)
    FROM pg_class t JOIN pg_class i ON i.relnamespace = t.relnamespace LEFT JOIN pg_index x ON x.indexrelid = i.oid
    WHERE t.oid = to_regclass(%s) AND i.relname = (parse_ident(%s))[1]
"""
VALIDATED = "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = (parse_ident(%s))[1]"
LABELLED = "SELECT true FROM pg_enum WHERE enumtypid = to_regtype(%s) AND enumlabel = %s"
DEFINITION = lazy_regex(r"^(CREATE (?:UNIQUE )?INDEX) .*? (USING .*)$", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """A statement of a concurrent revision.

    Attributes:
        kind: "create", "drop", "validate" or "label".
        sql: the statement.
        table: the table, or the type that gets the label; "" for a dropped index.
        name: of the index or constraint; the label as SQL has it.
    """

    kind: str
    sql: str
    table: str
    name: str

    @property
    def in_transaction(self) -> str:
        """The same, to be tried in a transaction that is rolled back."""
        return re.sub(r"(?i)\bINDEX\s+CONCURRENTLY\b", "INDEX", self.sql, count=1)

    def __str__(self) -> str:
        text = " ".join(self.sql.split())
        return text if len(text) <= 90 else f"{text[:87]}..."


def is_concurrent(script: Script) -> bool:
    """Whether a revision runs outside a transaction.

    Raises:
        MigrationInvalid: it says so otherwise than by True.
    """
    value = getattr(script.module, MARKER, False)
    if not isinstance(value, bool):
        raise MigrationInvalid(
            f"{script.revision}: {MARKER} = {value!r} is neither True nor False", remedy=f"write {MARKER} = True"
        )
    return value


def statements(project: Project, script: Script, *, down: bool = False) -> list[Statement]:
    """The statements of a concurrent revision; nothing is run.

    Args:
        project: whose revision.
        script: the revision.
        down: those of its downgrade.

    Raises:
        MigrationInvalid: it holds another kind of statement, or its code fails without a database.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written, "literal_binds": True}
    dialect = {"paramstyle": "named"}  # in PostgreSQL's own style each % would come twice
    context = MigrationContext.configure(dialect_name="postgresql", dialect_opts=dialect, opts=options)
    file = revisions.path(script, project)
    migration = script.module.downgrade if down else script.module.upgrade
    try:
        with Operations.context(context):
            revisions.to_its_end(migration, project)()
    except Exception as error:  # a fault in the revision's code, or it reads the database
        says = error.message if isinstance(error, SkinspireError) else f"{type(error).__name__}: {error}"
        raise MigrationInvalid(
            f"{file}: the statements of a concurrent revision must be known before one of them runs: {says}",
            remedy="write each of them as op.execute('...')",
        ) from None
    return [
        _statement(each, file) for each in sql_text.split(sql_text.without_comments(written.getvalue()), ";") if each.strip()
    ]


def _statement(sql: str, file: str) -> Statement:
    for kind, pattern in KINDS.items():
        if found := pattern.fullmatch(sql):
            return Statement(kind, sql.strip(), found.groupdict().get("table") or "", found["name"])
    raise MigrationInvalid(
        f"{file}: a concurrent revision holds {ALLOWED}; this is another statement: {Statement('', sql, '', '')}",
        remedy=f"move it into a revision of its own, without {MARKER} = True",
    )


def refuse(project: Project, scripts: list[Script], text_of: Callable[[Script], str | None]) -> None:
    """Refuse revisions that cannot run as they say they do, before the first of them runs.

    Args:
        project: whose revisions.
        scripts: those to look at.
        text_of: gives the SQL of a revision, None where it needs a database.

    Raises:
        MigrationInvalid: one has both kinds of statements, or another fault.
    """
    for script in scripts:
        if is_concurrent(script):
            statements(project, script)
            continue
        if MARKER not in Path(script.path).read_text(encoding="utf-8").lower():
            continue  # what its text does not show, PostgreSQL refuses when it is run
        for each in sql_text.split(sql_text.without_comments(text_of(script) or ""), ";"):
            if OUTSIDE.match(each):
                raise MigrationInvalid(
                    f"{revisions.path(script, project)}: {Statement('', each, '', '')}: it cannot run in a transaction",
                    remedy=f"write {MARKER} = True into the revision, and the statements of other kinds into another one",
                )


def state(connection: Connection, statement: Statement) -> str:
    """What is there of a statement: "done", "to do", or "invalid" for an index that an earlier try has left.

    Args:
        connection: the database, in a transaction or not.
        statement: one of a concurrent revision.

    Raises:
        MigrationFailed: another object has the name, or another session builds the index at this moment.
    """
    with connection.transaction(), search_path.application(connection):
        if statement.kind == "create":
            return _index_state(connection, statement)
        if statement.kind == "drop":
            gone = connection.execute("SELECT to_regclass(%s) IS NULL", (statement.name,)).fetchone() == (True,)
            return "done" if gone else "to do"
        query, name = (VALIDATED, statement.name)
        if statement.kind == "label":
            query, name = LABELLED, statement.name[1:-1].replace("''", "'")
        return "done" if connection.execute(query, (statement.table, name)).fetchone() == (True,) else "to do"


def _index_state(connection: Connection, statement: Statement) -> str:
    row = connection.execute(INDEX.encode(), (statement.table, statement.name)).fetchone()
    if row is None:
        return "to do"
    is_valid, any_valid, is_own, definition, name, builder = row
    if builder is not None:
        raise MigrationFailed(
            f"{name} is being built by pid {builder}", remedy="when that has ended: invoke migrate.upgrade --env={env}"
        )
    if is_own and not any_valid:
        return "invalid"
    if not is_valid or DEFINITION.sub(r"\1 \2", definition) != DEFINITION.sub(r"\1 \2", _wanted(connection, statement)):
        raise MigrationFailed(
            f"{name} is there, and is not what this makes: {statement}",
            remedy="drop or rename it, and run this again; or give the revision's index another name",
        )
    return "done"


def _wanted(connection: Connection, statement: Statement) -> str:
    """The index in PostgreSQL's words, which it says of one on an empty table with the same columns."""
    found = KINDS["create"].fullmatch(statement.sql)
    assert found
    made = replace(
        statement, sql=f"{statement.sql[: found.start('table')]}pg_temp.wanted{statement.sql[found.end('table') :]}"
    )
    with connection.transaction(force_rollback=True):
        connection.execute(f"CREATE TEMP TABLE wanted (LIKE {statement.table} INCLUDING GENERATED)".encode())
        connection.execute(made.in_transaction.encode())
        [(definition,)] = connection.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'pg_temp.wanted'::regclass"
        ).fetchall()
    return str(definition)


def run(connection: Connection, statement: Statement, file: str) -> str:
    """Run a statement unless it was done already; an INVALID index is dropped and built again.

    Args:
        connection: the database, in autocommit, searching the application's schema.
        statement: one of a concurrent revision.
        file: the revision's, for errors.

    Returns:
        What was done, for a reader.

    Raises:
        MigrationFailed: PostgreSQL refuses it; an index that it could not build is dropped, or said to be there.
        psycopg.Error: the connection is lost.
    """
    import psycopg

    found = state(connection, statement)
    if found == "done":
        return f"{statement}: done before"
    try:
        if found == "invalid":
            _drop(connection, statement)
        connection.execute(statement.sql.encode())
    except psycopg.Error as error:
        if is_lost(error) or connection.closed:
            raise
        left = _clear(connection, statement)
        raise MigrationFailed(f"{file}: {sentence(error)}; the statement: {statement}{left}", remedy=RERUN) from None
    again = "the INVALID index of an earlier try dropped, and built again" if found == "invalid" else "done"
    return f"{statement}: {again}"


def _drop(connection: Connection, statement: Statement) -> None:
    with connection.transaction(), search_path.application(connection):
        row = connection.execute(INDEX.encode(), (statement.table, statement.name)).fetchone()
    assert row
    connection.execute(f"DROP INDEX CONCURRENTLY {row[4]}".encode())


def _clear(connection: Connection, statement: Statement) -> str:
    """Drop the INVALID index that a build has left: it costs every writer, and helps no reader."""
    import psycopg

    if statement.kind != "create":
        return ""
    try:
        if state(connection, statement) != "invalid":
            return ""
        _drop(connection, statement)
    except (psycopg.Error, SkinspireError):
        return f"; the index {statement.name} is there and INVALID"
    return ""


def require_done(connection: Connection, wanted: list[Statement]) -> None:
    """Make sure that the statements of a concurrent revision were done, by reading the catalogue.

    Raises:
        MigrationFailed: one was not.
    """
    last = {sql_text.split(each.name, ".")[-1].strip(): each for each in wanted}  # an index may be dropped and made anew
    for each in last.values():
        if (found := state(connection, each)) != "done":
            raise MigrationFailed(f"{each}: it is {found}, though it was run", remedy=RERUN)
