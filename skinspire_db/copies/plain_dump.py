"""Restoring dumps of others: with a role that has no rights but on the new database, and without what leads elsewhere."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skinspire_db.copies import absent_extensions
from skinspire_db.copies.absent_roles import Note, is_about, owner_of, rewritten, sentences
from skinspire_db.copies.dump_files import Archive
from skinspire_db.copies.dump_sql import bare, bare_text, pieces
from skinspire_db.copies.dump_statements import COMMAND, GRANTED, NAME, OWNED, Judge, Verdict, refused, refused_command
from skinspire_db.errors import BackupInvalid, StepFailed
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import ClientTools
from skinspire_db.postgres.scripts import Script, script
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# What drops things, which are not there in an empty database.
CLEANS = lazy_regex(
    r"DROP (?!.* IF EXISTS)"
    r"|SELECT pg_catalog\.lo_unlink\("
    rf"|ALTER TABLE (IF EXISTS )?(ONLY )?{NAME}(\.{NAME})? (ALTER COLUMN {NAME} )?DROP (CONSTRAINT|DEFAULT|IDENTITY)",
    re.DOTALL,
)
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
    """A judge that knows the extensions and settings of the connection's server."""
    trusted = connection.execute(
        "SELECT DISTINCT name FROM pg_catalog.pg_available_extension_versions WHERE trusted"
    ).fetchall()
    there = connection.execute("SELECT name FROM pg_catalog.pg_available_extensions").fetchall()
    settings = connection.execute("SELECT lower(name) FROM pg_catalog.pg_settings").fetchall()
    safe = {name for (name,) in trusted} - {"plpgsql"}
    return Judge(safe, {name for (name,) in settings}, {name for (name,) in there})


def restore(tools: ClientTools, archive: Archive, aside: Target, lent: Target, present: set[str], judged: Judge) -> list[str]:
    """Restore plain SQL through psql, in one transaction for the rows and definitions and one for owners and grants.

    Args:
        tools: the programs that restore it.
        archive: what is restored.
        aside: the empty database, for the user that may give owners and grants.
        lent: the same database, for the role of fewer rights that restores everything else.
        present: the roles of its server.
        judged: judges each statement.

    Returns:
        What was mapped or left out, a sentence each.

    Raises:
        BackupInvalid: it has commands for psql or statements that no pg_dump writes; nothing is restored then.
        StepFailed: with what psql said, and what needs an extension that the server has not got.
    """
    with contextlib.closing(connections.connect(aside, "restore")) as connection:
        superuser = connection.execute("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetchone()
    with script(tools) as first, script(tools) as later:
        division = _Division(first, later, frozenset(present), judged, gives=superuser == (True,) or lent == aside)
        division.divide(archive)
        try:
            first.run(lent)
        except StepFailed as error:
            with archive.path.open("rb") as file:
                raise absent_extensions.explained(error, judged.absent, pieces(file)) from None
        missing = division.settle(aside)
        later.run(aside)
    return [*sentences(division.notes, aside.user), *judged.notes(), *missing]


@dataclass
class _Division:
    """Divides the statements of a plain dump into the scripts `first` and `later`; the latter runs with the administrator's
    rights. Objects are given to other roles only where it `gives`.
    """

    first: Script
    later: Script
    present: frozenset[str]
    judge: Judge
    gives: bool
    notes: list[Note] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)  # that may be on what an absent extension would have brought

    def divide(self, archive: Archive) -> None:
        """Write each statement into the script where it belongs. Raises BackupInvalid when the dump is refused."""
        wrong: BackupInvalid | None = None
        keeping = True
        with archive.path.open("rb") as file:
            for kind, piece in pieces(file):
                if kind == "command" and not COMMAND.match(piece):
                    raise refused_command(piece, archive.path)
                if kind == "rows" and keeping:
                    self.first.write(piece)
                if kind != "statement" or not (text := bare_text(piece)):
                    continue
                verdict: Verdict = "skip" if CLEANS.match(text) else self.judge.verdict(bare(piece))
                wrong = wrong or (refused(piece, archive.path) if verdict == "refuse" else None)
                keeping = self._place(text, verdict)
        if wrong:
            raise wrong

    def _place(self, text: str, verdict: Verdict) -> bool:
        """Write a statement into its script. Returns whether rows that follow it are kept."""
        statement, note = rewritten(text, self.present)
        wanted = verdict in ("keep", "later")
        if note and (wanted or note.kind == "owner"):
            self.notes.append(note)
        if not wanted or not statement or is_about(statement, self.notes):
            return False
        if owner := owner_of(statement):
            if not OWNED.fullmatch(statement):
                self.judge.owners(statement)
            elif self.gives:
                self.later.write(f"{statement}\n")
            else:
                self.notes.append(Note("kept", frozenset({owner})))
            return True
        if statement.startswith("SET client_encoding"):
            self.later.write(f"{statement}\n")
        is_grant = GRANTED.fullmatch(statement) is not None
        if is_grant and self.judge.absent:
            self.grants.append(statement)
            return True
        (self.later if verdict == "later" or is_grant else self.first).write(f"{statement}\n")
        return True

    def settle(self, aside: Target) -> list[str]:
        """Write the grants that were kept back, now that the rest is there. Returns which extensions were left out."""
        if not self.judge.absent:
            return []
        with contextlib.closing(connections.connect(aside, "restore")) as connection:
            connections.begin(connection, aside.policy, brief=True)
            connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            for statement in absent_extensions.granted(self.grants, connection):
                self.later.write(f"{statement}\n")
            return absent_extensions.notes(connection, self.judge.absent)


def refuse_what_would_run(aside: Target, path: object) -> list[str]:
    """Look for what a dump brought that would run with the tools' rights.

    Returns:
        A sentence on functions that run with a superuser's rights, if there are any.

    Raises:
        BackupInvalid: something of the dump would run whenever the tools write into their own tables.
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
    return [f"these functions run with the rights of a superuser for every caller: {shown}"] if found else []
