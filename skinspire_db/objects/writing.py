"""Writing SQL files: an empty one, or one from what a database has."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import UsageError
from skinspire_db.objects import dependents, ledger, live, versions
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import FUNCTION, KINDS, MASK, POLICY, TRIGGER, VIEW, Kind
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SKELETONS = {
    TRIGGER: (
        'order = 500\n\n[[attach]]\ntables = ["the_table"]\nwhen = "BEFORE INSERT OR UPDATE"\n',
        "CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n    RETURN NEW;\nEND\n$$;\n",
    ),
    FUNCTION: ("", "CREATE OR REPLACE FUNCTION public.{name}() RETURNS integer LANGUAGE sql AS $$\n    SELECT 1\n$$;\n"),
    VIEW: ("", "CREATE OR REPLACE VIEW public.{name} AS\nSELECT 1 AS one;\n"),
    # It lets no row pass until it is edited. A file of this kind is its header alone.
    POLICY: (
        '\n[[policy]]\nname = "{name}"\ntables = ["the_table"]\nfor = "SELECT"\nto = "application"\nusing = "false"\n',
        "",
    ),
}
# Extensions' own are not the application's to define.
NAMED = """
    SELECT p.oid::regprocedure::text FROM pg_proc p
    WHERE p.proname = (parse_ident(%(name)s))[array_upper(parse_ident(%(name)s), 1)]
      AND p.pronamespace = coalesce(to_regnamespace(%(schema)s), 'public'::regnamespace)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    ORDER BY 1
"""
NAMED_VIEW = f"""
    SELECT {live.WORD} || ' ' || c.oid::regclass FROM pg_class c
    WHERE c.oid = to_regclass(%(name)s) AND c.relkind IN ('v', 'm')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""  # noqa: S608


@dataclass(frozen=True)
class Written:
    """A file that was written, or would be: what it is called, its path, and the objects that it defines."""

    name: str
    path: Path
    objects: list[str]


def skeleton(project: Project, kind: Kind, name: str, *, dry: bool = False) -> Written:
    """Write a file to be edited; it has no version before `sql.bump`.

    Raises:
        UsageError: There is a file of that name, or the name is none for a file.
    """
    file = new_file(project, kind, name)
    header, body = SKELETONS[kind]
    text = f'/*\nversion = 1\nsummary = "what {name} is for"\n{header}*/\n{body}'.replace("{name}", name)
    if not dry:
        versions.write_unlocked(file, text)
    return Written(file.name, file.path, [])


def from_database(connection: Connection, project: Project, kind: Kind, name: str, *, dry: bool = False) -> Written:
    """Write the file, version 1, of a live view or of the functions of a name, as PostgreSQL prints them.

    Raises:
        UsageError: There is no such object, a file makes it already, or there is a file of that name.
    """
    plain = re.sub(r'^"?public"?\.', "", name)
    file = new_file(project, kind, re.sub(r"[^a-z0-9_]+", "_", plain.lower()).strip("_") or "unnamed")
    schema = plain.rpartition(".")[0] or "public"
    given = {"name": plain, "schema": schema}
    keys = [key for (key,) in search_path.rows(connection, NAMED if kind is FUNCTION else NAMED_VIEW, given)]
    if not keys:
        raise UsageError(
            f"there is no {kind.word} {name} in the database",
            remedy=f"invoke db.inspect --env={{env}} --section={kind.folder}",
        )
    for owner, entry in ledger.read(connection).items():
        if taken := [key for key in keys if key in entry.functions]:
            raise UsageError(f"{taken[0]} is made by {owner}.sql already", remedy=f"edit that, then {file.bump}")
    comments = [part for key in keys for part in dependents.parts(connection, key) if part.kind == "comment"]
    first = next((part.statement for part in comments if not part.about), "")
    said = re.sub(r".*? IS E?'(.*)'", r"\1", first, flags=re.DOTALL).replace("''", "'").splitlines()
    summary = said[0] if said else f"the {kind.word} {plain}, as it was in the database"
    statements = [_statement(connection, key) for key in keys]
    text = f"/*\nversion = 1\nsummary = {json.dumps(summary, ensure_ascii=False)}\n*/\n" + "\n".join(statements)
    if not dry:
        versions.write(file, text.replace("\r", ""), 1)
    return Written(file.name, file.path, keys)


def new_file(project: Project, kind: Kind, stem: str) -> SqlFile:
    """The file to be, in the last of the project's folders."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", stem):
        raise UsageError(f"{stem!r} is no name for an SQL file", remedy="use a-z, 0-9 and _")
    folder = versions.own_folder(project)
    path = folder / kind.folder / f"{stem}{kind.suffix}"
    name = kind.name_of(stem)
    if path.exists() or name in versions.paths(project, (*KINDS, MASK)):
        raise UsageError(f"there is an SQL file {name} already", remedy=f"edit it, then invoke sql.bump --name={name}")
    return SqlFile(name, path, 1, "", 0, "", (), kind)


def _statement(connection: Connection, key: str) -> str:
    """The statements that make an object as it is, but for its owner and grants, which are the server's roles."""
    made = dependents.statement(connection, key)
    if not made:
        raise UsageError(f"PostgreSQL prints no statement for the aggregate {key}", remedy="write its file by hand")
    made = re.sub(r"^CREATE VIEW ", "CREATE OR REPLACE VIEW ", made).rstrip().rstrip(";") + ";\n"
    parts = [part for part in dependents.parts(connection, key) if part.kind in ("index", "default", "comment", "rule")]
    return made + "".join(f"{part.statement.rstrip(';')};\n" for part in parts)
