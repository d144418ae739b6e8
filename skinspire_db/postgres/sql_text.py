"""SQL as text: where its comments, strings, quoted names and function bodies begin and end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from skinspire_db.patterns import lazy_regex

Part = Literal["code", "comment", "quoted"]
# What begins a part in which no statement ends, and the other characters that a reader may stop at: the end of a statement,
# parentheses, and the backslash of a command for psql. Bytes over 127 are letters to PostgreSQL.
OPENS = lazy_regex(
    rb"--[^\n]*|/\*|(?<![\w$\x80-\xff])[eE]'|'|\""
    rb"|(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$|[;()]|\\"
)
ESCAPED = lazy_regex(rb"\\.|''|'", re.DOTALL)
PLAIN = lazy_regex(rb"''|'")
NAME = lazy_regex(rb'""|"')
COMMENT = lazy_regex(rb"/\*|\*/")
ATOMIC = lazy_regex(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)
IN_ATOMIC = lazy_regex(r"(\bAS\s+|\.\s*)?\b(CASE|END)\b", re.IGNORECASE)  # as a column's name it opens and closes nothing

STRING = r"([eE]?'(?:[^']|'')*'|(\$\w*\$).*?\2)"
DO = lazy_regex(rf"\s*DO\s*(?:LANGUAGE\s+\w+\s*)?{STRING}", re.IGNORECASE | re.DOTALL)
CHANGES = lazy_regex(r"\b(?:ALTER|DROP|TRUNCATE|EXECUTE(?!\s+(?:ON|FUNCTION|PROCEDURE)\b))\b", re.IGNORECASE)
LITERAL = lazy_regex(rf"EXECUTE\s*{STRING}\s*", re.IGNORECASE | re.DOTALL)


class Scanner:
    """Reads SQL piece by piece: `inside` is what began the string, name, body or comment that goes on, or empty."""

    def __init__(self) -> None:
        self.inside = b""
        self._depth = 0

    def open(self, token: bytes) -> None:
        """A string, name, body or comment begins."""
        self.inside, self._depth = token.lower() if token in (b"e'", b"E'") else token, 1

    def skip(self, sql: bytes, at: int) -> int:
        """Go to the end of the string, name, body or comment, or of the SQL where it goes on.

        Args:
            sql: the SQL.
            at: where in it the scanner is.

        Returns:
            Where it is then.
        """
        if self.inside.startswith(b"$"):
            end = sql.find(self.inside, at)
            if end < 0:
                return len(sql)
            end += len(self.inside)
            self.inside = b""
            return end
        ends = {b"'": PLAIN, b"e'": ESCAPED, b'"': NAME, b"/*": COMMENT}[self.inside]
        while found := ends.search(sql, at):
            at = found.end()
            if self.inside == b"/*":  # they nest
                self._depth += 1 if found[0] == b"/*" else -1
            if found[0] in (b"'", b'"') or not self._depth:
                self.inside = b""
                return at
        return len(sql)


def parts(sql: str) -> Iterator[tuple[Part, str]]:
    """SQL divided into code, comments and what is quoted: strings, names and function bodies. Nothing is left out."""
    raw = sql.encode(errors="surrogateescape")
    start = at = 0
    while found := OPENS.search(raw, at):
        at = found.end()
        if found[0] in (b";", b"(", b")", b"\\"):
            continue
        if found.start() > start:
            yield "code", raw[start : found.start()].decode(errors="surrogateescape")
        comment = found[0].startswith((b"--", b"/*"))
        if not found[0].startswith(b"--"):
            scanner = Scanner()
            scanner.open(found[0])
            at = scanner.skip(raw, at)
        start = at
        yield "comment" if comment else "quoted", raw[found.start() : at].decode(errors="surrogateescape")
    if start < len(raw):
        yield "code", raw[start:].decode(errors="surrogateescape")


def statements_only(sql: str) -> str:
    """SQL with its comments, strings and function bodies blanked out rather than cut out, so that positions stay."""
    shown = "".join(text if part == "code" else _blank(text) for part, text in parts(sql))
    for body in ATOMIC.finditer(shown):
        depth = 1
        for word in IN_ATOMIC.finditer(shown, body.end()):
            if not word[1]:
                depth += 1 if word[2].upper() == "CASE" else -1
            if depth == 0:
                shown = shown[: body.start()] + _blank(shown[body.start() : word.end()]) + shown[word.end() :]
                break
    return shown


def without_comments(sql: str) -> str:
    """SQL with a blank in place of each comment."""
    return "".join(" " if part == "comment" else text for part, text in parts(sql))


def split(sql: str, at: str) -> list[str]:
    """SQL cut at each such character that is in no string, comment, function body or parentheses."""
    hidden = statements_only(sql)
    depth, start, pieces = 0, 0, []
    for place, character in enumerate(hidden):
        depth += (character == "(") - (character == ")")
        if character == at and depth == 0:
            pieces.append(sql[start:place])
            start = place + 1
    return [*pieces, sql[start:]]


def statements(sql: str) -> Iterator[str]:
    """The statements of SQL without their comments; after a DO block those that change tables in it, whether they run or not.

    Of SQL that a block composes there is only EXECUTE and what it is composed of.
    """
    for statement in split(without_comments(sql), ";"):
        yield statement
        if block := DO.match(statement):
            for piece in split(without_comments(_unquoted(block[1])), ";"):
                if found := CHANGES.search(statements_only(piece)):
                    changing = piece[found.start() :]
                    literal = LITERAL.fullmatch(changing)
                    yield from statements(_unquoted(literal[1])) if literal else [changing]


def _unquoted(quoted: str) -> str:
    """What stands in an SQL string."""
    if quoted.startswith("$"):
        tag = quoted.index("$", 1) + 1
        return quoted[tag:-tag]
    return quoted[quoted.index("'") + 1 : -1].replace("''", "'")


def _blank(sql: str) -> str:
    return re.sub(r"[^\n]", " ", sql)
