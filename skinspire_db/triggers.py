"""Trigger files: read sql/triggers, install them, and compare file, ledger and live object."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db import bookkeeping
from skinspire_db.errors import TriggerFileInvalid
from skinspire_db.summary import Summary

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.connections import Connection

State = Literal["INSTALLED", "OUTDATED", "DRIFTED", "DISABLED", "MISSING", "UNATTACHED", "ORPHANED"]

HEADER = re.compile(r"\s*/\*(.*?)\*/", re.DOTALL)
HEADER_KEYS = {"version": int, "summary": str, "order": int, "attach": dict, "when": str}
# What must not be searched for keywords: comments, strings, quoted names, function bodies.
OPAQUE = re.compile(
    r"--[^\n]*|/\*.*?\*/|[eE]?'(?:[^'\\]|''|\\.)*'|\"[^\"]*\"|(\$[A-Za-z_0-9]*\$).*?\1", re.DOTALL
)  # fmt: skip
TRANSACTION_CONTROL = re.compile(
    r"(?:^|;)\s*(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION)\b", re.I
)


@dataclass(frozen=True)
class TriggerFile:
    """One file of sql/triggers: its header's fields, its whole text, and the fingerprint of that.

    `columns` or `tables` say where its trigger goes, with `exclude` taken out; a file with neither attaches nothing.
    """

    name: str
    path: Path
    version: int
    summary: str
    order: int
    when: str
    text: str = field(repr=False)
    columns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def trigger(self) -> str:
        """The trigger's name: triggers fire in the byte order of their names."""
        return f"_{self.order}_{self.name}"


@dataclass(frozen=True)
class TriggerState:
    """What is known of one object: `object` is a function's signature or `trigger on TABLE`."""

    file: str
    object: str
    state: State


@dataclass(frozen=True)
class _Entry:
    """A row of the ledger."""

    sha256: str
    functions: dict[str, str]
    triggers: dict[str, dict[str, str]]


def read_files(folder: Path | None = None) -> list[TriggerFile]:
    """The trigger files, in firing order. Raises TriggerFileInvalid with file and line for one that cannot be used."""
    folder = folder or bookkeeping.sql_folder() / "triggers"
    files = [_read(path) for path in sorted(folder.glob("*.sql"))]
    return sorted(files, key=lambda file: (file.order, file.name))


def install(connection: Connection, files: list[TriggerFile]) -> Summary:
    """Make the database's functions, triggers and ledger what the files say, touching nothing that is right already.

    Runs in the caller's transaction. Drops only what the ledger knows. Raises TriggerFileInvalid with file and line for
    SQL that PostgreSQL refuses.
    """
    bookkeeping.ensure(connection)
    ledger = _ledger(connection)
    functions = attached = dropped = 0
    for file in files:
        entry = ledger.get(file.name)
        made = entry.functions if entry else {}
        if entry is None or entry.sha256 != file.sha256 or _fingerprints(connection, made) != made:
            made = _run(connection, file)
            functions += len(made)
        wanted = _wanted_tables(connection, file)
        known = entry.triggers if entry else {}
        changed, triggers = _attach(connection, file, wanted, known)
        attached += changed
        dropped += _drop(connection, {table: known[table] for table in known.keys() - set(wanted)})
        if entry != _Entry(file.sha256, made, triggers):
            _write(connection, file, made, triggers)
    for name in ledger.keys() - {file.name for file in files}:
        dropped += _forget(connection, name, ledger[name])
    return Summary({"files": len(files), "functions": functions, "attached": attached, "dropped": dropped})


def status(connection: Connection, files: list[TriggerFile]) -> list[TriggerState]:
    """The state of every function and trigger that the files or the ledger know."""
    ledger = _ledger(connection) if bookkeeping.exists(connection) else {}
    live = _live_triggers(connection)
    states: list[TriggerState] = []
    for file in files:
        entry = ledger.get(file.name)
        if entry is None:
            states.append(TriggerState(file.name, "file", "MISSING"))
            continue
        current = _fingerprints(connection, entry.functions)
        for signature, fingerprint in entry.functions.items():
            found = current.get(signature)
            state: State = "MISSING" if found is None else "INSTALLED" if found == fingerprint else "DRIFTED"
            outdated = state == "INSTALLED" and entry.sha256 != file.sha256
            states.append(TriggerState(file.name, signature, "OUTDATED" if outdated else state))
        for table in _wanted_tables(connection, file):
            states.append(TriggerState(file.name, f"trigger on {table}", _trigger_state(entry, file, table, live)))
    for name in sorted(ledger.keys() - {file.name for file in files}):
        states.append(TriggerState(name, "file", "ORPHANED"))
    return states


