/*
level  = "error"
title  = "index that is not valid"
why    = "CREATE INDEX CONCURRENTLY failed: writes keep it, no query uses it, and a unique one lets doubles in"
remedy = "make it again, after the rows that are in its way are mended"
manual = "CREATE INDEX: Building Indexes Concurrently (sql-createindex)"
*/
SELECT c.oid::regclass::text AS object, format('index of %s', i.indrelid::regclass) AS detail,
       format('REINDEX INDEX%s %s;', CASE c.relkind WHEN 'i' THEN ' CONCURRENTLY' END, c.oid::regclass) AS remedy
FROM pg_index i JOIN relations c ON c.oid = i.indexrelid
WHERE NOT (i.indisvalid AND i.indisready)
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
