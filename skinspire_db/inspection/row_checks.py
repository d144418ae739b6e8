"""What triggers and foreign keys promise, looked up in the rows: what was done while they did not fire shows here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from skinspire_db.postgres.connections import Connection

# The operator is the constraint's own; a row with a NULL among its columns refers to nothing (MATCH SIMPLE) but with MATCH FULL.
FOREIGN_KEYS = f"""
    SELECT k.conname, k.conrelid::regclass::text,
           format('SELECT f.* FROM %s AS f WHERE (%s) AND NOT EXISTS (SELECT FROM %s AS p WHERE %s)',
                  format('%I.%I', n.nspname, c.relname),
                  string_agg(format('f.%I IS NOT NULL', a.attname), CASE k.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END),
                  format('%I.%I', rn.nspname, r.relname),
                  string_agg(format('p.%I OPERATOR(%I.%s) f.%I', b.attname, o_n.nspname, o.oprname, a.attname), ' AND '))
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.conpfeqop) AS each (here, there, operator)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = each.here
    JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = each.there
    JOIN pg_operator o ON o.oid = each.operator JOIN pg_namespace o_n ON o_n.oid = o.oprnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND {objects.APPLICATION_SCHEMA}
    GROUP BY k.oid, k.conname, k.conrelid, k.confmatchtype, n.nspname, c.relname, rn.nspname, r.relname ORDER BY 2, 1
"""
AT_ONCE = 20  # tables that one query looks at: a round trip for each of hundreds takes longer than the looking
LOCKED = 100  # tables after which their locks are given back: a server may have room for no more than thousands
# A sequence's column, its own name, and the query of how far each of them is.
SEQUENCES = f"""
    SELECT format('%s.%s', c.relname, a.attname), s.seqrelid::regclass::text, s.seqincrement > 0,
           format('(SELECT %s(%I)::numeric FROM %I.%I), last_value, is_called FROM %s',
                  CASE WHEN s.seqincrement > 0 THEN 'max' ELSE 'min' END, a.attname, n.nspname, c.relname, s.seqrelid::regclass)
    FROM pg_sequence s JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
    WHERE {objects.APPLICATION_SCHEMA}
      AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
"""
SWITCHED_OFF = """
    SELECT DISTINCT format('%s on %s', k.conname, k.conrelid::regclass),
           format('ALTER TABLE %s ENABLE TRIGGER %I;', t.tgrelid::regclass, t.tgname)
    FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint WHERE t.tgisinternal AND t.tgenabled NOT IN ('O', 'A')
"""
# Tables with both columns, and the query of their rows that were made since the trigger file was installed, and that name no user.
UNATTRIBUTED = """
    SELECT c.oid::regclass::text,
           format('SELECT * FROM %%I.%%I WHERE (created_by IS NULL OR updated_by IS NULL) AND created_at >= %%L',
                  n.nspname, c.relname, %(since)s::timestamptz)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(tables)s)
      AND 4 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
               AND (a.attname IN ('created_by', 'updated_by') AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)
                    OR a.attname IN ('created_at', 'updated_at') AND a.atttypid = 'timestamptz'::regtype))
    ORDER BY 1
"""
# A rule can do something else, or nothing, in place of what is written; an unlogged table is empty after a crash.
PASSED_BY = """
    SELECT format('rule %%I on %%s does something in place of what is written', rulename, c.oid::regclass),
           format('DROP RULE %%I ON %%s;', rulename, c.oid::regclass)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.is_instead AND r.ev_type <> '1' AND c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(tables)s)
    UNION ALL
    SELECT format('table %%s is UNLOGGED', c.oid::regclass), format('ALTER TABLE %%s SET LOGGED;', c.oid::regclass) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(logged)s)
"""
# What the role may not do with which table of ours.
DENIED = """
    SELECT c.oid::regclass::text, wanted FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
           unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
    WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(tables)s) AND NOT has_table_privilege(c.oid, wanted)
    ORDER BY 1, 2 LIMIT 10
"""


def loose_rows(connection: Connection) -> tuple[list[tuple[str, str]], int]:
    """Foreign keys that rows violate, for each a sentence and the query that shows the rows, and how many were looked at."""
    keys = search_path.rows(connection, FOREIGN_KEYS)
    found = []
    for begin in range(0, len(keys), AT_ONCE):
        some = keys[begin : begin + AT_ONCE]
        counts = ", ".join(f"(SELECT count(*) FROM ({rows} LIMIT 1000) AS loose)" for _, _, rows in some)
        numbers = connection.execute(f"SELECT {counts}".encode()).fetchone() or ()
        for (name, table, rows), number in zip(some, numbers, strict=True):
            if number:
                count = "1000 or more" if number == 1000 else number
                found.append((f"{name} on {table}: {count} rows refer to nothing", f"{rows} LIMIT 10;"))
    return found, len(keys)


def sequences_behind(connection: Connection, give_back: Callable[[], object]) -> tuple[list[tuple[str, str]], int]:
    """Sequences whose next value a row has already.

    Args:
        connection: an open connection to the database.
        give_back: gives back the locks that were taken so far.

    Returns:
        For each a sentence and the statement that mends it; and how many were looked at.
    """
    owned = connection.execute(SEQUENCES.encode()).fetchall()
    behind = []
    for begin in range(0, len(owned), AT_ONCE):
        if begin and begin % LOCKED == 0:
            give_back()
        some = owned[begin : begin + AT_ONCE]
        queries = " UNION ALL ".join(f"SELECT {number}, {each[3]}" for number, each in enumerate(some))
        for number, highest, last, called in sorted(connection.execute(queries.encode()).fetchall()):
            column, sequence, ascending, _ = some[number]
            if highest is None or (last > highest if ascending else last < highest) or (last == highest and called):
                continue
            literal = "'" + sequence.replace("'", "''") + "'"
            mend = f"SELECT setval({literal}, {highest});"
            behind.append((f"{sequence} is at {last}, {column} at {highest}", mend))
    return behind, len(owned)


def unattributed(connection: Connection, tables: list[str], since: object) -> tuple[list[tuple[str, str]], int]:
    """Tables with rows that do not say by whom they were made.

    Args:
        connection: an open connection to the database.
        tables: the names, with their schemas, of the tables to look at.
        since: only rows that were made from then on count.

    Returns:
        For each such table a sentence and the query that shows the rows; and how many tables were looked at.
    """
    found = search_path.rows(connection, UNATTRIBUTED, {"tables": tables, "since": since})
    wrong: list[tuple[str, str]] = []
    for begin in range(0, len(found), AT_ONCE):
        some = found[begin : begin + AT_ONCE]
        looks = ", ".join(f"EXISTS ({rows})" for _, rows in some)
        answers = connection.execute(f"SELECT {looks}".encode()).fetchone() or ()
        wrong += [
            (f"{table} has rows that do not say by whom they were made or changed", f"{rows} LIMIT 10;")
            for (table, rows), answer in zip(some, answers, strict=True)
            if answer
        ]
    return wrong, len(found)
