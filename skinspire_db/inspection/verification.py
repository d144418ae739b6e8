"""Checks of a database. Each passes, fails or, when it could not run, is unknown, and unknown is not passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.clinic import reference
from skinspire_db.config.policy import Policy
from skinspire_db.inspection import row_checks
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.lifecycle.result import Check, Summary, counted
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.status import status
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.programs import OLDEST_MAJOR
from skinspire_db.schema import tables
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# Also gives back the locks on what was looked at: thousands of tables have more than a server has room for.
MENDED = 3  # at once, by one remedy
TABLE_LOOK = in_shell("\\d public.parameter_settings")  # with its rules and triggers
GIVE_BACK, LOCKED = "ROLLBACK TO SAVEPOINT verification", 100
DRIFT, STATUS = "invoke db.drift --env={env}", "invoke triggers.status --env={env}"
NO_RIGHT = "use the role that owns the tables in the URL of {env}, or ask the administrator for that right"
ADMINISTRATORS = ("System Administrator", "Hospital Administrator")
ADMINISTRATORS_LOOK = (
    "SELECT user_id, u.is_active, is_deleted, locked_until,"
    " password_hash ~ '^([$]|scrypt:|pbkdf2:)' AS hashed, m.is_active AS has_role, r.status"
    " FROM users u JOIN user_role_mapping m USING (user_id) JOIN role_master r USING (role_id)"
    " WHERE role_name IN ('System Administrator', 'Hospital Administrator');"
)


class Failed(Exception):
    """What a check found wrong, the check's detail, and what to do about it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.remedy = remedy


@dataclass(frozen=True)
class Subject:
    """What the checks look at; without `writes` the transaction is read only, and nothing is written on trial."""

    connection: Connection
    environment: str
    policy: Policy
    wanted: Blueprint
    files: list[SqlFile]
    writes: bool = True


def verify(subject: Subject) -> Summary:
    """Run all checks on an open connection, back to a savepoint after each, so that one that breaks spoils no other.

    Nothing is left behind: what the write check wrote is rolled back.

    Args:
        subject: the connection, and what the database is compared with.

    Raises:
        psycopg.Error: the connection broke.
    """
    subject.connection.execute("SAVEPOINT verification")
    checks = [_run(name, check, subject) for name, check in CHECKS.items() if name != "views" or subject.wanted.views]
    subject.connection.execute("ROLLBACK TO SAVEPOINT verification; RELEASE SAVEPOINT verification")
    passed = sum(check.status == "pass" for check in checks)
    return Summary({"checks": len(checks), "passed": passed}, checks=checks)


def _run(name: str, check: Callable[[Subject], str], subject: Subject) -> Check:
    import psycopg

    try:
        looked = check(subject)
        subject.connection.execute(GIVE_BACK)
        return Check(name, "pass", looked)
    except Failed as failure:
        return Check(name, "fail", str(failure), failure.remedy)
    except psycopg.Error as error:
        if subject.connection.closed:
            raise  # there is nobody left to ask
        subject.connection.execute(GIVE_BACK)
        lacks = isinstance(error, psycopg.errors.InsufficientPrivilege)
        return Check(name, "unknown", f"could not look: {sentence(error)}", NO_RIGHT if lacks else DRIFT)


def _connection(subject: Subject) -> str:
    info = subject.connection.info
    row = _one(subject, "SELECT current_database(), current_user")
    return f"{row[0]} as {row[1]} on {info.host}:{info.port}"


def _server_version(subject: Subject) -> str:
    version = subject.connection.info.server_version
    _expect(
        version >= OLDEST_MAJOR * 10000,
        f"PostgreSQL {version // 10000} is older than {OLDEST_MAJOR}",
        f"copy the database to a server of PostgreSQL {OLDEST_MAJOR} or newer",
    )
    return f"PostgreSQL {version // 10000}.{version % 10000}"


def _stamp(subject: Subject) -> str:
    # Without tables, or with, the stamp is written only by whoever names the database.
    make = f"invoke env.stamp --env={{env}} --confirm={quote(subject.connection.info.dbname)}"
    _expect(tool_schema.exists(subject.connection), "the database has no stamp", make)
    row = subject.connection.execute("SELECT environment, identity FROM skinspire_tools.stamp").fetchone()
    _expect(row is not None, "the database has no stamp", make)
    assert row
    _expect(
        row[0] == subject.environment,
        f"the database is stamped {row[0]}, not {subject.environment}",
        "invoke db.doctor --env={env}",
    )
    return f"{row[0]}, identity {row[1]}"


