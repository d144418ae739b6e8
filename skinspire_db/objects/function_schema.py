"""Where the functions of trigger files are made: in the schema that the project names, beside an owner's of that name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

if TYPE_CHECKING:
    from skinspire_db.objects.files import SqlFile
    from skinspire_db.postgres.connections import Connection

PUBLIC = "public"
COMMENT = "made by skinspire-db for the functions of trigger files"


@dataclass(frozen=True)
class FunctionSchema:
    """A schema, and the functions that are made there though the files write `public.` or nothing before their names.

    Attributes:
        name: The schema.
        functions: The names of the functions of all trigger files.
    """

    name: str = PUBLIC
    functions: frozenset[str] = frozenset()

    def text(self, sql: str) -> str:
        """SQL in which these functions are called in the schema; its lines stay where they are."""
        if self.name == PUBLIC or not self.functions:
            return sql
        names = "|".join(map(re.escape, sorted(self.functions)))
        return re.sub(rf'(?<![\w"])public\.({names})(?=\s*\()', rf'"{self.name}".\1', sql)

    def place(self, file: SqlFile) -> SqlFile:
        """The file with its functions, and what it attaches, in the schema."""
        if self.name == PUBLIC:
            return file
        attachments = tuple(
            replace(each, function=f"{self.name}.{each.function}") if each.function in self.functions else each
            for each in file.attachments
        )
        return replace(file, text=self.text(file.text), attachments=attachments, functions=self)


def declared(project: Project, files: Iterable[SqlFile]) -> FunctionSchema:
    """What `function_schema` in pyproject.toml says.

    Args:
        project: The project.
        files: Its trigger files.

    Returns:
        The schema; public where the key is not set.

    Raises:
        InvalidSetting: The key is no name of a schema, or one of a schema that is not the application's.
    """
    name = project.config.get("function_schema", PUBLIC)
    taken = ("information_schema", "skinspire_tools")
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name)
        or name.startswith("pg_")
        or name in taken
    ):
        raise InvalidSetting(
            f"function_schema = {name!r} in pyproject.toml is no name for a schema of the application",
            remedy='write it as function_schema = "skinspire", of a-z, 0-9 and _',
        )
    if name == PUBLIC:  # then nothing is placed, and no file need be searched for what it makes
        return FunctionSchema()
    return FunctionSchema(name, frozenset(each for file in files for each in made_in_public(file)))


def made_in_public(file: SqlFile) -> list[str]:
    """The names of the functions that the file makes in public: those that it writes with that schema or with none."""
    names = (name for kind, name, _ in file.creates() if kind == "function")
    return [re.sub(r"^public\s*\.\s*", "", name) for name in names if "." not in name or re.match(r"public\s*\.", name)]


def make(connection: Connection, files: Iterable[SqlFile]) -> None:
    """Make the schema of these files where it is missing; every role may use what is in it, as in public."""
    from psycopg import sql

    for name in {file.functions.name for file in files} - {PUBLIC}:
        if connection.execute("SELECT to_regnamespace(quote_ident(%s)) IS NULL", (name,)).fetchone() == (True,):
            statement = "CREATE SCHEMA {0}; GRANT USAGE ON SCHEMA {0} TO PUBLIC; COMMENT ON SCHEMA {0} IS {1}"
            connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Literal(COMMENT)))


def drop_former(connection: Connection, files: Iterable[SqlFile]) -> None:
    """Drop a schema that `make` has made, that these files do not use any more, and that holds nothing."""
    from psycopg import sql

    query = """
        SELECT n.nspname FROM pg_namespace n
        WHERE obj_description(n.oid, 'pg_namespace') = %s AND NOT n.nspname = ANY (%s)
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid)
    """
    for (name,) in connection.execute(query, (COMMENT, [file.functions.name for file in files])).fetchall():
        connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(name)))
