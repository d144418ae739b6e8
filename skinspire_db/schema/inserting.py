"""Rows by SQLAlchemy, with the defaults of the models that PostgreSQL does not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from skinspire_db.schema.alchemy import over
from skinspire_db.schema.blueprint import dialect, name_of

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from skinspire_db.postgres.connections import Connection


def insert(connection: Connection, models: MetaData, name: str, rows: list[dict[str, Any]]) -> None:
    """Add rows to a table of the models: PostgreSQL reads what they give, SQLAlchemy adds the defaults of what they do not.

    Args:
        connection: The database.
        models: The tables.
        name: The table with its schema.
        rows: As JSON has them, by column.

    Raises:
        psycopg.Error: PostgreSQL refuses a row.
    """
    import sqlalchemy

    table = next(each for each in models.tables.values() if name_of(each) == name)
    place = dialect().identifier_preparer.format_table(table)
    with over(connection) as alchemist:
        for row in rows:  # one by one: a default is asked for once in a statement
            given = sqlalchemy.text(f"jsonb_populate_record(NULL::{place}, CAST(:row AS jsonb)) AS given")
            names = [table.c[column].name for column in row]
            values: Any = sqlalchemy.select(*(sqlalchemy.literal_column(_quoted(column)) for column in names)).select_from(
                given
            )
            statement = table.insert().from_select(names, values, include_defaults=True)
            try:
                alchemist.execute(statement, {"row": json.dumps(row)})
            except sqlalchemy.exc.DBAPIError as error:
                raise (error.orig or error) from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
