/*
level  = "error"
title  = "policies that are off"
why    = "the table has policies, and row security is not enabled: everybody with a right on it sees every row"
remedy = "enable row security, or drop the policies"
manual = "Row Security Policies (ddl-rowsecurity)"
*/
SELECT c.oid::regclass::text AS object,
       format('%s and no row security', CASE count(*) WHEN 1 THEN 'a policy' ELSE count(*) || ' policies' END) AS detail,
       format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', c.oid::regclass) AS remedy
FROM relations c JOIN pg_policy p ON p.polrelid = c.oid
WHERE NOT c.relrowsecurity
GROUP BY c.oid
