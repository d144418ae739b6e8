"""What no restore could bring back, said before it is backed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.errors import StepFailed

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

ROWS = 1000  # of each table and view, on which its expressions are tried
PATIENCE = "30s"  # for each trial; what takes longer is left to `backup.verify --full`
MISSING = ("42883", "42P01", "42704", "3F000")  # no such function, table, type, schema
# What is computed while rows are loaded, or right after, and calls a function without a search_path of its own, by name, by
# an operator or by an aggregate: what it is, a SELECT that computes it, the functions. Nothing computes defaults, policies,
# the expressions of statistics, and constraints that are NOT VALID.
EXPRESSIONS = """
    WITH RECURSIVE functions AS (
        SELECT p.oid, p.oid::regprocedure::text AS name, n.nspname, l.lanname
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
        WHERE p.oid >= 16384 AND p.prokind = 'f' AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s ~ '^search_path=')
    ), calls AS (
        SELECT d.classid, d.objid, d.objsubid, f.name, f.nspname, f.lanname
        FROM pg_depend d LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
        LEFT JOIN pg_aggregate a ON d.refclassid = 'pg_proc'::regclass AND a.aggfnoid = d.refobjid
        JOIN functions f ON f.oid IN (o.oprcode, a.aggtransfn, a.aggfinalfn)
            OR d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid
    ), checked (type, domain, conid) AS (
        SELECT k.contypid, k.contypid, k.oid FROM pg_constraint k
        WHERE k.contypid <> 0 AND k.convalidated AND k.oid IN (SELECT objid FROM calls WHERE classid = 'pg_constraint'::regclass)
        UNION SELECT t.oid, h.domain, h.conid FROM checked h JOIN pg_type t ON h.type IN (t.typelem, t.typbasetype) OR EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = h.type AND NOT a.attisdropped)
    ), reads (view, rule) AS (
        SELECT c.oid, r.oid FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid WHERE c.relkind = 'm' AND c.relispopulated
        UNION SELECT h.view, r.oid FROM reads h JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = h.rule
            AND d.refclassid = 'pg_class'::regclass
        JOIN pg_class v ON v.oid = d.refobjid AND v.relkind = 'v' JOIN pg_rewrite r ON r.ev_class = v.oid AND r.rulename = '_RETURN'
    ), used (what, relid, expression, classid, objid, objsubid) AS (
        SELECT 'the generated column ' || quote_ident(a.attname), a.attrelid, pg_get_expr(d.adbin, d.adrelid), each.*
        FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum, LATERAL (VALUES
            ('pg_class'::regclass, a.attrelid, a.attnum::int), ('pg_attrdef'::regclass, d.oid, 0)) AS each
        WHERE a.attgenerated = 's'
        UNION ALL
        SELECT 'the constraint ' || quote_ident(conname), conrelid, pg_get_expr(conbin, conrelid),
               'pg_constraint'::regclass, oid, 0
        FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 AND convalidated
        UNION ALL
        SELECT 'the index ' || indexrelid::regclass, indrelid, concat_ws(', ', pg_get_expr(indexprs, indrelid),
               pg_get_expr(indpred, indrelid)), 'pg_class'::regclass, indexrelid, NULL
        FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
        UNION ALL
        SELECT 'the partition key', partrelid, pg_get_expr(partexprs, partrelid), 'pg_class'::regclass, partrelid, 0
        FROM pg_partitioned_table WHERE partexprs IS NOT NULL
        UNION ALL
        SELECT format('the domain %s in the column %I', h.domain::regtype, a.attname), a.attrelid,
               format('%I::text::%s', a.attname, format_type(a.atttypid, a.atttypmod)), 'pg_constraint'::regclass, h.conid, 0
        FROM checked h JOIN pg_attribute a ON a.atttypid = h.type AND a.attnum > 0 AND NOT a.attisdropped
    )
    SELECT u.what || ' of ' || u.relid::regclass,
           format('SELECT ROW(%s) AS x FROM %s %s', u.expression, CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY' END, u.relid::regclass),
           array_agg(DISTINCT f.name), min(f.nspname)
    FROM used u JOIN pg_class c ON c.oid = u.relid
    JOIN calls f ON f.classid = u.classid AND f.objid = u.objid AND (u.objsubid IS NULL OR f.objsubid = u.objsubid)
    WHERE c.relkind IN ('r', 'm') OR c.relkind = 'p' AND u.what = 'the partition key'
    GROUP BY 1, 2
    UNION ALL
    SELECT 'the materialized view ' || h.view::regclass,
           format('SELECT ROW(v.*) AS x FROM (%s) AS v', rtrim(pg_get_viewdef(h.view), ';')), array_agg(DISTINCT f.name), min(f.nspname)
    FROM reads h JOIN calls f ON f.classid = 'pg_rewrite'::regclass AND f.objid = h.rule
    WHERE f.lanname NOT IN ('c', 'internal')
    GROUP BY h.view ORDER BY 1
"""  # noqa: E501


def check(connection: Connection) -> None:
    """Try what is computed while a dump is restored, on some rows and as there: without a search_path.

    Raises:
        StepFailed: something would not be found then; it names the function, and what mends it.
    """
    import psycopg

    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL search_path = ''; SET LOCAL statement_timeout = '{PATIENCE}'".encode())
        for what, select, functions, schema in connection.execute(EXPRESSIONS.encode()).fetchall():
            try:
                with connection.transaction():
                    connection.execute(f"SELECT count(s.x) FROM ({select} LIMIT {ROWS}) AS s".encode())  # noqa: S608
            except psycopg.Error as error:
                if error.sqlstate in MISSING:
                    raise StepFailed(
                        f"{what} could not be restored: {', '.join(functions)} calls something by its bare name"
                        f" ({error.diag.message_primary}), and a restore has no search_path",
                        remedy=f"in invoke db.shell: ALTER FUNCTION {functions[0]} SET search_path = {schema}, pg_temp",
                    ) from None
                if connection.closed:
                    raise
