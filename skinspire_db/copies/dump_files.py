"""Dumps as pg_dump writes them, by whomever: recognising them, and restoring them where not all of their roles exist."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from skinspire_db.copies.dump_sql import bare, pieces
from skinspire_db.copies.dump_statements import GRANTED, OWNED, Judge, refused
from skinspire_db.errors import BackupInvalid
from skinspire_db.lifecycle.result import counted
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import ClientTools, ended
from skinspire_db.postgres.scripts import private_folder, script
from skinspire_db.postgres.target import Target

MAPPED = "roles that do not exist here"  # how a note on that begins
HEAD = 4096  # bytes: enough for pg_dump's own head
COMPLETE = "PostgreSQL database dump complete"
ROLE = r'[\w$]+|"(?:[^"]|"")+"'
OWNER = re.compile(rf"ALTER .* OWNER TO ({ROLE});", re.DOTALL)
SESSION = re.compile(rf"SET SESSION AUTHORIZATION ({ROLE});")
GRANTEE = re.compile(rf"(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .* (?:TO|FROM) ({ROLE})(?: WITH GRANT OPTION)?;", re.DOTALL)
FOR_ROLE = re.compile(rf"ALTER DEFAULT PRIVILEGES FOR ROLE ({ROLE}) ")
EACH = NAME = r'(?:[\w$]+|"(?:[^"]|"")+")'
POLICY = re.compile(  # all up to the roles, for an expression or a name can hold anything
    rf"(CREATE POLICY ({NAME} ON {NAME}(?:\.{NAME})?)(?: AS \w+)?(?: FOR \w+)? TO )({EACH}(?:, {EACH})*)(.*)", re.DOTALL
)
# What names roles, and can be made when all else is there.
LATER = r"\d+; \d+ \d+ ((DEFAULT )?ACL|POLICY|COMMENT .*POLICY) "
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
# What drops things, which are not there in an empty database.
CLEANS = re.compile(
    r"DROP (?!.* IF EXISTS)"
    r"|SELECT pg_catalog\.lo_unlink\("
    rf"|ALTER TABLE (IF EXISTS )?(ONLY )?{NAME}(\.{NAME})? (ALTER COLUMN {NAME} )?DROP (CONSTRAINT|DEFAULT|IDENTITY)",
    re.DOTALL,
)
CREATED = re.compile(
    r"(ENCODING|LOCALE_PROVIDER|LOCALE|LC_COLLATE|LC_CTYPE|ICU_LOCALE|ICU_RULES|BUILTIN_LOCALE) = ('(?:[^']|'')*'|\w+)"
)
EARLY = 50  # statements: among the first so many, pg_dump has its CREATE DATABASE
COPIED = re.compile(r'COPY "?skinspire_tools"?\."?(stamp|journal)"? ?\(([^)]*)\)')
INSERTED = re.compile(r'INSERT INTO "?skinspire_tools"?\."?(stamp|journal)"?[ (]')
ENTRY = r"\('[0-9a-f-]{36}', '(?:[^']|'')*', '([^']*)', '([^']*)'"  # of the journal, as INSERT has it


@dataclass(frozen=True)
class Archive:
    """A dump: `archive` in a format of pg_restore's, `tar` one that it reads in order only, or plain `sql`; `server_version`
    is 0 where it does not say.
    """

    path: Path
    kind: Literal["archive", "tar", "sql"]
    server_version: int

    @property
    def size(self) -> int:
        """In bytes."""
        files = [self.path] if self.path.is_file() else self.path.iterdir()
        return sum(file.stat().st_size for file in files)


def recognise(path: Path) -> Archive:
    """What kind of dump a file or folder is. Raises BackupInvalid for one that is none, is empty, or is cut short."""
    if path.is_dir():
        if not (path / "toc.dat").is_file():
            raise BackupInvalid(f"{path} is no backup and no dump: it has no toc.dat", remedy="invoke backup.list")
        return Archive(path, "archive", 0)
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - HEAD))
        tail = file.read()
    if not head:
        raise BackupInvalid(f"{path} is empty", remedy="use another file")
    if head.startswith(b"PGDMP"):
        return Archive(path, "archive", 0)
    if head[257:262] == b"ustar":
        return Archive(path, "tar", 0)
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        raise BackupInvalid(f"{path} is compressed", remedy="decompress it first, with gunzip or zstd -d")
    text = head.decode(errors="replace")
    if "PostgreSQL database dump" not in text:
        raise BackupInvalid(f"{path} is no dump by pg_dump", remedy="make one with pg_dump")
    if COMPLETE not in tail.decode(errors="replace"):
        raise BackupInvalid(f"{path} is cut short: pg_dump's last line is missing", remedy="use another file")
    found = re.search(r"-- Dumped from database version (\d+)", text)
    return Archive(path, "sql", int(found[1]) * 10_000 if found else 0)


def with_version(tools: ClientTools, archive: Archive, target: Target) -> Archive:
    """The archive with the server's version that its table of contents names."""
    if archive.kind == "sql" or archive.server_version:
        return archive
    listing = tools.run("pg_restore", target, "--list", str(archive.path), connect=False)
    found = re.search(r"Dumped from database version: (\d+)", listing)
    return replace(archive, server_version=int(found[1]) * 10_000 if found else 0)


