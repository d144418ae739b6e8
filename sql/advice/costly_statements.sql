/*
level  = "info"
title  = "statement that costs most"
why    = "the server spends most of its time on these"
remedy = "EXPLAIN (ANALYZE, BUFFERS) it, and look for an index that it lacks"
manual = "pg_stat_statements (pgstatstatements)"
needs  = "pg_stat_statements"
limit  = 10
*/
SELECT 'statement ' || queryid AS object,
       format('%s ms in %s calls, %s ms each: ', round(total_exec_time), calls, round(mean_exec_time::numeric, 1))
           -- PostgreSQL writes $1 for constants; where it could not, nothing is shown
           || CASE WHEN text ~ '''|\$\w*\$|\\' THEN 'the text has constants' ELSE left(text, 200) END AS detail
FROM (
    SELECT s.*, regexp_replace(regexp_replace(regexp_replace(query, '/\*.*?\*/|--[^\n]*', ' ', 'g'), '\s+', ' ', 'g'),
                               '(?<![\w$.])\d+(\.\d+)?', '?', 'g') AS text
    FROM @extschema@.pg_stat_statements s
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS s
WHERE text ~* '^\s*(select|insert|update|delete|merge|with|values)\M'
ORDER BY total_exec_time DESC LIMIT @limit@
