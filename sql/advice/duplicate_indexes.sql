/*
level  = "warning"
title  = "two indexes of the same columns"
why    = "every write keeps both, and no query needs the second"
remedy = "drop the one that no constraint stands on"
manual = "Indexes: Examining Index Usage (indexes-examine)"
*/
WITH described AS (
    SELECT i.*, c.oid::regclass AS name,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) OR i.indisreplident AS needed,
           (i.indrelid, c.relam, i.indkey::text, i.indclass::text, i.indcollation::text, i.indoption::text, i.indnkeyatts,
            coalesce(pg_get_expr(i.indexprs, i.indrelid), ''), coalesce(pg_get_expr(i.indpred, i.indrelid), ''))::text AS shape
    FROM pg_index i JOIN relations c ON c.oid = i.indexrelid
    WHERE i.indisvalid AND NOT i.indisexclusion
)
SELECT DISTINCT ON (one.indexrelid) one.name::text AS object,
       format('the same as %s, and has %s', other.name, pg_size_pretty(pg_relation_size(one.indexrelid))) AS detail,
       format('DROP INDEX %s;', one.name) AS remedy
FROM described one JOIN described other USING (shape)
WHERE one.indexrelid <> other.indexrelid AND NOT one.needed AND (NOT one.indisunique OR other.indisunique)
  AND (other.needed, other.indisunique, -other.indexrelid::bigint) > (one.needed, one.indisunique, -one.indexrelid::bigint)
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = one.indexrelid)
ORDER BY one.indexrelid, other.needed DESC, other.indisunique DESC, other.indexrelid