def whose(tools: ClientTools, archive: Archive, target: Target) -> tuple[str | None, str | None]:
    """Which environment's the dump says it is, by its stamp and by the last entry of its journal; None where it has none.
    Nothing is restored for that.
    """
    with tempfile.TemporaryFile() as file:
        if archive.kind == "sql":
            with archive.path.open("rb") as whole:
                return _whose_in(whole)
        only = ("--data-only", "--schema=skinspire_tools", "--table=stamp", "--table=journal", "--file=-")
        file.write(tools.run("pg_restore", target, *only, str(archive.path), connect=False).encode(errors="surrogateescape"))
        file.seek(0)
        return _whose_in(file)


def _whose_in(file: IO[bytes]) -> tuple[str | None, str | None]:
    stamp: str | None = None
    entries: list[tuple[str, str]] = []  # when, whose
    table, columns = "", [""]
    for kind, piece in pieces(file):
        text = bare(piece).decode(errors="replace")
        if kind == "rows" and table and text.strip() != "\\.":
            row = dict(zip(columns, text.rstrip("\r\n").split("\t"), strict=False))
            if table == "stamp":
                stamp = row.get("environment")
            else:
                entries.append((row.get("started_at", ""), row.get("environment", "")))
        elif kind == "statement" and (found := COPIED.match(text)):
            table, columns = found[1], [each.strip(' "\n') for each in found[2].split(",")]
        elif kind == "statement":
            table = ""
            if (found := INSERTED.match(text)) and found[1] == "stamp":
                stamp = next(iter(re.findall(r"\((?:true|false), '([^']*)'", text)), stamp)
            elif found:
                entries += [(when, name) for name, when in re.findall(ENTRY, text)]
    return stamp, max(entries)[1] if entries else None


def locale(tools: ClientTools, archive: Archive, target: Target) -> str:
    """Encoding and locale of the database that was dumped, as CREATE DATABASE takes them; empty where the dump is silent."""
    with contextlib.ExitStack() as stack:
        if archive.kind == "sql":
            file: IO[bytes] = stack.enter_context(archive.path.open("rb"))
        else:
            file = stack.enter_context(tempfile.TemporaryFile())
            arguments = ("--create", "--schema-only", "--file=-", str(archive.path))
            file.write(tools.run("pg_restore", target, *arguments, connect=False).encode(errors="surrogateescape"))
            file.seek(0)
        for _, piece in itertools.islice(pieces(file), EARLY):
            text = bare(piece).decode(errors="replace")
            if text.startswith("CREATE DATABASE "):
                return " ".join(f"{key} {value}" for key, value in CREATED.findall(text.rpartition(" TEMPLATE = ")[2]))
    return ""


def sequences(tools: ClientTools, archive: Path, target: Target) -> dict[str, list[Any]]:
    """The values that the archive gives to sequences, as a fingerprint has them: no snapshot holds them, so that a look at
    the database, even on the dump's own snapshot, could find later ones.
    """
    entries = r"\d+; \d+ \d+ SEQUENCE SET "
    text = _part(tools, archive, target, entries)
    found = {}
    for name, value, called in re.findall(r"pg_catalog\.setval\('((?:[^']|'')+)', (-?\d+), (true|false)\)", text):
        parts = re.findall(r'"(?:[^"]|"")+"|[^.]+', name.replace("''", "'"))
        quoted = ".".join(part if part.startswith('"') else f'"{part}"' for part in parts)
        found[quoted] = [int(value), called == "true"]
    return found


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
    """Restore into the empty database, stopping at the first error; roles that are not `present` are mapped to whom connects.
    An archive of others is restored by a lesser role, as which `lent` connects, and is looked at first by the `judge`.

    Returns what was mapped or left out, a sentence each. Raises StepFailed with what pg_restore said, and of others' archives
    BackupInvalid for one with statements that no pg_dump writes, or whose rows are not all there, which pg_restore does not
    notice.
    """
    path = str(archive.path)
    if judge:
        _prove_complete(tools, archive, aside)
    strangers = missing(tools, archive.path, aside, present, judge)
    strangers.lent = lent is not None and lent != aside
    options = [f"--jobs={jobs}"] if archive.kind == "archive" else []
    with strangers.left_out(tools, archive.path, aside) as without:
        tools.restore(lent or aside, *options, *without, path)
    return [*strangers.settle(tools, archive.path, aside), *(judge.notes() if judge else [])]


