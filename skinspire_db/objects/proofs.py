"""Whether the triggers are there and do what they should: three views of what is there, and the behavioural proofs."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Check, counted
from skinspire_db.objects import interference, ledger, live, needs
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import TRIGGER, Kind
from skinspire_db.objects.status import IDLE, WHOLE, ObjectState, status
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path
from skinspire_db.postgres.error_text import sentence

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection

PINNED = lazy_regex(r"^SET LOCAL search_path = pg_catalog, pg_temp;", re.MULTILINE)  # how the package's proofs begin
NOT_FOUND = ("42P01", "42883", "42704")  # SQLSTATE of a table, function or type that does not exist
MAKE, DIFF, STATUS = "invoke db.create --env={env}", "invoke triggers.diff --env={env}", "invoke triggers.status --env={env}"


def prove(connection: Connection, files: list[SqlFile]) -> list[Check]:
    """Run the behavioural proof of each file that attaches something or has one; what they did is rolled back.

    A proof calls pg_temp.expect(condition, what is expected). One that is missing, or whose triggers are not all attached,
    is unknown. A file that is not applicable is not proved; that is unknown where it is demanded, or the core's.
    """
    connection.execute("SAVEPOINT proof")
    lacks = needs.lacks(connection, files)
    able = [file for file in files if file.name not in lacks]
    checks = [
        Check(file.name, "unknown", f"not applicable: {lacks[file.name]}; invoke db.create makes the tables", MAKE)
        for file in files
        if file.name in lacks and (file.core or file.required)
    ]
    among, off = ledger.tables(connection), ledger.switched_off(connection)  # once: there can be thousands of tables
    for file in able:
        if file.attachments or file.proof.exists():
            checks.append(_hindrance(file, among, off) or _prove(connection, file, able, among))
    connection.execute("RELEASE SAVEPOINT proof")
    return checks


def prove_able(connection: Connection, files: list[SqlFile]) -> list[Check]:
    """The proofs that can run here: of files that are installed and attached, and not switched off on purpose."""
    off, among = ledger.switched_off(connection), ledger.tables(connection)
    able = [file for file in files if file.name in off and not _hindrance(file, among, off)]
    return prove(connection, able)


def _unattached(file: SqlFile, among: list[ledger.Table]) -> list[str]:
    """The triggers of the file that name their tables and are on none."""
    on = {trigger.attachment for trigger in ledger.wanted(among, file).values()}
    return [attachment.trigger for attachment in file.attachments if attachment.tables and attachment not in on]


def _hindrance(file: SqlFile, among: list[ledger.Table], off: dict[str, bool]) -> Check | None:
    """Why a file cannot be proved here: it has no proof, is switched off, or has a trigger that is on no table."""
    if not file.proof.exists():
        return Check(file.name, "unknown", f"there is no {file.proof.parent.name}/{file.proof.name}")
    if off.get(file.name):
        enable = f"invoke triggers.enable --name={file.name}"
        says = f"switched off on purpose; {enable} switches it on"
        return Check(file.name, "unknown", says, f"{enable} --env={{env}}")
    if missing := _unattached(file, among):
        return Check(file.name, "unknown", f"{missing[0]} is on no table; invoke db.create makes the tables", MAKE)
    return None


def _prove(connection: Connection, file: SqlFile, files: list[SqlFile], among: list[ledger.Table]) -> Check:
    import psycopg

    try:
        _run(connection, file, files)
        connection.execute("ROLLBACK TO SAVEPOINT proof")
        return _overwritten(connection, file, among) or Check(file.name, "pass", file.summary)
    except psycopg.Error as error:
        if connection.closed:
            raise
        if isinstance(error, psycopg.errors.UndefinedTable):
            return Check(file.name, "unknown", f"could not run: {sentence(error)}; invoke db.create makes the tables", MAKE)
        connection.execute("ROLLBACK TO SAVEPOINT proof")
        if in_the_way := interference.in_the_way(connection, file, partial(_passes, connection, file, files)):
            more = f", and {counted(len(in_the_way) - 1, 'more trigger')}" if len(in_the_way) > 1 else ""
            says = f"{sentence(error)}; it passes without {in_the_way[0]}{more}"
            return Check(file.name, "fail", f"{_where(error, file, files)}: {says}", _without(file), in_files=True)
        return Check(file.name, "fail", f"{_where(error, file, files)}: {sentence(error)}", DIFF)
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT proof")


def _run(connection: Connection, file: SqlFile, files: list[SqlFile]) -> None:
    """Run the proof; again with public searched where others' functions find nothing without. Raises psycopg.Error."""
    import psycopg

    text = file.functions.text(file.proof.read_text(encoding="utf-8-sig"))
    pinned = PINNED.search(text)
    try:
        with search_path.application(connection, file.functions.name):
            connection.execute((tool_schema.sql_folder() / "proofs.sql").read_bytes())
            connection.execute(text.encode())
    except psycopg.Error as error:
        context = error.diag.context or ""
        if not pinned or error.sqlstate not in NOT_FOUND or any(each.line_of(context) for each in files):
            raise
        connection.execute("ROLLBACK TO SAVEPOINT proof")
        with search_path.application(connection, file.functions.name):
            connection.execute((tool_schema.sql_folder() / "proofs.sql").read_bytes())
            connection.execute((text[: pinned.start()] + text[pinned.end() :]).encode())


