"""Making the functions, views and triggers of a database what the files say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from skinspire_db.errors import NotOurs
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Summary
from skinspire_db.objects import (
    attaching,
    counting,
    dependents,
    former_roles,
    function_schema,
    ledger,
    live,
    needs,
    policies,
    tenant_roles,
)
from skinspire_db.objects.dependents import Saved
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import KINDS, POLICY, TRIGGER, Kind, of_file
from skinspire_db.objects.ledger import Entry, MadeTrigger
from skinspire_db.objects.making import Making
from skinspire_db.objects.refusals import together, two_makers
from skinspire_db.postgres import side_by_side

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def install(
    connection: Connection,
    files: list[SqlFile],
    *,
    others: bool = True,
    kinds: Sequence[Kind] = KINDS,
    saved: Sequence[Saved] = (),
) -> Summary:
    """Make the database's functions, views, triggers and ledger what the files say, touching nothing that is right already.

    Drops only what the ledger knows and no file asks for any more. Triggers that `triggers.disable` has switched off stay
    off.

    Args:
        connection: Where; in the caller's transaction.
        files: The files.
        others: What files of these kinds made that are not among `files` is dropped, too.
        kinds: The kinds that `files` are of.
        saved: What the caller has dropped of ours; it is made again, by its file or as it was, with owner and grants.

    Raises:
        SqlFileInvalid: With file and line: PostgreSQL refuses a file, files need each other, or two make one object.
        NotOurs: An object of that name exists that no file made and that is another than the file's.
        NotApplicable: A demanded file is not applicable. Others that are not are not installed.
    """
    tool_schema.ensure(connection)
    asked: list[Callable[[Connection], Any]] = [lambda reader: needs.applicable(reader, files), ledger.read]
    able, entries = side_by_side.run(connection, *asked)
    idle, files = len(files) - len(able), able
    making = Making(connection, entries)
    making.make(files)
    functions = making.made
    gone = (
        {name: entry for name, entry in entries.items() if name not in functions and of_file(name) in kinds} if others else {}
    )
    kept = {name: entry for name, entry in entries.items() if name not in functions and name not in gone}
    _refuse_two_makers(files, functions | {name: entry.functions for name, entry in kept.items()})
    before = [*saved, *making.saved]
    wanted_objects = {key for objects in functions.values() for key in objects}
    dependents.put_back(connection, before, {key for each in entries.values() for key in each.functions} - wanted_objects)
    for name, objects in functions.items():
        if any(each.key in objects for each in before):  # it has its former owner again
            functions[name] = live.recorded(connection, objects)
    asked = [ledger.tables, ledger.live_triggers]
    among, present = side_by_side.run(connection, *asked)
    wanted = {file.name: ledger.wanted(among, file) for file in files}
    kept_keys = {key for each in wanted.values() for key in each}
    attached = off = noted = 0
    clashes: list[NotOurs] = []
    tenant_roles.make(connection, files)
    triggers_of = [(wanted[file.name], entries.get(file.name)) for file in files if file.kind is not POLICY]
    after = attaching.at_once(connection, triggers_of, present)
    changes: list[tuple[SqlFile, dict[str, str], dict[str, MadeTrigger]]] = []
    for file in files:
        entry = entries.get(file.name)
        try:
            if file.kind is POLICY:
                changed, triggers = policies.attach(connection, file, entry)
                kept_keys |= triggers.keys()
            else:
                changed, triggers = attaching.attach(connection, file, wanted[file.name], entry, present, after)
        except NotOurs as clash:
            clashes.append(clash)
            continue
        attached += changed
        if entry is None or (entry.sha256, entry.functions, entry.triggers) != (file.sha256, functions[file.name], triggers):
            changes.append((file, functions[file.name], triggers))
            noted += entry is not None and entry.sha256 != file.sha256
        off += len(triggers) if entry and entry.disabled_by else 0
    if clashes:
        raise together(clashes)
    ledger.write(connection, changes)
    leftovers = [entries[name] for name in functions if name in entries] + list(gone.values())
    turned_off = any(of_file(name) is POLICY for name in gone) and tenant_roles.of_files(files) is None
    retired = former_roles.of_tenancy(connection) if turned_off else []
    numbers: dict[str, int | str] = {"files": len(files), "functions": making.count("function")}
    if any(file.kind is not TRIGGER for file in files):
        numbers["views"] = making.count("view")
    if taken := sum(key in making.taken_over for objects in functions.values() for key in objects):
        numbers["taken_over"] = taken
    numbers |= {"attached": attached, "dropped": _drop_leftovers(connection, leftovers, kept_keys, wanted_objects)}
    tenant_roles.grant(connection, files)
    staying = former_roles.retire(connection, retired) if retired else []
    for name in gone:
        ledger.forget(connection, name)
    if others:
        function_schema.drop_former(connection, files)
    more = {"new_versions": noted, "left_disabled": off, "not_applicable": idle}
    numbers |= {what: number for what, number in more.items() if number}
    return Summary(numbers, counting.warnings(connection, files) + staying)


def _refuse_two_makers(files: list[SqlFile], functions: dict[str, dict[str, str]]) -> None:
    makers: dict[str, str] = {}
    for name, made in functions.items():
        for key in made:
            if (other := makers.setdefault(key, name)) != name:
                raise two_makers(
                    next(file for file in files if file.name in (name, other)), key, other if other != name else name
                )


def _drop_leftovers(connection: Connection, gone: list[Entry], kept: set[str], objects: set[str]) -> int:
    """Drop what the ledger knows and no file asks for any more; last, so that what moved to another file is left alone."""
    dropped = 0
    for entry in gone:
        leftover = [each for key, each in entry.triggers.items() if key not in kept]
        dropped += attaching.drop(connection, leftover) + policies.drop(connection, leftover)
    return dropped + len(live.drop(connection, {key for entry in gone for key in entry.functions} - objects))
