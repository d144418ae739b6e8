"""Accepted differences: what a project has signed for, one line of a file for each, with a reason."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

NAME = "accepted.toml"
HEADING = """\
# Differences between models, SQL files and database that this project has accepted, with the reason for each.
# db.drift, migrate.check and db.prepare leave them alone. `of` is a hash of the two definitions: where one of them
# changes, the difference is reported again. A line without it holds whatever the definitions are.
"""


@dataclass(frozen=True)
class Accepted:
    """An accepted difference.

    Attributes:
        key: the object and what differs, as "column public.bills.memo type".
        reason: why it is accepted.
        of: the hash of the two definitions that it is accepted for; "" for any.
    """

    key: str
    reason: str
    of: str = ""

    @property
    def line(self) -> str:
        """The line of the file."""
        value = f"{{ reason = {_quoted(self.reason)}, of = {_quoted(self.of)} }}" if self.of else _quoted(self.reason)
        return f"{_quoted(self.key)} = {value}"


def path(project: Project) -> Path:
    """The file: `accepted` in pyproject.toml, by default accepted.toml.

    Raises:
        InvalidSetting: the setting is no text.
    """
    named = project.config.get("accepted", NAME)
    if not isinstance(named, str) or not named:
        raise InvalidSetting("accepted in pyproject.toml is no file name", remedy=f'write it as accepted = "{NAME}"')
    return project.root / named


def read(project: Project) -> dict[str, Accepted]:
    """The accepted differences by key; none where there is no file.

    Raises:
        InvalidSetting: the file cannot be read, or a line of it has no reason.
    """
    file = path(project)
    lines = toml_of(file)
    found = {}
    for key, value in lines.items():
        given = {"reason": value} if isinstance(value, str) else value
        reason, of = (given.get("reason"), given.get("of", "")) if isinstance(given, dict) else (None, "")
        if not isinstance(reason, str) or not reason.strip() or not isinstance(of, str):
            raise InvalidSetting(f"{file.name}: {key!r} has no reason", remedy=f'write it as {_quoted(key)} = "the reason"')
        found[key] = Accepted(key, reason, of)
    return found


def toml_of(file: Path) -> dict[str, Any]:
    """What stands in a file of TOML; nothing where there is no file.

    Raises:
        InvalidSetting: the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{file.name} cannot be read: {error}", remedy=f"correct {file}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"{file.name} is not valid TOML: {error}", remedy=f"correct {file}") from None


def edited(project: Project, new: Iterable[Accepted], gone: Iterable[str] = ()) -> str:
    """The text of the file with these differences at its end; lines for the same objects are replaced, comments stay.

    Args:
        project: whose file.
        new: the differences that are written.
        gone: the keys of lines that are dropped.

    Raises:
        InvalidSetting: as `read`; or what has to be dropped is not one line, or a table of TOML stands before the end.
    """
    lines = {each.key: each.line for each in new}
    former, dropped = read(project).keys(), {*lines, *gone}
    file = path(project)
    text = file.read_text(encoding="utf-8-sig") if file.exists() else HEADING
    kept = [line for line in text.splitlines() if not _keys(line) & dropped]
    text = "\n".join([*kept, *lines.values()]) + "\n"
    if _keys(text) != (former - dropped) | lines.keys():
        raise InvalidSetting(
            f"{file.name} has an entry of several lines, which is not rewritten",
            remedy=f'write each entry of {file} as one line: "column public.bills.memo type" = "the reason"',
        )
    return text


def _keys(text: str) -> set[str]:
    """What is defined; nothing where it is no TOML by itself."""
    try:
        return set(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return set()


def _quoted(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
