/*
level  = "error"
title  = "function with its owner's rights and the caller's search_path"
why    = "the caller chooses which tables and operators it finds, and so runs code of its own with the owner's rights"
remedy = "give the function a search_path of its own"
manual = "CREATE FUNCTION: Writing SECURITY DEFINER Functions Safely (sql-createfunction)"
*/
SELECT p.oid::regprocedure::text AS object, 'SECURITY DEFINER without search_path' AS detail,
       format('ALTER ROUTINE %s SET search_path = %I, pg_temp;', p.oid::regprocedure, p.schema) AS remedy
FROM functions p
WHERE p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE setting LIKE 'search_path=%')
