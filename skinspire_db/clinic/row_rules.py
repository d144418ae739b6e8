"""What the core's triggers promise, looked up in the rows: what was done while they did not fire shows here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.postgres import side_by_side

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


def parameter(code: str, fallback: int, highest: int) -> str:
    """An expression for a number in parameter_settings: what integer_parameter() of parameters.sql answers, in other words."""
    return (
        r"coalesce((SELECT n FROM (SELECT substring(param_value, '^[ \t\r\n]*([0-9]{1,9})[ \t\r\n]*$')::integer AS n"
        f" FROM public.parameter_settings WHERE param_code = '{code}') AS p WHERE n BETWEEN 1 AND {highest}), {fallback})"
    )


@dataclass(frozen=True)
class Rule:
    """What no row may be.

    Args:
        file: The trigger file that promises it.
        says: What is wrong with the rows that the query finds.
        query: Names them, each in one text without patients' values.
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
        Rule("hospital_of_user", "not of their user's hospital",
             "SELECT format('%s of user %s', r.kind, r.user_id) FROM public.users u JOIN ("
             "SELECT 'a role', user_id, hospital_id FROM public.user_role_mapping"
             " UNION ALL SELECT 'a session', user_id, hospital_id FROM public.user_sessions"
             " UNION ALL SELECT 'a login', user_id, hospital_id FROM public.login_history"
             ") AS r (kind, user_id, hospital_id) USING (user_id) WHERE r.hospital_id IS DISTINCT FROM u.hospital_id",
             "rows of users",
             in_shell("UPDATE public.user_role_mapping SET hospital_id = NULL WHERE hospital_id IS NULL;"
                      " UPDATE public.user_sessions SET hospital_id = NULL WHERE hospital_id IS NULL;"
                      " UPDATE public.login_history SET hospital_id = NULL WHERE hospital_id IS NULL;")),
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
             f" HAVING count(*) > {parameter('MAX_ACTIVE_SESSIONS', 5, 10000)}",
             "active sessions of users",
             "set is_active to false in the oldest rows of user_sessions of those users"),
        Rule("login_tracking", "not locked after so many failed logins",
             "SELECT format('user %s', user_id) FROM public.users WHERE locked_until IS NULL AND failed_login_attempts"
             f" >= {parameter('MAX_LOGIN_ATTEMPTS', 5, 1000)}",
             "failed logins of users",
             "set locked_until of those users, or failed_login_attempts to 0 where a lock is not wanted"),
    ],
}  # fmt: skip
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

    def broken_by(rule: Rule, connection: Connection) -> list[str]:
        named = rule.query.replace("%s", "%%s")  # of format(), and no parameter of ours
        query = f"SELECT * FROM ({named}) AS found (name) ORDER BY 1 LIMIT 1000"
        return [str(row[0]) for row in connection.execute(query.encode(), {"first": first_hospital}).fetchall()]

    every = side_by_side.run(connection, *(partial(broken_by, rule) for rule in rules))
    for rule, rows in zip(rules, every, strict=True):
        if rows:
            more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
            found.append((f"{', '.join(rows[:3])}{more}: {rule.says}", rule.remedy))
    return found
