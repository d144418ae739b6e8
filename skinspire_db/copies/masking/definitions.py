"""The definitions that a masked copy carries: strings, comments and quoted names in them may hold no value of a masked column.

They are read from pg_dump's SQL, so that every kind of object is looked at: defaults, labels of enums, conditions, views,
bodies of functions, arguments of triggers, bounds of partitions, options of servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.copies.masking.catalogue import Column
from skinspire_db.copies.masking.search import Search
from skinspire_db.errors import UsageError
from skinspire_db.migrations import locations
from skinspire_db.objects import versions
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import sql_text
from skinspire_db.schema import blueprint, models

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

HEADER = lazy_regex(r"^--\n-- Name: (.+); Type: (.+?); Schema: (.+?);.*\n", re.MULTILINE)
TOOLS = "skinspire_tools"
WORDS = 4  # a value of more words is found only where it is a whole string, or stands between punctuation marks
PUNCTUATION = lazy_regex(r"[,;:|(){}\[\]\"'`=<>%\\\n]")
NUMBER = lazy_regex(r"(?<![\w.])\d{10,}(?![\w.])")


def refuse(connection: Connection, project: Project, search: Search, dumped: str) -> None:
    """Refuse definitions with a value that is looked for, unless the project's files have it or rules allow the definition.

    Args:
        connection: the source, whose server hashes as it did for the search.
        project: whose models, revisions and SQL files are looked at; these are in developers' hands already.
        search: what is looked for.
        dumped: all definitions, as pg_dump writes them.

    Raises:
        UsageError: one of them holds a value, or rules allow one that is not there.
    """
    allowed, found = search.plan.rules.allow_definitions, dict(named(dumped))
    if unknown := sorted(allowed.keys() - found.keys()):
        raise UsageError(
            f"{allowed[unknown[0]]}: allow_definitions names {unknown[0]}, and there is no such definition",
            remedy="correct sql/masks: a definition is named by its kind and name, as in: view patients_of_today",
        )
    if held := holding(connection, project, search, {name: sql for name, sql in found.items() if name not in allowed}):
        (name, column), *more = held.items()
        raise UsageError(
            f"the definition of {name} holds a value of {column.full}, which is masked"
            + (f", and so does that of {', '.join(each for each, _ in more[:5])}" if more else "")
            + (f" and {len(more) - 5} more" if more[5:] else ""),
            remedy=f'take it out of the definition, or declare it safe in sql/masks: allow_definitions = ["{name}"], or'
            f' {column.name} = "keep"',
        )


def holding(connection: Connection, project: Project, search: Search, found: dict[str, str]) -> dict[str, Column]:
    """The names of the definitions that hold a value which is looked for, each with a column that has it; arguments as of
    `refuse`, and the definitions' SQL by name.
    """
    texts: dict[str, str] = {}
    for name, sql in found.items():
        for text in _texts(sql):
            texts.setdefault(text, name)
    held = search.held(connection, list(texts))
    files = _files(project).lower() if held else ""
    return {
        texts[text]: column
        for text, column in held.items()
        if not any(each in files for each in (text.lower(), text.lower().replace("'", "''")))
    }


def named(dumped: str) -> Iterator[tuple[str, str]]:
    """Each definition of pg_dump's SQL with its name, as rules and messages write it."""
    _, *parts = HEADER.split(dumped)
    for name, kind, schema, sql in zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True):
        if TOOLS not in (schema, name):
            yield f"{kind.lower()} {name if schema in ('public', '-') else f'{schema}.{name}'}", sql


def _texts(sql: str) -> Iterator[str]:
    """What could be a value: whole strings, names and comments, what stands between their punctuation marks, and their words."""
    for part, text in sql_text.parts(sql):
        if part == "code":
            yield from NUMBER.findall(text)
            continue
        if text.startswith("$"):
            mark = text[: text.index("$", 1) + 1]
            yield from _texts(text.removeprefix(mark).removesuffix(mark))
            continue
        inner = text.strip("-*/ \n") if part == "comment" else text[text.index(text[-1]) + 1 : -1]
        inner = inner.replace(text[-1] * 2, text[-1]) if part == "quoted" else inner
        for piece in {inner, *PUNCTUATION.split(inner)}:
            words = piece.split()
            runs = {" ".join(words[at : at + n]) for n in range(1, WORDS + 1) for at in range(len(words) - n + 1)}
            for each in {piece.strip(), *runs, *re.findall(r"\w+", piece)}:
                if len(each) > 5:
                    yield from {each, each.lower(), each.upper(), each.title()}


def _files(project: Project) -> str:
    """The text of the project's own definitions: its models' SQL, its revisions and its SQL files."""
    known = models.metadata(project)
    statements = blueprint.create_statements(known, blueprint.tables(known))
    revisions = (
        path for folder in locations.folders(project) for path in folder.rglob("*") if path.suffix in (".py", ".sql")
    )
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in revisions)
    return "\n".join([*statements, *texts, *(file.text for file in versions.current(project))])
