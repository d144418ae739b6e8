"""Which line of revisions a new revision goes on, where a project has several."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationInvalid, UsageError
from skinspire_db.migrations import locations, revisions
from skinspire_db.migrations.revisions import Line
from skinspire_db.patterns import lazy_regex

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

# How a revision, or an SQL file beside it, makes a table.
MAKES_TABLE = lazy_regex(
    r"""(?:create_table\(\s*|rename_table\([^,]+,\s*)["'](\w+)["']"""
    r"""|CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:[\w"\\]+\.)?["\\]*(\w+)""",
    re.IGNORECASE,
)


def following(
    project: Project, files: ScriptDirectory, chosen: str | None = None, tables: Collection[str] = ()
) -> tuple[str, Path]:
    """Where the next revision goes.

    Args:
        project: whose revisions.
        files: these, as Alembic sees them.
        chosen: a label or a revision of the line; None for the only one, or the only one that makes some of the tables.
        tables: the names of the tables that the next revision changes.

    Returns:
        The revision that it follows ("base" for none), and the folder of its file.

    Raises:
        MigrationInvalid: a line has several heads, or which of several lines it is cannot be told.
        UsageError: `chosen` is of no line, or of several.
    """
    heads, own = revisions.refuse_forks(project), locations.own_folders(project)
    last = [line for line in revisions.lines(project) if _folder(line, own)]
    if chosen is not None:
        last = [_line(project, files, chosen)]
    elif len(last) > 1:
        makers = [line for line in last if _made(files, line) & set(tables)]
        if len(makers) != 1:
            raise MigrationInvalid(
                f"there are {len(last)} lines of revisions, {_named(last)}: which of them a new one goes on cannot be told",
                remedy=_command(last),
            )
        last = makers
    if not last:
        return heads[0] if heads else "base", own[0]
    return last[0].head, _folder(last[0], own) or own[0]


def _line(project: Project, files: ScriptDirectory, chosen: str) -> Line:
    """The line of a label or revision."""
    every = revisions.lines(project)
    script = revisions.named(files, chosen)
    found = [line for line in every if script in revisions.history(files, line.head)]
    if len(found) != 1:
        raise UsageError(f"{chosen} is in {len(found)} lines of revisions, {_named(found)}", remedy=_command(found))
    return found[0]


def _folder(line: Line, folders: list[Path]) -> Path | None:
    """The folder, of these, in which the line's newest file lies."""
    return next((each for each in folders if Path(line.file).resolve().is_relative_to(each.resolve())), None)


def _made(files: ScriptDirectory, line: Line) -> set[str]:
    """The tables that the files of a line make, as far as they name them."""
    scripts = [Path(script.path) for script in revisions.history(files, line.head)]
    texts = [
        each.read_text(encoding="utf-8") for path in scripts for each in (path, path.with_suffix(".sql")) if each.is_file()
    ]
    return {one or other for text in texts for one, other in MAKES_TABLE.findall(text)}


def _named(lines: list[Line]) -> str:
    return ", ".join(f"{' '.join(line.known_by)} (head {line.head})" for line in lines)


def _command(lines: list[Line]) -> str:
    """The command that chooses one of the lines, with the others beside it."""
    heads = [line.head for line in lines]
    return f"invoke migrate.new --env={{env}} --head={heads[0]} --message=changes, or --head={' or --head='.join(heads[1:])}"
