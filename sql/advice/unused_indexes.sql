/*
level  = "info"
title  = "index that no query has used"
why    = "every write keeps it; on a replica it may be in use all the same, which counts for itself"
remedy = "look at the replicas too, then drop it"
manual = "Cumulative Statistics: pg_stat_all_indexes (monitoring-stats)"
limit  = 1000
*/
SELECT i.indexrelid::regclass::text AS object,
       format('not used in the %s days that the statistics cover, in which the table was read %s times; it has %s',
              extract(day FROM clock_timestamp() - s.since), reads.count, pg_size_pretty(pg_relation_size(i.indexrelid))) AS detail,
       format('DROP INDEX %s;', i.indexrelid::regclass) AS remedy
FROM pg_index i
JOIN relations c ON c.oid = i.indrelid
CROSS JOIN LATERAL (
    SELECT pg_stat_get_numscans(c.oid) + coalesce(sum(pg_stat_get_numscans(other.indexrelid)), 0) AS count
    FROM pg_index other WHERE other.indrelid = c.oid
) AS reads
CROSS JOIN (
    SELECT coalesce(stats_reset, pg_postmaster_start_time()) AS since FROM pg_stat_database WHERE datname = current_database()
) AS s
WHERE pg_stat_get_numscans(i.indexrelid) = 0 AND i.indisvalid AND NOT i.indisunique AND NOT i.indisexclusion
  AND reads.count >= @limit@ AND pg_relation_size(i.indexrelid) >= 65536
  AND NOT EXISTS (SELECT FROM pg_constraint k
                  WHERE k.contype = 'f' AND k.conrelid = c.oid AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