def _passes(connection: Connection, file: SqlFile, files: list[SqlFile]) -> bool:
    """Whether the proof passes. Raises psycopg.Error when it does not."""
    _run(connection, file, files)
    return True


def _overwritten(connection: Connection, file: SqlFile, among: list[ledger.Table]) -> Check | None:
    """What fails where a trigger of others undoes what the file's triggers do."""
    undone = interference.overwritten(connection, file, among)
    if not undone:
        return None
    first = next((each for each in undone if not each.because), undone[0])
    more = f"; so do {len(undone) - 1} more" if len(undone) > 1 else ""
    return Check(file.name, "unknown" if first.because else "fail", f"{first}{more}", _without(file), in_files=True)


def _without(file: SqlFile) -> str:
    return f'leave ours out by disabled_triggers = ["{file.stem}"] in pyproject.toml, or drop the other trigger'


def _where(error: psycopg.Error, file: SqlFile, files: list[SqlFile]) -> str:
    """File and line: of the trigger file whose function broke, else of the proof's expectation that did not hold."""
    context = error.diag.context or ""
    for each in files:
        if line := each.line_of(context):
            return f"{each.path}:{line}"
    block = file.proof.read_text(encoding="utf-8-sig")
    match = re.search(r"function inline_code_block line (\d+)", context)
    start = block[: block.find("$$")].count("\n")
    return f"{file.proof}:{start + int(match[1]) if match else 1}"


def functions(connection: Connection, files: list[SqlFile]) -> list[Check]:
    """Whether every function is there, as its file made it."""
    states = status(connection, files, _kinds(files))
    return [
        _check(state)
        for state in states
        if " on " not in state.object and live.is_function(state.object) and state.state != IDLE
    ]


def views(connection: Connection, files: list[SqlFile]) -> list[Check]:
    """Whether every view, with the indexes of a materialized one, is there, as its file made it."""
    states = status(connection, files, _kinds(files))
    return [_check(state) for state in states if not live.is_function(state.object) and state.state != IDLE]


def _kinds(files: list[SqlFile]) -> list[Kind]:
    return list({TRIGGER, *(file.kind for file in files)})


def critical(connection: Connection, files: list[SqlFile]) -> list[Check]:
    """Whether the triggers that guard accounts are on their tables, enabled; see SqlFile.critical."""
    names = {file.name for file in files if file.critical}
    states = [state for state in status(connection, files) if state.file in names]
    return [_check(state) for state in states if (" on " in state.object or state.object == WHOLE) and state.state != IDLE]


def _check(state: ObjectState) -> Check:
    return Check(
        state.object,
        "pass" if state.state == "INSTALLED" else "fail",
        f"{state.file}: {state.note or f'version {state.installed}'}",
        STATUS,
    )


def counts(connection: Connection, files: list[SqlFile]) -> list[Check]:
    """How many triggers each table has, beside how many the files ask for; others' triggers are counted apart."""
    wanted: dict[str, set[str]] = collections.defaultdict(set)
    among, lacks = ledger.tables(connection), needs.lacks(connection, files)
    for file in (each for each in files if each.name not in lacks):
        for each in ledger.wanted(among, file).values():
            wanted[each.table].add(each.attachment.trigger)
    have: dict[str, set[str]] = collections.defaultdict(set)
    for table, name in ledger.live_triggers(connection):
        have[table].add(name)
    checks = []
    for table in sorted(wanted.keys() | have.keys()):
        ours = len(wanted[table] & have[table])
        others = len(have[table] - wanted[table])
        detail = f"{ours} of {len(wanted[table])} triggers" + (f", and {others} of others" if others else "")
        checks.append(Check(table, "pass" if ours == len(wanted[table]) else "fail", detail, STATUS))
    return checks


View = Callable[["Connection", list[SqlFile]], list[Check]]
VIEWS: dict[str, View] = {"functions": functions, "views": views, "critical": critical, "counts": counts, "proofs": prove}
