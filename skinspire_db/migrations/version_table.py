"""The table in which a database notes its revisions: Alembic's, under the name that the application gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from skinspire_db.catalog import objects
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting
from skinspire_db.migrations import locations, revisions

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

DEFAULT = "alembic_version"


class VersionTable(NamedTuple):
    """A schema and a table in it."""

    schema: str
    name: str

    def __str__(self) -> str:
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """The name as SQL has it."""
        from psycopg import sql

        return sql.Identifier(*self).as_string()


def find(connection: Connection, project: Project) -> VersionTable:
    """Where the revisions are noted, or would be.

    Args:
        connection: the database.
        project: whose settings name the table; where they do not, the database is asked for one with its revisions.

    Raises:
        InvalidSetting: the setting is no name of a table.
        SkinspireError: what revisions.directory() raises, where the files have to be asked.
    """
    return named(project) or _other(connection, project) or VersionTable("public", DEFAULT)


def named(project: Project) -> VersionTable | None:
    """The table that the project's settings name: `version_table` in pyproject.toml, else that of Alembic's own settings.

    Raises:
        InvalidSetting: it is no name.
    """
    settings = locations.alembic_settings(project)
    own = project.config.get("version_table")
    if own is not None and not (isinstance(own, str) and own.strip(".")):
        raise InvalidSetting(
            "version_table in pyproject.toml is no name of a table", remedy='write version_table = "schema.table"'
        )
    schema, _, name = (own or "").rpartition(".")
    if own is None and not {"version_table", "version_table_schema"} & settings.keys():
        return None
    return VersionTable(
        schema or ("" if own else settings.get("version_table_schema", "")) or "public",
        name or settings.get("version_table", DEFAULT),
    )


def advice(connection: Connection, project: Project) -> list[str]:
    """What to write into pyproject.toml where the table was found in the database alone; nothing where a setting names it."""
    other = None if named(project) else _other(connection, project)
    if other is None:
        return []
    return [f'its revisions are in the table {other}: write version_table = "{other}" into [tool.skinspire_db]']


def _other(connection: Connection, project: Project) -> VersionTable | None:
    """The only table of Alembic's form with another name that has revisions of the project, where the usual one has none."""
    usual, there = VersionTable("public", DEFAULT), [VersionTable(*each) for each in objects.version_tables(connection)]
    if there in ([], [usual]):
        return None
    known = revisions.identifiers(revisions.directory(project))
    found = [each for each in there if (at := set(read(connection, each))) and at <= known]
    return found[0] if len(found) == 1 and found != [usual] else None


def read(connection: Connection, table: VersionTable) -> list[str]:
    """The revisions that a table notes; none where it is missing."""
    if connection.execute("SELECT to_regclass(%s)", (table.quoted,)).fetchone() == (None,):
        return []
    query = f"SELECT version_num FROM {table.quoted} ORDER BY 1"  # noqa: S608
    return [name for (name,) in connection.execute(query.encode()).fetchall()]


def noted(connection: Connection) -> list[str]:
    """The revisions that any of the database's tables of revisions notes."""
    return [name for each in objects.version_tables(connection) for name in read(connection, VersionTable(*each))]


def make(connection: Connection, table: VersionTable) -> None:
    """Make the table where it is missing, as Alembic makes it, and its schema, which Alembic expects to be there."""
    from psycopg import sql

    names = table.quoted, sql.Identifier(table.schema).as_string()
    there = connection.execute("SELECT to_regclass(%s) IS NOT NULL, to_regnamespace(%s) IS NOT NULL", names).fetchone()
    if there is None or there[0]:
        return
    if not there[1]:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(table.schema)))
    connection.execute(
        sql.SQL("CREATE TABLE {} (version_num varchar(32) NOT NULL, CONSTRAINT {} PRIMARY KEY (version_num))").format(
            sql.Identifier(*table), sql.Identifier(f"{table.name}_pkc")
        )
    )
