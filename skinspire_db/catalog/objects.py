"""Which objects of a database are the application's: the one definition, for every catalogue query."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


TOOLS_SCHEMA = "skinspire_tools"

# Conditions for catalogue queries in which pg_namespace is n.
USER_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"  # the tools' own schema is one
APPLICATION_SCHEMA = f"{USER_SCHEMA} AND n.nspname <> '{TOOLS_SCHEMA}'"


def depends(oid: str, catalogue: str, kinds: str) -> str:
    """A condition: the object is a part of another one.

    Args:
        oid: its oid, as the query has it, such as "c.oid".
        catalogue: the catalogue that it is a row of, such as "pg_class".
        kinds: letters of pg_depend.deptype: "e" for a part of an extension, "i" for what PostgreSQL made with another object,
            "a" for what is dropped with another object, such as a serial column's sequence.
    """
    letters = ", ".join(f"'{kind}'" for kind in kinds)
    return (
        f"EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid}"
        f" AND d.deptype IN ({letters}))"
    )


def quoted_name(*names: str) -> str:
    """The names quoted as SQL identifiers, with dots between."""
    from psycopg import sql

    return sql.Identifier(*names).as_string()


def no_extensions(oid: str, catalogue: str) -> str:
    """A condition: no extension owns the object (arguments as those of `depends`)."""
    return f"NOT {depends(oid, catalogue, 'e')}"


def application(oid: str, catalogue: str) -> str:
    """A condition: the object is the application's, in a schema of its own and owned by no extension."""
    return f"{APPLICATION_SCHEMA} AND {no_extensions(oid, catalogue)}"


USER_RELATION = f"{USER_SCHEMA} AND {no_extensions('c.oid', 'pg_class')}"  # a pg_class row c, the tools' too
RELATION = application("c.oid", "pg_class")
FUNCTION = application("p.oid", "pg_proc")  # a pg_proc row p
# Alembic's table of revisions, whatever an application's env.py calls it: version_num is its only column.
ALEMBICS = (
    "(c.relkind = 'r' AND ((n.nspname, c.relname) = ('public', 'alembic_version') OR c.relnatts = 1 AND EXISTS ("
    "SELECT FROM pg_attribute v WHERE v.attrelid = c.oid AND v.attnum = 1 AND v.attname = 'version_num'"
    " AND v.atttypid = 'varchar'::regtype)))"
)
NOT_ALEMBICS = f"NOT {ALEMBICS}"
APPLICATION_SCHEMAS = f"SELECT n.oid, n.nspname FROM pg_namespace n WHERE {application('n.oid', 'pg_namespace')}"  # noqa: S608

# In the order in which they are dropped. CASCADE takes the later ones along with the earlier; IF EXISTS forgives that.
OBJECTS = f"""
    WITH schemas AS ({APPLICATION_SCHEMAS}), objects (classid, oid, kind, name) AS (
        SELECT 'pg_class'::regclass, c.oid,
               CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                              WHEN 'c' THEN 'TYPE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
               format('%I.%I', s.nspname, c.relname)
        FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c')
           OR c.relkind = 'S' AND NOT {depends("c.oid", "pg_class", "ai")}
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


def version_tables(connection: Connection) -> list[tuple[str, str]]:
    """Schema and name of each table of Alembic's form: one, but where several applications share the database."""
    query = f"""
        SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {ALEMBICS} AND {APPLICATION_SCHEMA} ORDER BY 1, 2
    """  # noqa: S608
    return [(schema, name) for schema, name in connection.execute(query.encode()).fetchall()]


def count_tables(connection: Connection) -> int:
    """How many tables the application has in the database."""
    row = connection.execute(
        f"""
        SELECT count(*) FROM pg_class c JOIN ({APPLICATION_SCHEMAS}) s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f') AND {no_extensions("c.oid", "pg_class")}
        """.encode()  # noqa: S608
    ).fetchone()
    assert row
    return int(row[0])