@dataclass
class Strangers:
    """The roles that a dump names and that are not among the `present` ones: owners, those who were granted something, and
    those of policies.
    """

    present: set[str]
    owners: set[str] = field(default_factory=set)
    grantees: set[str] = field(default_factory=set)
    subjects: set[str] = field(default_factory=set)
    left: int = 0  # grants
    dropped: set[str] = field(default_factory=set)  # policies, as NAME ON TABLE
    robbed: set[str] = field(default_factory=set)  # of those who are present: owners to whom nothing could be given back
    lent: bool = False  # a lesser role restores, which can give nothing to others
    outside: list[str] = field(default_factory=list)  # of others' archives: how pg_restore's list calls what is left out

    def __bool__(self) -> bool:
        return bool(self.owners or self.grantees or self.subjects or self.lent or self.outside)

    @property
    def options(self) -> list[str]:
        """What pg_restore needs for every part of the archive."""
        return ["--no-owner"] if self.owners or self.lent else []

    def look(self, text: str) -> None:
        """Note the strangers of a statement."""
        if owner := OWNER.fullmatch(text) or SESSION.fullmatch(text):
            self.owners |= {_name(owner[1])} - self.present - {"DEFAULT"}
        if policy := POLICY.fullmatch(text):
            self.subjects |= _list(policy[3]) - self.present
        self.grantees |= _names(text) - self.present

    def keeps(self, text: str) -> bool:
        """Whether a statement gives nothing to a stranger."""
        owner = OWNER.fullmatch(text) or SESSION.fullmatch(text)
        self.left += bool(lost := _names(text) - self.present)
        return not lost and not (owner and _name(owner[1]) not in self.present | {"DEFAULT"})

    def without(self, text: str) -> str:
        """The statement, without strangers if it is a policy; empty when it is one for strangers alone, or a comment on that.

        For somebody else it could open rows that were closed to him; without it they are closed.
        """
        if any(text.startswith(f"COMMENT ON POLICY {each} IS ") for each in self.dropped):
            return ""
        if not (policy := POLICY.fullmatch(text)) or not _list(policy[3]) - self.present:
            return text
        if roles := [role for role in re.findall(EACH, policy[3]) if _name(role) in self.present]:
            return f"{policy[1]}{', '.join(roles)}{policy[4]}"
        self.dropped.add(policy[2])
        return ""

    @contextlib.contextmanager
    def left_out(self, tools: ClientTools, archive: Path, target: Target) -> Iterator[list[str]]:
        """The options with which pg_restore names no stranger; what it leaves out, `settle` brings."""
        if not self:
            yield []
            return
        listing = tools.run("pg_restore", target, "--list", str(archive), connect=False)
        later = [LATER, *self.outside, *([PUBLICATIONS] if self.lent else [])]
        with _listed([line for line in listing.splitlines() if not any(re.match(each, line) for each in later)]) as file:
            yield [f"--use-list={file}", *self.options]

    def settle(self, tools: ClientTools, archive: Path, aside: Target) -> list[str]:
        """Grants and policies, without those of strangers. Returns what was mapped or left out."""
        if not self:
            return []
        if self.lent:
            self._bring(tools, archive, aside, PUBLICATIONS, ("CREATE PUBLICATION ", "ALTER PUBLICATION "))
        if self.owners or self.lent:
            self._give_back(tools, archive, aside)
        self._bring(tools, archive, aside, LATER, ("CREATE POLICY ", "COMMENT ON "))
        return self.notes(aside)

    def _bring(self, tools: ClientTools, archive: Path, aside: Target, entries: str, begins: tuple[str, ...]) -> None:
        """The archive's statements that begin so, and grants, without those of strangers."""
        with tempfile.TemporaryFile() as every, script(tools) as kept:
            every.write(_part(tools, archive, aside, entries).encode(errors="surrogateescape"))
            every.seek(0)
            for _, piece in pieces(every):
                text = bare(piece).decode(errors="surrogateescape").strip()
                wanted = (
                    text.startswith((ENCODING, *begins)) or GRANTED.fullmatch(text) or (not self.lent and _is_grant(text))
                )
                if wanted and self.keeps(text):
                    kept.write(f"{self.without(text)}\n")
            kept.run(aside)

    def _give_back(self, tools: ClientTools, archive: Path, aside: Target) -> None:
        """What pg_restore's --no-owner took from those who are here too; each at once, or it would be many locks."""
        query = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        with contextlib.closing(connections.connect(aside, "restore")) as connection:
            able = connection.execute(query).fetchone() == (True,)
        with tempfile.TemporaryFile() as every, script(tools, transaction=False) as kept:
            every.write(_part(tools, archive, aside, DEFINITIONS).encode(errors="surrogateescape"))
            every.seek(0)
            for _, piece in pieces(every):
                text = bare(piece).decode(errors="surrogateescape").strip()
                if text.startswith(ENCODING):
                    kept.write(f"{text}\n")
                if (
                    (owner := OWNER.fullmatch(text))
                    and _name(owner[1]) in self.present - {aside.user}
                    and OWNED.fullmatch(text)
                ):
                    kept.write(f"{text}\n" if able else "")
                    self.robbed |= set() if able else {_name(owner[1])}
            kept.run(aside)

    def notes(self, aside: Target) -> list[str]:
        """A sentence for each kind of strangers."""
        notes = []
        if self.owners:
            notes.append(f"{MAPPED}, {_shown(self.owners)}: what was theirs is {aside.user}'s now")
        if self.grantees:
            notes.append(f"{MAPPED}, {_shown(self.grantees)}: {counted(self.left, 'grant', 'were', 'was')} left out")
        if self.robbed:
            whose = _shown(self.robbed)
            notes.append(f"{aside.user} is no superuser, and what was {whose}'s is {aside.user}'s now too")
        if self.subjects:
            whom = _shown(self.subjects)
            notes.append(f"{MAPPED}, {whom}: policies are not for them, those for them alone left out")
        return notes


