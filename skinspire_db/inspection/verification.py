"""Checks of a database. Each passes, fails or, when it could not run, is unknown, and unknown is not passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects, row_security, tenant_tables
from skinspire_db.config import content, project_code, tenancy
from skinspire_db.content import reference
from skinspire_db.errors import StepFailed
from skinspire_db.inspection import row_checks, tenants
from skinspire_db.inspection.checks import DRIFT, SEED, Failed, Subject, expect, expect_none, first_column, one
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.remedies import in_shell
from skinspire_db.lifecycle.result import Check, Summary, counted
from skinspire_db.objects import kinds, tenant_faults, tenant_roles, versions
from skinspire_db.objects.status import status
from skinspire_db.postgres import search_path, side_by_side
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.programs import OLDEST_MAJOR
from skinspire_db.schema import tables

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# Also gives back the locks on what was looked at: thousands of tables have more than a server has room for.
GIVE_BACK = "ROLLBACK TO SAVEPOINT verification"
WRITING = ("write", "passwords")  # the checks that try a write, where the transaction may write
NO_RIGHT = "use the role that owns the tables in the URL of {env}, or ask the administrator for that right"


def verify(subject: Subject) -> Summary:
    """Run all checks on an open connection: those that only read side by side, the others back to a savepoint after each.
    One that breaks spoils no other.

    Nothing is left behind: what the write check wrote is rolled back.

    Args:
        subject: the connection, and what the database is compared with.

    Raises:
        psycopg.Error: the connection broke.
        PermissionMissing: row security hides rows from the role.
    """
    row_security.require_all_rows(subject.connection)  # no check looks at a part of the rows and passes
    subject.connection.execute("SAVEPOINT verification")
    every = checks_of(subject)
    reading = [name for name in every if not (subject.writes and name in WRITING)]
    asked = [partial(_run, name, every[name], subject) for name in reading]
    done = dict(zip(reading, side_by_side.run(subject.connection, *asked, savepoint="verification"), strict=True))
    writing = [name for name in every if name not in done]
    if writing:
        subject.connection.execute(GIVE_BACK)
    for name in writing:
        done[name] = _run(name, every[name], subject, subject.connection)
    subject.connection.execute("ROLLBACK TO SAVEPOINT verification; RELEASE SAVEPOINT verification")
    checks = [done[name][0] for name in every]
    notes = [f"note: {note}" for name in every for note in done[name][1]]
    return Summary({"checks": len(checks), "passed": sum(each.status == "pass" for each in checks)}, notes, checks)


def checks_of(subject: Subject) -> dict[str, Callable[[Subject], str]]:
    """The checks of any database; with the core's tables also those of the core, some in place of one of the same name."""
    checks = {name: check for name, check in CHECKS.items() if name != "views" or subject.wanted.views}
    if tenancy.is_on(subject.environment.project):
        checks["tenancy"] = _tenancy
    if subject.content.has_core:
        core: dict[str, Callable[[Subject], str]] = project_code.attribute(subject.environment.project, content.CORE_CHECKS)
        checks |= core
    return checks


def _run(name: str, check: Callable[[Subject], str], of: Subject, connection: Connection) -> tuple[Check, list[str]]:
    """A check's answer, and what it took note of."""
    subject = replace(of, connection=connection, notes=[])
    return _answer(name, check, subject), subject.notes


def _answer(name: str, check: Callable[[Subject], str], subject: Subject) -> Check:
    import psycopg

    beside = side_by_side.is_beside(subject.connection)
    try:
        looked = check(subject)
        if not beside:
            subject.connection.execute(GIVE_BACK)
        return Check(name, "pass", looked)
    except Failed as failure:
        return Check(name, "fail", str(failure), failure.remedy, failure.in_files)
    except StepFailed as error:  # rows that do not fit the tables
        return Check(name, "unknown", f"could not look: {error.message}", error.remedy or DRIFT)
    except psycopg.Error as error:
        if beside or subject.connection.closed:
            raise  # each is asked alone then; or there is no server left to ask
        subject.connection.execute(GIVE_BACK)
        lacks = isinstance(error, psycopg.errors.InsufficientPrivilege)
        return Check(name, "unknown", f"could not look: {sentence(error)}", NO_RIGHT if lacks else DRIFT)


