"""Making the triggers of a database what the files say, and switching a file's triggers off and on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from skinspire_db import bookkeeping
from skinspire_db.errors import NotOurs, TriggerFileInvalid, UsageError
from skinspire_db.summary import Summary
from skinspire_db.triggers import ledger
from skinspire_db.triggers.files import Attachment, TriggerFile
from skinspire_db.triggers.ledger import Entry, Made

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.connections import Connection


def install(connection: Connection, files: list[TriggerFile], *, others: bool = True) -> Summary:
    """Make the database's functions, triggers and ledger what the files say, touching nothing that is right already.

    Runs in the caller's transaction. Drops only what the ledger knows: what an earlier version of a file made and this one
    does not, and what files made that are not among `files`, unless `others` is False. Triggers that `triggers.disable`
    has switched off stay off. Raises TriggerFileInvalid with file and line for SQL that PostgreSQL refuses, and NotOurs where
    a function or trigger of that name exists that no file made and that is another than the file's.
    """
    bookkeeping.ensure(connection)
    entries = ledger.read(connection)
    ours = {signature for entry in entries.values() for signature in entry.functions}
    functions = attached = dropped = off = 0
    for file in files:
        entry = entries.get(file.name)
        made = entry.functions if entry else {}
        if entry is None or entry.sha256 != file.sha256 or ledger.fingerprints(connection, made) != made:
            made, changed = made_by(connection, file)
            if foreign := changed - ours:
                signature = foreign.pop()
                raise NotOurs(
                    f"{file.path}: function {signature} exists already, and no trigger file made it",
                    remedy=f"rename one of the two, or drop it if nobody needs it: DROP FUNCTION {signature}",
                )
            functions += len(made)
        wanted = ledger.wanted(connection, file)
        known = entry.triggers if entry else {}
        count, triggers = _attach(connection, wanted, entry)
        attached += count
        dropped += _drop(connection, {key: known[key] for key in known.keys() - wanted.keys()})
        dropped += _drop_functions(connection, entry.functions.keys() - made.keys() if entry else ())
        if entry is None or (entry.sha256, entry.functions, entry.triggers) != (file.sha256, made, triggers):
            ledger.write(connection, file, made, triggers)
        off += len(triggers) if entry and entry.disabled_by else 0
    for name in entries.keys() - {file.name for file in files} if others else ():
        dropped += _forget(connection, name, entries[name])
    numbers: dict[str, int | str] = {
        "files": len(files), "functions": functions, "attached": attached, "dropped": dropped,
    }  # fmt: skip
    return Summary(numbers | ({"left_disabled": off} if off else {}))


def switch(connection: Connection, name: str, *, enabled: bool) -> Summary:
    """Switch all triggers of an installed file on or off, and record that this is wished.

    Runs in the caller's transaction. Raises UsageError for a file that is not installed or attaches no triggers.
    """
    bookkeeping.ensure(connection)
    entries = ledger.read(connection)
    if name not in entries:
        raise UsageError(
            f"no trigger file {name} is installed; those that are: {', '.join(sorted(entries)) or 'none'}",
            remedy="invoke triggers.status --env={env}",
        )
    live = ledger.live_triggers(connection)
    made = entries[name].triggers.values()
    present = {(each["table"], each["name"]): live[each["table"], each["name"]] for each in made
               if (each["table"], each["name"]) in live}  # fmt: skip
    if not present:
        raise UsageError(f"{name} has no triggers in this database", remedy="invoke triggers.status --env={env}")
    changed = [key for key, trigger in present.items() if trigger.enabled != enabled]
    _alter(connection, changed, enabled=enabled)
    ledger.wish(connection, name, enabled=enabled)
    return Summary({"enabled" if enabled else "disabled": len(changed), "were_so_already": len(present) - len(changed)})


def how(attachment: Attachment) -> str:
    """An attachment in words that change when the trigger must be made anew."""
    condition = f"WHEN ({attachment.condition}) " if attachment.condition else ""
    return f"{attachment.when} {condition}{attachment.function}"


def statement(connection: Connection, table: str, attachment: Attachment) -> str:
    """The CREATE TRIGGER statement; `table` is quoted already."""
    from psycopg import sql

    condition = f"WHEN ({attachment.condition}) " if attachment.condition else ""
    return (
        sql.SQL("CREATE OR REPLACE TRIGGER {} {} ON {} FOR EACH ROW {}EXECUTE FUNCTION {}()")
        .format(
            sql.Identifier(attachment.trigger), sql.SQL(attachment.when), sql.SQL(table), sql.SQL(condition),
            sql.Identifier(attachment.function),
        )
        .as_string(connection)
    )  # fmt: skip


def made_by(connection: Connection, file: TriggerFile) -> tuple[dict[str, str], set[str]]:
    """Run the file; returns the functions that it made or replaced, signature -> fingerprint, and the signatures of those
    that it replaced by something else.

    Raises TriggerFileInvalid with file and line for what PostgreSQL refuses; the transaction is broken then.
    """
    import psycopg

    before = _function_rows(connection)
    try:
        connection.execute(file.text.encode())
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        raise TriggerFileInvalid(
            f"{file.path}:{_line(file, error)}: {error.diag.message_primary}", remedy=f"correct {file.path.name}"
        ) from None
    made: list[str] = []
    changed: set[str] = set()
    for oid, (row, signature, text) in _function_rows(connection).items():
        former = before.get(oid)
        if former is None or former[0] != row:
            made.append(signature)
        if former is not None and former[2] != text:
            changed.add(signature)
    return ledger.fingerprints(connection, made), changed


def _function_rows(connection: Connection) -> dict[int, tuple[str, str, str]]:
    """oid -> where the row lies, signature, and a hash of all the row says, of each function that is not PostgreSQL's own.

    A row that was written anew lies elsewhere, whatever it says.
    """
    query = """
        SELECT oid, ctid::text, oid::regprocedure::text, md5(p::text) FROM pg_proc p
        WHERE pronamespace <> 'pg_catalog'::regnamespace
    """
    return {oid: (row, signature, text) for oid, row, signature, text in connection.execute(query).fetchall()}


def _line(file: TriggerFile, error: psycopg.Error) -> int:
    if position := error.diag.statement_position:
        return file.text[: int(position) - 1].count("\n") + 1
    return file.line_of(error.diag.context or "") or 1


def _attach(connection: Connection, wanted: dict[str, tuple[str, Attachment]], entry: Entry | None) -> tuple[int, Made]:
    """Make the wanted triggers that are missing or wrong. Returns how many, and the ledger's view of all.

    One that is right is left alone: CREATE TRIGGER takes a lock that waits for every writer.
    """
    known = entry.triggers if entry else {}
    enabled = entry is None or entry.disabled_by is None
    live = ledger.live_triggers(connection)
    statements: list[str] = []
    switched: list[tuple[str, str]] = []
    made: Made = {}
    for key, (table, attachment) in wanted.items():
        found = live.get((table, attachment.trigger))
        made[key] = {
            "table": table, "name": attachment.trigger, "how": how(attachment),
            "definition": found.definition if found else "",
        }  # fmt: skip
        remade = known.get(key) != made[key]
        if remade:
            statements.append(statement(connection, table, attachment))
        # What is made is enabled; what exists is as it is.
        if (remade or found is None or found.enabled) != enabled:
            switched.append((table, attachment.trigger))
    if statements:
        connection.execute("; ".join(statements).encode())
        live = ledger.live_triggers(connection)
        for key, (table, attachment) in wanted.items():
            former, made[key]["definition"] = made[key]["definition"], live[table, attachment.trigger].definition
            if key not in known and former not in ("", made[key]["definition"]):
                raise NotOurs(
                    f"trigger {attachment.trigger} on {table} exists already, and no trigger file made it",
                    remedy="rename it, or drop it if nobody needs it",
                )
    _alter(connection, switched, enabled=enabled)
    return len(statements) + (len(switched) if enabled else 0), made


def _alter(connection: Connection, triggers: Iterable[tuple[str, str]], *, enabled: bool) -> None:
    from psycopg import sql

    verb = sql.SQL("ENABLE" if enabled else "DISABLE")
    for table, name in triggers:
        connection.execute(sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(sql.SQL(table), verb, sql.Identifier(name)))


def _drop(connection: Connection, triggers: Made) -> int:
    from psycopg import sql

    live = ledger.live_triggers(connection) if triggers else {}
    gone = [known for known in triggers.values() if (known["table"], known["name"]) in live]
    for known in gone:
        target = sql.SQL(known["table"])  # quoted by PostgreSQL when the ledger was written
        connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(known["name"]), target))
    return len(gone)


def _drop_functions(connection: Connection, signatures: Iterable[str]) -> int:
    live = ledger.fingerprints(connection, signatures)
    for signature in live:
        connection.execute(f"DROP ROUTINE {signature}".encode())  # regprocedure's own quoting
    return len(live)


def _forget(connection: Connection, name: str, entry: Entry) -> int:
    """Drop what a file that is gone has left."""
    gone = _drop(connection, entry.triggers)
    gone += _drop_functions(connection, entry.functions)
    ledger.forget(connection, name)
    return gone
