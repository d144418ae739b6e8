/*
level  = "error"
title  = "view that passes by row security"
why    = "it reads tables with row security by the rights of its owner, whoever asks"
remedy = "let it read by the rights of who asks"
manual = "CREATE VIEW: security_invoker (sql-createview)"
*/
WITH RECURSIVE reads (relation) AS (
    SELECT oid FROM relations WHERE relrowsecurity
    UNION
    SELECT w.ev_class FROM reads
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reads.relation
    JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
)
SELECT c.oid::regclass::text AS object, 'not security_invoker, and it reads a table with row security' AS detail,
       format('ALTER VIEW %s SET (security_invoker = true);', c.oid::regclass) AS remedy
FROM relations c JOIN reads ON reads.relation = c.oid
WHERE c.relkind = 'v' AND NOT coalesce(
    (SELECT option_value::bool FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_invoker'), false)
