"""Making the triggers of a database what the files say, and switching a file's triggers off and on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from skinspire_db.errors import NotOurs, SqlFileInvalid, UsageError
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Summary
from skinspire_db.objects import ledger
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.ledger import Entry, Made, Wanted
from skinspire_db.postgres import search_path
from skinspire_db.postgres.failures import sentence

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection


FunctionRows = dict[int, tuple[str, str, str]]  # of _function_rows()


def install(connection: Connection, files: list[SqlFile], *, others: bool = True) -> Summary:
    """Make the database's functions, triggers and ledger what the files say, touching nothing that is right already.

    Runs in the caller's transaction. Drops only what the ledger knows and no file asks for any more; what files made that are
    not among `files` goes too, unless `others` is False. Triggers that `triggers.disable` has switched off stay off.

    Raises SqlFileInvalid with file and line for what PostgreSQL refuses and for a function that two files make, and
    NotOurs where a function or trigger of that name exists that no file made and that is another than the file's.
    """
    tool_schema.ensure(connection)
    entries = ledger.read(connection)
    count = attached = off = noted = 0
    functions: dict[str, dict[str, str]] = {}
    known: FunctionRows = {}
    for file in files:
        functions[file.name], changes = _functions(connection, file, entries, known)
        count += changes
    kept = {name: entry for name, entry in entries.items() if name not in functions} if not others else {}
    _refuse_two_makers(files, functions | {name: entry.functions for name, entry in kept.items()})
    among = ledger.tables(connection)
    wanted = {file.name: ledger.wanted(among, file) for file in files}
    live = ledger.live_triggers(connection)
    for file in files:
        entry = entries.get(file.name)
        changed, triggers = _attach(connection, file, wanted[file.name], entry, live)
        attached += changed
        if entry is None or (entry.sha256, entry.functions, entry.triggers) != (file.sha256, functions[file.name], triggers):
            ledger.write(connection, file, functions[file.name], triggers)
            noted += entry is not None and entry.sha256 != file.sha256
        off += len(triggers) if entry and entry.disabled_by else 0
    numbers: dict[str, int | str] = {
        "files": len(files), "functions": count, "attached": attached,
        "dropped": _drop_leftovers(connection, entries, kept, wanted, functions),
    }  # fmt: skip
    return Summary(numbers | ({"new_versions": noted} if noted else {}) | ({"left_disabled": off} if off else {}))


def _functions(
    connection: Connection, file: SqlFile, entries: dict[str, Entry], known: FunctionRows
) -> tuple[dict[str, str], int]:
    """The file's functions as they are now, signature -> fingerprint, and how many of them were others before, or missing."""
    entry = entries.get(file.name)
    before = ledger.fingerprints(connection, entry.functions) if entry else {}
    if entry and entry.sha256 == file.sha256 and before == entry.functions:
        return entry.functions, 0
    made, changed = made_by(connection, file, known)
    if foreign := changed - {signature for each in entries.values() for signature in each.functions}:
        signature = foreign.pop()
        raise NotOurs(
            f"{file.path}: function {signature} exists already, and no trigger file made it",
            remedy=f"rename one of the two, or drop it if nobody needs it: DROP FUNCTION {signature}",
        )
    return made, sum(before.get(signature) != fingerprint for signature, fingerprint in made.items())


def _refuse_two_makers(files: list[SqlFile], functions: dict[str, dict[str, str]]) -> None:
    makers: dict[str, str] = {}
    for name, made in functions.items():
        for signature in made:
            if (other := makers.setdefault(signature, name)) != name:
                path = next(file.path for file in files if file.name in (name, other))
                raise SqlFileInvalid(
                    f"{path}:1: function {signature} is made by {min(name, other)} and by {max(name, other)}",
                    remedy="let one of the two make it",
                )