def _connection(subject: Subject) -> str:
    info = subject.connection.info
    row = one(subject, "SELECT current_database(), current_user")
    return f"{row[0]} as {row[1]} on {info.host}:{info.port}"


def _server_version(subject: Subject) -> str:
    version = subject.connection.info.server_version
    expect(
        version >= OLDEST_MAJOR * 10000,
        f"PostgreSQL {version // 10000} is older than {OLDEST_MAJOR}",
        f"copy the database to a server of PostgreSQL {OLDEST_MAJOR} or newer",
    )
    return f"PostgreSQL {version // 10000}.{version % 10000}"


def stamp(subject: Subject) -> str:
    """Whether the database is this environment's.

    Raises:
        Failed: it is not.
    """
    # Without tables, or with, the stamp is written only after a confirmation.
    make = f"invoke env.stamp --env={{env}} --confirm={quote(subject.connection.info.dbname)}"
    found = tool_schema.read(subject.connection, "SELECT environment, identity FROM skinspire_tools.stamp")
    expect(bool(found), "the database has no stamp", make)
    assert found
    environment, identity = found[0]["environment"], found[0]["identity"]
    expect(
        environment == subject.environment.name,
        f"the database is stamped {environment}, not {subject.environment.name}",
        "invoke db.doctor --env={env}",
    )
    return f"{environment}, identity {identity}"


def _tables(subject: Subject) -> str:
    differences = tables.compare(subject.connection, subject.wanted)
    expect(not differences, "; ".join(differences), DRIFT)
    columns, models = sum(map(len, subject.wanted.columns.values())), len(subject.wanted.columns)
    others = objects.count_tables(subject.connection) - models
    return f"{models} tables with {columns} columns as the models say" + (
        f", beside {counted(others, 'table')} that no model has" if others > 0 else ""
    )


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
    expect_none([(name, f"{rows}{statement}") for name, statement, rows in invalid], "not valid: ", ", ")
    live = tables.live_names(subject.connection)
    missing = [f"{name} on {table}" for table, name in subject.wanted.names if (table, name) not in live]
    expect(not missing, f"missing: {', '.join(missing)}", DRIFT)
    return f"{len(subject.wanted.names)} constraints and indexes of the models are there, none is invalid"


def _views(subject: Subject) -> str:
    """The views that models are mapped to; a table in place of one serves, too."""
    missing = first_column(
        subject,
        "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = name AND c.relkind IN ('v', 'm', 'r', 'p', 'f'))",
        (list(subject.wanted.views),),
    )
    names = [name.removeprefix("public.") for name in missing]
    filed = {name.replace('"', "") for file in subject.files for kind, name, _ in file.creates() if kind == "view"}
    remedy = "invoke sql.install --env={env}"
    if without := [name for name in names if not {name, f"public.{name}"} & filed]:
        remedy = f"invoke sql.new --view={quote(without[0])}, write its query in that file, then invoke sql.bump"
        remedy += f" --name={quote(without[0].rpartition('.')[2])} and invoke db.prepare --env={{env}}"
    says = f"a model is mapped to what is not there: view {', view '.join(names)}"
    expect(not missing, says, remedy, in_files=bool(without))
    return f"{counted(len(subject.wanted.views), 'view')} that models are mapped to"


def _triggers(subject: Subject) -> str:
    states = status(subject.connection, subject.files)
    wrong = [f"{each.file}, {each.object}: {each.state}, {each.note}" for each in states if not each.right]
    collection = kinds.step_name(file.kind for file in subject.files)
    expect(not wrong, "; ".join(wrong), f"invoke {collection}.status --env={{env}}")
    idle = [each.file for each in states if each.state == "NOT APPLICABLE"]
    objects, files = len(states) - len(idle), len(subject.files) - len(idle)
    what = "functions and triggers" if collection == "triggers" else "functions, views and triggers"
    here = f"{objects} {what} of {files} files are installed and enabled"
    return here + (f"; not applicable: {', '.join(idle)}" if idle else "")


def _sequences(subject: Subject) -> str:
    behind, looked_at = row_checks.sequences_behind(
        subject.connection, give_back=lambda: subject.connection.execute(GIVE_BACK)
    )
    expect_none(behind)
    return f"{looked_at} sequences are ahead of their columns"


