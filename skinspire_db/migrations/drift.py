"""Any difference between what the models and trigger files say and what a database has.

What they say is made for the moment in a database of its own on the same server, and read from the catalogues by the same
queries as the live one: PostgreSQL writes both, so that nothing is compared in two spellings.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from shlex import quote
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import fingerprint, spelling
from skinspire_db.catalog.definitions import QUERIES, plain, snapshot, split
from skinspire_db.catalog.fields import Column, Definition, Sequence, Snapshot, Table
from skinspire_db.catalog.spelling import Expected
from skinspire_db.config import accepted
from skinspire_db.config.accepted import Accepted
from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.lifecycle import scratch
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.migrations import position, revisions
from skinspire_db.objects import adopted, install, kinds, status, tenant_roles
from skinspire_db.objects.files import SqlFile
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.schema import tables
from skinspire_db.schema.blueprint import Blueprint
from skinspire_db.schema.refused import Fault

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

OF_A_FILE = lazy_regex(r'"?_\d{3}_')  # the tools' own triggers come with every table that has their columns
OWNERS = ("table", "column", "view", "sequence", "function", "schema")  # what has parts: columns, constraints, grants
KINDS = sorted(QUERIES, key=len, reverse=True)  # "event trigger" begins with no other kind
SHOWN = 10  # accepted differences that are gone and are named one by one
WRITTEN = ("table", "column", "constraint", "index", "sequence", "type", "schema")  # what migrate.new makes a revision of


@dataclass(frozen=True)
class Difference:
    """An object that is not in the database as the models and files say.

    Attributes:
        kind: as in `definitions.QUERIES`.
        name: its quoted name.
        state: "missing", "extra" or "differs"; "refused" for a fault of the models that PostgreSQL does not take anywhere.
        live: its definition in the database; "" where it is missing.
        wanted: its definition by the models and files; "" where it is extra.
        what: the properties that differ, such as "type" or "default" of a column, each with its value in the database and by
            the models and files; none where the object is missing or extra.
    """

    kind: str
    name: str
    state: str
    live: str
    wanted: str
    what: dict[str, tuple[str, str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return dict(vars(self))

    @property
    def title(self) -> str:
        """What it is in a few words, for a person."""
        return f"{self.kind} {self.name} {'' if self.state == 'differs' else 'is '}{self.state}"

    @property
    def lines(self) -> dict[str, str]:
        """The lines of the file of accepted differences that are about it, one for each property that differs.

        Each has a hash of the two values, which is the same for other spellings of them; "" where only one side is there.
        """
        if not self.what:
            return {f"{self.kind} {self.name} {self.state}": ""}
        return {
            f"{self.kind} {self.name} {what}": fingerprint.digest("\n-- not:\n".join(values))
            for what, values in self.what.items()
        }


def expected(connection: Connection, target: Target, project: Project, wanted: Blueprint, files: list[SqlFile]) -> Expected:
    """The snapshot of a database that the models and trigger files make on the target's server.

    It is taken from a scratch database, and kept in .skinspire/ until the models, the files or the server change.

    Raises:
        PermissionMissing: the role may not create databases.
    """
    files = tenant_roles.made(connection, files)
    # The blueprint may come from a cache itself, and then no module that it depends on is loaded now.
    of = json.dumps(
        [vars(wanted), [(file.sha256, file.roles and file.roles.database) for file in files], connection.info.server_version]
    )

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

        faults: list[Fault] = []
        tables.create(connection, wanted, settle, project, faults)
        install.install(connection, files)
        made = snapshot(connection)
        return Expected(made, spelling.again(connection, made), [astuple(each) for each in faults])


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
    leave_alone = leave_alone - {plain(key.removeprefix("view ")) for key in wanted}
    changed, whole = _changed(live, wanted)
    for key in sorted(changed):
        kind, name = split_key(key)
        if not (kind == "view" and plain(name) in leave_alone) and not _owners(key, live, wanted, whole):
            yield _difference(key, live, wanted)
    relations = {plain(key) for key in live if key.startswith(("view ", "table "))}
    for view in sorted(leave_alone):
        if not {f"view {view}", f"table {view}"} & relations:
            yield Difference("view", view, "missing", "", "a model is mapped to it; an SQL file or a revision has to make it")


def split_key(key: str) -> tuple[str, str]:
    """The kind and the name that a snapshot's key is made of."""
    kind = next(each for each in KINDS if key.startswith(f"{each} "))
    return kind, key.removeprefix(f"{kind} ")