def _drop_leftovers(
    connection: Connection,
    entries: dict[str, Entry],
    kept: dict[str, Entry],
    wanted: dict[str, dict[str, Wanted]],
    functions: dict[str, dict[str, str]],
) -> int:
    """Drop what the ledger knows and no file asks for any more; last, so that what moved to another file is left alone."""
    wanted_keys = {key for each in wanted.values() for key in each}
    signatures = {signature for each in functions.values() for signature in each}
    gone = [entry for name, entry in entries.items() if name not in kept]
    dropped = sum(
        _drop(connection, {key: each for key, each in entry.triggers.items() if key not in wanted_keys}) for entry in gone
    )
    dropped += sum(_drop_functions(connection, entry.functions.keys() - signatures) for entry in gone)
    for name in entries.keys() - kept.keys() - functions.keys():
        ledger.forget(connection, name)
    return dropped


def refuse_uninstalled(connection: Connection, name: str) -> dict[str, ledger.Entry]:
    """The ledger's entries. Raises UsageError when the file is not among them."""
    entries = ledger.read(connection) if tool_schema.exists(connection) else {}
    if name not in entries:
        raise UsageError(
            f"no trigger file {name} is installed; those that are: {', '.join(sorted(entries)) or 'none'}",
            remedy="invoke triggers.status --env={env}",
        )
    return entries


def switch(connection: Connection, name: str, *, enabled: bool) -> Summary:
    """Switch all triggers of an installed file on or off, and record that this is wished.

    Runs in the caller's transaction. Raises UsageError for a file that is not installed or attaches no triggers.
    """
    tool_schema.ensure(connection)
    entries = refuse_uninstalled(connection, name)
    live = ledger.live_triggers(connection)
    made = entries[name].triggers.values()
    present = {(each["table"], each["name"]): live[each["table"], each["name"]] for each in made
               if (each["table"], each["name"]) in live}  # fmt: skip
    if not present:
        look = "triggers.install" if entries[name].triggers else "triggers.status"
        raise UsageError(f"{name} has no triggers in this database", remedy=f"invoke {look} --env={{env}}")
    changed = [key for key, trigger in present.items() if trigger.enabled != enabled]
    _alter(connection, changed, enabled=enabled)
    ledger.wish(connection, name, enabled=enabled)
    return Summary({"enabled" if enabled else "disabled": len(changed), "were_so_already": len(present) - len(changed)})


def made_by(connection: Connection, file: SqlFile, known: FunctionRows | None = None) -> tuple[dict[str, str], set[str]]:
    """Run a file in the caller's transaction.

    Args:
        connection: Where.
        file: The trigger file.
        known: What the database's functions were after the file before this one; brought up to date. None, or empty,
            reads them.

    Returns:
        The functions that the file made or replaced, signature -> fingerprint; and the signatures of those that were
        another function before.

    Raises:
        SqlFileInvalid: PostgreSQL refuses the file, which is named with the line; the transaction is broken then.
    """
    transaction = _transaction(connection)
    before = dict(known or {}) or _function_rows(connection)
    with _refusals(file), search_path.application(connection):
        connection.execute(file.text.encode())
    after = _function_rows(connection)
    written = [oid for oid, (place, _, _) in after.items() if oid not in before or before[oid][0] != place]
    changed = {signature for oid, (_, signature, text) in after.items() if oid in before and before[oid][2] != text}
    if _transaction(connection) != transaction:
        raise SqlFileInvalid(
            f"{file.path}:1: the file has ended the transaction, and what it did before stays",
            remedy=f"correct {file.path.name}",
        )
    signatures = [after[oid][1] for oid in written]
    if _own(connection, file, signatures):
        after = _function_rows(connection)
    if known is not None:
        known.clear()
        known.update(after)
    return ledger.fingerprints(connection, signatures), changed


def _transaction(connection: Connection) -> object:
    return connection.execute("SELECT pg_current_xact_id()::text").fetchone()