def missing(tools: ClientTools, archive: Path, target: Target, present: set[str], judge: Judge | None = None) -> Strangers:
    """Roles that the archive names and that do not exist. An archive of others is judged at the same time."""
    strangers = Strangers(present)
    with tempfile.TemporaryFile() as file:
        file.write(_part(tools, archive, target, DEFINITIONS).encode(errors="surrogateescape"))
        file.seek(0)
        for kind, piece in pieces(file):
            text = bare(piece)
            strangers.look(text.decode(errors="surrogateescape").strip())
            if judge and kind == "statement" and text and judge.verdict(text) == "refuse":
                raise refused(text, archive)
    if judge:
        strangers.outside = [OUTSIDE_ENTRIES, *(f".* EXTENSION (- )?{re.escape(each)}\\b" for each in judge.unsafe)]
        if odd := [texts[0] for what, texts in judge.left.items() if what not in ENTRIES_LEFT_OUT]:
            raise refused(odd[0].encode(errors="surrogateescape"), archive)
    return strangers


@contextlib.contextmanager
def _listed(lines: list[str]) -> Iterator[str]:
    """A file for pg_restore's --use-list."""
    with private_folder() as folder:
        file = folder / "entries.list"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        yield str(file)


def _part(tools: ClientTools, archive: Path, target: Target, entries: str) -> str:
    """The SQL of those entries of an archive."""
    listing = tools.run("pg_restore", target, "--list", str(archive), connect=False)
    with _listed([line for line in listing.splitlines() if re.match(entries, line)]) as file:
        return tools.run("pg_restore", target, f"--use-list={file}", "--file=-", str(archive), connect=False)


def _prove_complete(tools: ClientTools, archive: Archive, aside: Target) -> None:
    """Each table's rows end with a line of their own; pg_restore takes the end of a file that was cut for the rows' end."""
    listing = tools.run("pg_restore", aside, "--list", str(archive.path), connect=False)
    wanted = len(re.findall(r"^\d+; \d+ \d+ TABLE DATA ", listing, re.MULTILINE))
    arguments = ("--data-only", "--file=-", str(archive.path))
    reader = tools.start("pg_restore", aside, *arguments, connect=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    copies = ends = 0
    with ended(reader):
        for line in reader.stdout or ():
            ends += line == b"\\.\n"
            copies += line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n")
        reader.wait()
    if copies and ends < wanted:
        raise BackupInvalid(
            f"{archive.path} is cut short: the rows of {wanted - ends} tables do not end", remedy="use another one"
        )


def _is_grant(text: str) -> bool:
    return text.startswith(GRANTS)


def _names(text: str) -> set[str]:
    """The roles that a statement grants to, takes from, or speaks for."""
    found = [match[1] for match in (GRANTEE.fullmatch(text), FOR_ROLE.match(text)) if match]
    return {_name(role) for role in found} - {"PUBLIC"}


def _list(roles: str) -> set[str]:
    """The roles of a policy."""
    return {_name(role) for role in re.findall(EACH, roles)}


def _shown(names: set[str]) -> str:
    """Names with commas between; of other encodings than UTF-8 what can be shown."""
    return ", ".join(sorted(names)).encode(errors="surrogateescape").decode(errors="replace")


def _name(quoted: str) -> str:
    return quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted
