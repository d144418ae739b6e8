"""Scenarios: named sets of test data, files of rows as reference data has them, with how many people are invented beside."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from skinspire_db.config import content
from skinspire_db.config.project import Project
from skinspire_db.content import files
from skinspire_db.content.files import ReferenceFile
from skinspire_db.errors import InvalidSetting, UsageError

NUMBERS = ("patients", "doctors", "random_seed")


@dataclass(frozen=True)
class Scenario:
    """A scenario.

    Attributes:
        name: the file's name.
        numbers: how many people, by the names that `seed` has for them; none where none are invented.
        file: the rows.
    """

    name: str
    numbers: dict[str, int]
    file: ReferenceFile


def named(project: Project, name: str, *, core: bool) -> Scenario:
    """The scenario of that name.

    Args:
        project: the project.
        name: as it was typed.
        core: whether the core's tables are content.

    Raises:
        UsageError: there is none.
        InvalidSetting: its file cannot be used.
    """
    paths = content.scenarios(project, core=core)
    if name not in paths:
        near = get_close_matches(name, paths, 1) or list(paths)
        remedy = f"invoke db.seed --scenario={near[0]}" if near else "write one in the project's folder scenarios"
        raise UsageError(f"there is no scenario {name}; there are {', '.join(paths) or 'none'}", remedy=remedy)
    [file] = files.read(project, [paths[name]])
    numbers = _numbers(paths[name], file.data.pop("scenario", {}))
    return Scenario(name, numbers, file)


def _numbers(path: Path, given: object) -> dict[str, int]:
    if not isinstance(given, dict) or set(given) - {"summary", *NUMBERS}:
        raise InvalidSetting(
            f"{path.name}: scenario is no table with {', '.join(('summary', *NUMBERS))}", remedy=f"correct {path}"
        )
    numbers = {name: value for name, value in given.items() if name in NUMBERS}
    if wrong := [name for name, value in numbers.items() if type(value) is not int]:
        raise InvalidSetting(f"{path.name}: {wrong[0]} is no whole number", remedy=f"correct {path}")
    return numbers
