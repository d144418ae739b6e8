"""Which schemas PostgreSQL searches for names without a schema.

A role that may create objects in public can make a function or operator whose argument types match a call better than
PostgreSQL's own, and a session that makes that call runs the role's code. So the tools' own queries never search public;
only what makes the application's objects does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skinspire_db.postgres.side_by_side import alone

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

TOOLS = "pg_catalog, pg_temp"  # pg_temp last: without it, temporary tables and types would be found before all others
PIN = f"SET LOCAL search_path = {TOOLS}"
# The former setting is kept in one of our own, so that a query between the two needs no round trip of its own for it.
KEEP = f"SELECT pg_catalog.set_config('skinspire.search_path', pg_catalog.current_setting('search_path'), true); {PIN}"
PUT_BACK = "SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('skinspire.search_path'), true)"
SCHEMA_OF_PGCRYPTO = (
    "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pgcrypto'"
)
# Hosted servers keep extensions in a schema of their own; the functions of pgcrypto must be found there too.
SWITCH = f"""
    SELECT pg_catalog.set_config('search_path', 'public, '
        || coalesce((SELECT quote_ident(nspname) || ', ' FROM ({SCHEMA_OF_PGCRYPTO} AND n.nspname <> 'public') AS found), '')
        || 'pg_temp', true)
"""  # noqa: S608


@contextlib.contextmanager
def application(connection: Connection, first: str = "public", then: str = "") -> Iterator[None]:
    """Search the application's schema while the block runs: for its DDL, trigger files, proofs and revisions.

    Args:
        connection: Where.
        first: A schema that is searched before public, and in which objects are made; a plain name.
        then: A statement that the block begins with.
    """
    with _searching(connection, "; ".join(filter(None, (PIN, _switch(first), then)))):
        yield


def paths(connection: Connection) -> tuple[str, str]:
    """The search path as it is, and as application() makes it."""
    cursor = connection.execute(f"{KEEP}; {SWITCH}; {PUT_BACK}".encode())
    caller = cursor.fetchone()  # each set_config() answers with what it sets
    cursor.nextset()
    cursor.nextset()
    application = cursor.fetchone()
    assert caller and application
    return caller[0], application[0]


def _switch(first: str) -> str:
    before = f"; SELECT set_config('search_path', '\"{first}\", ' || current_setting('search_path'), true)"
    return SWITCH + (before if first != "public" else "")


@contextlib.contextmanager
def tools(connection: Connection) -> Iterator[None]:
    """Search PostgreSQL's own schema alone while the block runs. After an error the setting is rolled back with the rest."""
    with _searching(connection, PIN):
        yield


@contextlib.contextmanager
def _searching(connection: Connection, change: str) -> Iterator[None]:
    with alone(connection):
        former = connection.execute(f"SELECT pg_catalog.current_setting('search_path'); {change}".encode()).fetchone()
        yield
        connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", former)


def rows(connection: Connection, query: str, parameters: Any = None, row_factory: Any = None) -> list[Any]:
    """The rows of a query of ours that prints objects' names: those of public without their schema, as people write them.

    All is one message: an operation asks dozens of times, and its server may be far away. The names in the query itself are
    looked up when the cursor is declared, before public is searched.
    """
    import psycopg

    if parameters is not None:  # in one message with others, the server binds none
        query = psycopg.ClientCursor(connection).mogrify(query.encode(), parameters)
    with _transaction(connection):
        cursor = connection.cursor(row_factory=row_factory) if row_factory else connection
        return next(_fetched(cursor.execute(_naming([query]).encode())))


def several(connection: Connection, queries: Mapping[str, str]) -> dict[str, list[Any]]:
    """The rows of several such queries without parameters, all of them in one message."""
    with _transaction(connection):
        cursor = connection.execute(_naming(queries.values()).encode())
        return dict(zip(queries, _fetched(cursor), strict=True))


def after_each(
    connection: Connection, scripts: Iterable[tuple[str, str]], queries: Sequence[str]
) -> list[tuple[list[Any], ...]]:
    """Run scripts, all of them in one message, and queries after each.

    Args:
        connection: In a transaction.
        scripts: Each with the schema that is searched before public.
        queries: As several() takes them.

    Returns:
        The rows of the queries after each script. Where a script has a FETCH of its own, not as many as there are scripts.
    """
    asked = f"; {_naming(queries)}" if queries else ""
    texts = [f"{KEEP}; {_switch(first)};\n{script}\n;{PUT_BACK}{asked}" for script, first in scripts]
    found = list(_fetched(connection.execute(";\n".join(texts).encode())))
    return list(zip(*(found[at :: len(queries)] for at in range(len(queries))), strict=False))


def _naming(queries: Iterable[str]) -> str:
    declared = [f"DECLARE naming_{n} NO SCROLL CURSOR FOR {query}\n" for n, query in enumerate(queries)]
    fetched = [f"FETCH ALL FROM naming_{n}; CLOSE naming_{n}" for n in range(len(declared))]
    return "; ".join((KEEP, *declared, SWITCH, *fetched, PUT_BACK))


def _fetched(cursor: Any) -> Iterator[list[Any]]:
    """The rows of each FETCH, in their order."""
    while True:
        if (cursor.statusmessage or "").startswith("FETCH"):
            yield cursor.fetchall()
        if not cursor.nextset():
            return


def _transaction(connection: Connection) -> contextlib.AbstractContextManager[Any]:
    """A transaction where none is open yet, which a connection in autocommit needs for a cursor."""
    from psycopg.pq import TransactionStatus

    idle = connection.info.transaction_status == TransactionStatus.IDLE
    return connection.transaction() if connection.autocommit and idle else contextlib.nullcontext()
