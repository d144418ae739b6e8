"""Waivers: findings of db.advise that a project leaves for now, each with a reason and the day until which it holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from skinspire_db.config.accepted import toml_of
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

NAME = "waivers.toml"
FORM = 'lint = "no_primary_key", object = "visits", reason = "...", until = 2027-06-30'


@dataclass(frozen=True)
class Waiver:
    """A waiver.

    Attributes:
        lint: the lint's name.
        object: the finding's object, a pattern with * and ?.
        reason: why it is left; empty where the file has none.
        until: the last day; None where the file has none.
    """

    lint: str
    object: str
    reason: str
    until: date | None

    def __str__(self) -> str:
        return f"the waiver of {self.lint} for {self.object}"

    def fault(self, today: date) -> str:
        """Why it counts for nothing; empty where it counts.

        Args:
            today: the day that it is read on.
        """
        if not self.reason.strip():
            return f"{self} has no reason, and counts for nothing"
        if self.until is None:
            return f"{self} has no date, and counts for nothing"
        return f"{self} ended on {self.until}, and counts for nothing" if self.until < today else ""

    def covers(self, lint: str, name: str) -> bool:
        """Whether it is for this lint and object."""
        return self.lint == lint and (self.object == name or fnmatchcase(name, self.object.replace("[", "[[]")))


def path(project: Project) -> Path:
    """The file: `waivers` in pyproject.toml, by default waivers.toml.

    Raises:
        InvalidSetting: the setting is no text.
    """
    named = project.config.get("waivers", NAME)
    if not isinstance(named, str) or not named:
        raise InvalidSetting("waivers in pyproject.toml is no file name", remedy=f'write it as waivers = "{NAME}"')
    return project.root / named


def read(project: Project) -> list[Waiver]:
    """The waivers of the project; none where there is no file.

    Raises:
        InvalidSetting: the file cannot be read, or something in it is no waiver.
    """
    file = path(project)
    content = toml_of(file)
    listed: Any = content.pop("waiver", [])
    if content or not isinstance(listed, list):
        raise InvalidSetting(
            f"{file.name} has something else than [[waiver]]: {', '.join(content) or 'waiver'}",
            remedy=f"write each one under [[waiver]]: {FORM}",
        )
    return [_waiver(file, number, each) for number, each in enumerate(listed, 1)]


def _waiver(file: Path, number: int, given: Any) -> Waiver:
    known: dict[str, type] = {"lint": str, "object": str, "reason": str, "until": date}
    if not isinstance(given, dict) or not {"lint", "object"} <= given.keys():
        raise InvalidSetting(f"{file.name}: waiver {number} needs lint and object", remedy=f"write it as {FORM}")
    for key, value in given.items():
        if key not in known or not isinstance(value, known[key]):
            what = f"{key} is no {known[key].__name__}" if key in known else f"there is no {key} in a waiver"
            raise InvalidSetting(f"{file.name}: waiver {number}: {what}", remedy=f"write it as {FORM}")
    until = given.get("until")
    day = until.date() if isinstance(until, datetime) else until  # a date with a time is TOML's, too
    return Waiver(given["lint"], given["object"], given.get("reason", ""), day)
