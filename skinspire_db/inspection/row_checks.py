"""What triggers and foreign keys promise, looked up in the rows: what was done while they did not fire shows here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# bcrypt, Werkzeug's scrypt and pbkdf2, argon2: the formats of sql/triggers/password_hashing.sql, in other words.
HASH = (
    r"^(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}|scrypt:\d+:\d+:\d+\$[^$]+\$[0-9a-f]{128}|pbkdf2:[a-z0-9]+:\d+\$[^$]+\$[0-9a-f]{40,128}"
    r"|\$argon2(id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+)$"
)
ADMINISTRATORS_OF = """
    SELECT FROM public.users u JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
    JOIN public.role_master r ON r.role_id = m.role_id AND r.role_name = 'Hospital Administrator' AND r.is_active AND r.status = 'active'
    WHERE u.hospital_id = h.hospital_id AND u.is_active AND NOT u.is_deleted
"""


@dataclass(frozen=True)
class Rule:
    """What no row may be.

    Args:
        file: The trigger file that promises it.
        says: What is wrong with the rows that the query finds.
        query: Names them, each in one text without values that are nobody's to read.
        looked_at: Whose rows were looked at, for a reader.
        remedy: What to do about them: a statement to type, or in words what only people can decide.
    """

    file: str
    says: str
    query: str
    looked_at: str
    remedy: str


RULES = {
    "passwords": [
        Rule("password_hashing", "with a password that is no hash", f"SELECT user_id FROM public.users WHERE password_hash !~ '{HASH}'",
             "password_hash of users",
             in_shell("UPDATE public.users SET password_hash = password_hash;")),
    ],
    "tenants": [
        Rule("role_assignment", "with a role of another hospital",
             "SELECT format('user %s, role %s', m.user_id, m.role_id) FROM public.user_role_mapping m JOIN public.users u USING (user_id)"
             " JOIN public.role_master r USING (role_id) WHERE r.hospital_id IS DISTINCT FROM u.hospital_id AND r.hospital_id IS NOT NULL",
             "roles of users",
             "remove those rows of user_role_mapping, or give the users a role of their own hospital in place of it"),
        Rule("tenancy", "between two hospitals",
             "SELECT format('role %s, module %s', a.role_id, a.module_id) FROM public.role_module_access a"
             " JOIN public.role_master r USING (role_id) JOIN public.module_master m USING (module_id)"
             " WHERE a.hospital_id <> r.hospital_id OR a.hospital_id <> m.hospital_id OR r.hospital_id <> m.hospital_id",
             "rights of roles",
             "remove those rows of role_module_access, or give the role a module of its own hospital in place of it"),
        Rule("tenancy", "under another hospital's module",
             "SELECT format('module %s', m.module_id) FROM public.module_master m JOIN public.module_master p"
             " ON p.module_id = m.parent_module WHERE p.hospital_id IS DISTINCT FROM m.hospital_id AND p.hospital_id IS NOT NULL",
             "modules under modules",
             "set parent_module of those rows of module_master to a module of their own hospital, or to NULL"),
        Rule("tenancy", "whose patient or employee is of another hospital",
             "SELECT format('user %s', u.user_id) FROM public.users u JOIN (SELECT patient_id, hospital_id FROM public.patients"
             " UNION ALL SELECT staff_id, hospital_id FROM public.staff) AS e (entity_id, hospital_id) USING (entity_id)"
             " WHERE e.hospital_id <> u.hospital_id",
             "patients and staff of users",
             "set hospital_id of those users to that of their patient or employee, or is_active to false"),
    ],
    "hospitals": [
        Rule("role_assignment", "without an administrator",
             "SELECT format('hospital %s', h.hospital_id) FROM public.hospitals h WHERE h.is_active AND NOT h.is_deleted AND NOT EXISTS"
             f" ({ADMINISTRATORS_OF}) AND (h.hospital_id = %(first)s::uuid"
             " OR EXISTS (SELECT FROM public.users u WHERE u.hospital_id = h.hospital_id))",
             "administrators of hospitals",
             "give a user of that hospital the role Hospital Administrator, in user_role_mapping"),
    ],
    "sessions and logins": [
        Rule("session_management", "with too many active sessions",
             "SELECT format('user %s', user_id) FROM public.user_sessions WHERE is_active GROUP BY user_id"
             " HAVING count(*) > public.integer_parameter('MAX_ACTIVE_SESSIONS'::text, 5, 1, 10000)",
             "active sessions of users",
             "set is_active to false in the oldest rows of user_sessions of those users"),
        Rule("login_tracking", "not locked after so many failed logins",
             "SELECT format('user %s', user_id) FROM public.users WHERE locked_until IS NULL AND failed_login_attempts"
             " >= public.integer_parameter('MAX_LOGIN_ATTEMPTS'::text, 5, 1, 1000)",
             "failed logins of users",
             "set locked_until of those users, or failed_login_attempts to 0 where a lock is not wanted"),
    ],
}  # fmt: skip
# The operator is the constraint's own; a row with a NULL among its columns refers to nothing (MATCH SIMPLE) but with MATCH FULL.
FOREIGN_KEYS = f"""
    SELECT k.conname, k.conrelid::regclass::text,
           format('SELECT f.* FROM %s AS f WHERE (%s) AND NOT EXISTS (SELECT FROM %s AS p WHERE %s)',
                  format('%I.%I', n.nspname, c.relname),
                  string_agg(format('f.%I IS NOT NULL', a.attname), CASE k.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END),
                  format('%I.%I', rn.nspname, r.relname),
                  string_agg(format('p.%I OPERATOR(%I.%s) f.%I', b.attname, o_n.nspname, o.oprname, a.attname), ' AND '))
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.conpfeqop) AS each (here, there, operator)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = each.here
    JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = each.there
    JOIN pg_operator o ON o.oid = each.operator JOIN pg_namespace o_n ON o_n.oid = o.oprnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND {objects.APPLICATION_SCHEMA}
    GROUP BY k.oid, k.conname, k.conrelid, k.confmatchtype, n.nspname, c.relname, rn.nspname, r.relname ORDER BY 2, 1
