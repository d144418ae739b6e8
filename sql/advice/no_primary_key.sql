/*
level  = "warning"
title  = "table without a primary key"
why    = "rows cannot be told apart, and logical replication refuses their UPDATE and DELETE"
remedy = "make a unique key of columns without NULL the primary key, or add a column for it"
manual = "Constraints: Primary Keys (ddl-constraints)"
*/
SELECT c.oid::regclass::text AS object, 'no primary key' AS detail,
       CASE WHEN key.columns IS NOT NULL THEN format('ALTER TABLE %s ADD PRIMARY KEY (%s);', c.oid::regclass, key.columns)
            WHEN c.relkind = 'r' THEN format('ALTER TABLE %s ADD row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;', c.oid::regclass)
       END AS remedy
FROM relations c
LEFT JOIN LATERAL (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.place) AS columns
    FROM pg_index i CROSS JOIN unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS u (attnum, place)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum AND a.attnotnull
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
    GROUP BY i.indexrelid HAVING bool_and(a.attnum IS NOT NULL)
    ORDER BY count(*), i.indexrelid LIMIT 1
) AS key ON true
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')
