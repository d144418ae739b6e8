"""The hash of a row: SQL for each table, from what the catalogue says of its columns.

PostgreSQL's own hash of a row (hash_record_extended, 14 and newer) takes a third of the time of its text's, but is made for
equality. It does not tell apart -5 and 5 of numeric, NaN and infinity, arrays of other bounds, 1.0 and 1.00, [[1]] and [1] of
jsonb, 1 and 4294967296 of bigint; and it is a sum over the columns, so that two rows that exchange a value have the same sum.
So columns are hashed by PostgreSQL's hash only where that is of every bit, and by their text otherwise.

Hashes are those of one major version of PostgreSQL, and of servers whose processors have the same byte order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.catalog import objects

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

CURRENT, FORMER = "columns", "record"  # kinds of hashes, as manifests name them; those before version 2 have the former
KINDS = (CURRENT, FORMER)
COUNTED = "0"  # in place of a hash: the rows are only counted
# Not t::text: the table's owner may have made a cast of its rows to text, which would run with our rights.
OF_RECORD, OF_TEXT = "hash_record_extended(t, 0)", "hashtextextended(format('%s', t), 0)"

# Types of pg_catalog whose extended hash is of every bit; of text and varchar under a deterministic collation. What can be
# called by name takes half the time.
BY_NAME = {
    "int2": "hashint2extended", "int4": "hashint4extended", "oid": "hashoidextended", "uuid": "uuid_hash_extended",
    "text": "hashtextextended", "varchar": "hashtextextended", "bpchar": "hashbpcharextended", "name": "hashnameextended",
}  # fmt: skip
EXACT = (*BY_NAME, "bool", "char", "date", "inet", "cidr", "macaddr", "macaddr8")
# Types of 64 bits, whose hash is of their two halves' XOR: with the upper half beside it, it is of every bit. 4294.967296
# seconds are 2^32 microseconds.
HALVES = {
    "int8": "{0} >> 32",
    "timestamp": "date_bin('4294.967296 s', {0}, timestamp '2000-01-01')",
    "timestamptz": "date_bin('4294.967296 s', {0}, timestamptz '2000-01-01 00:00+00')",
}
AT_ONCE = 50  # columns in one ROW(), and in one pair of parentheses: neither may be of 1,600

WANTED = """
    (%(only)s::text[] IS NULL
     OR format('"%%s"."%%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) = ANY (%(only)s))
"""
# Every table that has rows of its own: also the tools', which a copy brings along, but not extensions', whose rows a dump
# leaves to them, nor materialized views, which are made anew. Only heaps have their rows by block.
TABLES = f"""
    SELECT n.nspname, c.relname,
           CASE WHEN c.relam = 2 THEN pg_relation_size(c.oid) / current_setting('block_size')::int ELSE 0 END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {objects.USER_RELATION} AND {WANTED}
    ORDER BY pg_table_size(c.oid) DESC, 1, 2
"""  # noqa: S608
# Columns in the order of their names, as partitions can have them in another order. The values of virtual columns are stored
# nowhere. bpchar ignores spaces at the end, of which char(n) has as many as fit.
COLUMNS = f"""
    SELECT n.nspname, c.relname, a.attname,
           CASE WHEN b.typnamespace <> 'pg_catalog'::regnamespace OR coalesce(NOT l.collisdeterministic, false) THEN ''
                WHEN b.typname = 'bpchar' AND (t.typtype = 'd' OR a.atttypmod < 0) THEN '' ELSE b.typname::text END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
    JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {objects.USER_RELATION} AND {WANTED}
    ORDER BY a.attname COLLATE "C"
"""  # noqa: S608
# Whether a column is of a type whose values are oids, or of one made of such, or of one of these kinds.
OIDS = """
    EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem
            LEFT JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), e.typbasetype)
            LEFT JOIN pg_type be ON be.oid = b.typelem
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              AND (t.typname ~ '^_?reg' OR b.typname ~ '^_?reg' OR t.typtype IN ({kinds}) OR e.typtype IN ({kinds})
                   OR b.typtype IN ({kinds}) OR be.typtype IN ({kinds})))
"""
# The tables whose rows' own hash would be of oids, which mean something else in a copy: an enum's label, a table's name.
OF_OIDS = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND {OIDS.format(kinds="'c', 'e'")}
"""  # noqa: S608


def tables(connection: Connection, kind: str, only: set[str] | None = None) -> list[tuple[str, int, str]]:
    """The tables that have rows, the largest first: quoted name, blocks (0 where rows have none), SQL of a row's hash.

    Args:
        connection: the database.
        kind: of hashes.
        only: the quoted names of the tables that are wanted; None for all.
    """
    # Asked for by name: another one's size cannot be had while it is being filled.
    wanted = {"only": None if only is None else list(only)}
    listed = connection.execute(TABLES.encode(), wanted).fetchall()
    if kind == FORMER:
        of_oids = set(connection.execute(OF_OIDS.encode()).fetchall())
        hashes = {each[:2]: OF_TEXT if each[:2] in of_oids else OF_RECORD for each in listed}
    else:
        columns: dict[tuple[str, str], list[tuple[str, str]]] = {each[:2]: [] for each in listed}
        for schema, table, column, type_name in connection.execute(COLUMNS.encode(), wanted).fetchall():
            columns.get((schema, table), []).append((f"t.{objects.quoted_name(column)}", type_name))
        hashes = {table: _of(each) for table, each in columns.items()}
    return [(objects.quoted_name(*each[:2]), int(each[2]), hashes[each[:2]]) for each in listed]


def _of(columns: list[tuple[str, str]]) -> str:
    """The hash of a row of columns with the names of their types, "" for one of which only the text tells values apart.

    It is the XOR of the columns' hashes, each with a seed of its own. The last function keeps the sum of rows from being one
    of columns, each of which would be the same for rows that exchanged values.
    """
    terms, together = [], []
    for seed, (column, type_name) in enumerate(columns, 1):
        if function := BY_NAME.get(type_name):
            terms.append(f"coalesce({function}({column}, {seed}), 0)")
        elif type_name in EXACT:
            together.append(column)
        elif half := HALVES.get(type_name):
            together += [column, half.format(column)]
        elif type_name == "jsonb":  # its cast to text is the server's own, and faster than format()
            terms.append(f'coalesce(hashtextextended({column}::text COLLATE "C", {seed}), 0)')
        else:  # the text of NULL is empty, as others can be; IS NULL holds for a row of NULLs, too
            terms.append(
                f"""hashtextextended(format('%s', {column}) COLLATE "C", {seed} - {len(columns)} * num_nulls({column}))"""
            )
    for start in range(0, len(together), AT_ONCE):
        terms.append(f"hash_record_extended(ROW({', '.join(together[start : start + AT_ONCE])}), {len(columns) + 1 + start})")
    groups = ["(" + " # ".join(terms[start : start + AT_ONCE]) + ")" for start in range(0, len(terms), AT_ONCE)]
    return f"hashint4extended(0, {' # '.join(groups) or '0'})"
