/*
level  = "info"
title  = "table that is mostly empty space, by estimate"
why    = "reads go through the space, and it stays in memory and on disk"
remedy = "see that VACUUM keeps up; VACUUM FULL gives the space back, under a lock that stops all work on the table"
manual = "Routine Vacuuming: Recovering Disk Space (routine-vacuuming)"
limit  = 10
*/
SELECT c.oid::regclass::text AS object,
       format('about %s of %s hold no rows, by the estimate of the last ANALYZE', pg_size_pretty((pages.now - expected.pages)::bigint * block.size),
              pg_size_pretty(pages.now * block.size)) AS detail,
       format('VACUUM (FULL, ANALYZE) %s;', c.oid::regclass) AS remedy
FROM relations c
CROSS JOIN (SELECT current_setting('block_size')::bigint AS size) AS block
CROSS JOIN LATERAL (SELECT pg_relation_size(c.oid) / block.size AS now) AS pages
CROSS JOIN LATERAL (
    -- a row is its values, a header of 24 bytes and a pointer of 4, rounded up to 8 bytes
    SELECT ceil(c.reltuples * (8 * ceil((28 + coalesce(sum(s.avg_width * (1 - s.null_frac)), 0)) / 8)) / (block.size - 24)
                * 100 / coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 100)) AS pages
    FROM pg_stats s WHERE s.schemaname = c.schema AND s.tablename = c.relname AND NOT s.inherited
    HAVING count(*) > 0
) AS expected
WHERE c.relkind IN ('r', 'm') AND c.reltuples >= 0 AND pages.now > 2 * expected.pages
  AND (pages.now - expected.pages) * block.size > @limit@ * 1048576
