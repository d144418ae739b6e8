"""Triggers in a database: install the files, compare file, ledger and live object, and prove what they do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db import bookkeeping
from skinspire_db.connections import sentence
from skinspire_db.errors import TriggerFileInvalid
from skinspire_db.summary import Check, Summary
from skinspire_db.trigger_files import Attachment, TriggerFile

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.connections import Connection

State = Literal["INSTALLED", "OUTDATED", "DRIFTED", "DISABLED", "MISSING", "UNATTACHED", "ORPHANED"]
EXPECT = b"""
CREATE OR REPLACE FUNCTION pg_temp.expect(holds boolean, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Not ASSERT, which a setting turns off; and NULL does not hold.
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION '%', what USING ERRCODE = 'assert_failure';
    END IF;
END
$$
"""
Made = dict[str, dict[str, str]]  # "table trigger" -> its table, name, how it was made, definition


@dataclass(frozen=True)
class TriggerState:
    """What is known of one object: `object` is a function's signature or `trigger on TABLE`."""

    file: str
    object: str
    state: State


@dataclass(frozen=True)
class _Entry:
    """A row of the ledger."""

    sha256: str
    functions: dict[str, str]
    triggers: Made


def install(connection: Connection, files: list[TriggerFile]) -> Summary:
    """Make the database's functions, triggers and ledger what the files say, touching nothing that is right already.

    Runs in the caller's transaction. Drops only what the ledger knows. Raises TriggerFileInvalid with file and line for
    SQL that PostgreSQL refuses.
    """
    bookkeeping.ensure(connection)
    ledger = _ledger(connection)
    functions = attached = dropped = 0
    for file in files:
        entry = ledger.get(file.name)
        made = entry.functions if entry else {}
        if entry is None or entry.sha256 != file.sha256 or _fingerprints(connection, made) != made:
            made = _run(connection, file)
            functions += len(made)
        wanted = _wanted(connection, file)
        known = entry.triggers if entry else {}
        changed, triggers = _attach(connection, wanted, known)
        attached += changed
        dropped += _drop(connection, {key: known[key] for key in known.keys() - wanted.keys()})
        dropped += _drop_functions(connection, entry.functions.keys() - made.keys() if entry else ())
        if entry != _Entry(file.sha256, made, triggers):
            _write(connection, file, made, triggers)
    for name in ledger.keys() - {file.name for file in files}:
        dropped += _forget(connection, name, ledger[name])
    return Summary({"files": len(files), "functions": functions, "attached": attached, "dropped": dropped})


def prove(connection: Connection, files: list[TriggerFile]) -> list[Check]:
    """Run the behavioural proof of each file that has one; what they did is rolled back.

    A proof calls pg_temp.expect(condition, what is expected). One whose triggers are not all attached is unknown.
    """
    connection.execute("SAVEPOINT proof")
    checks = [_prove(connection, file) for file in files if file.proof.exists()]
    connection.execute("RELEASE SAVEPOINT proof")
    return checks


def _prove(connection: Connection, file: TriggerFile) -> Check:
    import psycopg

    attached = {attachment for _, attachment in _wanted(connection, file).values()}
    if missing := [each.trigger for each in file.attachments if each not in attached]:
        return Check(file.name, "unknown", f"{missing[0]} is on no table")
    try:
        connection.execute(EXPECT)
        connection.execute(file.proof.read_bytes())
        return Check(file.name, "pass", file.summary)
    except psycopg.Error as error:
        if connection.closed:
            raise
        failed = isinstance(error, psycopg.errors.AssertFailure)
        return Check(file.name, "fail", sentence(error) if failed else f"the proof broke off: {sentence(error)}")
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT proof")


def status(connection: Connection, files: list[TriggerFile]) -> list[TriggerState]:
    """The state of every function and trigger that the files or the ledger know."""
    ledger = _ledger(connection) if bookkeeping.exists(connection) else {}
    live = _live_triggers(connection)
    states: list[TriggerState] = []
    for file in files:
        entry = ledger.get(file.name)
        if entry is None:
            states.append(TriggerState(file.name, "file", "MISSING"))
            continue
        current = _fingerprints(connection, entry.functions)
        for signature, fingerprint in entry.functions.items():
            found = current.get(signature)
            state: State = "MISSING" if found is None else "INSTALLED" if found == fingerprint else "DRIFTED"
            outdated = state == "INSTALLED" and entry.sha256 != file.sha256
            states.append(TriggerState(file.name, signature, "OUTDATED" if outdated else state))
        for key, (table, attachment) in _wanted(connection, file).items():
            state = _trigger_state(entry.triggers.get(key), live.get((table, attachment.trigger)))
            states.append(TriggerState(file.name, f"{attachment.trigger} on {table}", state))
    for name in sorted(ledger.keys() - {file.name for file in files}):
        states.append(TriggerState(name, "file", "ORPHANED"))
    return states


def _run(connection: Connection, file: TriggerFile) -> dict[str, str]:
    """Run the file; returns the functions that it made or replaced, signature -> fingerprint."""
    import psycopg

    # A row of pg_proc that was written anew has a new ctid, whatever it says.
    before = _function_rows(connection)
    try:
        connection.execute(file.text.encode())
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        raise TriggerFileInvalid(
            f"{file.path}:{_line(file, error)}: {error.diag.message_primary}", remedy=f"correct {file.path.name}"
        ) from None
    after = _function_rows(connection)
    made = connection.execute(
        "SELECT oid::regprocedure::text FROM unnest(%s::oid[]) AS oid", ([oid for oid, _ in after - before],)
    ).fetchall()
    return _fingerprints(connection, (signature for (signature,) in made))


def _function_rows(connection: Connection) -> set[tuple[int, str]]:
    """Where the row of each function lies that is not PostgreSQL's own."""
    query = "SELECT oid, ctid::text FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace"
    return {(oid, row) for oid, row in connection.execute(query).fetchall()}


def _line(file: TriggerFile, error: psycopg.Error) -> int:
    if position := error.diag.statement_position:
        return file.text[: int(position) - 1].count("\n") + 1
    return 1


def _fingerprints(connection: Connection, signatures: Iterable[str]) -> dict[str, str]:
    """signature -> fingerprint of the definition, owner included, for the functions that exist."""
    return dict(
        connection.execute(
            """
            SELECT signature, md5(pg_get_functiondef(p.oid) || pg_get_userbyid(p.proowner))
            FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
            """,
            (sorted(signatures),),
        ).fetchall()
    )


def _wanted(connection: Connection, file: TriggerFile) -> dict[str, tuple[str, Attachment]]:
    """The triggers that the file should have in this database, by "table trigger"."""
    return {
        f"{table} {attachment.trigger}": (table, attachment)
        for attachment in file.attachments
        for table in _tables(connection, attachment)
    }


def _tables(connection: Connection, attachment: Attachment) -> list[str]:
    """The tables that an attachment belongs on, those that exist now, as schema.table, quoted."""
    return [
        table
        for (table,) in connection.execute(
            """
            SELECT format('%%I.%%I', n.nspname, c.relname)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'skinspire_tools')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                              AND d.deptype = 'e')
              AND (%(tables)s::text[] = '{}' OR c.relname = ANY (%(tables)s))
              AND c.relname <> ALL (%(exclude)s)
              AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   AND a.attname = ANY (%(columns)s)) = cardinality(%(columns)s::text[])
            ORDER BY 1
            """,
            {name: list(getattr(attachment, name)) for name in ("tables", "exclude", "columns")},
        ).fetchall()
    ]


def _live_triggers(connection: Connection) -> dict[tuple[str, str], tuple[str, bool]]:
    """(table, trigger) -> (definition, enabled) of all triggers that are not PostgreSQL's own."""
    return {
        (table, name): (definition, enabled)
        for table, name, definition, enabled in connection.execute(
            """
            SELECT format('%I.%I', n.nspname, c.relname), t.tgname, pg_get_triggerdef(t.oid), t.tgenabled IN ('O', 'A')
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE NOT t.tgisinternal AND t.tgparentid = 0
            """
        ).fetchall()
    }


def _trigger_state(known: dict[str, str] | None, found: tuple[str, bool] | None) -> State:
    if found is None:
        return "MISSING" if known else "UNATTACHED"
    if known is None or found[0] != known["definition"]:
        return "DRIFTED"
    return "INSTALLED" if found[1] else "DISABLED"


def _attach(connection: Connection, wanted: dict[str, tuple[str, Attachment]], known: Made) -> tuple[int, Made]:
    """Make the wanted triggers that are missing or wrong. Returns how many, and the ledger's view of all.

    One that is right is left alone: CREATE TRIGGER takes a lock that waits for every writer.
    """
    from psycopg import sql

    live = _live_triggers(connection)
    statements: list[sql.Composed] = []
    made: Made = {}
    for key, (table, attachment) in wanted.items():
        definition, enabled = live.get((table, attachment.trigger), ("", True))
        name, target = sql.Identifier(attachment.trigger), sql.SQL(table)  # quoted by PostgreSQL's format()
        condition = f"WHEN ({attachment.condition}) " if attachment.condition else ""
        how = f"{attachment.when} {condition}{attachment.function}"
        made[key] = {"table": table, "name": attachment.trigger, "how": how, "definition": definition}
        if known.get(key) != made[key]:
            statements.append(
                sql.SQL("CREATE OR REPLACE TRIGGER {} {} ON {} FOR EACH ROW {} EXECUTE FUNCTION {}()").format(
                    name, sql.SQL(attachment.when), target, sql.SQL(condition), sql.Identifier(attachment.function)
                )
            )
        if not enabled:
            statements.append(sql.SQL("ALTER TABLE {} ENABLE TRIGGER {}").format(target, name))
    if statements:
        connection.execute(sql.SQL("; ").join(statements))
        live = _live_triggers(connection)
        for key, (table, attachment) in wanted.items():
            made[key]["definition"] = live[table, attachment.trigger][0]
    return len(statements), made


def _drop(connection: Connection, triggers: Made) -> int:
    from psycopg import sql

    live = _live_triggers(connection) if triggers else {}
    gone = [known for known in triggers.values() if (known["table"], known["name"]) in live]
    for known in gone:
        target = sql.SQL(known["table"])  # quoted by PostgreSQL when the ledger was written
        connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(known["name"]), target))
    return len(gone)