"""
SWITCHED_OFF = """
    SELECT DISTINCT format('%s on %s', k.conname, k.conrelid::regclass),
           format('ALTER TABLE %s ENABLE TRIGGER %I;', t.tgrelid::regclass, t.tgname)
    FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint WHERE t.tgisinternal AND t.tgenabled NOT IN ('O', 'A')
"""
# Tables with both columns, and the query of their rows that were made since the trigger file was installed, by nobody.
UNATTRIBUTED = """
    SELECT c.oid::regclass::text,
           format('SELECT * FROM %%I.%%I WHERE (created_by IS NULL OR updated_by IS NULL) AND created_at >= %%L',
                  n.nspname, c.relname, %(since)s::timestamptz)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(tables)s)
      AND 4 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
               AND (a.attname IN ('created_by', 'updated_by') AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)
                    OR a.attname IN ('created_at', 'updated_at') AND a.atttypid = 'timestamptz'::regtype))
    ORDER BY 1
"""
# A rule can do something else, or nothing, in place of what is written; an unlogged table is empty after a crash.
PASSED_BY = """
    SELECT format('rule %%I on %%s does something in place of what is written', rulename, c.oid::regclass),
           format('DROP RULE %%I ON %%s;', rulename, c.oid::regclass)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.is_instead AND r.ev_type <> '1' AND c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(tables)s)
    UNION ALL
    SELECT format('table %%s is UNLOGGED', c.oid::regclass), format('ALTER TABLE %%s SET LOGGED;', c.oid::regclass) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(logged)s)
"""
# What the role may not do with which table of ours.
DENIED = """
    SELECT c.oid::regclass::text, wanted FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
           unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
    WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY (%(tables)s) AND NOT has_table_privilege(c.oid, wanted)
    ORDER BY 1, 2 LIMIT 10
"""
# Triggers before a row of users is written that fire after the hashing, in byte order of their names, and name the column or
# replace the row as a whole; of one that is no PL/pgSQL that cannot be told.
LATER_THAN_HASHING = """
    WITH hashing AS (SELECT tgrelid, tgname FROM pg_trigger WHERE tgrelid = to_regclass('public.users')
                     AND tgfoid = to_regproc('public.password_hashing'))
    SELECT format('trigger %I', t.tgname)
    FROM pg_trigger t JOIN hashing h USING (tgrelid) JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
    WHERE t.tgname::text COLLATE "C" > h.tgname::text COLLATE "C" AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
      AND t.tgtype & 3 = 3  -- BEFORE, FOR EACH ROW
      AND (l.lanname <> 'plpgsql' OR p.prosrc ~* 'password_hash|\\mNEW\\s*:?=|INTO\\s+NEW\\M')
    ORDER BY 1
"""


def broken(connection: Connection, rules: list[Rule], first_hospital: str) -> list[tuple[str, str]]:
    """The rows that break these rules.

    Args:
        connection: an open connection to the database.
        rules: the rules to look at.
        first_hospital: the hospital that every database has, which needs an administrator even without users.

    Returns:
        For each broken rule a sentence with the first few rows, and the remedy.
    """
    found = []
    for rule in rules:
        named = rule.query.replace("%s", "%%s")  # of format(), and no parameter of ours
        query = f"SELECT * FROM ({named}) AS found (name) ORDER BY 1 LIMIT 1000"
        rows = [str(row[0]) for row in connection.execute(query.encode(), {"first": first_hospital}).fetchall()]
        if rows:
            more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
            found.append((f"{', '.join(rows[:3])}{more}: {rule.says}", rule.remedy))
    return found


def loose_rows(connection: Connection) -> tuple[list[tuple[str, str]], int]:
    """Foreign keys that rows violate, for each a sentence and the query that shows the rows, and how many were looked at."""
    keys = search_path.rows(connection, FOREIGN_KEYS)
    found = []
    for name, table, rows in keys:
        row = connection.execute(f"SELECT count(*) FROM ({rows} LIMIT 1000) AS loose".encode()).fetchone()
        if row and row[0]:
            count = "1000 or more" if row[0] == 1000 else row[0]
            found.append((f"{name} on {table}: {count} rows refer to nothing", f"{rows} LIMIT 10;"))
    return found, len(keys)


def unattributed(connection: Connection, tables: list[str], since: object) -> tuple[list[tuple[str, str]], int]:
    """Tables with rows that do not say by whom they were made.

    Args:
        connection: an open connection to the database.
        tables: the names, with their schemas, of the tables to look at.
        since: only rows that were made from then on count.

    Returns:
        For each such table a sentence and the query that shows the rows; and how many tables were looked at.
    """
    found = search_path.rows(connection, UNATTRIBUTED, {"tables": tables, "since": since})
    wrong = []
    for table, rows in found:
        if connection.execute(f"{rows} LIMIT 1".encode()).fetchone():
            wrong.append((f"{table} has rows that do not say by whom they were made or changed", f"{rows} LIMIT 10;"))
    return wrong, len(found)
