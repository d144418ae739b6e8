"""What pending revisions will meet, told from their SQL and the catalogue before any of them is run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import NotOurs
from skinspire_db.migrations import obstacles, revisions, running
from skinspire_db.migrations.losses import NAME
from skinspire_db.objects import dependents, ledger, live
from skinspire_db.objects.dependents import Saved
from skinspire_db.objects.files import SqlFile
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import sql_text

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

DROPS_VIEWS = lazy_regex(
    rf"\s*DROP\s+(?P<kind>(?:MATERIALIZED\s+)?VIEW)\s+(?:IF\s+EXISTS\s+)?(?P<names>{NAME}(?:\s*,\s*{NAME})*)", re.I
)
# After these, which objects there are cannot be told from the text.
UNFORESEEN = lazy_regex(
    r"\s*(?:DO|CALL|SELECT|WITH|ALTER\s+EXTENSION|CREATE\s+OR\s+REPLACE|DROP\s+(?!TABLE|INDEX|SEQUENCE|TRIGGER|POLICY)\w+)\b",
    re.I,
)
ENDS = lazy_regex(r"\s*COMMIT\s*", re.I)


def refuse_unknown_views(connection: Connection, project: Project, files: ScriptDirectory, scripts: Iterable[Script]) -> None:
    """Refuse pending revisions of which one will stop at a view or function that no SQL file made.

    It looks ahead as far as the text tells what there will be; what comes later is looked at in its revision's turn.

    Args:
        connection: the database, which is only read.
        project: whose revisions.
        files: these, as Alembic sees them.
        scripts: the pending ones, the next one first.

    Raises:
        NotOurs: there are such views or functions; all that one statement stops at are named.
    """
    ours = _ours(connection)
    if all(row.key in ours for row in live.rows(connection).values()):
        return
    gone: set[str] = set()
    for script in scripts:
        text = running.statements(project, files, script)
        for statement in sql_text.split(sql_text.without_comments(text or "SELECT"), ";"):
            if dropped := _drops(connection, statement):
                gone |= dropped
            elif UNFORESEEN.match(statement):
                return
            else:
                _refuse(connection, statement, ours, gone, revisions.path(script, project))


def _refuse(connection: Connection, statement: str, ours: Collection[str], gone: set[str], file: str) -> None:
    for what, start in obstacles.needed(connection, statement):
        others = [each for each in dependents.unknown(connection, start, ours) if each not in gone]
        if others and obstacles.CASCADE.search(statement):
            gone |= {each.described for each in dependents.reached(connection, start)}
        elif others:
            error = dependents.refusal(connection, start, ours, f"{what} cannot be changed under what reads it", others)
            raise NotOurs(f"{file}: {error.message}; nothing was changed", remedy=error.remedy)


def _drops(connection: Connection, statement: str) -> set[str]:
    """The views that a DROP VIEW drops, and what depends on them, as PostgreSQL describes them; of other statements none."""
    found = DROPS_VIEWS.match(statement)
    names = re.findall(NAME, found["names"]) if found else []
    return {each.described for name in names for each in dependents.reached(connection, dependents.named(connection, name))}


def with_views(connection: Connection, text: str, files: Iterable[SqlFile]) -> str:
    """The SQL of revisions, with the statements that drop the views and functions in its way and make them again.

    Args:
        connection: the database, which is only read; the views are made again as it has them.
        text: the SQL, in transactions of which each ends with COMMIT.
        files: the SQL files; what one with another text than the installed one makes is left to sql.install.

    Raises:
        NotOurs: a view or function that no SQL file made stands in the way.
    """
    ours, entries = _ours(connection), ledger.read(connection)
    new = {file.name for file in files if file.name in entries and entries[file.name].sha256 != file.sha256}
    changed = {key for name in new for key in entries[name].functions}
    gone: set[str] = set()
    taken: dict[str, Saved] = {}
    pieces = []
    for piece in sql_text.split(text, ";"):
        found: dict[str, Saved] = {}
        for statement in sql_text.statements(piece):
            gone |= _drops(connection, statement)
            found |= {
                each.key: each for each in _in_the_way(connection, piece, statement, ours, gone) if each.key not in taken
            }
        before = [f"\n\nDROP {live.word(key)} {live.split(key)[1]}" for key in reversed(found)]
        after = []
        if ENDS.fullmatch(sql_text.without_comments(piece)):
            after = [f"\n\n{each}" for saved in taken.values() for each in _made_again(saved, changed)]
            taken.clear()
        taken |= found
        pieces += [*before, *after, piece]
    return ";".join(pieces)


def _in_the_way(connection: Connection, piece: str, statement: str, ours: Collection[str], gone: set[str]) -> list[Saved]:
    found: dict[str, Saved] = {}
    for what, start in obstacles.needed(connection, statement):
        if start and not obstacles.is_left(connection, piece, statement, start, ours):
            because = f"{what} cannot be changed under what reads it"
            found |= {
                each.key: each for each in dependents.planned(connection, start, ours, because, gone) if each.key not in found
            }
    return list(found.values())


def _made_again(saved: Saved, changed: Collection[str]) -> list[str]:
    """The statements that make an object again, as it was."""
    if saved.key in changed or not saved.statement:
        return [f"-- {saved.key}: made by its SQL file, with invoke sql.install, after this\nSELECT"]
    owner = next(part.statement.rpartition(" TO ")[2] for part in saved.parts if part.kind == "owner")
    parts = [part for part in saved.parts if not (part.kind == "grant" and part.statement.endswith(f" TO {owner}"))]
    order = ("owner", *dependents.ORDER)
    known = sorted((part for part in parts if part.kind in order), key=lambda part: order.index(part.kind))
    revoked = (
        []
        if any(part.kind == "grant" and part.statement.endswith(" TO PUBLIC") for part in parts)
        else [f"REVOKE ALL ON ROUTINE {saved.key} FROM PUBLIC"]
    )
    return [
        saved.statement.rstrip().rstrip(";"),
        *(revoked if live.is_function(saved.key) else []),
        *(p.statement for p in known),
    ]


def _ours(connection: Connection) -> set[str]:
    return dependents.of_entries(ledger.read(connection).values())
