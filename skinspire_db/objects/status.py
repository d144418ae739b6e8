"""Comparing file, ledger and live object: the state of each function and trigger, and where they differ."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db.errors import SqlFileInvalid
from skinspire_db.objects import ledger
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.install import made_by
from skinspire_db.objects.ledger import Entry, LiveTrigger, Table, Wanted

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

State = Literal["INSTALLED", "OUTDATED", "DRIFTED", "DISABLED", "MISSING", "UNATTACHED", "ORPHANED"]
WHOLE = "(all of it)"
NO_TABLE = "there is no such table"


@dataclass(frozen=True)
class TriggerState:
    """What is known of one object: `object` is a function's signature or `trigger on TABLE`. `installed` and `current` are
    the versions in the ledger and of the file, None where there is none; `note` says why it is in that state, `on_purpose`
    that `triggers.disable` put it there.
    """

    file: str
    object: str
    state: State
    installed: int | None = None
    current: int | None = None
    note: str = ""
    on_purpose: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The state as `--json` shows it."""
        return dict(vars(self))


def status(connection: Connection, files: list[SqlFile]) -> list[TriggerState]:
    """The state of every function and trigger that the files or the ledger know."""
    entries = ledger.read(connection)
    live = ledger.live_triggers(connection, entries.values())
    among = ledger.tables(connection)
    states: list[TriggerState] = []
    for file in files:
        entry = entries.get(file.name)
        if entry is None:
            states.append(TriggerState(file.name, WHOLE, "MISSING", None, file.version, "never installed here"))
            continue
        found = _functions(connection, file, entry) + _triggers(among, file, entry, live)
        if entry.sha256 != file.sha256 and not any(state == "OUTDATED" for _, state, _ in found):
            found.append((WHOLE, "OUTDATED", _outdated(file, entry)))
        wished = entry.disabled_by is not None
        states += [
            TriggerState(file.name, each, state, entry.version, file.version, note, wished and state == "DISABLED")
            for each, state, note in found
        ]
    for name in sorted(entries.keys() - {file.name for file in files}):
        note = "its file is gone or left out in pyproject.toml; an install drops it"
        states.append(TriggerState(name, WHOLE, "ORPHANED", entries[name].version, None, note))
    return states


def _functions(connection: Connection, file: SqlFile, entry: Entry) -> list[tuple[str, State, str]]:
    current = ledger.fingerprints(connection, entry.functions)
    found: list[tuple[str, State, str]] = []
    for signature, fingerprint in entry.functions.items():
        if signature not in current:
            found.append((signature, "MISSING", "dropped by hand"))
        elif current[signature] != fingerprint:
            found.append((signature, "DRIFTED", f"definition or owner is not what version {entry.version} made"))
        elif entry.sha256 != file.sha256:
            found.append((signature, "OUTDATED", _outdated(file, entry)))
        else:
            found.append((signature, "INSTALLED", ""))
    return found


def _triggers(
    among: list[Table], file: SqlFile, entry: Entry, live: dict[tuple[str, str], LiveTrigger]
) -> list[tuple[str, State, str]]:
    wanted = ledger.wanted(among, file)
    found: list[tuple[str, State, str]] = []
    for key, each in wanted.items():
        state, note = _trigger(entry, entry.triggers.get(key), live.get((each.table, each.attachment.trigger)), each)
        outdated = "" if state == "INSTALLED" else _outdated(file, entry)
        found.append((f"{each.attachment.trigger} on {each.table}", state, note or outdated))
    asked = {(each.table, each.attachment.trigger) for each in wanted.values()}
    names = {attachment.trigger for attachment in file.attachments}
    for (table, name), trigger in live.items():
        ours = f"{table} {name}" in entry.triggers or (name in names and trigger.function in entry.functions)
        if ours and (table, name) not in asked:
            found.append((f"{name} on {table}", "ORPHANED", "the file does not ask for it there"))
    attached = {each.attachment for each in wanted.values()}
    for attachment in file.attachments:
        if attachment.tables and attachment not in attached:
            found.append((f"{attachment.trigger} on {ledger.qualified(attachment.tables[0])}", "UNATTACHED", NO_TABLE))
    return found


