"""Plain SQL as pg_dump writes it, in pieces: statements, the rows of a COPY, and commands for psql."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import IO, Literal

from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.sql_text import OPENS, Scanner, parts

Kind = Literal["statement", "rows", "command"]
Piece = tuple[Kind, bytes]
COPY = lazy_regex(rb"\s*COPY .* FROM stdin\b[^;]*;\s*(--.*)?", re.IGNORECASE | re.DOTALL)
COMMENTS = lazy_regex(rb"--[^\n]*\n?|\s+")
NOTHING = lazy_regex(rb"\s*(--[^\n]*\s*)?")
NAMED = lazy_regex(rb"FUNCTION|PROCEDURE", re.IGNORECASE)  # spares most statements the closer look
FUNCTION = lazy_regex(r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE)\b")


def pieces(file: IO[bytes]) -> Iterator[Piece]:
    """The whole file in order, nothing left out, divided as psql does. A statement is everything up to its semicolon,
    comments before it too; rows are what follows a COPY ... FROM stdin, to its last line.
    """
    statement, state = b"", State()
    for line in file:
        rest = line
        while rest:
            if rest is line and line.startswith(b"\\") and not state.inside and not bare(statement):
                yield "statement", statement  # comments
                yield "command", line
                statement, state = b"", State()
                break
            end = state.read(rest)
            statement, rest = statement + rest[:end], rest[end:]
            if state.command:
                yield "command", statement + rest
                statement, state = b"", State()
                break
            if state.ended and _is_whole(statement):
                if NOTHING.fullmatch(rest):
                    statement, rest = statement + rest, b""
                yield "statement", statement
                if COPY.fullmatch(bare(statement)):
                    if rest:  # psql would take it for what follows the rows
                        yield "command", rest
                        rest = b""
                    yield from _rows(file)
                statement, state = b"", State()
    if statement:
        yield "statement", statement


def pieces_of(text: str) -> Iterator[Piece]:
    """The pieces of SQL that a program printed; bytes that are no UTF-8 are escaped in it, and come back as they were."""
    return pieces(io.BytesIO(text.encode(errors="surrogateescape")))


def _is_whole(statement: bytes) -> bool:
    """Whether a semicolon ends it here, and is not one of those in a function's BEGIN ATOMIC ... END; psql's own rule."""
    if not NAMED.search(statement) or not FUNCTION.match(text := normal(statement, strings=False)):
        return True
    inside = parentheses = 0
    for word in re.findall(r"[^\W\d][\w$]*|[()]", text):
        parentheses += {"(": 1, ")": -1}.get(word, 0)
        if not parentheses:
            inside += (word == "BEGIN") + (word == "CASE" and inside > 0) - (word == "END" and inside > 0)
    return not inside


def normal(statement: bytes, *, strings: bool = True) -> str:
    """The statement on one line, without comments, its words in capitals; strings and quoted names are as they are, or with
    `strings=False` empty.
    """
    text = ""
    for part, piece in parts(statement.decode(errors="surrogateescape")):
        if part == "comment":
            text = f"{text.rstrip(' ')} "
        elif part == "quoted":
            text += piece if strings else "''"
        else:
            code = re.sub(r"\s+", " ", piece).upper()
            text += code[1:] if text.endswith(" ") and code.startswith(" ") else code
    return text.strip()


def bare(statement: bytes) -> bytes:
    """The statement without the comments and blanks before it."""
    while found := COMMENTS.match(statement):
        statement = statement[found.end() :]
    return statement


def bare_text(statement: bytes) -> str:
    """The statement as text, without the comments and blanks around it; bytes that are no UTF-8 are escaped."""
    return bare(statement).decode(errors="surrogateescape").strip()


def _rows(file: IO[bytes]) -> Iterator[Piece]:
    for line in file:
        yield "rows", line
        if line.rstrip(b"\r\n") == b"\\.":
            return


class State(Scanner):
    """Where in a statement the reader is, line by line: it has `ended` with a semicolon, or is a `command` for psql."""

    def __init__(self) -> None:
        super().__init__()
        self.parentheses = 0
        self.ended = False
        self.command = False

    def read(self, line: bytes) -> int:
        """Go through another line, up to a semicolon that ends the statement.

        Returns:
            How far that was.
        """
        self.ended = False
        at = 0
        while at < len(line) and not self.ended:
            at = self.skip(line, at) if self.inside else self._look(line, at)
        return at

    def _look(self, line: bytes, at: int) -> int:
        found = OPENS.search(line, at)
        if found is None:
            return len(line)
        token = found[0]
        if token == b"\\":
            self.command = True
            return len(line)
        if token in (b"(", b")"):
            self.parentheses = max(0, self.parentheses + (1 if token == b"(" else -1))
        elif token == b";":
            self.ended = not self.parentheses
        elif not token.startswith(b"--"):
            self.open(token)
        return found.end()
