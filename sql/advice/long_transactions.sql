/*
level  = "warning"
title  = "transaction that has been open for an hour"
why    = "VACUUM keeps every row that it could still see, and tables and indexes grow"
remedy = "end it in the program that opened it"
manual = "Routine Vacuuming (routine-vacuuming)"
limit  = 60
*/
SELECT format('session %s', pid) AS object,
       format('%s of %s has been in a transaction for %s minutes, %s', coalesce(nullif(application_name, ''), 'a program'),
              usename, floor(extract(epoch FROM clock_timestamp() - xact_start) / 60), state) AS detail,
       format('SELECT pg_terminate_backend(%s);', pid) AS remedy
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state = 'active'
  AND xact_start < clock_timestamp() - interval '1 minute' * @limit@
UNION ALL
SELECT format('prepared transaction %s', gid),
       format('prepared %s minutes ago by %s', floor(extract(epoch FROM clock_timestamp() - prepared) / 60), owner),
       format('ROLLBACK PREPARED %L;', gid)
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < clock_timestamp() - interval '1 minute' * @limit@