def reference_data(subject: Subject) -> str:
    """Whether the rows that the project's files name are there.

    Raises:
        Failed: some are not.
    """
    tables = [table for table in subject.content.tables if table.restore]
    missing = reference.missing(subject.connection, tables)
    expect(not missing, f"missing: {', '.join(missing)}", SEED)
    return ", ".join(f"{len(table.rows)} in {table.table}" for table in tables) or "the project has no reference data"


def _write(subject: Subject) -> str:
    if subject.writes:
        stamp(subject)
    return may_write(subject)


def may_write(subject: Subject) -> str:
    """Whether a write would be let in, told without one."""
    closed = one(subject, "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')")
    expect(not closed[0], "the server only reads, as a standby does", "name the primary in the URL of {env}")
    expect(closed[1] == "off", "default_transaction_read_only is on: every transaction begins read only", in_shell("\\drds"))
    tables = sorted(subject.wanted.columns)
    found = search_path.rows(subject.connection, row_checks.DENIED, {"tables": tables})
    denied = [f"{right} on {name}" for name, right in found]
    expect(not denied, f"role {subject.connection.info.user} lacks {', '.join(denied)}", NO_RIGHT)
    return f"role {subject.connection.info.user} may write to {len(tables)} tables, and the server takes writes"


def _foreign_keys(subject: Subject) -> str:
    expect_none(search_path.rows(subject.connection, row_checks.SWITCHED_OFF), "switched off: ", ", ")
    loose, looked_at = row_checks.loose_rows(subject.connection)
    expect_none(loose)
    return f"no row refers to nothing by one of {looked_at} foreign keys, and all of them are on"


def _storage(subject: Subject) -> str:
    tables = sorted(subject.wanted.columns)
    unlogged = _made_unlogged(subject)
    parameters = {"tables": tables, "logged": [name for name in tables if name not in unlogged]}
    expect_none(search_path.rows(subject.connection, row_checks.PASSED_BY, parameters))
    return f"{len(tables)} tables keep what is written to them, without rules in place of it"


def _made_unlogged(subject: Subject) -> set[str]:
    """The tables of which the models themselves say UNLOGGED."""
    names = (
        each.split()[3].replace('"', "") for each in subject.wanted.statements if each.startswith("CREATE UNLOGGED TABLE")
    )
    return {each for name in names for each in (name, f"public.{name}")}


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
    expect_none(wrong)
    return f"the rows of {looked_at} tables say by whom they were made and changed"


def _tenant_keys(subject: Subject) -> str:
    """Names the tables whose keys do not keep hospitals apart; it is no failure, as an application may not want that."""
    read = subject.tenant_tables
    found = tenants.gaps(read)
    if found:
        subject.notes.append(f"the keys of {', '.join(found)} do not keep hospitals apart; --verbose says how")
    apart = (
        f"{counted(tenants.count(read) - len(found), 'table')} with {tenant_tables.TENANT} keep hospitals apart by their keys"
    )
    return "; ".join([apart, *(f"{name}: {', '.join(phrases)}" for name, phrases in found.items())])


def _tenancy(subject: Subject) -> str:
    """Of the login, a change only takes note: it is no part of what was changed, and rolling that back mends nothing."""
    roles = tenant_roles.of(subject.environment)
    assert roles
    # All policy files: those that an adoption has left alone are holes as well.
    files = versions.current(subject.environment.project, (kinds.POLICY,), roles=roles)
    found = tenant_faults.of_database(subject.connection, roles, files, subject.tenant_tables)
    of_login = [] if subject.environment.embedded else tenant_faults.of_login(subject.connection, roles)
    if subject.writes:
        subject.notes.extend(f"{fault.says}; invoke db.doctor says what to do" for fault in of_login)
    else:
        found += of_login
    expect(not found, "; ".join(fault.says for fault in found), found[0].remedy if found else "")
    if definers := tenant_faults.definers(subject.connection, roles):
        subject.notes.append(f"{roles.application} may call {', '.join(definers)}, with the rights of the owner on all rows")
    return f"{roles.application} meets the policies of every table with {tenant_tables.TENANT}"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "connection": _connection,
    "server version": _server_version,
    "stamp": stamp,
    "tables": _tables,
    "constraints": _constraints,
    "views": _views,
    "triggers": _triggers,
    "reference data": reference_data,
    "sequences": _sequences,
    "foreign keys": _foreign_keys,
    "tenant keys": _tenant_keys,
    "storage": _storage,
    "attribution": _attribution,
    "write": _write,
}
