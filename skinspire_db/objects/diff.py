"""What an install of SQL files would change, in lines of a unified diff."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skinspire_db.objects import ledger, live, needs, policies
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import KINDS, Kind, of_file
from skinspire_db.objects.ledger import Entry, LiveTrigger
from skinspire_db.objects.making import Making
from skinspire_db.objects.status import outdated

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def diff(connection: Connection, files: list[SqlFile], *, others: bool = True, kinds: Sequence[Kind] = KINDS) -> list[str]:
    """What an install would change: - is what the database has, + what the files say.

    The files' functions and views are made for the moment, to see them as PostgreSQL prints them, and rolled back to a
    savepoint; no table is locked but by reading it.

    Args:
        connection: Where; in a transaction that may write.
        files: The files.
        others: Also what files of these kinds made that are not among `files`.
        kinds: The kinds that `files` are of.

    Returns:
        Each difference has a title line, which alone is not indented. A file that PostgreSQL refuses is a line of its own.
    """
    lacks = needs.lacks(connection, files)
    demanded = [file for file in files if file.name in lacks and needs.demanded(file, lacks[file.name])]
    files = [file for file in files if file.name not in lacks]
    entries = ledger.read(connection)
    triggers = ledger.live_triggers(connection)
    making = Making(connection, entries, keeps_going=True)
    connection.execute("SAVEPOINT diff")
    making.make(files)
    wanted = live.definitions(connection, {key for made in making.made.values() for key in made})
    connection.execute("ROLLBACK TO SAVEPOINT diff; RELEASE SAVEPOINT diff")
    present = live.definitions(connection, wanted.keys() | {key for entry in entries.values() for key in entry.functions})
    lines = [f"{file.name}: required, and not applicable: {lacks[file.name]}" for file in demanded]
    for file in files:
        entry = entries.get(file.name) or Entry(0, "", {}, {})
        if refused := making.refused.get(file.name):
            differences = [f"{file.name}: {getattr(refused, 'message', refused)}"]
        else:
            made = making.made.get(file.name, {})
            moved = {key for name, each in making.made.items() if name != file.name for key in each}
            keys = sorted((entry.functions.keys() - moved) | made.keys())
            differences = _of_objects(file.name, keys, present, {key: wanted.get(key, "") for key in made})
        for title, now, right in policies.differences(connection, file, entry) if file.policies else ():
            differences += _compare(f"{file.name}: {title}", now, right)
        differences += _of_triggers(connection, file, entry, triggers)
        if not differences and entry.sha256 not in ("", file.sha256):
            differences = [f"{file.name}: {outdated(file, entry)}; they make the same {_what(file)}"]
        lines += differences
    names = {file.name for file in (*files, *demanded)}
    for name in sorted(name for name in entries.keys() - names if of_file(name) in kinds) if others else ():
        lines += _of_objects(name, sorted(entries[name].functions), present, {})
        for known in entries[name].triggers.values():
            if there := triggers.get((known.table, known.name)):
                lines += _compare(f"{name}: {known.name} on {known.table}", there.definition, "")
    return lines


def _what(file: SqlFile) -> str:
    return "functions and triggers" if file.kind.attaches else f"{file.kind.word}s"


def _of_objects(name: str, keys: list[str], present: dict[str, str], wanted: dict[str, str]) -> list[str]:
    lines = []
    for key in keys:
        lines += _compare(f"{name}: {key}", present.get(key, ""), wanted.get(key, ""))
    return lines


def _of_triggers(connection: Connection, file: SqlFile, entry: Entry, live: dict[tuple[str, str], LiveTrigger]) -> list[str]:
    wanted = ledger.wanted(ledger.tables(connection), file)
    lines: list[str] = []
    for key, each in wanted.items():
        known = entry.triggers.get(key)
        trigger = live.get((each.table, each.attachment.trigger))
        title = f"{file.name}: {each.attachment.trigger} on {each.table}"
        # As PostgreSQL printed it when it was made; making it again to see would lock the table.
        right = known.definition if known and known.how == each.how else each.statement(connection)
        if trigger is None or trigger.definition != right:
            lines += _compare(title, trigger.definition if trigger else "", right)
        if trigger and trigger.enabled == bool(entry.disabled_by):
            now, wished = ("enabled", "disabled") if trigger.enabled else ("disabled", "enabled")
            lines += _compare(title, now, wished)
    for key, known in entry.triggers.items():
        if key not in wanted and not known.of_policy and (there := live.get((known.table, known.name))):
            lines += _compare(f"{file.name}: {known.name} on {known.table}", there.definition, "")
    return lines


def _compare(title: str, live: str, wanted: str) -> list[str]:
    """The differences under a title; nothing where there are none."""
    differences = list(difflib.unified_diff(live.splitlines(), wanted.splitlines(), "database", "file", lineterm="", n=2))
    return [title, *(f"  {line}" for line in differences[2:])] if differences else []
