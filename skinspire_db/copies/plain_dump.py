"""Restoring dumps of others: with a role that has no rights but on the new database, and without what leads elsewhere."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from skinspire_db.copies.dump_files import CLEANS, OWNER, Archive, Strangers
from skinspire_db.copies.dump_sql import bare, pieces
from skinspire_db.copies.dump_statements import GRANTED, OWNED, Judge, refused
from skinspire_db.errors import BackupInvalid
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import ClientTools
from skinspire_db.postgres.scripts import Script, script
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

COMMAND = re.compile(rb"\\(connect|restrict|unrestrict)\b")
# What of a dump would run, with the tools' rights, whenever they write down what they did.
IN_THE_WAY = """
    SELECT c.relname FROM pg_catalog.pg_class c
    WHERE c.relnamespace = to_regnamespace('skinspire_tools') AND (
        c.relkind NOT IN ('r', 'i') OR c.relhasrules OR c.relrowsecurity
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.refobjid >= 16384
                     AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_type'::regclass,
                         'pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_opclass'::regclass)
                     AND (d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
                          OR d.classid = 'pg_catalog.pg_attrdef'::regclass
                             AND d.objid IN (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid)
                          OR d.classid = 'pg_catalog.pg_constraint'::regclass
                             AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = c.oid))))
"""
WITH_AN_OWNERS_RIGHTS = """
    SELECT format('%I.%I', n.nspname, p.proname)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_roles r ON r.oid = p.proowner WHERE p.prosecdef AND r.rolsuper AND p.oid >= 16384 ORDER BY 1
"""


def judge(connection: Connection) -> Judge:
    """Who judges a dump for this server."""
    trusted = connection.execute(
        "SELECT DISTINCT name FROM pg_catalog.pg_available_extension_versions WHERE trusted"
    ).fetchall()
    there = connection.execute("SELECT name FROM pg_catalog.pg_available_extensions").fetchall()
    settings = connection.execute("SELECT lower(name) FROM pg_catalog.pg_settings").fetchall()
    safe = {name for (name,) in trusted} - {"plpgsql"}
    return Judge(safe, {name for (name,) in settings}, {name for (name,) in there})


def restore(tools: ClientTools, archive: Archive, aside: Target, lent: Target, present: set[str], judged: Judge) -> list[str]:
    """Restore plain SQL through psql in one transaction, as `lent`; owners and grants follow as `aside`, which may give
    them. Returns what was mapped or left out, a sentence each.

    Raises BackupInvalid, before anything is restored, for commands for psql and statements that no pg_dump writes.
    """
    strangers = Strangers(present)
    with contextlib.closing(connections.connect(aside, "restore")) as connection:
        able = connection.execute("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetchone() == (
            True,
        )
    with script(tools) as first, script(tools) as later:
        _divide(archive, first, later, strangers, judged, aside.user if able or lent == aside else None)
        first.run(lent)
        later.run(aside)
    return [*strangers.notes(aside), *judged.notes()]


def _divide(archive: Archive, first: Script, later: Script, strangers: Strangers, judged: Judge, giver: str | None) -> None:
    """Write each statement into the script where it belongs; nothing when the dump is refused. Only with a `giver` are
    things given to other roles that are here.
    """
    wrong: BackupInvalid | None = None
    keeping = True
    with archive.path.open("rb") as file:
        for kind, piece in pieces(file):
            text = bare(piece).decode(errors="surrogateescape").strip()
            if kind == "command" and not COMMAND.match(piece):
                shown = text.encode(errors="surrogateescape").decode(errors="replace")[:60]
                raise BackupInvalid(f"{archive.path} holds commands for psql: {shown}", remedy="use a dump by pg_dump")
            if kind == "rows" and keeping:
                first.write(piece)
            if kind != "statement" or not text:
                continue
            verdict = judged.verdict(bare(piece)) if not CLEANS.match(text) else "skip"
            wrong = wrong or (refused(piece, archive.path) if verdict == "refuse" else None)
            strangers.look(text)
            keeping = verdict in ("keep", "later") and strangers.keeps(text)
            changed = strangers.without(text) if keeping else ""
            if changed:
                _place(changed, verdict, first, later, strangers, judged, giver)
    if wrong:
        raise wrong


def _place(
    text: str, verdict: str, first: Script, later: Script, strangers: Strangers, judged: Judge, giver: str | None
) -> None:
    if owner := OWNER.fullmatch(text):
        if not OWNED.fullmatch(text):
            judged.owners(text)
        elif giver is None:
            strangers.robbed.add(owner[1].strip('"'))
        else:
            later.write(f"{text}\n")
        return
    after = verdict == "later" or GRANTED.fullmatch(text)
    if text.startswith("SET client_encoding"):
        later.write(f"{text}\n")
    (later if after else first).write(f"{text}\n")


def refuse_what_would_run(aside: Target, path: object) -> list[str]:
    """Raise BackupInvalid when something of the dump would run whenever the tools write into their own tables. Returns a
    sentence on functions that run with a superuser's rights, if there are any.
    """
    with contextlib.closing(connections.connect(aside, "restore")) as connection:
        connections.begin(connection, aside.policy, brief=True)
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        if odd := connection.execute(IN_THE_WAY.encode()).fetchone():
            raise BackupInvalid(
                f"{path}: skinspire_tools.{odd[0]} is not as the tools make it, and something of the dump would run in it",
                remedy="make a dump with pg_dump --exclude-schema=skinspire_tools",
            )
        found = [name for (name,) in connection.execute(WITH_AN_OWNERS_RIGHTS.encode()).fetchall()]
    shown = ", ".join(found[:5]) + (f", and {len(found) - 5} more" if found[5:] else "")
    return [f"these functions run with the rights of a superuser, whoever calls them: {shown}"] if found else []
