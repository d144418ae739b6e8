"""The functions and views of a database that SQL files make: how each is named in the ledger, printed, and dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from skinspire_db.errors import NotOurs
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection

# The ledger names a function by its signature, a relation by one of these words and its name. No signature begins with such
# a word and a blank: PostgreSQL quotes it then.
WORDS = ("materialized view", "view", "index", "trigger", "policy")
WORD = "CASE c.relkind WHEN 'm' THEN 'materialized view' WHEN 'v' THEN 'view' ELSE 'index' END"
ROUTINE = """
    CASE p.prokind WHEN 'a' THEN (
        SELECT concat_ws(' ', 'aggregate', p.oid::regprocedure, a.aggkind, a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
                         a.aggsortop::regoperator, a.aggtranstype::regtype, a.agginitval, p.proparallel)
        FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
    ELSE pg_get_functiondef(p.oid) END
"""
RELATION = f"""
    CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) ELSE concat_ws(E'\\n',
        'CREATE ' || upper({WORD}) || ' ' || c.oid::regclass || ' AS', pg_get_viewdef(c.oid),
        '-- with ' || array_to_string(c.reloptions, ', ')) END || E'\\n'
"""
# CREATE OR REPLACE writes a view's rule anew, even with the same words.
ROWS = f"""
    SELECT 'pg_proc'::regclass::oid, oid, ctid::text, oid::regprocedure::text, md5(replace(
        CASE WHEN prosqlbody IS NULL THEN p::text ELSE concat(pg_get_functiondef(oid), proowner, proacl) END, E'\\r', ''))
    FROM pg_proc p WHERE pronamespace <> 'pg_catalog'::regnamespace
    UNION ALL
    SELECT 'pg_class'::regclass::oid, c.oid, concat(c.ctid, r.ctid), {WORD} || ' ' || c.oid::regclass,
           md5(concat(r.ev_action, c.reloptions))
    FROM pg_class c LEFT JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN'
    WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      AND (c.relkind IN ('v', 'm') OR c.relkind = 'i' AND EXISTS (
           SELECT FROM pg_index x JOIN pg_class m ON m.oid = x.indrelid AND m.relkind = 'm' WHERE x.indexrelid = c.oid))
"""  # noqa: S608


class Row(NamedTuple):
    """An object's row in the catalogue: where it lies (one that was written anew lies elsewhere, whatever it says), how the
    ledger names the object, and a hash of what the row says.
    """

    place: str
    key: str
    text: str


Rows = dict[tuple[int, int], Row]  # catalogue and oid -> row


def rows(connection: Connection) -> Rows:
    """Every function that is not PostgreSQL's own, every view, and the indexes of materialized ones."""
    return rows_of(search_path.rows(connection, ROWS))


def rows_of(found: Iterable[tuple[Any, ...]]) -> Rows:
    """The rows that the query ROWS has found."""
    return {(catalogue, oid): Row(*row) for catalogue, oid, *row in found}


def definers(connection: Connection) -> set[str]:
    """The views that read with the rights of their owner, and not of the session's role, as the ledger names them."""
    query = """
        SELECT 'view ' || c.oid::regclass FROM pg_class c WHERE c.relkind = 'v' AND NOT coalesce((
            SELECT option_value::bool FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false)
    """
    return {key for (key,) in search_path.rows(connection, query)}


def is_function(key: str) -> bool:
    """Whether the ledger's name is that of a function."""
    return split(key)[0] == "function"


def split(key: str) -> tuple[str, str]:
    """What kind of object the ledger's name is of, and its name in SQL."""
    for word in WORDS:
        if key.startswith(f"{word} "):
            return word, key.removeprefix(f"{word} ")
    return "function", key


def word(key: str) -> str:
    """What DROP calls an object of the ledger."""
    kind = split(key)[0]
    return "ROUTINE" if kind == "function" else kind.upper()


