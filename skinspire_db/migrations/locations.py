"""Where revision files lie: the core's, and those of the project's own Alembic history, as its settings have them."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from skinspire_db.config import content
from skinspire_db.config.content import CORE_MIGRATIONS
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting
from skinspire_db.schema import models

VERSIONS = "versions"
INI = "alembic.ini"
NAMES = ("script_location", "version_table", "version_table_schema")
# How Alembic's settings separate folders, by the name of the separator; without one, by blanks and commas.
SEPARATORS = {"os": re.escape(os.pathsep), "space": r"\s+", "newline": r"\n", ":": ":", ";": ";"}
UNNAMED_SEPARATOR = r",\s*|\s+"


def folders(project: Project) -> list[Path]:
    """Where revision files lie: the core's where it is content, then those of the project.

    Raises:
        ModelsInvalid: as `models.load`.
        InvalidSetting: the settings of the project's history cannot be read.
    """
    core, own = CORE_MIGRATIONS / VERSIONS, own_folders(project)
    is_own = any(each.resolve() == core.resolve() for each in own)
    return own if is_own or not models.has_core(project) else [core, *own]


def own_folders(project: Project) -> list[Path]:
    """The folders of the project's own revisions; the first of them gets a new one where there is none yet.

    It is `versions` in the folder that `migrations` in pyproject.toml names, or what Alembic's own settings say of it:
    alembic.ini beside pyproject.toml or in the folder, or [tool.alembic].

    Raises:
        InvalidSetting: one of the files cannot be read, or names folders of which none exists.
    """
    named, settings = project.config.get("migrations"), alembic_settings(project)
    folder = _folder(project, str(named) if named is not None else settings.get("script_location") or "migrations")
    found = [_folder(project, each) for each in settings.get("version_locations", ())]
    if found and not any(each.is_dir() for each in found):
        raise InvalidSetting(
            f"version_locations of Alembic's settings names no folder that exists: {', '.join(map(str, found))}",
            remedy="correct version_locations, or path_separator beside it, which says what stands between the folders",
        )
    return found or [folder / VERSIONS]


def alembic_settings(project: Project) -> dict[str, Any]:
    """What Alembic's own settings say of the project's history: folders, and the table of revisions.

    Raises:
        InvalidSetting: a file cannot be read.
    """
    named: Any = project.config.get("migrations")
    settings = _alembic(project.root / INI) or _tool_alembic(project)
    if named is not None:
        folder = _folder(project, str(named))
        if not settings or _folder(project, settings.get("script_location", "")).resolve() != folder.resolve():
            return _alembic(folder / INI)
    return settings


def _folder(project: Project, name: str) -> Path:
    """A folder of the project, or `package:folder` of an installed package."""
    return content.path(project, name)


def _alembic(file: Path) -> dict[str, Any]:
    """What a file of Alembic's says of its folders; nothing where there is none."""
    if not file.is_file():
        return {}
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        says = " ".join(str(error).split())
        raise InvalidSetting(f"{file} cannot be read: {says}", remedy=f"correct {file.name}") from None
    section: dict[str, str] = dict(parser["alembic"]) if parser.has_section("alembic") else {}
    values = {name: value.replace("%(here)s", str(file.parent)).replace("%%", "%") for name, value in section.items()}
    named = values.get("path_separator") or values.get("version_path_separator", "")
    separator = SEPARATORS.get(named.strip(), UNNAMED_SEPARATOR)
    locations = [each.strip() for each in re.split(separator, values.get("version_locations", "")) if each.strip()]
    found: dict[str, Any] = {"version_locations": locations} if locations else {}
    return found | {name: values[name] for name in NAMES if values.get(name)}


def _tool_alembic(project: Project) -> dict[str, Any]:
    """[tool.alembic] of pyproject.toml."""
    file = project.root / "pyproject.toml"
    with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):  # told when our own settings are read
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("alembic", {})
        if isinstance(table, dict):
            here = str(project.root)
            locations = [str(each).replace("%(here)s", here) for each in table.get("version_locations", [])]
            names = {name: str(table[name]).replace("%(here)s", here) for name in NAMES if table.get(name)}
            return {"version_locations": locations} | names
    return {}
