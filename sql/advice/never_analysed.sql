/*
level  = "warning"
title  = "table that was never analysed"
why    = "the planner guesses what is in it, and chooses slow plans"
remedy = "ANALYZE it, and look whether autovacuum is on"
manual = "Routine Vacuuming: Updating Planner Statistics (routine-vacuuming)"
limit  = 64
*/
SELECT c.oid::regclass::text AS object,
       format('%s, and no statistics of it', pg_size_pretty(pg_relation_size(c.oid))) AS detail,
       format('ANALYZE %s;', c.oid::regclass) AS remedy
FROM relations c
WHERE c.relkind IN ('r', 'm') AND pg_relation_size(c.oid) > @limit@ * 1024
  AND pg_stat_get_last_analyze_time(c.oid) IS NULL AND pg_stat_get_last_autoanalyze_time(c.oid) IS NULL
  AND NOT EXISTS (SELECT FROM pg_stats s WHERE s.schemaname = c.schema AND s.tablename = c.relname)
