/*
level  = "warning"
title  = "sequence that nears its end"
why    = "at the end of the sequence, or of its column's type, every INSERT fails"
remedy = "make column and sequence bigint"
manual = "Numeric Types: Serial Types (datatype-numeric)"
limit  = 70
*/
WITH filled AS (
    SELECT s.seqrelid, col.attrelid, col.attname, col.atttypid, 100 * abs(pg_sequence_last_value(s.seqrelid)::numeric)
           / abs(CASE WHEN s.seqincrement < 0 THEN greatest(s.seqmin, -room.most) ELSE least(s.seqmax, room.most) END) AS percent
    FROM pg_sequence s JOIN relations c ON c.oid = s.seqrelid
    LEFT JOIN LATERAL (
        SELECT a.attrelid, a.attname, a.atttypid FROM pg_attribute a
        WHERE (a.attrelid, a.attnum) IN (
            SELECT d.refobjid, d.refobjsubid FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass
            UNION ALL
            SELECT f.adrelid, f.adnum FROM pg_depend d JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
            WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = s.seqrelid
        ) AND a.attnum > 0 ORDER BY a.attlen LIMIT 1
    ) AS col ON true
    CROSS JOIN LATERAL (
        SELECT CASE col.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647
                                 ELSE 9223372036854775807 END AS most
    ) AS room
    WHERE NOT s.seqcycle
)
SELECT seqrelid::regclass::text AS object,
       format('%s %% of the numbers are used up', round(percent))
           || CASE WHEN attname IS NULL THEN '' ELSE format(' of %s.%I, %s', attrelid::regclass, attname, atttypid::regtype) END AS detail,
       CASE WHEN atttypid IN ('int2'::regtype, 'int4'::regtype)
            THEN format('ALTER SEQUENCE %s AS bigint; ALTER TABLE %s ALTER %I TYPE bigint;', seqrelid::regclass, attrelid::regclass, attname)
       END AS remedy
FROM filled WHERE percent > @limit@
