"""Which content the project names in its settings; the core is the default of each, and is named here alone."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

CORE_MODELS = "skinspire_db.clinic.models"
CORE_METADATA = f"{CORE_MODELS}:Base"
CORE_REFERENCE = "skinspire_db.clinic:reference.toml"
CORE_SCENARIOS = Path(__file__).parent.parent / "clinic" / "scenarios"
CORE_PEOPLE = "skinspire_db.clinic.seed:people"
CORE_CHECKS = "skinspire_db.clinic.checks:CHECKS"
CORE_FACTORY = "skinspire_db.clinic.factories:Factory"
CORE_MIGRATIONS = Path(__file__).parent.parent / "clinic" / "migrations"


def metadata(project: Project) -> list[str]:
    """The entries of `metadata`: `module:name` of declarative bases and MetaData; the core's where nothing is set.

    Raises:
        InvalidSetting: it is no list of names.
    """
    return _names(project, "metadata", [CORE_METADATA])


def reference(project: Project, *, core: bool) -> list[Path]:
    """The files of reference data, in their order.

    Args:
        project: The project.
        core: Whether the core's tables are content: its file is the default then, and no file otherwise.

    Raises:
        InvalidSetting: a file is not there, or the setting is no list of files.
    """
    return [_file(project, each) for each in _names(project, "reference", [CORE_REFERENCE] if core else [])]


def scenarios(project: Project, *, core: bool) -> dict[str, Path]:
    """The files of scenarios by name: the core's, where its tables are content, then the project's, which win over them.

    Args:
        project: The project.
        core: Whether the core's tables are content.

    Raises:
        InvalidSetting: the setting names what is no folder.
    """
    named: Any = project.config.get("scenarios", "scenarios")
    own = project.root / named if isinstance(named, str) else None
    if own is None or ("scenarios" in project.config and not own.is_dir()):
        raise InvalidSetting(
            f"scenarios = {named!r} in pyproject.toml is no folder of the project", remedy='write scenarios = "scenarios"'
        )
    return {
        path.stem: path for folder in (*([CORE_SCENARIOS] if core else []), own) for path in sorted(folder.glob("*.toml"))
    }


def people(project: Project, *, core: bool) -> str | None:
    """The function that invents test data, as `module:name`; None where there is none.

    Args:
        project: The project.
        core: Whether the core's tables are content: its people are the default then.

    Raises:
        InvalidSetting: the setting is neither `module:name` nor false.
    """
    named: Any = project.config.get("people", CORE_PEOPLE if core else False)
    if named is False:
        return None
    if not isinstance(named, str) or ":" not in named:
        raise InvalidSetting(
            "people in pyproject.toml is neither module:function nor false",
            remedy='write people = "app.testdata:people", or people = false',
        )
    return named


def _names(project: Project, setting: str, default: list[str]) -> list[str]:
    names: Any = project.config.get(setting, default)
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        example = {"metadata": '["app.models:Base"]', "reference": '["seeds/clinic.toml"]'}[setting]
        raise InvalidSetting(f"{setting} in pyproject.toml is no list of names", remedy=f"write {setting} = {example}")
    return names


def path(project: Project, name: str) -> Path:
    """A file or folder of the project, or `package:path` of an installed package; it need not exist."""
    found = project.root / name
    if re.fullmatch(r"[A-Za-z_]\w+(\.\w+)*:[^\\/].*", name):  # a drive of Windows is one letter
        package, _, inside = name.partition(":")
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(package)
            found = next((Path(each) / inside for each in (spec and spec.submodule_search_locations) or ()), found)
    return found


def _file(project: Project, name: str) -> Path:
    found = path(project, name)
    if not found.is_file():
        raise InvalidSetting(
            f"reference in pyproject.toml names {name}, which is no file", remedy="correct reference in pyproject.toml"
        )
    return found
