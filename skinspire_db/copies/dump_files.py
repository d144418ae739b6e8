"""Dump files as pg_dump writes them: what kind they are, and what they say of themselves; nothing is restored."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from skinspire_db.copies.dump_sql import Piece, bare, pieces, pieces_of
from skinspire_db.errors import BackupInvalid, StepFailed
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.client_programs import ClientTools, ended
from skinspire_db.postgres.scripts import private_folder
from skinspire_db.postgres.target import Target

HEAD = 4096  # bytes: enough for pg_dump's own head
COMPLETE = "PostgreSQL database dump complete"
CREATED = lazy_regex(
    r"(ENCODING|LOCALE_PROVIDER|LOCALE|LC_COLLATE|LC_CTYPE|ICU_LOCALE|ICU_RULES|BUILTIN_LOCALE) = ('(?:[^']|'')*'|\w+)"
)
EARLY = 50  # statements: among the first so many, pg_dump has its CREATE DATABASE
COPIED = lazy_regex(r'COPY "?skinspire_tools"?\."?(stamp|journal)"? ?\(([^)]*)\)')
INSERTED = lazy_regex(r'INSERT INTO "?skinspire_tools"?\."?(stamp|journal)"?[ (]')
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
    """Find out what kind of dump a file or folder is.

    Raises:
        BackupInvalid: it is no dump, is empty, or is cut short.
    """
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
    version = re.search(r"-- Dumped from database version (\d+)", text)
    return Archive(path, "sql", int(version[1]) * 10_000 if version else 0)


def with_version(tools: ClientTools, archive: Archive, target: Target) -> Archive:
    """The archive with the server's version that its table of contents names.

    Raises:
        BackupInvalid: it is in a format that is newer than the programs.
    """
    if archive.kind == "sql" or archive.server_version:
        return archive
    try:
        listing = tools.run("pg_restore", target, "--list", str(archive.path), connect=False)
    except StepFailed as error:
        if "unsupported version" not in error.message:
            raise
        raise BackupInvalid(
            f"{archive.path} is by a pg_dump that is newer than the programs here, which are PostgreSQL {tools.major}",
            remedy="install the client programs of its version, or set SKINSPIRE_PG_BIN to their folder",
        ) from None
    version = re.search(r"Dumped from database version: (\d+)", listing)
    return replace(archive, server_version=int(version[1]) * 10_000 if version else 0)


def whose(tools: ClientTools, archive: Archive, target: Target) -> tuple[str | None, str | None]:
    """Read which environment a dump is of.

    Args:
        tools: the programs that read it.
        archive: the dump.
        target: the database that it is to be restored into; nothing is restored yet.

    Returns:
        The environment by its stamp, and by the last entry of its journal; None where it has none.
    """
    if archive.kind == "sql" and not _mentions(archive.path, b"skinspire_tools"):
        return None, None
    only = ("--data-only", "--schema=skinspire_tools", "--table=stamp", "--table=journal")
    with _pieces(tools, archive, target, *only) as every:
        return _whose(every)


def _mentions(path: Path, word: bytes) -> bool:
    """Whether the word is anywhere in the file, without reading it as SQL."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(word) >= 0


def _whose(every: Iterator[Piece]) -> tuple[str | None, str | None]:
    stamp: str | None = None
    entries: list[tuple[str, str]] = []  # time, environment
    table, columns = "", [""]
    for kind, piece in every:
        text = bare(piece).decode(errors="replace")
        if kind == "rows" and table and text.strip() != "\\.":
            row = dict(zip(columns, text.rstrip("\r\n").split("\t"), strict=False))
            if table == "stamp":
                stamp = row.get("environment")
            else:
                entries.append((row.get("started_at", ""), row.get("environment", "")))
        elif kind == "statement" and (copied := COPIED.match(text)):
            table, columns = copied[1], [column.strip(' "\n') for column in copied[2].split(",")]
        elif kind == "statement":
            table = ""
            if (inserted := INSERTED.match(text)) and inserted[1] == "stamp":
                stamp = next(iter(re.findall(r"\((?:true|false), '([^']*)'", text)), stamp)
            elif inserted:
                entries += [(time, name) for name, time in re.findall(ENTRY, text)]
    return stamp, max(entries)[1] if entries else None


@contextlib.contextmanager
def _pieces(tools: ClientTools, archive: Archive, target: Target, *options: str) -> Iterator[Iterator[Piece]]:
    """The pieces of a plain dump, or of what pg_restore makes of another one with these options."""
    if archive.kind == "sql":
        with archive.path.open("rb") as file:
            yield pieces(file)
    else:
        yield pieces_of(tools.run("pg_restore", target, *options, "--file=-", str(archive.path), connect=False))


def locale(tools: ClientTools, archive: Archive, target: Target) -> str:
    """Encoding and locale of the database that was dumped, as CREATE DATABASE takes them; empty where the dump is silent."""
    with _pieces(tools, archive, target, "--create", "--schema-only") as every:
        for _, piece in itertools.islice(every, EARLY):
            text = bare(piece).decode(errors="replace")
            if text.startswith("CREATE DATABASE "):
                return " ".join(f"{key} {value}" for key, value in CREATED.findall(text.rpartition(" TEMPLATE = ")[2]))
    return ""


def sequences(tools: ClientTools, archive: Path, target: Target) -> dict[str, list[Any]]:
    """The values that an archive gives to sequences, as a fingerprint has them: name -> [last value, whether it was used].

    No snapshot holds them: a look at the database, even on the dump's own snapshot, could read later ones.
    """
    values = {}
    text = sql_of(tools, archive, target, r"\d+; \d+ \d+ SEQUENCE SET ")
    for name, value, called in re.findall(r"pg_catalog\.setval\('((?:[^']|'')+)', (-?\d+), (true|false)\)", text):
        parts = re.findall(r'"(?:[^"]|"")+"|[^.]+', name.replace("''", "'"))
        quoted = ".".join(part if part.startswith('"') else f'"{part}"' for part in parts)
        values[quoted] = [int(value), called == "true"]
    return values


@contextlib.contextmanager
def listed(lines: list[str]) -> Iterator[str]:
    """A temporary file with these lines, for pg_restore's --use-list."""
    with private_folder() as folder:
        file = folder / "entries.list"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        yield str(file)


def sql_of(tools: ClientTools, archive: Path, target: Target, entries: str) -> str:
    """The SQL of those entries of an archive whose line in its table of contents matches the pattern `entries`."""
    listing = tools.run("pg_restore", target, "--list", str(archive), connect=False)
    with listed([line for line in listing.splitlines() if re.match(entries, line)]) as file:
        return tools.run("pg_restore", target, f"--use-list={file}", "--file=-", str(archive), connect=False)


def prove_complete(tools: ClientTools, archive: Archive, aside: Target) -> None:
    """Check that the rows of every table end with their own last line: pg_restore does not notice that a file was cut.

    Raises:
        BackupInvalid: the rows of a table do not end.
    """
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
