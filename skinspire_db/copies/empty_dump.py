"""A dump without any row over a database that has some: refused, unless that is said to be meant."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from shlex import quote

from skinspire_db.catalog import objects
from skinspire_db.copies.backup_folder import Manifest
from skinspire_db.copies.dump_files import Archive
from skinspire_db.copies.dump_sql import Piece, bare, pieces
from skinspire_db.errors import DatabaseMissing, GuardRefused
from skinspire_db.lifecycle.operation import Running
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import ClientTools, ended
from skinspire_db.postgres.target import Target

TABLES = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND {objects.RELATION} AND {objects.NOT_ALEMBICS} ORDER BY c.relpages DESC, 1, 2
"""  # noqa: S608
# The rows of other tables than the tools' and Alembic's, which an empty database has too.
ROWS = lazy_regex(
    rb'(?:COPY|INSERT INTO) (?!"?skinspire_tools"?\.|(?:public\.)?alembic_version\b|\S+ \(version_num\) )', re.IGNORECASE
)


def refuse(tools: ClientTools, archive: Archive, manifest: Manifest | None, running: Running, *, meant: bool) -> None:
    """Refuse a dump without rows where the target has some.

    Args:
        tools: the programs that can read the archive.
        archive: what is to be restored.
        manifest: the manifest of a backup of ours.
        running: the operation, for its target.
        meant: `--empty` was given.

    Raises:
        GuardRefused: the dump has no row, the target has some, and it was not said that this is meant.
    """
    if meant or _has_rows(tools, archive, manifest, running.target):
        return
    if filled := _filled_table(running.target):
        target = running.target
        raise GuardRefused(
            f"{archive.path} holds no row, and {target} has rows in {filled}: all of them would be replaced by nothing",
            remedy=f"if that is meant: invoke backup.restore --env={target.environment} --file={quote(str(archive.path))}"
            f" --confirm={quote(target.database)} --empty",
        )


def _has_rows(tools: ClientTools, archive: Archive, manifest: Manifest | None, target: Target) -> bool:
    if manifest:
        tables = manifest.contents.tables.items()
        return any(rows for name, (rows, _) in tables if not name.startswith('"skinspire_tools".'))
    if archive.kind == "sql":
        with archive.path.open("rb") as file:
            return _any_row(pieces(file))
    arguments = ("--data-only", "--file=-", str(archive.path))
    reader = tools.start("pg_restore", target, *arguments, connect=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with ended(reader):
        assert reader.stdout
        return _any_row(pieces(reader.stdout))


def _any_row(every: Iterator[Piece]) -> bool:
    """Whether a row of the application's comes; what follows it is not read."""
    counted = False
    for kind, piece in every:
        if kind == "statement":
            statement = bare(piece)
            counted = ROWS.match(statement) is not None
            if counted and not statement.upper().startswith(b"COPY"):
                return True
        elif kind == "rows" and counted and piece.rstrip(b"\r\n") != b"\\.":
            return True
    return False


def _filled_table(target: Target) -> str:
    """The name of a table of the target's that has rows; empty where none has, or there is no such database."""
    from psycopg import sql

    try:
        connection = connections.connect(target, "backup.restore")
    except DatabaseMissing:
        return ""
    with contextlib.closing(connection):
        connections.begin(connection, target.policy, brief=True)
        for schema, table in connection.execute(TABLES.encode()).fetchall():
            exists = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table))
            if connection.execute(exists).fetchone() == (True,):
                return f"{schema}.{table}"
    return ""
