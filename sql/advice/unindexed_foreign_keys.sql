/*
level  = "warning"
title  = "foreign key without an index"
why    = "each DELETE or UPDATE of a key in the other table reads this one from end to end"
remedy = "make an index that begins with the columns of the foreign key"
manual = "Constraints: Foreign Keys (ddl-constraints)"
*/
SELECT format('%s.%I', c.oid::regclass, k.conname) AS object,
       format('no index begins with %s', names.list) AS detail,
       format('CREATE INDEX%s ON %s (%s);', CASE c.relkind WHEN 'r' THEN ' CONCURRENTLY' END, c.oid::regclass, names.list) AS remedy
FROM pg_constraint k
JOIN relations c ON c.oid = k.conrelid AND c.relkind IN ('r', 'p')
CROSS JOIN LATERAL (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.place) AS list
    FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum
) AS names
WHERE k.contype = 'f' AND k.conparentid = 0 AND NOT EXISTS (
    SELECT FROM pg_index i
    WHERE i.indrelid = k.conrelid AND i.indisvalid
      AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = format('(%s IS NOT NULL)', names.list))
      AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
)