def _tables(subject: Subject) -> str:
    differences = tables.compare(subject.connection, subject.wanted)
    _expect(not differences, "; ".join(differences), DRIFT)
    columns = sum(map(len, subject.wanted.columns.values()))
    return f"{len(subject.wanted.columns)} tables with {columns} columns as the models say"


def _constraints(subject: Subject) -> str:
    invalid = search_path.rows(
        subject.connection,
        """
        SELECT format('%s on %s', conname, conrelid::regclass),
               format('ALTER TABLE %s VALIDATE CONSTRAINT %I;', conrelid::regclass, conname),
               CASE contype WHEN 'c' THEN format('SELECT * FROM %s WHERE NOT (%s) LIMIT 10; ', conrelid::regclass,
                                                 pg_get_expr(conbin, conrelid)) ELSE '' END
        FROM pg_constraint WHERE NOT convalidated
        UNION ALL SELECT format('index %s', indexrelid::regclass), format('REINDEX INDEX %s;', indexrelid::regclass), ''
        FROM pg_index WHERE NOT indisvalid
        """,
    )
    _expect_none([(name, f"{rows}{statement}") for name, statement, rows in invalid], "not valid: ", ", ")
    live = tables.live_names(subject.connection)
    missing = [f"{name} on {table}" for table, name in subject.wanted.names if (table, name) not in live]
    _expect(not missing, f"missing: {', '.join(missing)}", DRIFT)
    return f"{len(subject.wanted.names)} constraints and indexes of the models are there, none is invalid"


def _views(subject: Subject) -> str:
    """The views that models are mapped to; a table in place of one serves, too."""
    missing = _column(
        subject,
        "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = name AND c.relkind IN ('v', 'm', 'r', 'p', 'f'))",
        (subject.wanted.views,),
    )
    names = [name.removeprefix("public.") for name in missing]
    filed = {name.replace('"', "") for file in subject.files for kind, name, _ in file.creates() if kind == "view"}
    remedy = "invoke sql.install --env={env}"
    if without := [name for name in names if not {name, f"public.{name}"} & filed]:
        remedy = f"invoke sql.new --view={quote(without[0])}, write its query, then invoke sql.bump and {remedy}"
    _expect(not missing, f"a model is mapped to what is not there: view {', view '.join(names)}", remedy)
    return f"{counted(len(subject.wanted.views), 'view')} that models are mapped to"


def _triggers(subject: Subject) -> str:
    states = status(subject.connection, subject.files)
    wrong = [f"{each.file}, {each.object}: {each.state}, {each.note}" for each in states if not each.right]
    _expect(not wrong, "; ".join(wrong), STATUS)
    idle = [each.file for each in states if each.state == "NOT APPLICABLE"]
    objects, files = len(states) - len(idle), len(subject.files) - len(idle)
    here = f"{objects} functions and triggers of {files} files are installed and enabled"
    return here + (f"; not applicable: {', '.join(idle)}" if idle else "")


def _reference(subject: Subject) -> str:
    keys = {
        "hospitals": "hospital_id::text", "branches": "branch_id::text", "parameter_settings": "param_code",
        "module_master": "module_name", "role_master": "role_name",
    }  # fmt: skip
    missing = []
    expected = reference.expected()
    for table, wanted in expected.items():
        of_the_system = "WHERE hospital_id IS NULL" if table in ("module_master", "role_master") else ""
        found = set(_column(subject, f"SELECT {keys[table]} FROM public.{table} {of_the_system}"))  # noqa: S608
        missing += [f"{table} {key}" for key in wanted if key not in found]
    seed = "invoke db.seed --env={env} --reference-only"
    _expect(not missing, f"missing: {', '.join(missing)}", seed)
    bare = _column(
        subject,
        "SELECT role_name FROM public.role_master r"
        " WHERE NOT EXISTS (SELECT FROM public.role_module_access a WHERE a.role_id = r.role_id)",
    )
    _expect(not bare, f"roles without any right: {', '.join(bare)}", "give each of them a row in role_module_access")
    return ", ".join(f"{len(wanted)} in {table}" for table, wanted in expected.items())


