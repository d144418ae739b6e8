"""The catalogue queries: one for each kind of object, however many there are.

The names of their columns are what `--json` and the headers of tables say. `%(schema)s` is the one schema to look at, NULL
for all of the application's. Nothing here waits for a lock: of a table that another session holds exclusively, what would have to
open it is left NULL.
"""

from skinspire_db.catalog import objects

SCHEMAS = f"(CASE WHEN %(schema)s::text IS NULL THEN {objects.APPLICATION_SCHEMA} ELSE n.nspname = %(schema)s END)"
RELATION = f"{SCHEMAS} AND {objects.no_extensions('c.oid', 'pg_class')}"
FUNCTION = f"{SCHEMAS} AND {objects.no_extensions('p.oid', 'pg_proc')}"
OF_TABLE = f"(%(table)s::oid IS NULL AND {RELATION} OR c.oid = %(table)s)"
LOCKED = """
    locked AS MATERIALIZED (
        SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
    )
"""
FREE = "c.oid NOT IN (SELECT relation FROM locked)"
KIND = """
    CASE WHEN c.relispartition THEN 'partition' WHEN c.relkind = 'p' THEN 'partitioned table' WHEN c.relkind = 'f'
    THEN 'foreign table' WHEN c.relkind = 'v' THEN 'view' WHEN c.relkind = 'm' THEN 'materialized view'
    WHEN c.relpersistence = 'u' THEN 'unlogged table' ELSE 'table' END
"""
ABOUT = """
    SELECT current_database() AS name, current_setting('server_version') AS version, pg_postmaster_start_time() AS running_since,
           pg_database_size(d.oid) AS bytes, pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collation,
           pg_get_userbyid(d.datdba) AS owner, current_user AS "user", pg_is_in_recovery() AS replica,
           (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'skinspire_tools' AND c.relkind IN ('r', 'p')) AS tables_of_tools
    FROM pg_database d WHERE d.datname = current_database()
"""
STAMP = "SELECT environment, identity::text, stamped_at, stamped_by FROM skinspire_tools.stamp"
TABLES = f"""
    WITH {LOCKED},
    columns AS (SELECT attrelid, count(*) AS n FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped GROUP BY 1),
    indexes AS (SELECT indrelid, count(*) AS n FROM pg_index GROUP BY 1),
    keys AS (SELECT conrelid, count(*) AS n FROM pg_constraint WHERE contype = 'f' GROUP BY 1),
    triggers AS (SELECT tgrelid, count(*) AS n FROM pg_trigger WHERE NOT tgisinternal GROUP BY 1)
    SELECT n.nspname AS schema, c.relname AS table, {KIND} AS kind,
           CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint WHEN c.relkind = 'r' AND {FREE} AND pg_relation_size(c.oid) = 0 THEN 0 END AS rows,
           CASE WHEN {FREE} THEN pg_total_relation_size(c.oid) END AS bytes, coalesce(columns.n, 0) AS columns,
           coalesce(indexes.n, 0) AS indexes, coalesce(keys.n, 0) AS foreign_keys, coalesce(triggers.n, 0) AS triggers,
           pg_get_userbyid(c.relowner) AS owner, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN columns ON columns.attrelid = c.oid LEFT JOIN indexes ON indexes.indrelid = c.oid
    LEFT JOIN keys ON keys.conrelid = c.oid LEFT JOIN triggers ON triggers.tgrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'f') AND {OF_TABLE} ORDER BY 1, 2
"""
# Whose rows can be counted: those that the role may read, all of them, here and without waiting.
COUNTABLE = f"""
    WITH {LOCKED}
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND {FREE} AND has_schema_privilege(n.oid, 'USAGE')
      AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid) AND {OF_TABLE} ORDER BY 1, 2
"""
VIEWS = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS view, {KIND} AS kind,
           (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
           CASE WHEN c.relkind = 'm' AND {FREE} THEN pg_total_relation_size(c.oid) END AS bytes,
           pg_get_userbyid(c.relowner) AS owner, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {OF_TABLE} ORDER BY 1, 2
"""
FUNCTIONS = f"""
    SELECT n.nspname AS schema, p.proname AS function, pg_get_function_identity_arguments(p.oid) AS arguments,
           pg_get_function_result(p.oid) AS returns,
           CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window' ELSE 'function' END AS kind,
           l.lanname AS language, CASE WHEN p.prosecdef THEN 'definer' ELSE 'invoker' END AS security,
           pg_get_userbyid(p.proowner) AS owner, obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE {FUNCTION} ORDER BY 1, 2, 3
"""
TRIGGERS = f"""
    SELECT n.nspname AS schema, c.relname AS table, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS qualified,
           t.tgname AS trigger,
           CASE WHEN t.tgtype & 2 > 0 THEN 'BEFORE ' WHEN t.tgtype & 64 > 0 THEN 'INSTEAD OF ' ELSE 'AFTER ' END
           || concat_ws(' OR ', CASE WHEN t.tgtype & 4 > 0 THEN 'INSERT' END, CASE WHEN t.tgtype & 8 > 0 THEN 'DELETE' END,
                        CASE WHEN t.tgtype & 16 > 0 THEN 'UPDATE' END, CASE WHEN t.tgtype & 32 > 0 THEN 'TRUNCATE' END) AS fires,
           t.tgfoid::regproc::text AS function,
           CASE t.tgenabled WHEN 'O' THEN 'enabled' WHEN 'A' THEN 'always' WHEN 'R' THEN 'on replicas' ELSE 'disabled' END AS state,
           obj_description(t.tgfoid, 'pg_proc') AS comment
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND {OF_TABLE} ORDER BY 1, 2, 3
"""
SEQUENCES = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS sequence, format_type(s.seqtypid, NULL) AS type,
           CASE WHEN has_sequence_privilege(c.oid, 'SELECT, USAGE') AND {FREE} AND NOT pg_is_other_temp_schema(n.oid)
                THEN pg_sequence_last_value(c.oid) END AS last_value,
           s.seqincrement AS increment, s.seqmax AS maximum,
           (SELECT o.refobjid::regclass || '.' || quote_ident(a.attname)
            FROM pg_depend o JOIN pg_attribute a ON (a.attrelid, a.attnum) = (o.refobjid, o.refobjsubid)
            WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype IN ('a', 'i')) AS owned_by
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {RELATION} ORDER BY 1, 2
"""
EXTENSIONS = """
    SELECT e.extname AS extension, n.nspname AS schema, e.extversion AS version, a.default_version AS available, a.comment
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    LEFT JOIN pg_available_extensions a ON a.name = e.extname ORDER BY 1
"""
ROLES = """
    SELECT r.rolname AS role, r.rolcanlogin AS login, r.rolsuper AS superuser, r.rolcreatedb AS create_databases,
           r.rolcreaterole AS create_roles, r.rolbypassrls AS bypass_row_security, nullif(r.rolconnlimit, -1) AS connection_limit,
           ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid ORDER BY 1) AS member_of
    FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1
"""
# What was granted or revoked, to others than the owner; what everybody has by default stays out.
GRANTS = f"""
    SELECT g.kind, g.schema, g.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role,
           array_agg(a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END ORDER BY 1) AS privileges
    FROM (
        SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'table' END AS kind,
               n.nspname AS schema, c.relname::text AS object, c.relowner AS owner, c.relacl AS acl
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {OF_TABLE}
        UNION ALL SELECT 'column', n.nspname, quote_ident(c.relname) || '.' || quote_ident(t.attname), c.relowner, t.attacl
        FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.attacl IS NOT NULL AND {OF_TABLE}
        UNION ALL SELECT 'function', n.nspname, p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
                         p.proowner, p.proacl
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE %(table)s::oid IS NULL AND {FUNCTION}
        UNION ALL SELECT 'schema', n.nspname, n.nspname, n.nspowner, n.nspacl
        FROM pg_namespace n WHERE %(table)s::oid IS NULL AND {SCHEMAS}
        UNION ALL SELECT 'database', NULL, datname, datdba, datacl
        FROM pg_database WHERE datname = current_database() AND %(table)s::oid IS NULL AND %(schema)s::text IS NULL
    ) AS g, aclexplode(g.acl) AS a WHERE a.grantee <> g.owner GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""

# One table or view, and what belongs to it.

NAMED = f"""
    SELECT c.oid, n.nspname AS schema, c.relname AS name, {KIND} AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {SCHEMAS} ORDER BY 2, 3
"""
COLUMNS = f"""
    WITH {LOCKED}
    SELECT n.nspname AS schema, c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
           NOT a.attnotnull AS nullable, CASE WHEN {FREE} THEN pg_get_expr(d.adbin, d.adrelid) END AS default,
           CASE WHEN a.attidentity = 'a' THEN 'identity always' WHEN a.attidentity = 'd' THEN 'identity by default'
                WHEN a.attgenerated <> '' THEN 'generated' END AS made_by,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' AND a.attnum = ANY (k.conkey)) AS primary_key,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey)) AS foreign_key,
           col_description(c.oid, a.attnum) AS comment
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
      AND (%(tables)s::oid[] IS NULL AND {RELATION} OR c.oid = ANY (%(tables)s)) ORDER BY 1, 2, a.attnum
"""
# A child has at most one row for a parent's where its columns are unique, and perhaps no parent where one may be NULL.
FOREIGN_KEYS = f"""
    SELECT n.nspname AS schema, c.relname AS table, k.conname AS constraint, rn.nspname AS references_schema,
           r.relname AS references_table,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS key (n, i)
                 JOIN pg_attribute a ON (a.attrelid, a.attnum) = (k.conrelid, key.n) ORDER BY key.i) AS columns,
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND NOT a.attnotnull)
           AS optional,
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indisunique AND i.indpred IS NULL
                   AND i.indkey::int2[] <@ k.conkey AND 0 <> ALL (i.indkey::int2[])) AS one_to_one,
           pg_get_constraintdef(k.oid) AS definition, c.oid AS of, r.oid AS to
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0
      AND (%(table)s::oid IS NULL AND {RELATION} OR %(table)s IN (k.conrelid, k.confrelid)) ORDER BY 1, 2, 3
