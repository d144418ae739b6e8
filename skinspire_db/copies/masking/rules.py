"""The rules of a masked copy, as TOML files in sql/masks/ and `info` of the models' columns have them."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.errors import SqlFileInvalid
from skinspire_db.objects import versions
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import MASK
from skinspire_db.schema import models

MASKS = (
    "keep", "null", "constant", "first_name", "last_name", "full_name", "phone", "email", "address", "text", "number", "date",
    "shift", "uuid", "digits", "json", "password", "choice",
    "default",
)  # fmt: skip
OPTIONS = {"constant": {"value"}, "shift": {"by"}, "json": {"paths"}, "choice": {"values"}}


@dataclass(frozen=True)
class Rule:
    """The mask of a column; `origin` says where it is declared."""

    mask: str
    options: dict[str, Any]
    origin: str


@dataclass
class Rules:
    """All rules: by table and column, the tables whose rows stay away, which column refers to which other one, and the
    definitions that may hold values.
    """

    columns: dict[tuple[str, str], Rule] = field(default_factory=dict)
    drop_rows: dict[str, str] = field(default_factory=dict)
    references: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    allow_definitions: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def divided(self, parts: dict[str, list[str]]) -> Rules:
        """The rules, those of partitioned tables as those of their partitions, whose own go before.

        Args:
            parts: partitioned table -> the partitions that hold its rows.
        """
        columns = {
            (part, column): rule for (table, column), rule in self.columns.items() for part in parts.get(table, [table])
        }
        drop_rows = {part: origin for table, origin in self.drop_rows.items() for part in parts.get(table, [table])}
        references = {
            (part, column): (parts.get(other[0], [other[0]])[0], other[1])
            for (table, column), other in self.references.items()
            for part in parts.get(table, [table])
        }
        own = {key: rule for key, rule in self.columns.items() if key[0] not in parts}
        return Rules(columns | own, drop_rows, references, self.allow_definitions, self.versions)


def read(project: Project) -> Rules:
    """The rules of a project: those of its models, and over them those of its files.

    Raises:
        SqlFileInvalid: a file has what is no rule, or was edited without a new version; with file and line.
        ModelsInvalid: the models cannot be read.
    """
    rules = Rules()
    for table, column, given in cached(project, "masks", lambda: _of_models(project)):
        origin = f'info={{"mask": ...}} of {table}.{column}'
        _add(rules, (table, column), given, origin, lambda text, origin=origin: _invalid(origin, text))
    core = models.has_core(project)
    for file in versions.current(project, (MASK,)):
        if core or not versions.is_packaged(file):
            _read_file(rules, file)
    return rules


def _of_models(project: Project) -> list[tuple[str, str, Any]]:
    """Table, column and rule of each column of the models that has one in its `info`."""

    def plain(rule: Any) -> Any:
        return json.loads(json.dumps(rule, default=repr))  # what is no rule is refused where rules are read

    return [
        (
            f"{table.schema}.{table.name}".removeprefix("None.").removeprefix("public."),
            column.name,
            plain(column.info["mask"]),
        )
        for table in models.metadata(project).tables.values()
        for column in table.columns
        if "mask" in column.info
    ]


def _invalid(where: str, what: str) -> SqlFileInvalid:
    return SqlFileInvalid(f"{where}: {what}", remedy=f"correct the rules in sql/masks; masks are {', '.join(MASKS)}")


def _read_file(rules: Rules, file: SqlFile) -> None:
    fields = tomllib.loads(file.text)
    rules.versions[file.name] = file.version

    def refused(text: str, name: str = "") -> SqlFileInvalid:
        line = next(
            (n for n, each in enumerate(file.text.splitlines(), 1) if name and re.search(rf"\b{re.escape(name)}\b", each)), 1
        )
        return _invalid(f"{file.path}:{line}", text)

    for name, what, names in (
        ("drop_rows", "tables", rules.drop_rows), ("allow_definitions", "definitions", rules.allow_definitions),
    ):  # fmt: skip
        listed = fields.pop(name, [])
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise refused(f"{name} is no list of {what}", name)
        names |= {each.removeprefix("public."): f"{file.name}.toml" for each in listed}
    tables = fields.pop("tables", {})
    if unknown := set(fields) - {"version", "summary"}:
        raise refused(
            f"{min(unknown)} is no key of a file of rules: they are version, summary, drop_rows, allow_definitions and tables",
            min(unknown),
        )
    if not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise refused("tables holds a table of columns for each table, as [tables.patients]", "tables")
    for table, columns in tables.items():
        for column, given in columns.items():
            key = table.removeprefix("public."), column
            _add(rules, key, given, f"{file.name}.toml", lambda text, column=column: refused(text, column))


def _add(rules: Rules, key: tuple[str, str], given: Any, origin: str, refused: Any) -> None:
    options: dict[str, Any] = {"mask": given} if isinstance(given, str) else dict(given) if isinstance(given, dict) else {}
    mask = options.pop("mask", None)
    reference = options.pop("references", None)
    name = ".".join(key)
    if reference is not None:
        table, _, column = str(reference).rpartition(".")
        if not table:
            raise refused(f'references of {name} is no column, as "users.user_id"')
        rules.references[key] = (table.removeprefix("public."), column)
    if mask is None and reference is not None:
        return
    if mask not in MASKS:
        raise refused(f"{name}: there is no mask {mask}")
    if unknown := set(options) - OPTIONS.get(mask, set()):
        raise refused(f"{name}: {mask} has no option {min(unknown)}")
    if "values" in options and not (isinstance(options["values"], list) and options["values"]):
        raise refused(f'{name}: choice takes values = ["one", "another"]')
    if mask == "constant" and "value" not in options:
        raise refused(f'{name}: constant needs value = "..."')
    if mask == "json" and not isinstance(options.get("paths", {}), dict):
        raise refused(f'{name}: json takes paths = {{ "address.city" = "keep" }}')
    for path, inner in (options.get("paths") or {}).items():
        if inner not in PATH_MASKS:
            raise refused(f"{name}: {inner} is no mask of a json path ({path}); they are {', '.join(sorted(PATH_MASKS))}")
    rules.columns[key] = Rule(mask, options, origin)


PATH_MASKS = {"keep", "null", "first_name", "last_name", "full_name", "phone", "email", "address", "text", "digits"}
