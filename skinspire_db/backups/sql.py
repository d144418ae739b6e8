"""Plain SQL as pg_dump writes it, in pieces: statements, the rows of a COPY, and commands for psql."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Literal

Kind = Literal["statement", "rows", "command"]
# What begins something in which no statement ends, and what ends a statement. A command for psql begins with a backslash,
# wherever no string is.
OPENS = re.compile(rb"--[^\n]*|/\*|(?<![\w$])[eE]'|'|\"|(?<![\w$])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$|;|\\")
ESCAPED = re.compile(rb"\\.|''|'", re.DOTALL)
PLAIN = re.compile(rb"''|'")
NAME = re.compile(rb'""|"')
COMMENT = re.compile(rb"/\*|\*/")
COPY = re.compile(rb"\s*COPY .* FROM stdin;\s*", re.IGNORECASE | re.DOTALL)
COMMENTS = re.compile(rb"--[^\n]*\n?|\s+")


def pieces(file: IO[bytes]) -> Iterator[tuple[Kind, bytes]]:
    """The whole file in order, nothing left out. A statement is everything up to its semicolon and the line's end, comments
    before it too; rows are what follows a COPY ... FROM stdin, to its last line.
    """
    statement, state = b"", State()
    for line in file:
        if line.startswith(b"\\") and not state.inside and not bare(statement):
            yield "statement", statement  # comments
            yield "command", line
            statement, state = b"", State()
            continue
        statement += line
        state.read(line)
        if state.command:
            yield "command", statement
            statement, state = b"", State()
        elif state.ended:
            yield "statement", statement
            if COPY.fullmatch(bare(statement)):
                yield from _rows(file)
            statement, state = b"", State()
    if statement:
        yield "statement", statement


def bare(statement: bytes) -> bytes:
    """The statement without the comments and blanks before it."""
    while found := COMMENTS.match(statement):
        statement = statement[found.end() :]
    return statement


def _rows(file: IO[bytes]) -> Iterator[tuple[Kind, bytes]]:
    for line in file:
        yield "rows", line
        if line.rstrip(b"\r\n") == b"\\.":
            return


class State:
    """Where in a statement one is, line by line: `ended` by a semicolon, or in a `command` for psql."""

    def __init__(self) -> None:
        self.inside: bytes = b""
        self.depth = 0
        self.ended = False
        self.command = False

    def read(self, line: bytes) -> None:
        """Go through another line."""
        self.ended = False
        at = 0
        while at < len(line):
            at = self._skip(line, at) if self.inside else self._look(line, at)

    def _look(self, line: bytes, at: int) -> int:
        found = OPENS.search(line, at)
        rest = line[at : found.start()] if found else line[at:]
        if self.ended and rest.strip():
            self.ended = False  # another statement has begun on this line
        if found is None:
            return len(line)
        token = found[0]
        if token == b"\\":
            self.command = True
            return len(line)
        if token == b";":
            self.ended = True
        elif not token.startswith(b"--"):
            self.ended = False
            self.inside, self.depth = (b"e'" if token in (b"e'", b"E'") else token), 1
        return found.end()

    def _skip(self, line: bytes, at: int) -> int:
        """To the end of the string, name, body or comment, if it is in this line."""
        if self.inside.startswith(b"$"):
            end = line.find(self.inside, at)
            if end < 0:
                return len(line)
            end += len(self.inside)
            self.inside = b""
            return end
        ends = {b"'": PLAIN, b"e'": ESCAPED, b'"': NAME, b"/*": COMMENT}[self.inside]
        while found := ends.search(line, at):
            at = found.end()
            if found[0] in (b"'", b'"'):
                self.inside = b""
                return at
            if self.inside == b"/*":
                self.depth += 1 if found[0] == b"/*" else -1
                if not self.depth:
                    self.inside = b""
                    return at
        return len(line)
