/*
level  = "error"
title  = "policies that do not bind the application"
why    = "a superuser, a role with BYPASSRLS and an owner pass by the policies of a table"
remedy = "let the application use a role that owns nothing and bypasses nothing"
manual = "Row Security Policies (ddl-rowsecurity)"
*/
WITH login AS (SELECT * FROM pg_roles WHERE rolname = current_setting('skinspire.login'))
SELECT 'role ' || quote_ident(rolname) AS object,
       format('%s: row security of %s does not bind it', CASE WHEN rolsuper THEN 'a superuser' ELSE 'it has BYPASSRLS' END, tables.list) AS detail,
       CASE WHEN rolname <> current_user THEN format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS;', rolname) END AS remedy
FROM login CROSS JOIN (
    SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY c.relname) FILTER (WHERE number <= 3)
           || CASE WHEN count(*) > 3 THEN format(' and %s more', count(*) - 3) ELSE '' END AS list
    FROM (SELECT *, row_number() OVER (ORDER BY relname) AS number FROM relations WHERE relrowsecurity) AS c
) AS tables
WHERE (rolsuper OR rolbypassrls) AND tables.list IS NOT NULL
UNION ALL
SELECT c.oid::regclass::text, format('role %I owns it, and row security is not forced', login.rolname),
       format('ALTER TABLE %s FORCE ROW LEVEL SECURITY;', c.oid::regclass)
FROM login JOIN relations c ON c.relrowsecurity AND NOT c.relforcerowsecurity AND pg_has_role(login.oid, c.relowner, 'USAGE')
WHERE NOT (rolsuper OR rolbypassrls)