def _administrator(subject: Subject) -> str:
    able = _column(
        subject,
        """
        SELECT DISTINCT u.user_id FROM public.users u
        JOIN public.user_role_mapping m ON m.user_id = u.user_id AND m.is_active
        JOIN public.role_master r ON r.role_id = m.role_id AND r.is_active AND r.status = 'active'
        WHERE r.role_name = ANY (%s) AND u.is_active AND NOT u.is_deleted AND u.password_hash ~ %s
          AND (u.locked_until IS NULL OR u.locked_until <= now())
        """,
        (list(ADMINISTRATORS), row_checks.HASH),
    )
    look = in_shell(ADMINISTRATORS_LOOK)
    _expect(bool(able), "no administrator is active, unlocked and has a password", look)
    if not subject.policy.test_data:
        return f"{len(able)} of them: active, not locked, with a password hash"
    crypt = f"{reference.pgcrypto(subject.connection)}.crypt"
    opened = _column(
        subject,
        f"SELECT user_id FROM public.users WHERE user_id = ANY (%s) AND password_hash = {crypt}(%s::text, password_hash)",  # noqa: S608
        (able, reference.TEST_PASSWORD),
    )
    return f"{len(able)} of them: active, not locked; the documented password opens {len(opened)}"


def _sequences(subject: Subject) -> str:
    from psycopg import sql

    behind = []
    owned = subject.connection.execute(
        f"""
        SELECT n.nspname, c.relname, a.attname, s.seqrelid::regclass::text, s.seqincrement > 0
        FROM pg_sequence s JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
             AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
        WHERE {objects.APPLICATION_SCHEMA}
          AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
        """.encode()  # noqa: S608
    ).fetchall()
    for number, (schema_name, table, column, sequence, ascending) in enumerate(owned, 1):
        if number % LOCKED == 0:
            subject.connection.execute(GIVE_BACK)
        row = subject.connection.execute(
            sql.SQL("SELECT {}({}) FROM {}").format(
                sql.SQL("max" if ascending else "min"), sql.Identifier(column), sql.Identifier(schema_name, table)
            )
        ).fetchone()
        last, called = _one(subject, f"SELECT last_value, is_called FROM {sequence}")  # noqa: S608  # regclass quotes it
        if row and row[0] is not None:
            ahead = last >= row[0] if ascending else last <= row[0]
            if not ahead or (last == row[0] and not called):
                literal = "'" + sequence.replace("'", "''") + "'"
                mend = f"SELECT setval({literal}, {row[0]});"
                behind.append((f"{sequence} is at {last}, {table}.{column} at {row[0]}", mend))
    _expect_none(behind)
    return f"{len(owned)} sequences are ahead of their columns"


def _write(subject: Subject) -> str:
    _stamp(subject)  # nothing is written into a database that is not this environment's, not even for a moment
    if not subject.writes:
        return _may_write(subject)
    code = "SKINSPIRE_VERIFY"
    subject.connection.execute(
        "INSERT INTO public.parameter_settings (param_code, param_value) VALUES (%s, 'written')", (code,)
    )
    row = _one(
        subject, "SELECT param_value, created_by FROM public.parameter_settings WHERE param_code = %s", (code,), TABLE_LOOK
    )
    _expect(row[0] == "written", f"wrote 'written', read {row[0]!r}", TABLE_LOOK)
    tracked = any(file.name == "user_tracking" for file in subject.files)
    _expect(row[1] is not None or not tracked, "the triggers did not fire: created_by is empty", STATUS)
    return "a row was written, read back and rolled back"


def _may_write(subject: Subject) -> str:
    """Whether a write would be let in, told without one."""
    closed = _one(subject, "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')")
    _expect(not closed[0], "the server only reads, as a standby does", "name the primary in the URL of {env}")
    _expect(closed[1] == "off", "default_transaction_read_only is on: every transaction begins read only", in_shell("\\drds"))
    tables = sorted(subject.wanted.columns)
    found = search_path.rows(subject.connection, row_checks.DENIED, {"tables": tables})
    denied = [f"{right} on {name}" for name, right in found]
    _expect(not denied, f"role {subject.connection.info.user} lacks {', '.join(denied)}", NO_RIGHT)
    return f"role {subject.connection.info.user} may write to {len(tables)} tables, and the server takes writes"


def _foreign_keys(subject: Subject) -> str:
    _expect_none(search_path.rows(subject.connection, row_checks.SWITCHED_OFF), "switched off: ", ", ")
    loose, looked_at = row_checks.loose_rows(subject.connection)
    _expect_none(loose)
    return f"no row refers to nothing by one of {looked_at} foreign keys, and all of them are on"