def _changed(live: Snapshot, wanted: Snapshot) -> tuple[set[str], set[str]]:
    """The keys of all objects that differ, and of those that only one side has."""
    changed = {key for key in live.keys() | wanted.keys() if live.get(key) != wanted.get(key)}
    return changed, {key for key in changed if key not in live or key not in wanted}


def _difference(key: str, live: Snapshot, wanted: Snapshot) -> Difference:
    one, other = live.get(key), wanted.get(key)
    state = "missing" if one is None else "extra" if other is None else "differs"
    return Difference(*split_key(key), state, str(one or ""), str(other or ""), _what(one, other) if one and other else {})


def _what(one: Definition, other: Definition) -> dict[str, tuple[str, str]]:
    """The properties that differ; what an object itself is, is its definition, and its type for a column."""
    first = "type" if isinstance(one, Column) else "definition"
    named = [first, *(each.name.replace("_", " ") for each in fields(one)[1:])]
    values = [[str(getattr(side, each.name, None)) for each in fields(one)] for side in (one, other)]
    return {name: (left, right) for name, left, right in zip(named, *values, strict=True) if left != right}


def accept(live: Snapshot, wanted: Expected, signed: Mapping[str, Accepted]) -> Expected:
    """What the models and files make, but for accepted differences: of these, the database is right.

    Args:
        live: what the database has.
        wanted: what the models and files make.
        signed: the accepted differences.

    Returns:
        The wanted snapshot with the database's definition of whatever is accepted.
    """
    settled = spelling.settled(live, wanted)
    changed, whole = _changed(settled, wanted)
    right = dict(wanted)
    for key in changed:
        wholes = _owners(key, settled, wanted, whole)
        if any(is_accepted(_difference(each, settled, wanted), signed) for each in wholes or [key]):
            if key in live:
                right[key] = live[key]
            else:
                del right[key]
    return Expected(right, {key: words for key, words in wanted.spellings.items() if key in right}, wanted.faults)


def is_accepted(difference: Difference, signed: Mapping[str, Accepted]) -> bool:
    """Whether the project has signed for all that differs."""
    return all(key in signed and signed[key].of in ("", of) for key, of in difference.lines.items())


def _owners(key: str, live: Snapshot, wanted: Snapshot, whole: set[str]) -> list[str]:
    """The tables, columns, views, functions and schemas that an object belongs to and that only one side has.

    A trigger on a table that is only in the database belongs to none: what it does there has to be named.
    """
    kind, name = split_key(key)
    match kind:
        case "column":
            owners = [split(name)[0]]
        case "trigger" if key in live and not OF_A_FILE.match(name):
            owners = []
        case "sequence":
            definition = live.get(key) or wanted[key]
            assert isinstance(definition, Sequence)
            column = definition.owned_by or definition.identity_of or ""
            owners = [column, split(column)[0]]
        case "grant":
            on = name.rpartition(" to ")[0]
            owners = [on, on.removeprefix("schema "), split(on)[0]]
        case _:
            owners = [name.rpartition(" on ")[2]]
    named = {f"{owner} {each}" for each in owners for owner in OWNERS if each}
    return sorted((named & whole) - {key})  # in this order: a copy of `whole` for each object is quadratic


def differences(
    connection: Connection, target: Target, project: Project, wanted: Blueprint, files: list[SqlFile]
) -> list[Difference]:
    """All differences between a database and the models and files, accepted or not.

    A trigger file that the database has never had is one difference, not one for each of its triggers.

    Args:
        connection: the database.
        target: where it is: the scratch database to compare with is made on its server.
        project: whose models and files.
        wanted: what the models say.
        files: the SQL files.

    Raises:
        PermissionMissing: the role may not create databases.
    """
    states = status.status(connection, files)
    absent = adopted.absent(connection, files)
    out = {file.name for file in absent} | {each.file for each in states if each.state == status.IDLE}
    made = expected(connection, target, project, wanted, [file for file in files if file.name not in out])
    found = list(compare(_without_own_role(connection), made, set(wanted.views)))
    by_files = {plain(key.removeprefix("view ")) for key in made if key.startswith("view ")}
    found += _without_columns(connection, {name: wanted.views[name] for name in wanted.views.keys() - by_files})
    as_made = {each.object for each in states if each.state == "INSTALLED"}
    found = [each for each in found if not _is_as_made(each, as_made)]
    refused = [
        Difference(kind, name, "refused", "", f"{definition}\nPostgreSQL refuses it: {reason}")
        for kind, name, definition, reason in made.faults
    ]
    return (
        refused
        + found
        + [
            Difference("file", file.name, "missing", "", f"version {file.version}: {file.summary}")
            for file in absent + adopted.unrecorded(connection, files)
        ]
    )