def _read(path: Path) -> TriggerFile:
    raw = path.read_bytes()
    if b"\r" in raw:
        line = raw[: raw.index(b"\r")].count(b"\n") + 1
        raise TriggerFileInvalid(f"{path}:{line}: line ends are CRLF", remedy=f"convert {path.name} to LF")
    text = raw.decode("utf-8")
    header = HEADER.match(text)
    if header is None:
        raise TriggerFileInvalid(f"{path}:1: there is no header", remedy="begin it with /* and TOML, as the other files do")
    try:
        fields = tomllib.loads(header[1])
    except tomllib.TOMLDecodeError as error:
        line = text[: header.start(1)].count("\n") + _toml_line(error)
        raise TriggerFileInvalid(f"{path}:{line}: the header is not TOML: {error}", remedy="correct the header") from None
    for key, kind in HEADER_KEYS.items():
        if (key in fields and type(fields[key]) is not kind) or (key not in fields and key != "attach" and key != "when"):
            raise TriggerFileInvalid(f"{path}:1: the header needs {key}, {kind.__name__}", remedy="correct the header")
    if unknown := fields.keys() - HEADER_KEYS:
        raise TriggerFileInvalid(f"{path}:1: the header has an unknown key {min(unknown)}", remedy="correct the header")
    _refuse_transaction_control(path, text)
    attach = fields.get("attach", {})
    file = TriggerFile(
        path.stem, path, fields["version"], fields["summary"], fields["order"], fields.get("when", ""), text,
        *(tuple(attach.get(key, ())) for key in ("columns", "tables", "exclude")),
    )  # fmt: skip
    if len(file.trigger.encode()) > 63:
        raise TriggerFileInvalid(f"{path}:1: the trigger name {file.trigger} is over 63 bytes", remedy="rename the file")
    return file


def _toml_line(error: tomllib.TOMLDecodeError) -> int:
    found = re.search(r"at line (\d+)", str(error))
    return int(found[1]) if found else 1


def _refuse_transaction_control(path: Path, text: str) -> None:
    # Blanked out rather than cut out, so that positions stay.
    visible = OPAQUE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    if found := TRANSACTION_CONTROL.search(visible):
        line = text[: found.start(1)].count("\n") + 1
        raise TriggerFileInvalid(f"{path}:{line}: {found[1].upper()} in a trigger file", remedy="remove it")


def _run(connection: Connection, file: TriggerFile) -> dict[str, str]:
    """Run the file; returns the functions that it made or replaced, signature -> fingerprint."""
    import psycopg

    # A row of pg_proc that was written anew has a new ctid, whatever it says.
    before = _function_rows(connection)
    try:
        connection.execute(file.text.encode())
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        raise TriggerFileInvalid(
            f"{file.path}:{_line(file, error)}: {error.diag.message_primary}", remedy=f"correct {file.path.name}"
        ) from None
    after = _function_rows(connection)
    made = connection.execute(
        "SELECT oid::regprocedure::text FROM unnest(%s::oid[]) AS oid", ([oid for oid, _ in after - before],)
    ).fetchall()
    return _fingerprints(connection, (signature for (signature,) in made))


def _function_rows(connection: Connection) -> set[tuple[int, str]]:
    """Where the row of each function lies that is not PostgreSQL's own."""
    query = "SELECT oid, ctid::text FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace"
    return {(oid, row) for oid, row in connection.execute(query).fetchall()}


def _line(file: TriggerFile, error: psycopg.Error) -> int:
    if position := error.diag.statement_position:
        return file.text[: int(position) - 1].count("\n") + 1
    return 1


def _fingerprints(connection: Connection, signatures: Iterable[str]) -> dict[str, str]:
    """signature -> fingerprint of the definition, owner included, for the functions that exist."""
    return dict(
        connection.execute(
            """
            SELECT signature, md5(pg_get_functiondef(p.oid) || pg_get_userbyid(p.proowner))
            FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
            """,
            (sorted(signatures),),
        ).fetchall()
    )


def _wanted_tables(connection: Connection, file: TriggerFile) -> list[str]:
    """The tables that the file's trigger belongs on, those that exist now, as schema.table."""
    if not file.columns and not file.tables:
        return []
    return [
        table
        for (table,) in connection.execute(
            """
            SELECT format('%%I.%%I', n.nspname, c.relname)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'skinspire_tools')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                              AND d.deptype = 'e')
              AND (%(tables)s::text[] = '{}' OR c.relname = ANY (%(tables)s))
              AND c.relname <> ALL (%(exclude)s)
              AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   AND a.attname = ANY (%(columns)s)) = cardinality(%(columns)s::text[])
            ORDER BY 1
            """,
            {"tables": list(file.tables), "exclude": list(file.exclude), "columns": list(file.columns)},
        ).fetchall()
    ]


