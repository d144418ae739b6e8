/*
level  = "warning"
title  = "table without a primary key"
why    = "rows cannot be told apart, and logical replication refuses their UPDATE and DELETE"
remedy = "ALTER TABLE ... ADD PRIMARY KEY (...)"
manual = "Constraints: Primary Keys (ddl-constraints)"
*/
SELECT c.oid::regclass::text AS object, 'no primary key' AS detail
FROM relations c
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')
