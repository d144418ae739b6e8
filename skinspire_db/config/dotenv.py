"""The project's .env: read as python-decouple reads it, but no line that means one of our settings is passed over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from skinspire_db.errors import InvalidSetting
from skinspire_db.patterns import lazy_regex

OURS = ("SKINSPIRE_ENV", "SKINSPIRE_PG_BIN", "SKINSPIRE_PG_HOME", "SKINSPIRE_PG_ACCOUNT", "FLASK_ENV")
PROCESS_ONLY = "SKINSPIRE_PROJECT"  # it decides which .env is read
URLS = ("DATABASE_URL", "ADMIN_URL", "REPLICA_URL")  # each after an environment's name
OLD_NAMES = {"DEVELOPMENT": "DEV", "TESTING": "TEST", "PRODUCTION": "PROD"}

ASSIGNMENT = lazy_regex(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)", re.DOTALL)
QUOTED = lazy_regex(r"""(?P<quote>['"])(?P<value>.*?)(?P=quote)[ \t]*(?P<rest>\#.*)?""", re.DOTALL)
COMMENT = lazy_regex(r"(?:^|\s+)#.*$", re.DOTALL)
REFERENCE = lazy_regex(r"\$\{|\$\(|`.*`")
WINDOWS_REFERENCE = lazy_regex(r"%[A-Za-z_]{3,}%")  # not in a URL, where %AB%CD are two bytes
NAME_REFERENCE = lazy_regex(r"\$([A-Za-z_][A-Za-z0-9_]*)")


def read(path: Path, environments: Iterable[str]) -> dict[str, str]:
    """The settings of a .env file; those that are ours as they are meant: with `export` before and a comment behind.

    Raises:
        InvalidSetting: a line means one of ours and cannot be taken as it is written, with the line's number and without its
            value; or the file cannot be read.
    """
    from decouple import RepositoryEnv

    try:
        data = dict(RepositoryEnv(str(path), encoding="utf-8-sig").data)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(
            f"{path} cannot be read: {error}", remedy=f"correct {path} or its permissions, and save it as UTF-8"
        ) from None
    return data | _Reading(path, tuple(environments)).ours(text)


class _Reading:
    """One pass over the lines of a file."""

    def __init__(self, path: Path, environments: tuple[str, ...]) -> None:
        prefixes = [name.upper().replace("-", "_") for name in environments]
        self.path = path
        self.known = {*OURS, *(f"{prefix}_{url}" for prefix in prefixes for url in URLS)}
        old = {former: new for former, new in OLD_NAMES.items() if former not in prefixes}
        self.renamed = {f"{former}_{url}": f"{new}_{url}" for former, new in old.items() for url in URLS}

    def ours(self, text: str) -> dict[str, str]:
        found: dict[str, tuple[int, str]] = {}
        names = set(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE))
        for number, line in enumerate(text.split("\n"), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            assignment = ASSIGNMENT.fullmatch(line)
            if assignment is None:
                self._refuse_if_ours(number, line)
                continue
            name, written = assignment.groups()
            if name not in self.known:
                self._refuse_if_meant(number, name)
                continue
            value = self._value(number, name, written, names)
            if name in found and found[name][1] != value:
                raise self._error(
                    number, name, f"and line {found[name][0]} set it to different values", "keep one of the two"
                )
            found[name] = number, value
        return {name: value for name, (_, value) in found.items()}

    def _value(self, number: int, name: str, written: str, names: set[str]) -> str:
        """What is meant by what stands behind the `=`."""
        if written[:1] in ("'", '"'):
            quoted = QUOTED.fullmatch(written)
            if quoted is None:
                raise self._error(number, name, "does not end where its quotes do", f"write {name}='VALUE' on one line")
            value, literal = quoted["value"], quoted["quote"] == "'"
        else:
            value, literal = COMMENT.sub("", written).rstrip(), False
            if any(word in self.known for word in re.findall(r"\b\w+(?==)", value)):
                raise self._error(number, name, "has a second setting behind it", "write each on a line of its own")
            if name.endswith("_URL") and re.search(r"\s|[;,\\\"'`]$", value):
                raise self._error(number, name, "has more behind its URL", f"write {name}='URL', and a comment behind a #")
        if value[:1] in ("“", "”", "‘", "’", "«", "„"):
            raise self._error(number, name, "has typographic quotes", f"write {name}='VALUE' with plain ones")
        if any(not character.isprintable() for character in value):
            raise self._error(number, name, "holds an invisible character", "type the line anew")
        if not literal and self._refers(name, value, names):
            remedy = "write the value itself, or put what is meant as it stands into '...'"
            raise self._error(number, name, "refers to a variable, and nothing replaces that here", remedy)
        return value

    def _refers(self, name: str, value: str, names: set[str]) -> bool:
        """Whether a shell would put something else there. A password may hold a $ where no variable has such a name."""
        if REFERENCE.search(value) or (not name.endswith("_URL") and WINDOWS_REFERENCE.search(value)):
            return True
        return any(len(each) > 1 and (each in names or each in os.environ) for each in NAME_REFERENCE.findall(value))

    def _refuse_if_ours(self, number: int, line: str) -> None:
        """Of a line that is no NAME=VALUE: raise when one of our names stands where its name should."""
        for word in re.findall(r"\w+", re.split(r"[=#]", line, maxsplit=1)[0].replace("-", "_")):
            if (meant := self._meant(word)) is not None:
                raise self._error(number, meant, "is not written as NAME=VALUE", f"write {meant}=VALUE")

    def _refuse_if_meant(self, number: int, name: str) -> None:
        if name == PROCESS_ONLY:
            raise self._error(number, name, "is read from the process environment only", "remove the line, and export it")
        if (meant := self._meant(name)) is not None:
            raise self._error(number, name, "is no setting", f"write {meant}, or give yours another name")

    def _meant(self, word: str) -> str | None:
        """Which of our settings a word is, or was meant to be; None when it is another program's."""
        upper = word.upper().strip("_")
        if upper in self.known:
            return upper
        if upper in self.renamed:
            return self.renamed[upper]
        if upper.startswith("FLASK_"):
            return None
        if upper.startswith("SKINSPIRE_ENV"):
            return "SKINSPIRE_ENV"
        return next((known for known in sorted(self.known) if self._resembles(upper, known)), None)

    def _resembles(self, name: str, known: str) -> bool:
        """One slip of the finger in an environment's name, two in the rest: BEST_DATABASE_URL may be another's by design."""
        for url in URLS:
            if name.endswith(f"_{url}") and known.endswith(f"_{url}"):
                return _distance(name.removesuffix(f"_{url}"), known.removesuffix(f"_{url}")) == 1
        return not known.startswith("FLASK_") and _distance(name, known) <= 2

    def _error(self, number: int, name: str, complaint: str, remedy: str) -> InvalidSetting:
        return InvalidSetting(f"{self.path}, line {number}: {name} {complaint}", remedy=f"correct the line: {remedy}")


def _distance(one: str, other: str) -> int:
    """How many letters must be added, left out, changed or swapped with the next to make one word of the other."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted)))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                row[j] = min(row[j], last[j - 2] + 1)
    return row[-1]