def _is_as_made(difference: Difference, as_made: set[str]) -> bool:
    """Whether an object that differs is what its file has made here, as its state says.

    PostgreSQL words a view by the types of the columns that are there. A file may be applicable here alone, by a column or
    an extension that the models have not got.
    """
    if difference.kind == "view" and difference.state == "differs" and [*difference.what] == ["definition"]:
        name = difference.name.removeprefix("public.")
        return f"view {name}" in as_made or f"materialized view {name}" in as_made
    return difference.kind in ("function", "trigger") and difference.state == "extra" and difference.name in as_made


def _without_columns(connection: Connection, views: Mapping[str, list[str]]) -> Iterator[Difference]:
    """The views that exist without columns which the models read: they are made by hand, so nothing else of them is known."""
    query = """
        SELECT n.nspname || '.' || c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('v', 'm', 'r', 'p', 'f') AND n.nspname || '.' || c.relname = ANY (%s) GROUP BY 1 ORDER BY 1
    """
    for name, there in connection.execute(query, (list(views),)).fetchall():
        if set(views[name]) - set(there):
            live, wanted = ", ".join(there), ", ".join(views[name])
            yield Difference("view", name, "differs", live, wanted, {"columns": (live, wanted)})


def _without_own_role(connection: Connection) -> Snapshot:
    """The live snapshot, in which it is no difference that a table belongs to the role that makes tables now.

    In an adopted database most tables are another role's, and those of later revisions are not.
    """
    row = connection.execute("SELECT quote_ident(current_user)").fetchone()
    live = snapshot(connection)
    own = {key: replace(each, owner=None) for key, each in live.items() if isinstance(each, Table) and row == (each.owner,)}
    return live | own


def look(connection: Connection, target: Target, project: Project, wanted: Blueprint, files: list[SqlFile]) -> Summary:
    """The differences between a database and the models and files, as a step's summary with a remedy.

    Accepted differences are only counted; those that do not exist any more are named, and are no fault.
    """
    signed = accepted.read(project)
    every = differences(connection, target, project, wanted, files)
    found = [each for each in every if not is_accepted(each, signed)]
    there = {key for each in every for key in each.lines}
    summary = Summary({"differences": len(found)}, data={"drift": [each.as_dict() for each in found]})
    gone = [key for key in signed if key not in there]
    summary.data |= {"accepted": len(every) - len(found), "accepted_and_gone": gone}
    summary.lines = _gone(gone)
    if signed:
        summary.numbers["accepted"] = len(every) - len(found)
    for each in found:
        summary.lines.append(each.title)
        if each.state == "refused":
            summary.lines.append(f"  + {_short(each.wanted)}")
        elif each.state == "differs":
            summary.lines += [f"  - {_short(each.live)}", f"  + {_short(each.wanted)}"]
    if found:
        first = found[0]
        summary.drift = f"{counted(len(found), 'difference')}: {first.kind} {first.name}: {first.state}"
        behind = position.current(connection, project) != revisions.heads(project)
        collection = kinds.step_name(file.kind for file in files)
        mended_by_revisions = behind and first.state != "refused"
        summary.remedy = position.way_on(connection, project) if mended_by_revisions else _remedy(first, collection)
    return summary


def _gone(keys: list[str]) -> list[str]:
    """What to say of accepted differences that this database has not got."""
    lines = [f"accepted, and not there any more: {key}" for key in keys[:SHOWN]]
    return lines + ([f"and {len(keys) - SHOWN} more: --json names them"] if len(keys) > SHOWN else [])


def _remedy(first: Difference, collection: str) -> str:
    if first.state == "refused":
        return "correct the model that says so, then invoke db.drift --env={env}"
    if first.kind == "extension" and first.state == "missing":
        return "invoke migrate.upgrade --env={env}"
    if [*first.what] == ["columns"]:
        view = quote(first.name.removeprefix("public."))
        return f"invoke sql.new --env={{env}} --view={view} --from-database, then correct that file"
    if first.kind in WRITTEN:
        return "invoke migrate.new --env={env} --message=changes, or correct the database by hand"
    if first.kind in ("trigger", "function", "view", "file") and first.state != "extra":
        return f"invoke {collection}.install --env={{env}}"
    return "correct it by hand, then invoke db.drift --env={env}"


def _short(definition: str) -> str:
    line = " ".join(definition.split())
    return line if len(line) <= 110 else f"{line[:107]}..."
