"""The baseline: a revision that is the schema as it was when a database was adopted, written by pg_dump."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.catalog.definitions import plain
from skinspire_db.config.project import Project
from skinspire_db.migrations import lines, revisions, version_table
from skinspire_db.migrations.baseline import MARKER
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.client_programs import client_tools
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

NAME = "0001_baseline"
REVISION = '''\
"""Baseline: the schema as it was when {database} was adopted.

What is in {sql} is not run on the database that was adopted: there it is noted as applied.

Revision ID: {revision}
Revises:
"""

from pathlib import Path

from skinspire_db.migrations import baseline

revision = {revision!r}
down_revision = None
branch_labels = None
depends_on = None
{marker} = True  # migrate.downgrade ends here


def upgrade() -> None:
    baseline.make(Path(__file__).with_name({sql!r}))
'''
# pg_dump begins with settings for a session of its own; a revision runs in the tools' transaction, with theirs.
BEGIN = lazy_regex(r"^--\n-- (Name|TOC entry)", re.MULTILINE)
END = lazy_regex(r"--\n-- PostgreSQL database dump complete\n--\n.*\Z", re.DOTALL)


@dataclass(frozen=True)
class Baseline:
    """A baseline revision that is not written yet: its identifier, and the text of its two files by path."""

    revision: str
    files: dict[Path, str]


def draft(connection: Connection, target: Target, project: Project, unused: list[str]) -> Baseline:
    """The baseline of a database's schema, as it is committed.

    Args:
        connection: the database.
        target: where it is, for pg_dump.
        project: whose folder of revisions gets it.
        unused: extensions that nothing uses: not every server has them.

    Raises:
        StepFailed: pg_dump failed.
        ToolMissing: there is none, or only one that is older than the server.
    """
    tools = client_tools(connection.info.server_version)
    table = version_table.find(connection, project)
    without = [f"--exclude-schema={objects.TOOLS_SCHEMA}", f"--exclude-table={table.quoted}"]
    text = tools.run("pg_dump", target, "--schema-only", "--no-owner", "--no-privileges", *without)
    _, folder = lines.following(project, revisions.directory(project))
    sql, code = folder / f"{NAME}.sql", folder / f"{NAME}.py"
    schema = settled(text, _unpopulated(connection), unused)
    schema = schema.replace(f"CREATE SCHEMA {table.schema};", f"CREATE SCHEMA IF NOT EXISTS {table.schema};")
    return Baseline(
        NAME, {sql: schema, code: REVISION.format(database=target.database, sql=sql.name, revision=NAME, marker=MARKER)}
    )


def settled(text: str, unpopulated: set[str], unused: list[str]) -> str:
    """The schema without what pg_dump says of its own session, with its materialized views filled.

    Args:
        text: what pg_dump wrote.
        unpopulated: the materialized views that were never filled, which stay so.
        unused: extensions that are only made where the server offers them.
    """
    if begin := BEGIN.search(text):
        text = END.sub("", text[begin.start() :])
    for name in unused:
        of_it = re.compile(
            rf'^((?:CREATE|COMMENT ON) EXTENSION (?:IF NOT EXISTS )?"?{re.escape(name)}"?\s.*;)$', re.MULTILINE
        )
        when = f"IF EXISTS (SELECT FROM pg_available_extensions WHERE name = '{name}')"
        text = of_it.sub(rf"DO $extension$ BEGIN {when} THEN \1 END IF; END $extension$;", text)

    def filled(view: re.Match[str]) -> str:
        return view[0] if plain(view[1]) in unpopulated else view[0].replace("\n  WITH NO DATA;", ";")

    return re.sub(r"^CREATE MATERIALIZED VIEW (\S+) .*?\n  WITH NO DATA;", filled, text, flags=re.MULTILINE | re.DOTALL)


def _unpopulated(connection: Connection) -> set[str]:
    query = f"""
        SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'm' AND NOT c.relispopulated AND {objects.RELATION}
    """
    return {name for (name,) in connection.execute(query.encode()).fetchall()}
