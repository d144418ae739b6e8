"""The trigger files of sql/triggers: reading them, and their versions in triggers.lock and archive/."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinspire_db import bookkeeping
from skinspire_db.errors import TriggerFileInvalid

HEADER = re.compile(r"\s*/\*(.*?)\*/", re.DOTALL)
REQUIRED: dict[str, type] = {"version": int, "summary": str, "order": int}
OPTIONAL: dict[str, type] = {"attach": object, "when": str}
ATTACH: dict[str, type] = {
    "columns": list, "tables": list, "exclude": list, "when": str, "function": str, "condition": str, "name": str,
}  # fmt: skip
# What must not be searched for keywords: comments, strings, quoted names, function bodies.
OPAQUE = re.compile(r"--[^\n]*|/\*.*?\*/|[eE]?'(?:[^'\\]|''|\\.)*'|\"[^\"]*\"|(\$[A-Za-z_0-9]*\$).*?\1", re.DOTALL)
TRANSACTION_CONTROL = re.compile(
    r"(?:^|;)\s*(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Attachment:
    """A trigger that the tool makes: `function` on each of `tables`, or on every table that has all of `columns`, except
    those in `exclude`; `when` is its timing and events, `condition` its WHEN clause or empty.
    """

    trigger: str
    function: str
    when: str
    condition: str = ""
    columns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class TriggerFile:
    """One file: its header's fields, its whole text, and the fingerprint of that."""

    name: str
    path: Path
    version: int
    summary: str
    order: int
    text: str = field(repr=False)
    attachments: tuple[Attachment, ...] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def proof(self) -> Path:
        """The file that proves the behaviour; it need not exist."""
        return self.path.parent / "verify" / self.path.name


def folder() -> Path:
    """Where the trigger files are."""
    return bookkeeping.sql_folder() / "triggers"


def read_files(where: Path | None = None) -> list[TriggerFile]:
    """The trigger files, in firing order.

    Raises TriggerFileInvalid with file and line for one that cannot be used.
    """
    files = [read_file(path) for path in sorted((where or folder()).glob("*.sql"))]
    return sorted(files, key=lambda file: (file.order, file.name))


def read_file(path: Path) -> TriggerFile:
    """One trigger file. Raises TriggerFileInvalid with file and line when it cannot be used."""
    raw = path.read_bytes()
    if b"\r" in raw:
        line = raw[: raw.index(b"\r")].count(b"\n") + 1
        raise TriggerFileInvalid(f"{path}:{line}: line ends are CRLF", remedy=f"convert {path.name} to LF")
    text = raw.decode("utf-8")
    fields = _header(path, text)
    _refuse_transaction_control(path, text)
    attach = fields.get("attach", [])
    listed = [attach | {"when": fields.get("when")}] if isinstance(attach, dict) else attach
    attachments = tuple(_attachment(path, fields["order"], each) for each in listed)
    if len({each.trigger for each in attachments}) < len(attachments):
        raise TriggerFileInvalid(f"{path}:1: two attachments have one name", remedy="give one of them a name")
    return TriggerFile(path.stem, path, fields["version"], fields["summary"], fields["order"], text, attachments)


def _header(path: Path, text: str) -> dict[str, Any]:
    header = HEADER.match(text)
    if header is None:
        raise TriggerFileInvalid(f"{path}:1: there is no header", remedy="begin it with /* and TOML, as the other files do")
    try:
        fields = tomllib.loads(header[1])
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = text[: header.start(1)].count("\n") + (int(found[1]) if found else 1)
        raise TriggerFileInvalid(f"{path}:{line}: the header is not TOML: {error}", remedy="correct the header") from None
    for key, kind in REQUIRED.items():
        if type(fields.get(key)) is not kind:
            raise TriggerFileInvalid(f"{path}:1: the header needs {key}, {kind.__name__}", remedy="correct the header")
    _refuse_unknown(path, fields, REQUIRED | OPTIONAL)
    return fields


def _attachment(path: Path, order: int, given: Any) -> Attachment:
    _refuse_unknown(path, given, ATTACH)
    function = given.get("function", path.stem)
    attachment = Attachment(
        f"_{order}_{given.get('name', function)}", function, given.get("when") or "", given.get("condition", ""),
        *(tuple(given.get(key, ())) for key in ("columns", "tables", "exclude")),
    )  # fmt: skip
    if not attachment.when or not (attachment.columns or attachment.tables):
        raise TriggerFileInvalid(f"{path}:1: an attachment needs when, and columns or tables", remedy="correct the header")
    if len(attachment.trigger.encode()) > 63:
        raise TriggerFileInvalid(f"{path}:1: the trigger name {attachment.trigger} is over 63 bytes", remedy="shorten it")
    return attachment


def _refuse_unknown(path: Path, given: Any, known: dict[str, type]) -> None:
    if not isinstance(given, dict):
        raise TriggerFileInvalid(f"{path}:1: attach is neither a table nor a list of tables", remedy="correct the header")
    for key, value in given.items():
        if key not in known:
            raise TriggerFileInvalid(f"{path}:1: the header has an unknown key {key}", remedy="correct the header")
        if value is not None and not isinstance(value, known[key]):
            raise TriggerFileInvalid(f"{path}:1: {key} must be {known[key].__name__}", remedy="correct the header")


def _refuse_transaction_control(path: Path, text: str) -> None:
    # Blanked out rather than cut out, so that positions stay.
    visible = OPAQUE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    if found := TRANSACTION_CONTROL.search(visible):
        line = text[: found.start(1)].count("\n") + 1
        raise TriggerFileInvalid(f"{path}:{line}: {found[1].upper()} in a trigger file", remedy="remove it")
