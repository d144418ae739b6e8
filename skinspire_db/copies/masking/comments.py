"""The comments of a masked copy: those that the models have, and no other, as anything can stand in a comment."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from skinspire_db.config.project import Project
from skinspire_db.copies.masking.catalogue import Catalogue
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.schema import models

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def write(aside: Target, project: Project, catalogue: Catalogue) -> None:
    """Write the comments of the models' tables, columns and constraints, where the copy has these.

    Args:
        aside: the copy.
        project: whose models.
        catalogue: the tables and columns that there are.
    """
    columns = {(column.schema, column.table, column.name) for column in catalogue.columns.values()}
    tables = {each[:2] for each in columns}
    with contextlib.closing(connections.connect(aside, "copy")) as connection:
        connections.begin(connection, aside.policy, brief=True)
        connection.execute("SET TRANSACTION READ WRITE")
        for table in models.metadata(project).tables.values():
            names = (table.schema or "public", table.name)
            if names in tables:
                _comment(connection, "TABLE {}", table.comment, names)
                for column in table.columns:
                    if (*names, column.name) in columns:
                        _comment(connection, "COLUMN {}", column.comment, (*names, column.name))
                for constraint in table.constraints:
                    if constraint.name and getattr(constraint, "comment", None):
                        _comment(connection, "CONSTRAINT {} ON {}", constraint.comment, (str(constraint.name),), names)
        connection.commit()


def _comment(connection: Connection, what: str, text: Any, *names: tuple[str, ...]) -> None:
    from psycopg import sql

    if text:
        target = sql.SQL(what).format(*(sql.Identifier(*each) for each in names))
        connection.execute(sql.SQL("COMMENT ON {} IS {}").format(target, sql.Literal(str(text))))
