"""The triggers that files attach: making those that are missing or wrong, dropping them, and switching them off and on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from skinspire_db.errors import UsageError
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Summary
from skinspire_db.objects import ledger
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.ledger import Entry, LiveTrigger, MadeTrigger, Wanted
from skinspire_db.objects.refusals import not_ours, refusal
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


Live = dict[tuple[str, str], LiveTrigger]  # by table and name


def at_once(connection: Connection, wanted: Iterable[tuple[dict[str, Wanted], Entry | None]], live: Live) -> Live | None:
    """Make the wanted triggers of several files that are missing or wrong, in one message.

    Args:
        connection: Where.
        wanted: The triggers of each file, and the ledger's entry of it.
        live: The triggers that are there.

    Returns:
        The triggers that are there then; None where nothing was made: PostgreSQL refuses one, or two files want one name.
    """
    import psycopg

    remade = [each for triggers, entry in wanted for each in _remade(triggers, entry, live)]
    statements = [each.statement(connection) for each in remade]
    if not statements or len({(each.table, each.attachment.trigger) for each in remade}) < len(remade):
        return None
    try:
        connection.execute(b"SAVEPOINT attaching")
        search_path.after_each(connection, [(";\n".join([*statements, "RELEASE SAVEPOINT attaching"]), "public")], ())
    except psycopg.Error:
        if connection.closed:
            raise
        connection.execute(b"ROLLBACK TO SAVEPOINT attaching; RELEASE SAVEPOINT attaching")
        return None
    return ledger.live_triggers(connection)


def _remade(wanted: dict[str, Wanted], entry: Entry | None, live: Live) -> list[Wanted]:
    """Those that are not as the ledger has them, or are missing."""
    known = entry.triggers if entry else {}
    found = []
    for key, each in wanted.items():
        now = MadeTrigger.of(each, live.get((each.table, each.attachment.trigger)))
        # The shape differs in a restored database, and a ledger of earlier tools has none: it says nothing here.
        if key not in known or replace(known[key], shape=now.shape) != now:
            found.append(each)
    return found


def attach(
    connection: Connection,
    file: SqlFile,
    wanted: dict[str, Wanted],
    entry: Entry | None,
    live: Live,
    after: Live | None = None,
) -> tuple[int, dict[str, MadeTrigger]]:
    """Make the wanted triggers of a file that are missing or wrong, also in `live`.

    One that is right is left alone: CREATE TRIGGER takes a lock that waits for every writer.

    Args:
        connection: Where.
        file: The file.
        wanted: Its triggers.
        entry: The ledger's entry of it.
        live: The triggers that are there.
        after: Those that are there since `at_once` has made them; None where it has not.

    Returns:
        How many were made or switched on, and what the ledger is to have of all of them.

    Raises:
        SqlFileInvalid: PostgreSQL refuses one.
        NotOurs: Other triggers of these names are there that no file made.
    """
    import psycopg

    known = entry.triggers if entry else {}
    enabled = entry is None or entry.disabled_by is None
    remade = _remade(wanted, entry, live)
    switched: list[tuple[str, str]] = []
    made: dict[str, MadeTrigger] = {}
    for key, each in wanted.items():
        present = live.get((each.table, each.attachment.trigger))
        made[key] = MadeTrigger.of(each, present)
        # What is made is enabled; what exists is as it is.
        if (each in remade or present is None or present.enabled) != enabled:
            switched.append((each.table, each.attachment.trigger))
    if remade:
        try:
            if after is None:
                with search_path.application(connection):
                    connection.execute("; ".join(each.statement(connection) for each in remade).encode())
        except psycopg.Error as error:  # the positions in PostgreSQL's errors are in these statements, not in the file
            raise refusal(file, error, file.line("attach")) from None
        live |= after or ledger.live_triggers(connection)
        theirs = []
        for key, each in wanted.items():
            former, made[key] = made[key], MadeTrigger.of(each, live[each.table, each.attachment.trigger])
            if key not in known and former.definition not in ("", made[key].definition):
                theirs.append(f"trigger {each.attachment.trigger} on {each.table}")
        if theirs:
            raise not_ours(file, theirs)
    _alter(connection, switched, enabled=enabled)
    return len(remade) + (len(switched) if enabled else 0), made


def drop(connection: Connection, triggers: Iterable[MadeTrigger]) -> int:
    """Drop triggers that files made, where they exist.

    Returns:
        How many.
    """
    from psycopg import sql

    triggers = list(triggers)
    live = ledger.live_triggers(connection) if triggers else {}
    gone = [known for known in triggers if (known.table, known.name) in live]
    for known in gone:
        target = sql.SQL(known.table)  # quoted by PostgreSQL when the ledger was written
        connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(known.name), target))
    return len(gone)


def refuse_uninstalled(connection: Connection, name: str) -> dict[str, Entry]:
    """Look whether a file is installed.

    Returns:
        The ledger's entries.

    Raises:
        UsageError: the file is not among them.
    """
    entries = ledger.read(connection) if tool_schema.exists(connection) else {}
    if name not in entries:
        raise UsageError(
            f"no trigger file {name} is installed; those that are: {', '.join(sorted(entries)) or 'none'}",
            remedy="invoke triggers.status --env={env}",
        )
    return entries


def switch(connection: Connection, name: str, *, enabled: bool) -> Summary:
    """Switch all triggers of an installed file on or off, and record that this is wished.

    Runs in the caller's transaction.

    Raises:
        UsageError: for a file that is not installed or attaches no triggers.
    """
    tool_schema.ensure(connection)
    entries = refuse_uninstalled(connection, name)
    live = ledger.live_triggers(connection)
    made = [(each.table, each.name) for each in entries[name].triggers.values()]
    present = {each: live[each] for each in made if each in live}
    if not present:
        look = "triggers.install" if entries[name].triggers else "triggers.status"
        raise UsageError(f"{name} has no triggers in this database", remedy=f"invoke {look} --env={{env}}")
    changed = [key for key, trigger in present.items() if trigger.enabled != enabled]
    _alter(connection, changed, enabled=enabled)
    ledger.wish(connection, name, enabled=enabled)
    return Summary({"enabled" if enabled else "disabled": len(changed), "were_so_already": len(present) - len(changed)})


def _alter(connection: Connection, triggers: Iterable[tuple[str, str]], *, enabled: bool) -> None:
    from psycopg import sql

    verb = sql.SQL("ENABLE" if enabled else "DISABLE")
    for table, name in triggers:
        connection.execute(sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(sql.SQL(table), verb, sql.Identifier(name)))
