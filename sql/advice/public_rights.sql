/*
level  = "warning"
title  = "right that every role has"
why    = "whoever can log in to the server has it, whatever the role is for"
remedy = "revoke it from PUBLIC, and grant it to the roles that need it"
manual = "Privileges (ddl-priv)"
*/
SELECT c.oid::regclass::text AS object, format('PUBLIC has %s', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)) AS detail,
       format('REVOKE ALL ON %s%s FROM PUBLIC;', CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' END, c.oid::regclass) AS remedy
FROM relations c, aclexplode(c.relacl) AS a
WHERE a.grantee = 0 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
GROUP BY c.oid, c.relkind
UNION ALL
SELECT format('%s.%I', c.oid::regclass, t.attname), format('PUBLIC has %s', string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)),
       format('REVOKE ALL (%I) ON %s FROM PUBLIC;', t.attname, c.oid::regclass)
FROM relations c JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped, aclexplode(t.attacl) AS a
WHERE a.grantee = 0
GROUP BY c.oid, t.attname
UNION ALL
SELECT 'schema ' || quote_ident(n.nspname), 'PUBLIC has CREATE', format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC;', n.nspname)
FROM schemas n, aclexplode(n.nspacl) AS a
WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'
UNION ALL
SELECT p.oid::regprocedure::text, 'PUBLIC has EXECUTE, and it works with the rights of its owner',
       format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC;', p.oid::regprocedure)
FROM functions p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE a.grantee = 0 AND p.prosecdef AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
