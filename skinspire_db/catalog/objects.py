"""Which objects of a database are the application's: the one definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


# Objects of the application: in a schema of the database's users, and not a part of an extension. The tools' own schema
# is left out everywhere.
USER_SCHEMAS = """
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'skinspire_tools')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = pg_namespace.oid
                      AND d.deptype = 'e')
"""


# In the order in which they are dropped. CASCADE takes the later ones along with the earlier; IF EXISTS forgives that.
OBJECTS = f"""
    WITH schemas AS ({USER_SCHEMAS}), objects (classid, oid, kind, name) AS (
        SELECT 'pg_class'::regclass, c.oid,
               CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                              WHEN 'c' THEN 'TYPE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
               format('%I.%I', s.nspname, c.relname)
        FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c')
           OR c.relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                              AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
        UNION ALL
        SELECT 'pg_proc'::regclass, p.oid,
               'ROUTINE', p.oid::regprocedure::text
        FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace
        UNION ALL
        SELECT 'pg_type'::regclass, t.oid, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
               format('%I.%I', s.nspname, t.typname)
        FROM pg_type t JOIN schemas s ON s.oid = t.typnamespace
        WHERE t.typtype IN ('e', 'd', 'r') OR t.typtype = 'b' AND t.typelem = 0 AND t.typrelid = 0
        UNION ALL
        SELECT 'pg_namespace'::regclass, s.oid, 'SCHEMA', quote_ident(s.nspname) FROM schemas s
        WHERE s.nspname <> 'public' AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = s.oid)
    )
    SELECT kind, name FROM objects o
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.oid AND (d.deptype = 'e'
                      OR d.deptype = 'i' AND d.classid = 'pg_proc'::regclass))  -- a range type's own functions
    ORDER BY name
"""  # noqa: S608


def all_objects(connection: Connection) -> list[tuple[str, str]]:
    """Everything of the application in the database: pairs of kind, as DROP calls it, and quoted name."""
    return [(kind, name) for kind, name in connection.execute(OBJECTS).fetchall()]


def count_tables(connection: Connection) -> int:
    """How many tables the application has in the database."""
    row = connection.execute(
        f"""
        SELECT count(*) FROM pg_class c JOIN ({USER_SCHEMAS}) s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f') AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
        """.encode()  # noqa: S608
    ).fetchone()
    assert row
    return int(row[0])
