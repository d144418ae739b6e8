/*
level  = "warning"
title  = "session that waits in an open transaction"
why    = "its locks stay, and VACUUM keeps every row that it could still see"
remedy = "end the transaction in the program, or set idle_in_transaction_session_timeout"
manual = "Client Connection Defaults: idle_in_transaction_session_timeout (runtime-config-client)"
limit  = 10
*/
SELECT format('session %s', pid) AS object,
       format('%s of %s has done nothing in its transaction for %s minutes', coalesce(nullif(application_name, ''), 'a program'),
              usename, floor(extract(epoch FROM clock_timestamp() - state_change) / 60)) AS detail,
       format('SELECT pg_terminate_backend(%s);', pid) AS remedy
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
  AND state_change < clock_timestamp() - interval '1 minute' * @limit@
