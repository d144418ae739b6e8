"""What of the database's own code writes a counter that one of our trigger files keeps: a thing must be counted once.

A trigger beside ours is found by the proof. A function that the application calls is run by no proof: its text is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.objects import ledger
from skinspire_db.objects.files import SqlFile
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path
from skinspire_db.postgres.sql_text import without_comments

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

UPDATE = lazy_regex(r'\bUPDATE\s+(?:ONLY\s+)?(?:"?\w+"?\s*\.\s*)?"?(\w+)"?\s[^;]*?\bSET\b([^;]*)', re.IGNORECASE)
COUNTS = lazy_regex(r'\b(\w+)"?\s*=(?:(?!\1"?\s*=)[^;])*?\b\1"?(?:\s*,\s*\d+\s*\))?\s*\+\s*\d', re.IGNORECASE)
# What is set to 0 or NULL begins anew, and counts nothing.
CHANGED = r"(?!\s*(?:'?0'?|NULL|DEFAULT)\s*(?:::\s*\w+\s*)?(?:[,;']|$|\b(?:WHERE|FROM|RETURNING)\b))"
CODE = f"""
    SELECT p.oid::regprocedure::text, 'function ' || p.oid::regprocedure, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc),
           ARRAY(SELECT c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgfoid = p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE p.prokind IN ('f', 'p') AND l.lanname NOT IN ('c', 'internal') AND {objects.FUNCTION}
      AND concat(p.prosrc, pg_get_function_sqlbody(p.oid)) ~* %(any)s
    UNION ALL
    SELECT NULL, format('rule %%s on %%s', r.rulename, c.oid::regclass), pg_get_ruledef(r.oid), '{{}}'
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.ev_type <> '1' AND {objects.RELATION} AND pg_get_ruledef(r.oid) ~* %(any)s ORDER BY 2
"""  # noqa: S608


def counters(file: SqlFile) -> set[tuple[str, str]]:
    """The counters that a file keeps in other rows: (table, column) of each column that it sets to itself and a number."""
    if not file.attachments:
        return set()
    return {
        (update[1].lower(), count[1].lower())
        for update in UPDATE.finditer(re.sub("--[^\\n]*", "", without_comments(file.text)))
        for count in COUNTS.finditer(update[2])
    }


def twice(connection: Connection, files: list[SqlFile]) -> dict[str, list[str]]:
    """By file, the functions and rules that no file made and that write a counter of it to anything but a constant.

    Args:
        connection: the database.
        files: the files whose counters are looked for.
    """
    kept = {file.name: found for file in files if (found := counters(file))}
    if not kept:
        return {}
    columns = {column for pairs in kept.values() for _, column in pairs}
    rows = search_path.rows(connection, CODE, {"any": rf"\m({'|'.join(map(re.escape, sorted(columns)))})\M"})
    ours = {key for entry in ledger.read(connection).values() for key in entry.functions}
    theirs = [
        (name, without_comments(text), tables)
        for key, name, text, tables in rows
        if key not in ours and not any(text in file.text for file in files)  # a ledger that was lost knows none of ours
    ]
    others_by_file = {
        name: [other for other, text, tables in theirs if any(_writes(text, tables, *pair) for pair in pairs)]
        for name, pairs in kept.items()
    }
    return {name: others for name, others in others_by_file.items() if others}


def warnings(connection: Connection, files: list[SqlFile]) -> list[str]:
    """What to say of it beside an install of these files."""
    return [
        f"careful: {', '.join(others)} {'writes' if len(others) == 1 else 'write'} what {name} counts, and it may be"
        f' counted twice: take it out there, or leave ours out by disabled_triggers = ["{name}"] in pyproject.toml'
        for name, others in twice(connection, files).items()
    ]


def _writes(text: str, tables: list[str], table: str, column: str) -> bool:
    """Whether code writes the column to anything but a constant; `tables` have a trigger that runs the code."""
    item, on = f'"?{re.escape(column)}"?', f'"?{re.escape(table)}"?'
    patterns = [
        rf'\b(?:UPDATE|INTO)\s+(?:ONLY\s+)?(?:"?\w+"?\s*\.\s*)?{on}\s[^;]*?(?:\bSET\s+|,\s*){item}\s*={CHANGED}',
        rf'\b(?:UPDATE|INTO)\s+(?:ONLY\s+)?(?:"?\w+"?\s*\.\s*)?{on}\s[^;]*?\bSET\s*\([^)]*{item}[^)]*\)\s*=',
    ]
    if table in tables:
        patterns.append(rf"(?:^|;|\b(?:BEGIN|THEN|ELSE|LOOP)\b)\s*NEW\s*\.\s*{item}\s*:?={CHANGED}")
        patterns.append(rf"""["']{re.escape(column)}["']\s*\]\s*[-+]?=(?!=)""")  # PL/Python
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
