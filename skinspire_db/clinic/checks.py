"""The checks of the core's tables: administrators, passwords, tenants, sessions, and a row that is written on trial."""

from __future__ import annotations

from collections.abc import Callable

from skinspire_db.clinic import reference, row_rules
from skinspire_db.inspection import verification
from skinspire_db.inspection.checks import STATUS, Subject, expect, first_column, one
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.postgres import search_path

TABLE_LOOK = in_shell("\\d public.parameter_settings")  # with its rules and triggers
ADMINISTRATORS = ("System Administrator", "Hospital Administrator")
ADMINISTRATORS_LOOK = (
    "SELECT user_id, u.is_active, is_deleted, locked_until,"
    " password_hash ~ '^([$]|scrypt:|pbkdf2:)' AS hashed, m.is_active AS has_role, r.status"
    " FROM users u JOIN user_role_mapping m USING (user_id) JOIN role_master r USING (role_id)"
    " WHERE role_name IN ('System Administrator', 'Hospital Administrator');"
)


def _reference(subject: Subject) -> str:
    looked_at = verification.reference_data(subject)
    bare = first_column(
        subject,
        "SELECT role_name FROM public.role_master r"
        " WHERE NOT EXISTS (SELECT FROM public.role_module_access a WHERE a.role_id = r.role_id)",
    )
    expect(not bare, f"roles without any right: {', '.join(bare)}", "give each of them a row in role_module_access")
    return looked_at


def _administrator(subject: Subject) -> str:
    able = first_column(
        subject,
        """
        SELECT DISTINCT u.user_id FROM public.users u
        JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
        JOIN public.role_master r ON r.role_id = m.role_id AND r.is_active AND r.status = 'active'
        WHERE r.role_name = ANY (%s) AND u.is_active AND NOT u.is_deleted AND u.password_hash ~ %s
          AND (u.locked_until IS NULL OR u.locked_until <= now())
        """,
        (list(ADMINISTRATORS), row_rules.HASH),
    )
    look = in_shell(ADMINISTRATORS_LOOK)
    expect(bool(able), "no administrator is active, unlocked and has a password", look)
    if not subject.policy.test_data:
        return f"{len(able)} of them: active, not locked, with a password hash"
    crypt = f"{reference.pgcrypto(subject.connection)}.crypt"
    opened = first_column(
        subject,
        f"SELECT user_id FROM public.users WHERE user_id = ANY (%s) AND password_hash = {crypt}(%s::text, password_hash)",  # noqa: S608
        (able, reference.TEST_PASSWORD),
    )
    return f"{len(able)} of them: active, not locked; the documented password opens {len(opened)}"


def _write(subject: Subject) -> str:
    verification.stamp(subject)  # nothing is written into a database that is not this environment's, not even for a moment
    if not subject.writes:
        return verification.may_write(subject)
    code = "SKINSPIRE_VERIFY"
    query = "SELECT param_value, created_by FROM public.parameter_settings WHERE param_code = %s"
    with subject.connection.pipeline():  # what needs no answer is sent without waiting for one
        subject.connection.execute(
            "INSERT INTO public.parameter_settings (param_code, param_value) VALUES (%s, 'written')", (code,)
        )
        row = one(subject, query, (code,), TABLE_LOOK)
    expect(row[0] == "written", f"wrote 'written', read {row[0]!r}", TABLE_LOOK)
    tracked = any(file.name == "user_tracking" for file in subject.files)
    expect(row[1] is not None or not tracked, "the triggers did not fire: created_by is empty", STATUS)
    return "a row was written, read back and rolled back"


def _rows_of(name: str) -> Callable[[Subject], str]:
    """The check that looks at the rows of these rules, but for those whose trigger file the project leaves out."""

    def check(subject: Subject) -> str:
        names = {file.name for file in subject.files}
        rules = [rule for rule in row_rules.RULES[name] if rule.file in names]
        found = row_rules.broken(subject.connection, rules, reference.load()["hospital"]["hospital_id"])
        expect(not found, "; ".join(says for says, _ in found), found[0][1] if found else "")
        return f"all rows: {', '.join(rule.looked_at for rule in rules) or 'none, as the trigger files are left out'}"

    return check


def _hashing(subject: Subject) -> str:
    """A row is right now; the next one is only when no other trigger undoes what ours has done."""
    looked_at = _rows_of("passwords")(subject)
    if not any(file.name == "password_hashing" for file in subject.files):
        return looked_at
    if not subject.writes:
        later = [name for (name,) in search_path.rows(subject.connection, row_rules.LATER_THAN_HASHING)]
        expect(not later, f"fires after the hashing: {', '.join(later)}", in_shell("\\d public.users"))
        return f"{looked_at}; no trigger that fires later writes a password"
    verification.stamp(subject)
    # The least cost: at the default of 12 each of the two hashes takes a quarter of a second.
    subject.connection.execute(
        "INSERT INTO public.parameter_settings (param_code, param_value) VALUES ('PASSWORD_HASH_COST', '4')"
        " ON CONFLICT (param_code) DO UPDATE SET param_value = EXCLUDED.param_value"
    )
    user, written = "SKINSPIRE_CHECK", "not a hash"
    for statement in (
        "INSERT INTO public.users (user_id, entity_type, entity_id, password_hash)"
        " VALUES (%s, 'staff', gen_random_uuid(), %s)",
        "UPDATE public.users SET password_hash = %s WHERE user_id = %s",
    ):
        values = (user, written) if statement.startswith("INSERT") else (f"{written} either", user)
        subject.connection.execute(statement.encode(), values)
        row = one(
            subject,
            "SELECT password_hash ~ %s FROM public.users WHERE user_id = %s",
            (row_rules.HASH, user),
            in_shell("\\d public.users"),
        )
        expect(
            row == (True,),
            f"a password that {statement.split()[0]} writes stays as it was written",
            in_shell("\\d public.users"),
        )
    return f"{looked_at}; a plain one was written, was hashed, and rolled back"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "reference data": _reference,
    "write": _write,
    "administrator": _administrator,
    "passwords": _hashing,
    "tenants": _rows_of("tenants"),
    "hospitals": _rows_of("hospitals"),
    "sessions and logins": _rows_of("sessions and logins"),
}
