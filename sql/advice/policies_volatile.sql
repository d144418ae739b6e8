/*
level  = "warning"
title  = "policy with a volatile function"
why    = "it is called for every row, no index can serve the policy, and its answer may change while the query runs"
remedy = "make the function STABLE, where it only reads"
manual = "Function Volatility Categories (xfunc-volatility)"
*/
SELECT DISTINCT format('%s.%I', c.oid::regclass, p.polname) AS object, format('%s is volatile', f.oid::regprocedure) AS detail,
       CASE WHEN f.oid >= 16384 THEN format('ALTER FUNCTION %s STABLE;', f.oid::regprocedure) END AS remedy
FROM pg_policy p JOIN relations c ON c.oid = p.polrelid
CROSS JOIN LATERAL regexp_matches(concat(p.polqual, p.polwithcheck), ':(?:op)?funcid (\d+)', 'g') AS called
JOIN pg_proc f ON f.oid = called[1]::oid AND f.provolatile = 'v'
