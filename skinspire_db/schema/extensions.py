"""The extensions that the database needs: which they are, which are missing, making them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, PermissionMissing
from skinspire_db.postgres import error_text, search_path
from skinspire_db.schema import models

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

TO_INSTALL = " to install it on the server (most are in its package postgresql-contrib), and"
CORE_EXTENSIONS = ("pgcrypto",)  # passwords are hashed with its crypt()


def wanted(project: Project) -> list[str]:
    """The extensions that the database needs: the core's where it is content, and `extensions` of [tool.skinspire_db].

    Raises:
        InvalidSetting: `extensions` is no list of names.
        ModelsInvalid: as `models.load`.
    """
    own = project.config.get("extensions", [])
    if not isinstance(own, list) or not all(isinstance(each, str) for each in own):
        raise InvalidSetting("extensions in pyproject.toml is no list of names", remedy='write extensions = ["citext"]')
    return sorted({*(CORE_EXTENSIONS if models.has_core(project) else ()), *own})


def missing(connection: Connection, needed: list[str]) -> list[str]:
    """Those of the needed extensions that the database lacks."""
    present = {name for (name,) in connection.execute("SELECT extname FROM pg_extension").fetchall()}
    return [each for each in needed if each not in present]


def create(connection: Connection, needed: list[str]) -> None:
    """Make the needed extensions that the database lacks.

    Raises:
        PermissionMissing: the role may not, or the server does not have one; the remedy is what to ask the administrator for.
    """
    import psycopg
    from psycopg import sql

    for extension in missing(connection, needed):
        try:
            with search_path.application(connection):  # an extension lies where the application's own objects do
                connection.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(extension)))
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.UndefinedFile,
        ) as error:
            absent = error_text.install_extension(str(error.diag.message_primary)) is not None
            raise PermissionMissing(
                f"the extension {extension} cannot be created: {error.diag.message_primary}",
                remedy=f"ask the administrator{TO_INSTALL if absent else ''} for: CREATE EXTENSION {extension}",
            ) from None