def _trigger(entry: Entry, known: dict[str, str] | None, found: LiveTrigger | None, wanted: Wanted) -> tuple[State, str]:
    if found is None:
        return ("MISSING", "dropped by hand") if known else ("UNATTACHED", "no install has seen it there yet")
    if known is None:
        if found.function in entry.functions:
            return "OUTDATED", "the table was renamed since the last install"
        return "DRIFTED", "somebody else's trigger of that name is there"
    if found.definition != known["definition"]:
        return "DRIFTED", f"definition is not what version {entry.version} made"
    if found.enabled and entry.disabled_by:
        return "DRIFTED", f"enabled, but {_wish(entry)}"
    if not found.enabled:
        return "DISABLED", _wish(entry) if entry.disabled_by else "by accident: triggers.disable was not used"
    return ("INSTALLED", "") if known["how"] == wanted.how else ("OUTDATED", "the file wants it otherwise now")


def _wish(entry: Entry) -> str:
    return f"switched off on purpose by {entry.disabled_by}, {entry.disabled_at:%Y-%m-%d %H:%M %Z}"


def _outdated(file: SqlFile, entry: Entry) -> str:
    if entry.version == file.version:
        return f"another text of version {entry.version} is installed"
    return f"version {entry.version} is installed, the file has {file.version}"


def diff(connection: Connection, files: list[SqlFile], *, others: bool = True) -> list[str]:
    """What an install would change, in lines of a unified diff: - is what the database has, + what the files say. Each
    difference has a title line, which alone is not indented; with `others` also what files made that are not among `files`.

    The files' functions are made for the moment, to see them as PostgreSQL prints them, and rolled back to a savepoint; no
    table is locked. A file that PostgreSQL refuses is a line of its own.
    """
    entries = ledger.read(connection)
    lines: list[str] = []
    for file in files:
        entry = entries.get(file.name) or Entry(0, "", {}, {})
        differences = _diff_functions(connection, file, entry) + _diff_triggers(connection, file, entry)
        if not differences and entry.sha256 not in ("", file.sha256):
            differences = [f"{file.name}: {_outdated(file, entry)}; they make the same functions and triggers"]
        lines += differences
    for name in sorted(entries.keys() - {file.name for file in files}) if others else ():
        gone = Entry(0, "", entries[name].functions, entries[name].triggers)
        for signature, definition in ledger.definitions(connection, gone.functions).items():
            lines += _compare(f"{name}: {signature}", definition, "")
        live = ledger.live_triggers(connection)
        for known in gone.triggers.values():
            if there := live.get((known["table"], known["name"])):
                lines += _compare(f"{name}: {known['name']} on {known['table']}", there.definition, "")
    return lines


def _diff_functions(connection: Connection, file: SqlFile, entry: Entry) -> list[str]:
    connection.execute("SAVEPOINT diff")
    try:
        had = ledger.definitions(connection, entry.functions)
        made, _ = made_by(connection, file)
        wanted = ledger.definitions(connection, made)
        connection.execute("ROLLBACK TO diff")
        had |= ledger.definitions(connection, made)
    except SqlFileInvalid as refused:
        connection.execute("ROLLBACK TO diff")
        return [f"{file.name}: {refused.message}"]
    lines = []
    for signature in sorted(had.keys() | wanted.keys()):
        lines += _compare(f"{file.name}: {signature}", had.get(signature, ""), wanted.get(signature, ""))
    return lines


def _diff_triggers(connection: Connection, file: SqlFile, entry: Entry) -> list[str]:
    live = ledger.live_triggers(connection)
    wanted = ledger.wanted(ledger.tables(connection), file)
    lines: list[str] = []
    for key, each in wanted.items():
        known = entry.triggers.get(key)
        trigger = live.get((each.table, each.attachment.trigger))
        title = f"{file.name}: {each.attachment.trigger} on {each.table}"
        # As PostgreSQL printed it when it was made; making it again to see would lock the table.
        right = known["definition"] if known and known["how"] == each.how else each.statement(connection)
        if trigger is None or trigger.definition != right:
            lines += _compare(title, trigger.definition if trigger else "", right)
        if trigger and trigger.enabled == bool(entry.disabled_by):
            now, wished = ("enabled", "disabled") if trigger.enabled else ("disabled", "enabled")
            lines += _compare(title, now, wished)
    for key, known in entry.triggers.items():
        if key not in wanted and (there := live.get((known["table"], known["name"]))):
            lines += _compare(f"{file.name}: {known['name']} on {known['table']}", there.definition, "")
    return lines


def _compare(title: str, live: str, wanted: str) -> list[str]:
    """The differences under a title; nothing where there are none."""
    differences = list(difflib.unified_diff(live.splitlines(), wanted.splitlines(), "database", "file", lineterm="", n=2))
    return [title, *(f"  {line}" for line in differences[2:])] if differences else []
