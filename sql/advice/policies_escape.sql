/*
level  = "warning"
title  = "policy with an escape hatch"
why    = "a part of the condition says nothing about the row: a session that meets it sees and changes every row"
remedy = "take that part out; give a role of its own a policy of its own"
manual = "Row Security Policies (ddl-rowsecurity)"
*/
SELECT format('%s.%I', c.oid::regclass, p.polname) AS object,
       'one of its conditions names no column of the table' AS detail
FROM pg_policy p JOIN relations c ON c.oid = p.polrelid
WHERE p.polpermissive AND 0 = ANY (p.polroles) AND EXISTS (
    SELECT FROM unnest(ARRAY[pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]) AS condition,
        -- strings name settings, not columns
        regexp_split_to_table(regexp_replace(condition, '''(?:[^'']|'''')*''', '''''', 'g'), ' OR ') AS part
    WHERE part !~ 'SELECT' AND part !~ '\m\w+\.\w+\M(?!\()' AND part !~ '\mfalse\M'
      AND NOT EXISTS (
          SELECT FROM pg_attribute a
          WHERE a.attrelid = c.oid AND NOT a.attisdropped
            AND part ~ ('(?<![\w.])' || regexp_replace(quote_ident(a.attname), '(\W)', '\\\1', 'g') || '(?!\w)'))
)
