"""Files of reference data: TOML with the rows of tables, each known by its natural key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skinspire_db.config import project_code
from skinspire_db.config.policy import Policy
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting
from skinspire_db.lifecycle.result import Summary

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Row = dict[str, Any]


@dataclass(frozen=True)
class TableRows:
    """The rows of one table in one file.

    Args:
        file: The file's name.
        table: The table as the file names it, with its schema where that is not public.
        key: The columns that tell which row one is; one that a row leaves out is NULL.
        rows: The rows. A table in place of a foreign key's value names the other row by its own natural key.
        restore: Whether a row that people have deleted comes back.
    """

    file: str
    table: str
    key: tuple[str, ...]
    rows: list[Row]
    restore: bool = True

    @cached_property
    def place(self) -> tuple[str, str]:
        """The schema and the name of the table."""
        schema, _, name = self.table.rpartition(".")
        return schema or "public", name

    def name_of(self, row: Row) -> str:
        """The row's natural key, for a reader."""
        return ", ".join(f"{column} = {json.dumps(row.get(column))}" for column in self.key)


@dataclass(frozen=True)
class ReferenceFile:
    """A file of reference data, with the module that it names as `code`, if it does: one that makes rows of what it says.

    Such a module has `rows(data, policy)`, the tables in the form that other files have, `complete(connection, data,
    policy)`, what is to be made when the rows are there, and `incomplete(connection, data)`, how many rows of which tables
    that would be.
    """

    path: Path
    data: Row
    code: ModuleType | None = None

    def tables(self, policy: Policy) -> list[TableRows]:
        """Its rows, by table.

        Args:
            policy: Of the environment that gets them.

        Raises:
            InvalidSetting: with the table that is not written as one.
        """
        data = self.code.rows(self.data, policy) if self.code else self.data
        return [_table(self.path, name, each) for name, each in data.items()]

    def complete(self, connection: Connection, policy: Policy) -> Summary:
        """Make what comes with its rows; nothing for a file without code."""
        done: Summary = self.code.complete(connection, self.data, policy) if self.code else Summary()
        return done


def read(project: Project, paths: Iterable[Path]) -> list[ReferenceFile]:
    """Read the files.

    Raises:
        InvalidSetting: a file is not TOML, with the line, or names code that cannot be loaded.
    """
    files = []
    for path in paths:
        data = dict(load(path))
        code = data.pop("code", None)
        module = project_code.module(project, str(code)) if code else None
        files.append(ReferenceFile(path, data, module))
    return files


@cache
def load(path: Path) -> Row:
    """The file as data, not to be changed.

    Raises:
        InvalidSetting: it is not TOML; with the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path} is not valid TOML: {error}", remedy=f"correct {path.name}") from None


def merged(tables: Iterable[TableRows]) -> list[TableRows]:
    """Each table once: the rows of all files, of which the last that names a row says what it holds."""
    together: dict[tuple[str, tuple[str, ...]], TableRows] = {}
    for each in tables:
        before = together.get((each.table, each.key))
        rows = {before.name_of(row): row for row in before.rows} if before else {}
        for row in each.rows:
            name = each.name_of(row)
            rows[name] = rows.get(name, {}) | row
        together[each.table, each.key] = TableRows(each.file, each.table, each.key, list(rows.values()), each.restore)
    return list(together.values())


def _table(path: Path, name: str, table: Any) -> TableRows:
    remedy = f'in {path.name}: [{name}] with key = ["code"], and the rows as [[{name}.rows]]'
    if not isinstance(table, dict) or set(table) - {"key", "rows", "restore"}:
        raise InvalidSetting(f"{path.name}: {name} is no table with key and rows", remedy=remedy)
    key, rows, restore = table.get("key"), table.get("rows", []), table.get("restore", True)
    key = [key] if isinstance(key, str) else key
    if not isinstance(key, list) or not key or not all(isinstance(each, str) for each in key):
        raise InvalidSetting(f"{path.name}: the table {name} has no key", remedy=remedy)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not isinstance(restore, bool):
        raise InvalidSetting(f"{path.name}: the rows of {name} are no list of tables", remedy=remedy)
    plain: list[Row] = json.loads(json.dumps(rows, default=str))  # dates and times as PostgreSQL reads them
    found = TableRows(path.name, name, tuple(key), plain, restore)
    if bare := next((row for row in plain if not any(column in row for column in key)), None):
        raise InvalidSetting(f"{path.name}: a row of {name} has nothing of its key: {json.dumps(bare)[:80]}", remedy=remedy)
    return found
