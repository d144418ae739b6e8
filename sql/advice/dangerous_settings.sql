/*
level  = "error"
title  = "setting that can lose or corrupt data"
why    = "with it a crash loses what was committed, damage goes unseen, or tables are never vacuumed"
remedy = "set it back; a server for tests alone may keep fsync, full_page_writes and synchronous_commit off"
manual = "Server Configuration (runtime-config)"
*/
WITH dangerous (name, bad, good, durability) AS (
    VALUES ('fsync', 'off', 'on', true), ('full_page_writes', 'off', 'on', true), ('synchronous_commit', 'off', 'on', true),
           ('autovacuum', 'off', 'on', false), ('track_counts', 'off', 'on', false), ('zero_damaged_pages', 'on', 'off', false),
           ('ignore_checksum_failure', 'on', 'off', false), ('ignore_system_indexes', 'on', 'off', false),
           ('ignore_invalid_pages', 'on', 'off', false), ('allow_system_table_mods', 'on', 'off', false),
           ('session_replication_role', 'replica', 'origin', false), ('password_encryption', 'md5', 'scram-sha-256', false)
), chosen (name, value, role, database) AS (
    SELECT name, setting, NULL, NULL FROM pg_settings WHERE source NOT IN ('client', 'session', 'database', 'user', 'database user', 'global')
    UNION ALL
    SELECT split_part(entry, '=', 1), split_part(entry, '=', 2), r.rolname, d.datname
    FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS entry
    LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
    WHERE s.setdatabase = 0 OR d.datname = current_database()
)
SELECT concat_ws(' ', name, 'of role ' || quote_ident(role), 'in ' || quote_ident(database)) AS object, format('it is %s', value) AS detail,
       CASE WHEN role IS NOT NULL
            THEN format('ALTER ROLE %I%s RESET %I;', role, coalesce(' IN DATABASE ' || quote_ident(database), ''), name)
            WHEN database IS NOT NULL THEN format('ALTER DATABASE %I RESET %I;', database, name)
            ELSE format('ALTER SYSTEM SET %I = %L; SELECT pg_reload_conf();', name, good) END AS remedy
FROM dangerous JOIN chosen USING (name)
WHERE value = bad AND (current_setting('skinspire.protected') = 'yes' OR NOT durability)
