"""What no restore could bring back, said before it is backed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.errors import StepFailed

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

ROWS = 1000  # of each table, on which its expressions are tried
MISSING = ("42883", "42P01", "42704", "3F000")  # no such function, table, type, schema
# What is computed while rows are loaded, or right after: kind, table, expression, the functions of others that it calls.
EXPRESSIONS = """
    WITH used (kind, relid, expression, classid, objid, objsubid) AS (
        SELECT 'the generated column ' || quote_ident(a.attname), a.attrelid, pg_get_expr(d.adbin, d.adrelid),
               'pg_class'::regclass, a.attrelid, a.attnum::int
        FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated = 's'
        UNION ALL
        SELECT 'the constraint ' || quote_ident(conname), conrelid, pg_get_expr(conbin, conrelid),
               'pg_constraint'::regclass, oid, 0
        FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0
        UNION ALL
        SELECT 'the index ' || indexrelid::regclass, indrelid, concat_ws(', ', pg_get_expr(indexprs, indrelid),
               pg_get_expr(indpred, indrelid)), 'pg_class'::regclass, indexrelid, NULL
        FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
    )
    SELECT u.kind, u.relid::regclass::text, u.expression, string_agg(DISTINCT p.oid::regprocedure::text, ', '),
           min(n.nspname)
    FROM used u JOIN pg_depend d ON d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384 AND (
        d.classid = u.classid AND d.objid = u.objid AND (u.objsubid IS NULL OR d.objsubid = u.objsubid)
        OR d.classid = 'pg_attrdef'::regclass
           AND d.objid = (SELECT oid FROM pg_attrdef WHERE u.kind ~ '^the gen' AND adrelid = u.objid AND adnum = u.objsubid))
    JOIN pg_proc p ON p.oid = d.refobjid JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_class c ON c.oid = u.relid
    WHERE c.relkind IN ('r', 'm') AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s ~ '^search_path=')
    GROUP BY 1, 2, 3 ORDER BY 2, 1
"""


def check(connection: Connection) -> None:
    """Try what is computed while a dump is restored, on some rows and as there: without a search_path.

    Raises:
        StepFailed: something would not be found then; it names the function, and what mends it.
    """
    import psycopg

    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL search_path = ''")
        found = connection.execute(EXPRESSIONS.encode()).fetchall()
        for kind, table, expression, functions, schema in found:
            try:
                with connection.transaction():
                    tried = f"SELECT ROW({expression}) AS x FROM ONLY {table} LIMIT {ROWS}"  # noqa: S608
                    connection.execute(f"SELECT count(s.x) FROM ({tried}) AS s".encode())  # noqa: S608
            except psycopg.Error as error:
                if error.sqlstate in MISSING:
                    raise StepFailed(
                        f"{kind} of {table} could not be restored: {functions} calls something by its bare name"
                        f" ({error.diag.message_primary}), and a restore has no search_path",
                        remedy=f"in invoke db.shell: ALTER FUNCTION {functions.split('), ')[0].rstrip(')')})"
                        f" SET search_path = {schema}, pg_temp",
                    ) from None
                if connection.closed:
                    raise
