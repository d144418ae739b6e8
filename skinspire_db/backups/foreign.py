"""Dumps as pg_dump writes them, by whomever: recognising them, and restoring them where not all of their roles exist."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from skinspire_db.client_tools import ClientTools
from skinspire_db.connections import Target
from skinspire_db.errors import BackupInvalid

PSQL = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", "--file=-")
MAPPED = "roles that do not exist here"  # how a note on that begins
HEAD = 4096  # bytes: enough for pg_dump's own head
COMPLETE = "PostgreSQL database dump complete"
OWNER = re.compile(r"(?:ALTER .* OWNER TO) (.+);")
GRANTEE = re.compile(r"(?:GRANT|REVOKE) .* (?:TO|FROM) (.+?)(?: WITH GRANT OPTION)?(?: GRANTED BY .+)?;")
ROLE = r'[^"\s]+|"(?:[^"]|"")+"'
ELSEWHERE = re.compile(r"(?:CREATE|DROP|ALTER) DATABASE |\\connect |COMMENT ON DATABASE ")
PROGRAM = re.compile(r"\\(?!connect |restrict |unrestrict |\.)")


@dataclass(frozen=True)
class Archive:
    """A dump: `archive` in a format of pg_restore's, `tar` one that it reads in order only, or plain `sql`; `server_version`
    is 0 where it does not say.
    """

    path: Path
    kind: Literal["archive", "tar", "sql"]
    server_version: int


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


def restore(tools: ClientTools, archive: Archive, aside: Target, present: set[str], jobs: int) -> list[str]:
    """Restore into the empty database, stopping at the first error; roles that are not `present` are mapped to whom connects.

    Returns what was mapped or left out, a sentence each. Raises StepFailed with what pg_restore or psql said.
    """
    if archive.kind == "sql":
        return _restore_sql(tools, archive, aside, present)
    path = str(archive.path)
    definitions = tools.run("pg_restore", aside, "--schema-only", "--file=-", path, connect=False)
    owners = {_name(found[1]) for found in map(OWNER.fullmatch, definitions.splitlines()) if found} - present
    grantees = {_name(found[1]) for found in map(GRANTEE.fullmatch, definitions.splitlines()) if found} - present - {"PUBLIC"}
    options = ["--exit-on-error", *([f"--jobs={jobs}"] if archive.kind == "archive" else [])]
    if not owners and not grantees:
        tools.run("pg_restore", aside, *options, path)
        return []
    tools.run("pg_restore", aside, *options, "--no-privileges", *(["--no-owner"] if owners else []), path)
    kept, left = _grants(tools, archive, aside, present)
    with tempfile.TemporaryFile() as file:
        file.write("\n".join(kept).encode())
        file.seek(0)
        tools.run(
            "psql", aside, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", "--file=-", stdin=file
        )
    return _notes(owners, grantees, aside, left)


def _grants(tools: ClientTools, archive: Archive, aside: Target, present: set[str]) -> tuple[list[str], int]:
    """The archive's GRANTs and REVOKEs, one line each, for roles that are present; and how many are for others."""
    listing = tools.run("pg_restore", aside, "--list", str(archive.path), connect=False)
    wanted = [line for line in listing.splitlines() if re.match(r"\d+; \d+ \d+ (DEFAULT )?ACL ", line)]
    with tempfile.NamedTemporaryFile("w", suffix=".list", delete=False) as file:
        file.write("\n".join(wanted) + "\n")
    try:
        text = tools.run("pg_restore", aside, f"--use-list={file.name}", "--file=-", str(archive.path), connect=False)
    finally:
        Path(file.name).unlink()
    lines = [line for line in text.splitlines() if line.startswith(("GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES "))]
    kept = [line for line in lines if not _names_missing(line, present)]
    return kept, len(lines) - len(kept)


def _names_missing(line: str, present: set[str]) -> bool:
    roles = re.findall(rf" (?:TO|FROM) ({ROLE})(?: WITH GRANT OPTION)?;$", line) + re.findall(rf"FOR ROLE ({ROLE}) ", line)
    return any(_name(role) not in present | {"PUBLIC"} for role in roles)


def _restore_sql(tools: ClientTools, archive: Archive, aside: Target, present: set[str]) -> list[str]:
    """Plain SQL goes through psql in one transaction, without what leads elsewhere or names roles that are missing."""
    owners: set[str] = set()
    grantees: set[str] = set()
    left = 0
    with archive.path.open("rb") as file, tempfile.TemporaryFile() as kept:
        for line, statement in _lines(file):
            text = line.decode(errors="replace").rstrip() if statement else ""
            if PROGRAM.match(text):
                raise BackupInvalid(f"{archive.path} holds commands for psql: {text[:40]}", remedy="use a dump by pg_dump")
            owner, grantee = OWNER.fullmatch(text), GRANTEE.fullmatch(text)
            if owner and _name(owner[1]) not in present:
                owners.add(_name(owner[1]))
            elif grantee and _name(grantee[1]) not in present | {"PUBLIC"}:
                grantees.add(_name(grantee[1]))
                left += 1
            elif not ELSEWHERE.match(text):
                kept.write(line)
        kept.seek(0)
        tools.run("psql", aside, *PSQL, stdin=kept)
    return _notes(owners, grantees, aside, left)


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The lines of a plain dump, and whether each begins a statement: not in a COPY's rows, a string, a function's body."""
    rows, quote = False, b""
    for line in file:
        if rows:
            yield line, False
            rows = line.rstrip() != b"\\."
            continue
        yield line, not quote
        for found in re.finditer(rb"\$[A-Za-z_0-9]*\$|'|--[^\n]*", line):
            if not quote and not found[0].startswith(b"--"):
                quote = found[0]
            elif quote == found[0]:
                quote = b""
            elif not quote:
                break
        rows = not quote and bool(re.match(rb"COPY .* FROM stdin;\s*$", line))


def _notes(owners: set[str], grantees: set[str], aside: Target, left: int) -> list[str]:
    notes = []
    if owners:
        notes.append(f"{MAPPED}, {', '.join(sorted(owners))}: what was theirs is {aside.user}'s now")
    if grantees:
        notes.append(f"{MAPPED}, {', '.join(sorted(grantees))}: {left} grants were left out")
    return notes


def _name(quoted: str) -> str:
    return quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted
