"""What a page shows of all tables at once, beside what db.inspect asks: the columns have the same names."""

from skinspire_db.inspection.queries import FREE, FUNCTION, LOCKED, OF_TABLE, RELATION

INDEXES = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS table, x.relname AS index, i.indisvalid AS valid,
           CASE WHEN {FREE} THEN pg_relation_size(x.oid) END AS bytes, pg_stat_get_numscans(x.oid) AS scans,
           CASE WHEN {FREE} THEN pg_get_indexdef(x.oid) END AS definition
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm') AND {OF_TABLE} ORDER BY 1, 2, 3
"""
# Foreign keys have a query of their own, and NOT NULL is said of the column.
CONSTRAINTS = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS table, k.conname AS constraint, k.convalidated AS valid,
           CASE WHEN {FREE} THEN pg_get_constraintdef(k.oid) END AS definition
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype IN ('p', 'u', 'c', 'x') AND {OF_TABLE} ORDER BY 1, 2, k.contype <> 'p', 3
"""
POLICIES = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS table, p.polname AS policy, c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
           CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END
           AS command,
           ARRAY(SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r)::text END FROM unnest(p.polroles) r) AS roles,
           CASE WHEN {FREE} THEN pg_get_expr(p.polqual, p.polrelid) END AS using,
           CASE WHEN {FREE} THEN pg_get_expr(p.polwithcheck, p.polrelid) END AS with_check
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {OF_TABLE} ORDER BY 1, 2, 3
"""
# PostgreSQL fires a table's triggers in this order.
TRIGGERS = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS table, t.tgname AS trigger, t.tgfoid::regprocedure::text AS function, p.prosrc AS source,
           quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS qualified, obj_description(t.tgfoid, 'pg_proc') AS comment,
           CASE WHEN {FREE} THEN pg_get_triggerdef(t.oid) END AS definition
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND {OF_TABLE} ORDER BY 1, 2, t.tgtype & 2 = 0, 3
"""
FUNCTIONS = f"""
    SELECT n.nspname AS schema, p.proname AS function, pg_get_function_identity_arguments(p.oid) AS arguments,
           p.oid::regprocedure::text AS signature, CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END AS definition,
           obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {FUNCTION} ORDER BY 1, 2, 3
"""
VIEWS = f"""
    SELECT n.nspname AS schema, c.relname AS table, c.relkind = 'm' AS materialized, pg_get_viewdef(c.oid) AS definition
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {RELATION} ORDER BY 1, 2
"""