def _printed(connection: Connection, keys: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Key, statement, owner and fingerprint of each of the objects that exist."""
    keys = sorted(keys)
    functions = [key for key in keys if is_function(key)]
    relations = [key for key in keys if not is_function(key)]
    found = []
    if functions:
        query = f"""
            SELECT signature, text, owner, md5(text || owner)
            FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
            CROSS JOIN LATERAL (SELECT {ROUTINE}, pg_get_userbyid(p.proowner)) AS printed (text, owner)
        """  # noqa: S608
        found += search_path.rows(connection, query, (functions,))
    if relations:
        query = f"""
            SELECT key, text, owner, md5(text || owner)
            FROM unnest(%s::text[], %s::text[]) AS named (key, name) JOIN pg_class c ON c.oid = to_regclass(name)
            CROSS JOIN LATERAL (SELECT {RELATION}, pg_get_userbyid(c.relowner)) AS printed (text, owner)
            WHERE key = {WORD} || ' ' || name
        """  # noqa: S608
        found += search_path.rows(connection, query, (relations, [split(key)[1] for key in relations]))
    return found


def fingerprints(connection: Connection, keys: Iterable[str]) -> dict[str, str]:
    """key -> fingerprint of the definition, owner included, for the objects that exist."""
    return {key: fingerprint for key, _, _, fingerprint in _printed(connection, keys)}


def definitions(connection: Connection, keys: Iterable[str]) -> dict[str, str]:
    """key -> the statement that makes it, as PostgreSQL prints it, and its owner, for the objects that exist."""
    return {key: f"{text}-- owner: {owner}" for key, text, owner, _ in _printed(connection, keys)}


def recorded(connection: Connection, keys: Iterable[str]) -> dict[str, str]:
    """key -> what the ledger keeps of the object: its fingerprint, and the one that it has after a dump and restore where
    PostgreSQL then prints it in other words, such as an IN over varchar.
    """
    found = {}
    for key, text, owner, fingerprint in _printed(connection, keys):
        again = _printed_again(connection, key, text) if "::" in text else None
        row = connection.execute("SELECT md5(%s::text)", (f"{again}{owner}",)).fetchone() if again else None
        found[key] = f"{fingerprint} {row[0]}" if row and row[0] != fingerprint else fingerprint
    return found


def _printed_again(connection: Connection, key: str, text: str) -> str | None:
    """The text as PostgreSQL prints it when it has read its own words; None where they are kept as they were written."""
    import psycopg

    kind, name = split(key)
    if kind == "function" and "BEGIN ATOMIC" not in text:
        return None
    connection.execute(b"SAVEPOINT again")
    try:
        if kind == "function":
            statement, read = text, key
        elif kind == "index":
            statement, read = f"DROP INDEX {name}; {text}", key
        else:
            statement, read = f'CREATE TEMP VIEW "printed again" AS {_query(text)}', 'view "printed again"'
        with search_path.application(connection):
            connection.execute(statement.encode())
        [(_, again, _, _)] = _printed(connection, [read])
        return again if kind in ("function", "index") else text.replace(_query(text), _query(again), 1)
    except psycopg.errors.ProgrammingError:  # what cannot be made anew alone has no other words
        return None
    finally:
        connection.execute(b"ROLLBACK TO SAVEPOINT again; RELEASE SAVEPOINT again")


def _query(text: str) -> str:
    """The query of a view as RELATION prints it, with its semicolon."""
    return text.partition("\n")[2].rpartition(";")[0] + ";"


def same(known: dict[str, str], now: dict[str, str]) -> bool:
    """Whether the objects are as the ledger has them (`recorded`)."""
    return known.keys() == now.keys() and all(now[key] in known[key].split() for key in known)


def is_alike(one: str, other: str) -> bool:
    """Whether two entries of the ledger are of one definition, in whatever words PostgreSQL prints it."""
    return bool(set(one.split()) & set(other.split()))


def drop(connection: Connection, keys: Iterable[str]) -> list[str]:
    """Drop the objects that exist, those that need others before these. No object beyond them is dropped.

    Returns:
        The names of those that were dropped, in that order.

    Raises:
        NotOurs: Something else needs one of them.
    """
    import psycopg

    left, dropped = sorted(fingerprints(connection, keys)), list[str]()
    while left:
        stay: dict[str, psycopg.Error] = {}
        for key in left:
            try:
                with connection.transaction(), search_path.application(connection):  # a savepoint
                    connection.execute(
                        f"DROP {word(key)} {split(key)[1]}".encode()
                    )  # regprocedure's and regclass's own quoting
                dropped.append(key)
            except psycopg.errors.DependentObjectsStillExist as refused:
                stay[key] = refused
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject):  # an index goes with its view
                dropped.append(key)
        if len(stay) == len(left):
            first, because = next(iter(stay.items()))
            needs = "; ".join((because.diag.message_detail or sentence(because)).splitlines())
            raise NotOurs(f"{first} cannot be dropped: {needs}", remedy="make SQL files of what needs it, or drop that first")
        left = list(stay)
    return dropped
