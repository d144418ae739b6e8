"""What is wrong with an SQL file that was run, in one line with the file and the line in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from skinspire_db.errors import NotOurs, SqlFileInvalid
from skinspire_db.objects import live
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import TRIGGER
from skinspire_db.postgres.error_text import sentence

if TYPE_CHECKING:
    import psycopg

SHOWN = 3  # names of clashing objects in an error of one line; db.adopt's report has all


def circle(first: SqlFile, needs: dict[str, SqlFile | None], waits: dict[str, psycopg.Error]) -> SqlFileInvalid:
    """The error for files that need each other, as what each of them needs and what PostgreSQL says."""
    chain = [first]
    while (following := needs[chain[-1].name]) is not None and following not in chain:
        chain.append(following)
    assert following is not None
    chain = [*chain[chain.index(following) :], following]
    line = _line(chain[0], waits[chain[0].name]) or 1
    says = ", which needs ".join(each.name for each in chain)
    return SqlFileInvalid(
        f"{chain[0].path}:{line}: a circle: {says}", remedy="put what they share into a view or function of its own"
    )


def missing_name(file: SqlFile, error: psycopg.Error) -> str:
    """The last part of the name at the place that PostgreSQL points to."""
    text, position = file.text, error.diag.statement_position
    if position is None:
        text, position = error.diag.internal_query or "", error.diag.internal_position
    found = re.match(r'(?:"?\w+"?\.)?"?(\w+)', text[int(position or 1) - 1 :])
    return found[1] if found else ""


def shown(key: str) -> str:
    """An object for a reader."""
    return f"function {key}" if live.is_function(key) else key


def not_ours(file: SqlFile, keys: Sequence[str]) -> NotOurs:
    """The error for objects that exist and that no file made."""
    kind, name = live.split(keys[0])
    if file.kind is TRIGGER:
        schema = 'let both stay: function_schema = "skinspire" under [tool.skinspire_db] in pyproject.toml'
        by_function = live.is_function(keys[0])
        remedy, another = schema if by_function else "rename it, or drop it if it is not needed", ""
    else:
        word = "ROUTINE" if kind == "function" else kind.upper()
        remedy = f"write into the file what the database has, rename one of the two, or drop it: DROP {word} {name}"
        another = " with another definition"
    error = NotOurs("", remedy=remedy)
    error.names = [shown(key) for key in keys]
    error.message = f"{file.path}: {_exist(error.names, another)}, and no {file.kind.word} file made {_them(error.names)}"
    return error


def together(errors: Sequence[NotOurs]) -> NotOurs:
    """One error for several, which names what all of them are about."""
    if len(errors) == 1:
        return errors[0]
    error = NotOurs("", remedy=errors[0].remedy)
    error.names = [name for each in errors for name in each.names or [each.message.partition(" exists already")[0]]]
    error.message = f"{_exist(error.names, '')}, and no file of the project made them"
    return error


def _exist(names: Sequence[str], another: str) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more} {'exists' if len(names) == 1 else 'exist'} already{another}"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def two_makers(file: SqlFile, key: str, other: str) -> SqlFileInvalid:
    """The error for an object that two files make."""
    one, two = sorted((file.name, other))
    return SqlFileInvalid(f"{file.path}:1: {shown(key)} is made by {one} and by {two}", remedy="let one of the two make it")


def refusal(file: SqlFile, error: psycopg.Error, line: int | None = None) -> Exception:
    """What PostgreSQL refuses, with file and line; what is not the file's fault stays as it is."""
    import psycopg

    if isinstance(error, psycopg.OperationalError | psycopg.errors.InsufficientPrivilege):  # locks, the disk, rights
        return error
    return SqlFileInvalid(
        f"{file.path}:{line or _line(file, error) or 1}: {sentence(error)}",
        remedy=_of_the_database(file, error) or error.diag.message_hint or f"correct {file.path.name}",
    )


def _of_the_database(file: SqlFile, error: psycopg.Error) -> str:
    """The way to a file of what this one needs and no file makes, where an adopted database has it."""
    kind = {"42883": "function", "42P01": "view"}.get(error.sqlstate or "")
    name = missing_name(file, error) if kind else ""
    flag = f"--{kind}={name} --from-database"
    return f"correct {file.path.name}; or, where the database has {name}: invoke sql.new {flag}" if name else ""


def _line(file: SqlFile, error: psycopg.Error) -> int | None:
    if position := error.diag.statement_position:
        return file.text[: int(position) - 1].count("\n") + 1
    return file.line_of(error.diag.context or "") or next(_lines_named(file, error.diag.message_primary or ""), None)


def _lines_named(file: SqlFile, message: str) -> Iterator[int]:
    """The lines of the CREATE statements whose objects a message names."""
    for _, name, line in file.creates():
        if name.rpartition(".")[2].strip('"') in message:
            yield line
