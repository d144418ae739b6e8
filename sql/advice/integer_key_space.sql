/*
level  = "warning"
title  = "integer key that nears the end of its type"
why    = "beyond the end every INSERT fails"
remedy = "make the column bigint, and those that refer to it"
manual = "Numeric Types: Integer Types (datatype-numeric)"
limit  = 70
*/
SELECT format('%s.%I', c.oid::regclass, a.attname) AS object,
       format('the highest known number is at %s %% of %s, by the last ANALYZE', round(percent), a.atttypid::regtype) AS detail,
       format('ALTER TABLE %s ALTER %I TYPE bigint;', c.oid::regclass, a.attname) AS remedy
FROM relations c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid IN ('int2'::regtype, 'int4'::regtype)
CROSS JOIN LATERAL (
    SELECT 100 * max(abs(number::numeric)) / CASE a.atttypid WHEN 'int2'::regtype THEN 32767 ELSE 2147483647 END AS percent
    FROM pg_stats s, unnest(coalesce(s.histogram_bounds::text, '{}')::text[] || coalesce(s.most_common_vals::text, '{}')::text[]) AS number
    WHERE s.schemaname = c.schema AND s.tablename = c.relname AND s.attname = a.attname
) AS known
WHERE c.relkind IN ('r', 'p') AND percent > @limit@
  AND EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f') AND a.attnum = ANY (k.conkey))
