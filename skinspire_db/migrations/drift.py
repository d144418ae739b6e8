"""Any difference between what the models and trigger files say and what a database has.

What they say is made for the moment in a database of its own on the same server, and read from the catalogues by the same
queries as the live one: PostgreSQL writes both, so that nothing is compared in two spellings.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import spelling
from skinspire_db.catalog.definitions import QUERIES, plain, snapshot, split
from skinspire_db.catalog.fields import Definition, Sequence, Snapshot
from skinspire_db.catalog.spelling import Expected
from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.lifecycle import scratch
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.migrations import position, revisions
from skinspire_db.objects import install, kinds
from skinspire_db.objects.files import SqlFile
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.schema import tables
from skinspire_db.schema.blueprint import Blueprint

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

OWNERS = ("table", "column", "view", "sequence", "function", "schema")  # what has parts: columns, constraints, grants
WRITTEN = ("table", "column", "constraint", "index", "sequence", "type", "schema")  # what migrate.new makes a revision of


@dataclass(frozen=True)
class Difference:
    """An object that is not in the database as the models and files say.

    Attributes:
        kind: as in `definitions.QUERIES`.
        name: its quoted name.
        state: "missing", "extra" or "differs".
        live: its definition in the database; "" where it is missing.
        wanted: its definition by the models and files; "" where it is extra.
    """

    kind: str
    name: str
    state: str
    live: str
    wanted: str

    def as_dict(self) -> dict[str, str]:
        """The fields by name, for JSON."""
        return dict(vars(self))


def expected(connection: Connection, target: Target, project: Project, wanted: Blueprint, files: list[SqlFile]) -> Expected:
    """The snapshot of a database that the models and trigger files make on the target's server.

    It is taken from a scratch database, and kept in .skinspire/ until the models, the files or the server change.

    Raises:
        PermissionMissing: the role may not create databases.
    """
    # The blueprint may come from a cache itself, and then no module that it depends on is loaded now.
    of = json.dumps([vars(wanted), [file.sha256 for file in files], connection.info.server_version])

    def make() -> Any:
        return _make(target, wanted, files, project).as_json()

    return Expected.of_json(cached(project, f"expected-{target.environment}", make, of=of))


def _make(target: Target, wanted: Blueprint, files: list[SqlFile], project: Project | None = None) -> Expected:
    with (
        scratch.database(target, "db.drift") as aside,
        contextlib.closing(connections.connect(aside, "db.drift")) as connection,
    ):
        connections.begin(connection, target.policy)

        def settle() -> None:
            connection.commit()
            connections.begin(connection, target.policy)

        tables.create(connection, wanted, settle, project)
        install.install(connection, files)
        made = snapshot(connection)
        return Expected(made, spelling.again(connection, made))


def compare(live: Snapshot, wanted: Snapshot, leave_alone: set[str]) -> Iterator[Difference]:
    """How the live snapshot differs from the wanted one, but for other spellings of the same.

    Args:
        live: what the database has.
        wanted: what the models and files make.
        leave_alone: views that models are mapped to; those that no SQL file makes only have to exist.

    Returns:
        The differences, sorted. The parts of an object that is missing or extra as a whole are not named.
    """
    live = spelling.settled(live, wanted)
    leave_alone = {view for view in leave_alone if view not in {plain(key.removeprefix("view ")) for key in wanted}}
    kinds = sorted(QUERIES, key=len, reverse=True)  # "event trigger" begins with no other kind
    changed = {key for key in live.keys() | wanted.keys() if live.get(key) != wanted.get(key)}
    whole = {key for key in changed if key not in live or key not in wanted}
    for key in sorted(changed):
        kind = next(each for each in kinds if key.startswith(f"{each} "))
        name = key.removeprefix(f"{kind} ")
        definition = live.get(key) or wanted[key]
        if (kind == "view" and plain(name) in leave_alone) or _is_part(kind, name, definition, whole):
            continue
        state = "missing" if key not in live else "extra" if key not in wanted else "differs"
        yield Difference(kind, name, state, str(live.get(key, "")), str(wanted.get(key, "")))
    relations = {plain(key) for key in live if key.startswith(("view ", "table "))}
    for view in sorted(leave_alone):
        if not {f"view {view}", f"table {view}"} & relations:
            yield Difference("view", view, "missing", "", "a model is mapped to it; an SQL file or a revision has to make it")


def _is_part(kind: str, name: str, definition: Definition, whole: set[str]) -> bool:
    """Whether an object belongs to a table, column, view, function or schema that is missing or extra itself."""
    match kind:
        case "column":
            owners = [split(name)[0]]
        case "sequence":
            assert isinstance(definition, Sequence)
            column = definition.owned_by or definition.identity_of or ""
            owners = [column, split(column)[0]]
        case "grant":
            on = name.rpartition(" to ")[0]
            owners = [on, on.removeprefix("schema "), split(on)[0]]
        case _:
            owners = [name.rpartition(" on ")[2]]
    return any(
        f"{owner} {each}" in whole for each in owners for owner in OWNERS if each and f"{owner} {each}" != f"{kind} {name}"
    )


def look(connection: Connection, target: Target, project: Project, wanted: Blueprint, files: list[SqlFile]) -> Summary:
    """The differences between a database and the models and files, as a step's summary with a remedy."""
    found = list(compare(snapshot(connection), expected(connection, target, project, wanted, files), set(wanted.views)))
    summary = Summary({"differences": len(found)}, data={"drift": [each.as_dict() for each in found]})
    for each in found:
        summary.lines.append(f"{each.kind} {each.name} {'' if each.state == 'differs' else 'is '}{each.state}")
        if each.state == "differs":
            summary.lines += [f"  - {_short(each.live)}", f"  + {_short(each.wanted)}"]
    if found:
        first = found[0]
        summary.drift = f"{counted(len(found), 'difference')}: {first.kind} {first.name}: {first.state}"
        behind = position.current(connection) != revisions.heads(project)
        collection = kinds.step_name(file.kind for file in files)
        summary.remedy = position.way_on(connection, project) if behind else _remedy(first, collection)
    return summary


def _remedy(first: Difference, collection: str) -> str:
    if first.kind == "extension" and first.state == "missing":
        return "invoke migrate.upgrade --env={env}"
    if first.kind in WRITTEN:
        return "invoke migrate.new --env={env} --message=changes, or correct the database by hand"
    if first.kind in ("trigger", "function", "view") and first.state != "extra":
        return f"invoke {collection}.install --env={{env}}"
    return "correct it by hand, then invoke db.drift --env={env}"


def _short(definition: str) -> str:
    line = " ".join(definition.split())
    return line if len(line) <= 110 else f"{line[:107]}..."