def _own(connection: Connection, file: SqlFile, signatures: list[str]) -> bool:
    """Make sure that the functions are ours, and that one with its owner's rights finds nothing of its caller's. Returns
    whether one had another owner.
    """
    rows = search_path.rows(
        connection,
        """
        SELECT signature, pg_get_userbyid(p.proowner) <> current_user,
               p.prosecdef AND coalesce(p.proconfig, '{}')::text !~ 'search_path='
        FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
        """,
        (signatures,),
    )
    for signature, others, unsafe in rows:
        if unsafe:
            raise SqlFileInvalid(
                f"{file.path}:1: {signature} is SECURITY DEFINER without a search_path of its own",
                remedy="add SET search_path FROM CURRENT",
            )
        if others:
            with search_path.application(connection):
                connection.execute(f"ALTER ROUTINE {signature} OWNER TO CURRENT_USER".encode())  # regprocedure's own quoting
    return any(others for _, others, _ in rows)


@contextlib.contextmanager
def _refusals(file: SqlFile, line: int | None = None) -> Iterator[None]:
    """Turn what PostgreSQL refuses into a SqlFileInvalid with file and line; what is not the file's fault passes."""
    import psycopg

    try:
        yield
    except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege):  # locks, the disk, the connection, rights
        raise
    except psycopg.Error as error:
        raise SqlFileInvalid(
            f"{file.path}:{line or _line(file, error) or 1}: {sentence(error)}",
            remedy=error.diag.message_hint or f"correct {file.path.name}",
        ) from None


def _function_rows(connection: Connection) -> FunctionRows:
    """oid -> where the row lies, signature, and a hash of all the row says, of each function that is not PostgreSQL's own.

    A row that was written anew lies elsewhere, whatever it says.
    """
    query = """
        SELECT oid, ctid::text, oid::regprocedure::text, md5(p::text) FROM pg_proc p
        WHERE pronamespace <> 'pg_catalog'::regnamespace
    """
    return {oid: (row, signature, text) for oid, row, signature, text in search_path.rows(connection, query)}


def _line(file: SqlFile, error: psycopg.Error) -> int | None:
    if position := error.diag.statement_position:
        return file.text[: int(position) - 1].count("\n") + 1
    return file.line_of(error.diag.context or "")


def _attach(
    connection: Connection,
    file: SqlFile,
    wanted: dict[str, Wanted],
    entry: Entry | None,
    live: dict[tuple[str, str], ledger.LiveTrigger],
) -> tuple[int, Made]:
    """Make the wanted triggers that are missing or wrong, also in `live`. Returns how many, and the ledger's view of all.

    One that is right is left alone: CREATE TRIGGER takes a lock that waits for every writer.
    """
    known = entry.triggers if entry else {}
    enabled = entry is None or entry.disabled_by is None
    statements: list[str] = []
    switched: list[tuple[str, str]] = []
    made: Made = {}
    for key, each in wanted.items():
        found = live.get((each.table, each.attachment.trigger))
        made[key] = {
            "table": each.table, "name": each.attachment.trigger, "how": each.how,
            "definition": found.definition if found else "", "shape": found.shape if found else "",
        }  # fmt: skip
        # The shape differs in a restored database, and a ledger of earlier tools has none: it says nothing here.
        remade = {**known.get(key, {}), "shape": made[key]["shape"]} != made[key]
        if remade:
            statements.append(each.statement(connection))
        # What is made is enabled; what exists is as it is.
        if (remade or found is None or found.enabled) != enabled:
            switched.append((each.table, each.attachment.trigger))
    if statements:
        with _refusals(file, file.line("attach")), search_path.application(connection):
            # The positions in PostgreSQL's errors are in these statements, not in the file.
            connection.execute("; ".join(statements).encode())
        live |= ledger.live_triggers(connection)
        for key, each in wanted.items():
            former, now = made[key]["definition"], live[each.table, each.attachment.trigger]
            made[key] |= {"definition": now.definition, "shape": now.shape}
            if key not in known and former not in ("", made[key]["definition"]):
                raise NotOurs(
                    f"trigger {each.attachment.trigger} on {each.table} exists already, and no trigger file made it",
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
    if not (live := ledger.fingerprints(connection, signatures)):
        return 0
    with search_path.application(connection):
        for signature in live:
            connection.execute(f"DROP ROUTINE {signature}".encode())  # regprocedure's own quoting
    return len(live)