def _drop_functions(connection: Connection, signatures: Iterable[str]) -> int:
    live = _fingerprints(connection, signatures)
    for signature in live:
        connection.execute(f"DROP ROUTINE {signature}".encode())  # regprocedure's own quoting
    return len(live)


def _forget(connection: Connection, name: str, entry: _Entry) -> int:
    """Drop what a file that is gone has left."""
    gone = _drop(connection, entry.triggers)
    gone += _drop_functions(connection, entry.functions)
    connection.execute("DELETE FROM skinspire_tools.ledger WHERE name = %s", (name,))
    return gone


def _ledger(connection: Connection) -> dict[str, _Entry]:
    rows = connection.execute("SELECT name, sha256, functions, triggers FROM skinspire_tools.ledger").fetchall()
    return {name: _Entry(sha256, functions, triggers) for name, sha256, functions, triggers in rows}


def _write(connection: Connection, file: TriggerFile, functions: dict[str, str], triggers: Any) -> None:
    connection.execute(
        """
        INSERT INTO skinspire_tools.ledger (name, version, sha256, functions, triggers) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (name) DO UPDATE SET (version, sha256, functions, triggers, installed_at, installed_by)
            = (EXCLUDED.version, EXCLUDED.sha256, EXCLUDED.functions, EXCLUDED.triggers, now(), session_user)
        """,
        (file.name, file.version, file.sha256, json.dumps(functions), json.dumps(triggers)),
    )