def _storage(subject: Subject) -> str:
    tables = sorted(subject.wanted.columns)
    unlogged = {name for name in tables if _is_made_unlogged(subject, name)}
    parameters = {"tables": tables, "logged": [name for name in tables if name not in unlogged]}
    _expect_none(search_path.rows(subject.connection, row_checks.PASSED_BY, parameters))
    return f"{len(tables)} tables keep what is written to them, without rules in place of it"


def _is_made_unlogged(subject: Subject, table: str) -> bool:
    """Whether the models themselves say UNLOGGED."""
    name = table.removeprefix("public.")
    return any(
        each.startswith("CREATE UNLOGGED TABLE") and each.split()[3].strip('"') == name for each in subject.wanted.statements
    )


def _rows_of(name: str) -> Callable[[Subject], str]:
    """The check that looks at the rows of these rules, but for those whose trigger file the project leaves out."""

    def check(subject: Subject) -> str:
        names = {file.name for file in subject.files}
        rules = [rule for rule in row_checks.RULES[name] if rule.file in names]
        found = row_checks.broken(subject.connection, rules, reference.expected()["hospitals"][0])
        _expect(not found, "; ".join(says for says, _ in found), found[0][1] if found else "")
        return f"all rows: {', '.join(rule.looked_at for rule in rules) or 'none, as the trigger files are left out'}"

    return check


def _hashing(subject: Subject) -> str:
    """A row is right now; the next one is only when no other trigger undoes what ours has done."""
    looked_at = _rows_of("passwords")(subject)
    if not any(file.name == "password_hashing" for file in subject.files):
        return looked_at
    if not subject.writes:
        later = [name for (name,) in search_path.rows(subject.connection, row_checks.LATER_THAN_HASHING)]
        _expect(not later, f"fires after the hashing: {', '.join(later)}", in_shell("\\d public.users"))
        return f"{looked_at}; no trigger that fires later writes a password"
    _stamp(subject)
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
        row = _one(
            subject,
            "SELECT password_hash ~ %s FROM public.users WHERE user_id = %s",
            (row_checks.HASH, user),
            in_shell("\\d public.users"),
        )
        _expect(
            row == (True,),
            f"a password that {statement.split()[0]} writes stays as it was written",
            in_shell("\\d public.users"),
        )
    return f"{looked_at}; a plain one was written, was hashed, and rolled back"


def _attribution(subject: Subject) -> str:
    """What the triggers promise of rows since their file was installed; those from before may say nothing."""
    if not tool_schema.exists(subject.connection) or not any(file.name == "user_tracking" for file in subject.files):
        return "none, as the trigger file is not installed"
    row = subject.connection.execute(
        "SELECT installed_at FROM skinspire_tools.ledger WHERE name = 'user_tracking'"
        " AND to_jsonb(ledger) ->> 'disabled_by' IS NULL"
    ).fetchone()
    if row is None:
        return "none, as the trigger file is not installed"
    wrong, looked_at = row_checks.unattributed(subject.connection, sorted(subject.wanted.columns), row[0])
    _expect_none(wrong)
    return f"the rows of {looked_at} tables say by whom they were made and changed"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "connection": _connection,
    "server version": _server_version,
    "stamp": _stamp,
    "tables": _tables,
    "constraints": _constraints,
    "views": _views,
    "triggers": _triggers,
    "reference data": _reference,
    "administrator": _administrator,
    "sequences": _sequences,
    "foreign keys": _foreign_keys,
    "storage": _storage,
    "passwords": _hashing,
    "tenants": _rows_of("tenants"),
    "hospitals": _rows_of("hospitals"),
    "sessions and logins": _rows_of("sessions and logins"),
    "attribution": _attribution,
    "write": _write,
}


def _expect(condition: bool, otherwise: str, remedy: str) -> None:
    if not condition:
        raise Failed(otherwise, remedy)


def _expect_none(wrong: list[tuple[str, str]], title: str = "", between: str = "; ") -> None:
    """Fail with what is wrong; the remedy is the statements that mend the first of them, or show its rows."""
    some = " ".join(statement for _, statement in wrong[:MENDED])
    _expect(not wrong, title + between.join(says for says, _ in wrong), in_shell(some))


def _one(subject: Subject, query: str, parameters: tuple[Any, ...] | None = None, remedy: str = DRIFT) -> tuple[Any, ...]:
    row = subject.connection.execute(query.encode(), parameters).fetchone()
    if row is None:
        raise Failed("the row that was just written is not there", remedy)
    return tuple(row)


def _column(subject: Subject, query: str, parameters: tuple[Any, ...] | None = None) -> list[str]:
    return [row[0] for row in subject.connection.execute(query.encode(), parameters).fetchall()]