"""
CONSTRAINTS = f"""
    WITH {LOCKED}
    SELECT conname AS constraint, convalidated AS valid, CASE WHEN {FREE} THEN pg_get_constraintdef(k.oid) END AS definition
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE conrelid = %(table)s AND contype <> 't' ORDER BY contype <> 'p', 1
"""
INDEXES = f"""
    WITH {LOCKED}
    SELECT c.relname AS index, i.indisvalid AS valid, CASE WHEN {FREE} THEN pg_relation_size(c.oid) END AS bytes,
           pg_stat_get_numscans(c.oid) AS scans,
           CASE WHEN {FREE} AND i.indrelid NOT IN (SELECT relation FROM locked) THEN pg_get_indexdef(i.indexrelid) END AS definition
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %(table)s ORDER BY NOT i.indisprimary, 1
"""
HELD = f"WITH {LOCKED} SELECT relation FROM locked WHERE relation = %(table)s"
DEFINITION = "SELECT pg_get_viewdef(%(table)s::oid) AS definition"

# Who is at work. Waiting for a lock is told by pg_blocking_pids, which is dear, and asked only of those who wait.
ACTIVITY = """
    SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type) AS application, a.usename AS role,
           coalesce(a.client_addr::text, CASE WHEN a.client_port = -1 THEN 'local' END) AS client, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds,
           extract(epoch FROM clock_timestamp() - CASE a.state WHEN 'active' THEN a.query_start ELSE a.state_change END)::float8
           AS state_seconds,
           a.wait_event_type || ' ' || a.wait_event AS waits_for,
           CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END AS blocked_by,
           (SELECT string_agg(DISTINCT coalesce(l.relation::regclass::text, l.locktype) || ' ' || l.mode, ', ')
            FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted) AS wants,
           a.query
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
    UNION ALL
    SELECT NULL, 'prepared transaction', owner, NULL, 'prepared', extract(epoch FROM clock_timestamp() - prepared)::float8,
           extract(epoch FROM clock_timestamp() - prepared)::float8, NULL, '{}', NULL,
           'ROLLBACK PREPARED ' || quote_literal(gid) || ' ends it'
    FROM pg_prepared_xacts WHERE database = current_database()
    ORDER BY transaction_seconds DESC NULLS LAST, pid
"""
CONNECTIONS = """
    SELECT count(*) FILTER (WHERE backend_type = 'client backend') AS used,
           count(*) FILTER (WHERE backend_type = 'client backend' AND datname = current_database()) AS here,
           current_setting('max_connections')::int AS maximum
    FROM pg_stat_activity
"""
JOURNAL = """
    SELECT started_at, operation, environment, seconds, os_user, host, db_role AS role, left(entry_id::text, 8) AS id, tool_version,
           server_version, steps, entry_id::text AS entry
    FROM skinspire_tools.journal WHERE %(id)s::text IS NULL OR starts_with(entry_id::text, %(id)s)
    ORDER BY started_at DESC, entry_id LIMIT %(limit)s
"""