def _live_triggers(connection: Connection) -> dict[tuple[str, str], tuple[str, bool]]:
    """(table, trigger) -> (definition, enabled) of all triggers that are not PostgreSQL's own."""
    return {
        (table, name): (definition, enabled)
        for table, name, definition, enabled in connection.execute(
            """
            SELECT format('%I.%I', n.nspname, c.relname), t.tgname, pg_get_triggerdef(t.oid), t.tgenabled <> 'D'
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE NOT t.tgisinternal AND t.tgparentid = 0
            """
        ).fetchall()
    }


def _trigger_state(entry: _Entry, file: TriggerFile, table: str, live: dict[tuple[str, str], tuple[str, bool]]) -> State:
    known = entry.triggers.get(table)
    found = live.get((table, file.trigger))
    if found is None:
        return "MISSING" if known else "UNATTACHED"
    if known is None or found[0] != known["definition"]:
        return "DRIFTED"
    return "INSTALLED" if found[1] else "DISABLED"


def _attach(
    connection: Connection, file: TriggerFile, wanted: list[str], known: dict[str, dict[str, str]]
) -> tuple[int, dict[str, dict[str, str]]]:
    """Put the file's trigger on the wanted tables that lack it. Returns how many, and the ledger's view of all.

    An attachment that is right is left alone: CREATE TRIGGER takes a lock that waits for every writer.
    """
    from psycopg import sql

    live = _live_triggers(connection)
    name, when = sql.Identifier(file.trigger), sql.SQL(file.when)  # a file of ours
    statements: list[sql.Composed] = []
    for table in wanted:
        definition, enabled = live.get((table, file.trigger), ("", True))
        right = known.get(table) == {"name": file.trigger, "when": file.when, "definition": definition}
        if right and enabled:
            continue
        target = sql.SQL(table)  # quoted by PostgreSQL's format()
        if not right:
            statements.append(
                sql.SQL("CREATE OR REPLACE TRIGGER {} {} ON {} FOR EACH ROW EXECUTE FUNCTION {}()").format(
                    name, when, target, sql.Identifier(file.name)
                )
            )
        if not enabled:
            statements.append(sql.SQL("ALTER TABLE {} ENABLE TRIGGER {}").format(target, name))
    if statements:
        connection.execute(sql.SQL("; ").join(statements))
        live = _live_triggers(connection)
    return len(statements), {
        table: {"name": file.trigger, "when": file.when, "definition": live[table, file.trigger][0]} for table in wanted
    }


def _drop(connection: Connection, triggers: dict[str, dict[str, str]]) -> int:
    from psycopg import sql

    live = _live_triggers(connection) if triggers else {}
    gone = 0
    for table, known in triggers.items():
        if (table, known["name"]) in live:
            target = sql.SQL(table)  # quoted by PostgreSQL when the ledger was written
            connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(known["name"]), target))
            gone += 1
    return gone


def _forget(connection: Connection, name: str, entry: _Entry) -> int:
    """Drop what a file that is gone has left."""
    gone = _drop(connection, entry.triggers)
    for signature in _fingerprints(connection, entry.functions):
        connection.execute(f"DROP FUNCTION {signature}".encode())  # regprocedure's own quoting
        gone += 1
    connection.execute("DELETE FROM skinspire_tools.ledger WHERE name = %s", (name,))
    return gone


def _ledger(connection: Connection) -> dict[str, _Entry]:
    rows = connection.execute("SELECT name, sha256, functions, triggers FROM skinspire_tools.ledger").fetchall()
    return {name: _Entry(sha256, functions, triggers) for name, sha256, functions, triggers in rows}


def _write(connection: Connection, file: TriggerFile, functions: dict[str, str], triggers: Any) -> None:
    connection.execute(
        """
        INSERT INTO skinspire_tools.ledger (name, version, sha256, functions, triggers) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (name) DO UPDATE SET (version, sha256, functions, triggers, installed_at, installed_by)
            = (EXCLUDED.version, EXCLUDED.sha256, EXCLUDED.functions, EXCLUDED.triggers, now(), session_user)
        """,
        (file.name, file.version, file.sha256, json.dumps(functions), json.dumps(triggers)),
    )
