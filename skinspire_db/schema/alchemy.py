"""SQLAlchemy over a connection of psycopg that is open already."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    import sqlalchemy

    from skinspire_db.postgres.connections import Connection


@contextlib.contextmanager
def over(connection: Connection, called: list[str] | None = None) -> Iterator[sqlalchemy.Connection]:
    """SQLAlchemy over an open psycopg connection, in its transaction, which SQLAlchemy can neither end nor close.

    Args:
        connection: an open connection in a transaction.
        called: gets the names of commit(), rollback() and close() when they are called meanwhile; the calls do nothing.
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


@contextlib.contextmanager
def constraints_kept(models: sqlalchemy.MetaData) -> Iterator[None]:
    """Leave the models as they are: SQLAlchemy marks each constraint for which it writes ALTER TABLE, and leaves it out of
    every later CREATE TABLE in this process.

    Args:
        models: The tables whose statements are written inside the block.
    """
    rules = {each: each._create_rule for table in models.tables.values() for each in table.constraints}
    try:
        yield
    finally:
        for constraint, rule in rules.items():
            constraint._create_rule = rule
