"""Comparing file, ledger and live object: the state of each function, view and trigger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db.objects import ledger, live, needs, policies
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import KINDS, POLICY, Kind, of_file
from skinspire_db.objects.ledger import Entry, LiveTrigger, MadeTrigger, Table, Wanted
from skinspire_db.postgres import side_by_side

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

State = Literal["INSTALLED", "OUTDATED", "DRIFTED", "DISABLED", "MISSING", "UNATTACHED", "ORPHANED", "NOT APPLICABLE"]
IDLE: State = "NOT APPLICABLE"
WHOLE = "(all of it)"
NO_TABLE = "there is no such table"


@dataclass(frozen=True)
class ObjectState:
    """What is known of one object: `object` is a function's signature, `view NAME` or `trigger on TABLE`.

    `installed` and `current` are the versions in the ledger and of the file, None where there is none; `note` says why it is
    in that state, `on_purpose` that `triggers.disable` put it there.
    """

    file: str
    object: str
    state: State
    installed: int | None = None
    current: int | None = None
    note: str = ""
    on_purpose: bool = False

    @property
    def right(self) -> bool:
        """Whether nothing is to be done about it: what is not applicable here need not be installed."""
        return self.state in ("INSTALLED", IDLE)

    def as_dict(self) -> dict[str, Any]:
        """The state as `--json` shows it."""
        return dict(vars(self))


@dataclass(frozen=True)
class Read:
    """What the database knows of its objects."""

    entries: dict[str, Entry]
    fingerprints: dict[str, str]
    triggers: dict[tuple[str, str], LiveTrigger]
    among: list[Table]
    lacks: dict[str, needs.Lack]

    @classmethod
    def of(cls, connection: Connection, files: list[SqlFile]) -> Read:
        """Read side by side."""

        def installed(connection: Connection) -> Any:
            entries = ledger.read(connection)
            return entries, *side_by_side.run(
                connection,
                lambda reader: live.fingerprints(reader, {key for entry in entries.values() for key in entry.functions}),
                lambda reader: ledger.live_triggers(reader, entries.values()),
            )

        asked: list[Callable[[Connection], Any]] = [installed, ledger.tables, lambda reader: needs.lacks(reader, files)]
        (entries, fingerprints, triggers), among, lacks = side_by_side.run(connection, *asked)
        return cls(entries, fingerprints, triggers, among, lacks)


def status(connection: Connection, files: list[SqlFile], kinds: Sequence[Kind] = KINDS) -> list[ObjectState]:
    """The state of every function, view and trigger that the files, or the ledger for files of these kinds, know."""
    read = Read.of(connection, files)
    entries, fingerprints, triggers, among, lacks = read.entries, read.fingerprints, read.triggers, read.among, read.lacks
    states: list[ObjectState] = []
    for file in files:
        entry = entries.get(file.name)
        if lack := lacks.get(file.name):
            states.append(_not_applicable(file, entry, lack))
            continue
        if entry is None:
            states.append(ObjectState(file.name, WHOLE, "MISSING", None, file.version, "never installed here"))
            continue
        if file.kind is POLICY:
            found: list[tuple[str, State, str]] = policies.states(connection, file, entry)
        else:
            found = _objects(fingerprints, file, entry) + _triggers(among, file, entry, triggers)
        if entry.sha256 != file.sha256 and not any(state == "OUTDATED" for _, state, _ in found):
            found.append((WHOLE, "OUTDATED", outdated(file, entry)))
        wished = entry.disabled_by is not None
        states += [
            ObjectState(file.name, each, state, entry.version, file.version, note, wished and state == "DISABLED")
            for each, state, note in found
        ]
    for name in sorted(name for name in entries.keys() - {file.name for file in files} if of_file(name) in kinds):
        note = "its file is gone or left out in pyproject.toml; an install drops it"
        states.append(ObjectState(name, WHOLE, "ORPHANED", entries[name].version, None, note))
    return states


def _not_applicable(file: SqlFile, entry: Entry | None, lack: needs.Lack) -> ObjectState:
    installed = entry.version if entry else None
    if needs.demanded(file, lack):
        return ObjectState(file.name, WHOLE, "MISSING", installed, file.version, f"required, and not applicable: {lack}")
    if entry:
        note = f"not applicable any more, an install drops it: {lack}"
        return ObjectState(file.name, WHOLE, "ORPHANED", installed, file.version, note)
    return ObjectState(file.name, WHOLE, IDLE, None, file.version, str(lack))


def _objects(current: dict[str, str], file: SqlFile, entry: Entry) -> list[tuple[str, State, str]]:
    found: list[tuple[str, State, str]] = []
    for signature, fingerprint in entry.functions.items():
        if signature not in current:
            found.append((signature, "MISSING", "dropped by hand"))
        elif current[signature] not in fingerprint.split():
            found.append((signature, "DRIFTED", f"definition or owner is not what version {entry.version} made"))
        elif entry.sha256 != file.sha256:
            found.append((signature, "OUTDATED", outdated(file, entry)))
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
        older = "" if state == "INSTALLED" else outdated(file, entry)
        found.append((f"{each.attachment.trigger} on {each.table}", state, note or older))
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


def _trigger(entry: Entry, known: MadeTrigger | None, found: LiveTrigger | None, wanted: Wanted) -> tuple[State, str]:
    if found is None:
        return ("MISSING", "dropped by hand") if known else ("UNATTACHED", "no install has seen it there yet")
    if known is None:
        if found.function in entry.functions:
            return "OUTDATED", "the table was renamed since the last install"
        return "DRIFTED", "another trigger of that name is there"
    if found.definition != known.definition:
        return "DRIFTED", f"definition is not what version {entry.version} made"
    if found.enabled and entry.disabled_by:
        return "DRIFTED", f"enabled, but {_wish(entry)}"
    if not found.enabled:
        return "DISABLED", _wish(entry) if entry.disabled_by else "by accident: triggers.disable was not used"
    return ("INSTALLED", "") if known.how == wanted.how else ("OUTDATED", "the file wants it otherwise now")


def _wish(entry: Entry) -> str:
    return f"switched off on purpose by {entry.disabled_by}, {entry.disabled_at:%Y-%m-%d %H:%M %Z}"


def outdated(file: SqlFile, entry: Entry) -> str:
    """How the file and the installed object differ in version, as a note.

    Args:
        file: the file.
        entry: what the ledger knows of it.
    """
    if entry.version == file.version:
        return f"another text of version {entry.version} is installed"
    return f"version {entry.version} is installed, the file has {file.version}"
