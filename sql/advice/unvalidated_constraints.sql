/*
level  = "warning"
title  = "constraint that was never validated"
why    = "rows from before it may break it, and the planner does not rely on it"
remedy = "correct those rows, then validate it"
manual = "ALTER TABLE: VALIDATE CONSTRAINT (sql-altertable)"
*/
SELECT format('%s.%I', c.oid::regclass, k.conname) AS object, 'NOT VALID' AS detail,
       format('ALTER TABLE %s VALIDATE CONSTRAINT %I;', c.oid::regclass, k.conname) AS remedy
FROM pg_constraint k JOIN relations c ON c.oid = k.conrelid
WHERE NOT k.convalidated
