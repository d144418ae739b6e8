"""Restoring an archive of pg_dump where not all of its roles exist, or with a role of fewer rights."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.copies import absent_extensions
from skinspire_db.copies.absent_roles import OWNER, Note, has_internal_option, is_about, rewritten, sentences, unquoted
from skinspire_db.copies.dump_files import Archive, listed, prove_complete, sql_of
from skinspire_db.copies.dump_sql import bare_text, pieces_of
from skinspire_db.copies.dump_statements import COMMAND, GRANTED, OWNED, Judge, refused, refused_command
from skinspire_db.errors import StepFailed
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import SETTINGS, ClientTools
from skinspire_db.postgres.scripts import script
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# Entries that name roles, and can be made when everything else is there.
LATER = r"\d+; \d+ \d+ ((DEFAULT )?ACL|POLICY|COMMENT .*POLICY) "
# Entries that hide rows from the owner, who checks foreign keys meanwhile: policies that show them may not be there yet.
SECURITY = r"\d+; \d+ \d+ ROW SECURITY "
SECURED = lazy_regex(r"ALTER TABLE .* ENABLE ROW LEVEL SECURITY;", re.DOTALL)
PUBLICATIONS = r"\d+; \d+ \d+ (PUBLICATION|COMMENT .*PUBLICATION) "
# Entries of others' archives that touch more than the database, and what the judge calls them.
OUTSIDE_ENTRIES = (
    r"\d+; \d+ \d+ (COMMENT - )?(SUBSCRIPTION|EVENT TRIGGER|SERVER|USER MAPPING|FOREIGN DATA WRAPPER|FOREIGN TABLE) "
)
ENTRIES_LEFT_OUT = (
    "other servers",
    "event triggers",
    "extensions that only a superuser may make",
    "system functions' rights",
)
DEFINITIONS = r"\d+; \d+ \d+ (?!TABLE DATA |BLOBS |SEQUENCE SET |MATERIALIZED VIEW DATA )"  # large objects' owners too
ENCODING = "SET client_encoding = "
GRANTS = ("GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES ")
# Settings that only newer servers have; a script sets those that its server has itself.
NEWER_SETTING = lazy_regex(rf"SET ({'|'.join(SETTINGS)}) = ")
# For an owner who is under the policies that it restores, and looks at the rows of foreign keys; that it sees them all, the
# fingerprint makes sure of.
UNDER_POLICIES = "--enable-row-security"
SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"


def restore(
    tools: ClientTools,
    archive: Archive,
    aside: Target,
    present: set[str],
    jobs: int,
    *,
    lent: Target | None = None,
    judge: Judge | None = None,
) -> list[str]:
    """Restore an archive into an empty database, up to the first error.

    Args:
        tools: the programs that restore it.
        archive: what is restored.
        aside: the empty database; what absent roles owned becomes its user's.
        present: the roles of its server.
        jobs: how many processes restore at once; an archive that is read in order has one.
        lent: the same database, for the role of fewer rights that restores an archive of others.
        judge: looks at an archive of others first.

    Returns:
        What was mapped or left out, a sentence each.

    Raises:
        StepFailed: with what pg_restore said, and what needs an extension that the server has not got.
        BackupInvalid: an archive of others has statements that no pg_dump writes, or not all rows, which pg_restore does not
            notice.
    """
    if judge:
        prove_complete(tools, archive, aside)
    restoring = examined(tools, archive.path, aside, present, judge, lent if lent != aside else None)
    try:
        restoring.run(*([f"--jobs={jobs}"] if archive.kind == "archive" else []))
    except StepFailed as error:
        definitions = pieces_of(sql_of(tools, archive.path, aside, DEFINITIONS)) if restoring.absent else ()
        raise absent_extensions.explained(error, restoring.absent, definitions) from None
    return [*restoring.settle(), *(judge.notes() if judge else [])]


def examined(
    tools: ClientTools,
    archive: Path,
    aside: Target,
    present: set[str],
    judge: Judge | None = None,
    lesser: Target | None = None,
) -> ArchiveRestore:
    """Read all definitions of an archive before it is restored.

    Args:
        tools: the programs that read it.
        archive: what is restored.
        aside: the empty database.
        present: the roles of its server.
        judge: judges the statements of an archive of others.
        lesser: the same database, for a role of fewer rights that restores it.

    Raises:
        BackupInvalid: the judge refuses a statement.
    """
    notes: list[Note] = []
    internal = secured = False
    for kind, piece in pieces_of(sql_of(tools, archive, aside, DEFINITIONS)):
        text = bare_text(piece)
        _, note = rewritten(text, present)
        notes += [note] if note else []
        internal = internal or has_internal_option(text)
        secured = secured or (judge is None and SECURED.fullmatch(text) is not None)
        if judge and kind == "statement" and text and judge.verdict(text.encode(errors="surrogateescape")) == "refuse":
            raise refused(piece, archive)
    outside: list[str] = []
    if judge:
        outside = [OUTSIDE_ENTRIES, *map(absent_extensions.entries, judge.unsafe | judge.absent)]
        if odd := [texts[0] for what, texts in judge.left.items() if what not in ENTRIES_LEFT_OUT]:
            raise refused(odd[0].encode(errors="surrogateescape"), archive)
    absent = frozenset(judge.absent if judge else ())
    return ArchiveRestore(
        tools, archive, aside, frozenset(present), lesser, tuple(notes), tuple(outside), internal, absent, secured
    )


@dataclass(frozen=True)
class ArchiveRestore:
    """How one archive is restored into the empty database `aside`, whose server has the roles `present`.

    Attributes:
        lesser: the same database, for a role of fewer rights that restores it; None when the user of `aside` does.
        notes: what its statements lose, as `rewritten` says.
        outside: patterns of entries that touch more than the database, and are left out.
        internal: definitions have options that only their own server takes: they go through psql, rewritten.
        absent: extensions that the server has not got; their entries are among `outside`.
        secured: tables have row security, which is enabled when all else is there.
    """

    tools: ClientTools
    archive: Path
    aside: Target
    present: frozenset[str]
    lesser: Target | None = None
    notes: tuple[Note, ...] = ()
    outside: tuple[str, ...] = ()
    internal: bool = False
    absent: frozenset[str] = frozenset()
    secured: bool = False

    @property
    def whole(self) -> bool:
        """Whether pg_restore can restore all entries as they are."""
        return not (self.notes or self.lesser or self.outside)

    @property
    def options(self) -> list[str]:
        """The options that pg_restore needs for every part of the archive."""
        return ["--no-owner"] if self.lesser or any(note.kind == "owner" for note in self.notes) else []

    @contextlib.contextmanager
    def chosen(self) -> Iterator[list[str]]:
        """The options with which pg_restore names no absent role; `settle` brings what it leaves out."""
        if self.whole and not self.secured:
            yield []
            return
        later = [] if self.whole else [LATER, *self.outside, *([PUBLICATIONS] if self.lesser else [])]
        later += [SECURITY] if self.secured else []
        with listed([line for line in self._listing() if not any(re.match(each, line) for each in later)]) as file:
            yield [f"--use-list={file}", *self.options]

    def _listing(self) -> list[str]:
        return self.tools.run("pg_restore", self.aside, "--list", str(self.archive), connect=False).splitlines()

    def contents(self) -> str:
        """The table of contents of what `run` restores."""
        with self.chosen() as options:
            return self.tools.run("pg_restore", self.aside, "--list", *options, str(self.archive), connect=False)

    def run(self, *options: str, sections: tuple[str, ...] = ("pre-data", "data", "post-data")) -> None:
        """Restore those sections, but for what `settle` brings.

        Args:
            options: further options of pg_restore.
            sections: which parts of the archive.

        Raises:
            StepFailed: with what pg_restore or psql said.
            BackupInvalid: the definitions hold commands for psql.
        """
        with self.chosen() as chosen:
            if self.internal and "pre-data" in sections:
                self._define(chosen)
                sections = tuple(section for section in sections if section != "pre-data")
            if sections:
                parts = (f"--section={section}" for section in sections)
                security = [] if self.lesser else [UNDER_POLICIES]
                self.tools.restore(self.lesser or self.aside, *options, *parts, *security, *chosen, str(self.archive))

    def settle(self) -> list[str]:
        """Bring owners, grants, publications and policies that `run` left out, without absent roles.

        Returns:
            What was mapped or left out, a sentence each.
        """
        if self.secured:
            with listed([line for line in self._listing() if re.match(SECURITY, line)]) as file:
                self.tools.restore(self.aside, "--section=post-data", f"--use-list={file}", str(self.archive))
        if self.whole:
            return []
        if self.lesser:
            self._bring(PUBLICATIONS, ("CREATE PUBLICATION ", "ALTER PUBLICATION "))
        kept = self._give_back() if self.options else []
        self._bring(LATER, ("CREATE POLICY ", "COMMENT ON "))
        return [*sentences([*self.notes, *kept], self.aside.user), *self._left_out()]

    def _left_out(self) -> list[str]:
        if not self.absent:
            return []
        with self._looking() as connection:
            return absent_extensions.notes(connection, self.absent)

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Connection]:
        """A connection to what is restored, on which nothing of the dump's own is called."""
        with contextlib.closing(connections.connect(self.aside, "restore")) as connection:
            connections.begin(connection, self.aside.policy, brief=True)
            connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            yield connection

    def _define(self, chosen: list[str]) -> None:
        """Restore the definitions through psql: pg_restore cannot leave a part of an entry out."""
        arguments = ("--section=pre-data", *chosen, "--file=-", str(self.archive))
        text = self.tools.run("pg_restore", self.aside, *arguments, connect=False)
        with script(self.tools, transaction=False) as kept:
            for kind, piece in pieces_of(text):
                if kind == "command" and not COMMAND.match(piece):
                    raise refused_command(piece, self.archive)
                statement, _ = rewritten(bare_text(piece), self.present)
                if kind == "statement" and statement and not NEWER_SETTING.match(statement):
                    kept.write(f"{statement}\n")
            kept.run(self.lesser or self.aside)

    def _bring(self, entries: str, begins: tuple[str, ...]) -> None:
        """Run the statements of those entries that begin so, and grants, without absent roles."""
        found: list[str] = []
        for _, piece in pieces_of(sql_of(self.tools, self.archive, self.aside, entries)):
            text = bare_text(piece)
            granted = GRANTED.fullmatch(text) if self.lesser else text.startswith(GRANTS)
            if granted or text.startswith((ENCODING, *begins)):
                statement, _ = rewritten(text, self.present)
                if statement and not is_about(text, self.notes):
                    found.append(statement)
        if self.absent:
            with self._looking() as connection:
                found = absent_extensions.granted(found, connection)
        with script(self.tools) as kept:
            for statement in found:
                kept.write(f"{statement}\n")
            kept.run(self.aside)

    def _give_back(self) -> list[Note]:
        """Give roles that are present back what pg_restore's --no-owner took from them; not in one transaction, which would
        need a lock for each object.
        """
        with contextlib.closing(connections.connect(self.aside, "restore")) as connection:
            superuser = connection.execute(SUPERUSER).fetchone() == (True,)
        others = self.present - {self.aside.user}
        kept: list[Note] = []
        with script(self.tools, transaction=False) as given:
            for _, piece in pieces_of(sql_of(self.tools, self.archive, self.aside, DEFINITIONS)):
                text = bare_text(piece)
                owner = OWNER.fullmatch(text)
                returned = owner is not None and unquoted(owner[1]) in others and OWNED.fullmatch(text) is not None
                if text.startswith(ENCODING) or (returned and superuser):
                    given.write(f"{text}\n")
                elif owner and returned:
                    kept.append(Note("kept", frozenset({unquoted(owner[1])})))
            given.run(self.aside)
        return kept
