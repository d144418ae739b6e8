/*
level  = "error"
title  = "transaction numbers near their end"
why    = "VACUUM has not frozen old rows; where the numbers run out the server takes no more writes"
remedy = "end what holds VACUUM back (old transactions, slots, prepared transactions), then VACUUM (FREEZE)"
manual = "Routine Vacuuming: Preventing Transaction ID Wraparound Failures (routine-vacuuming)"
limit  = 50
*/
WITH aged AS (
    SELECT c.oid::regclass::text AS object, format('VACUUM (FREEZE, VERBOSE) %s;', c.oid::regclass) AS remedy,
           greatest(age(c.relfrozenxid), age(t.relfrozenxid)) AS transactions,
           greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid)) AS multixacts
    FROM relations c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    WHERE c.relkind IN ('r', 'm')
    UNION ALL
    SELECT 'database ' || quote_ident(datname), 'VACUUM (FREEZE);', age(datfrozenxid), mxid_age(datminmxid) FROM pg_database
)
SELECT object, format('%s %% of the numbers are used up since it was frozen',
                      round(100 * greatest(transactions, multixacts)::numeric / 2147483648)) AS detail, remedy
FROM aged WHERE greatest(transactions, multixacts) > 2147483648 * @limit@ / 100
