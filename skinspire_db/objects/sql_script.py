"""An SQL file of the project that is run once, as a step of a pipeline: no header, no version, no ledger."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.errors import InvalidSetting, StepFailed
from skinspire_db.objects.files import TRANSACTION_CONTROL
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.sql_text import statements_only

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

COPY_IN = lazy_regex(r"(?:^|;)\s*COPY\b[^;]*\bFROM\s+STDIN\b", re.IGNORECASE)
META_COMMAND = lazy_regex(r"^\s*\\\w+", re.MULTILINE)


def read(path: Path) -> str:
    """The file's text.

    Raises:
        InvalidSetting: It cannot be read, is not UTF-8, ends the transaction, or needs psql.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read: {error.strerror}", remedy="correct the step's path") from None
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{path} is not UTF-8 at byte {error.start}", remedy=f"convert {path.name} to UTF-8") from None
    code = statements_only(text)
    for pattern, what in (
        (TRANSACTION_CONTROL, "ends or begins a transaction, which is the pipeline's"),
        (COPY_IN, "reads rows after COPY, which only psql can: write INSERT"),
        (META_COMMAND, "has a command of psql's"),
    ):
        if match := pattern.search(code):
            line = code[: match.end()].count("\n") + 1
            raise InvalidSetting(f"{path}:{line}: it {what}", remedy=f"correct {path.name}")
    return text


def run(connection: Connection, path: Path, text: str) -> int:
    """Run the file in the caller's transaction, where the application's names are found.

    Returns:
        How many statements were run.

    Raises:
        StepFailed: PostgreSQL refused one; with file and line. The caller's transaction is broken then.
    """
    import psycopg

    if not statements_only(text).strip(" \t\r\n;"):
        return 0
    try:
        with search_path.application(connection), connection.cursor() as cursor:
            cursor.execute(text.encode())
            count = 1
            while cursor.nextset():
                count += 1
            return count
    except psycopg.Error as error:
        if connection.closed or error.diag.statement_position is None:
            raise
        line = text[: int(error.diag.statement_position) - 1].count("\n") + 1
        raise StepFailed(f"{path.name}:{line}: {sentence(error)}; the database is as it was") from None
