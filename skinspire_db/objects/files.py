"""The SQL files: what their headers and statements say, and what makes one unusable."""

from __future__ import annotations

import hashlib
import itertools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skinspire_db.config.tenancy import Roles
from skinspire_db.errors import SqlFileInvalid
from skinspire_db.lifecycle import tool_schema
from skinspire_db.objects.function_schema import FunctionSchema
from skinspire_db.objects.kinds import POLICY, TRIGGER, VIEW, Kind
from skinspire_db.objects.needs import Needs, read_needs
from skinspire_db.objects.policy_files import Policy, read_policies
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.sql_text import statements_only

NAME = lazy_regex(r"[a-z_][a-z0-9_]*")
HEADER = lazy_regex(r"\s*/\*(.*?)\*/", re.DOTALL)
WHOLE = lazy_regex(r"(.*)", re.DOTALL)  # of a file that is TOML
REQUIRED: dict[str, type] = {"version": int, "summary": str}
ORDER: dict[str, type] = {"order": int}
OPTIONAL: dict[str, type] = {"attach": object, "when": str}
NEEDS: dict[str, type] = {"needs": dict}
POLICIES: dict[str, type] = {"policy": object}
ATTACH: dict[str, type] = {
    "columns": list, "types": list, "without": list, "tables": list, "exclude": list, "when": str, "function": str,
    "condition": str, "name": str, "order": int, "length": int,
}  # fmt: skip
# What PostgreSQL takes for a letter, and for what goes on after it: all but the rest of ASCII, which compiles in no time.
LETTER, LETTERS = r"[^\x00-@\[-^`{-\x7f]", r"[^\x00-#%-/:-@\[-^`{-\x7f]*"
CREATE = lazy_regex(
    r"\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:RECURSIVE\s+|MATERIALIZED\s+)?(VIEW|FUNCTION|PROCEDURE|AGGREGATE)\s+(?:IF\s+NOT\s+EXISTS\s+)?",
    re.IGNORECASE,
)
DROP = lazy_regex(r"\bDROP\s+(?:VIEW|MATERIALIZED\s+VIEW|FUNCTION|PROCEDURE|ROUTINE|AGGREGATE)\b", re.IGNORECASE)
SQL_NAME = lazy_regex(rf'(?:"(?:[^"]|"")+"|{LETTER}{LETTERS})(?:\s*\.\s*(?:"(?:[^"]|"")+"|{LETTER}{LETTERS}))?')
IN_FUNCTION = lazy_regex(r'PL/pgSQL function (?:"?\w+"?\.)?"?(\w+)"?(?:\([^)]*\))? (?:near )?line (\d+)')
TRANSACTION_CONTROL = lazy_regex(
    r"(?:^|;)\s*(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Attachment:
    """A trigger that the tool makes: `function` on each of `tables` (of the schema public, if they name none), or on every
    table that has all of `columns`, of one of `types` if there are any, and none of `without`; except those in `exclude`.
    `when` is its timing and events, `condition` its WHEN clause or empty; `length` is how many characters the columns hold.
    """

    trigger: str
    function: str
    when: str
    condition: str = ""
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    length: int = 0

    def may_meet(self, other: Attachment) -> bool:
        """Whether a table can have both; said without a database, so only lists of table names rule it out."""
        return not (self.tables and other.tables) or bool(set(self.tables) & set(other.tables))


@dataclass(frozen=True)
class SqlFile:
    """One file: its header's fields, its whole text, and the fingerprint of that. `name` is what the ledger knows it by.

    `required`: the project demands that it is applicable; `core`: it is the package's, and the core's tables are content;
    `functions`: where its functions are made; `proved_by`: the proof that counts, None for the one beside it; `policies` are
    those of a policy file; `roles`: those of the database, None where tenancy is off.
    """

    name: str
    path: Path
    version: int
    summary: str
    order: int
    text: str = field(repr=False)
    attachments: tuple[Attachment, ...] = ()
    kind: Kind = TRIGGER
    needs: tuple[Needs, ...] = ()
    required: bool = False
    core: bool = False
    functions: FunctionSchema = field(default_factory=FunctionSchema)
    proved_by: Path | None = None
    policies: tuple[Policy, ...] = ()
    roles: Roles | None = None

    @property
    def stem(self) -> str:
        """Its name within its kind: the file's, without .sql and without the version of one in archive/."""
        return self.name.rpartition("/")[2]

    @property
    def root(self) -> Path:
        """The sql folder that it belongs to."""
        return self.path.parent.parent

    @property
    def bump(self) -> str:
        """The command that gives it its next version."""
        return f"invoke {self.kind.collection}.bump --name={self.name}"

    @property
    def sha256(self) -> str:
        """The hash of its text, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def proof(self) -> Path:
        """The file that proves the behaviour; it need not exist."""
        return self.proved_by or self.path.parent / "verify" / f"{self.stem}.sql"

    @property
    def critical(self) -> bool:
        """Whether it names its tables: it guards accounts, and no column of a table tells when its trigger is missing."""
        return any(attachment.tables for attachment in self.attachments)

    @property
    def secures_views(self) -> bool:
        """Whether its views are made to read with the rights of the session's role, as tenancy needs."""
        return self.kind is VIEW and self.roles is not None

    def line(self, key: str) -> int:
        """Where the header sets `key`; 1 when it does not."""
        return _line_of_key(self.text, key)

    @property
    def drops(self) -> bool:
        """Whether it has a statement that drops a view or function, to make it anew."""
        return bool(DROP.search(statements_only(self.text)))

    def creates(self) -> list[tuple[str, str, int]]:
        """What its CREATE statements name: "view" or "function", the name as it is written, and the line."""
        found = []
        for match in CREATE.finditer(statements_only(self.text)):
            if name := SQL_NAME.match(self.text, match.end()):
                kind = "view" if match[1].upper() == "VIEW" else "function"
                found.append((kind, name[0], self.text[: match.start()].count("\n") + 1))
        return found

    def line_of(self, context: str) -> int | None:
        """The line of this file that PostgreSQL's error context leads to, the innermost if several; None if none does."""
        for name, line in IN_FUNCTION.findall(context):
            made = rf'\bFUNCTION\s+(?:"?\w+"?\.)?"?{re.escape(name)}"?\s*\(.*?(\$\w*\$)'
            if name == "inline_code_block":
                made = r"\bDO\s*(?:LANGUAGE\s+\w+\s*)?(\$\w*\$).*?\1"
            bodies = list(re.finditer(made, self.text, re.DOTALL | re.IGNORECASE))
            if len(bodies) == 1 or (bodies and name != "inline_code_block"):  # of several blocks it may be any
                return self.text[: bodies[0].start(1)].count("\n") + int(line)
        return None


def folder() -> Path:
    """Where the package's own trigger files are."""
    return tool_schema.sql_folder() / "triggers"


def read_files(where: Path, kind: Kind = TRIGGER) -> list[SqlFile]:
    """The SQL files of one folder, in firing order.

    Args:
        where: the folder.
        kind: which kind of objects they define.

    Raises:
        SqlFileInvalid: one cannot be used, or two would fire in no order; with file and line.
    """
    files = in_order(read_file(path, kind=kind) for path in paths(where))
    refuse_same_order(files)
    return files


def paths(where: Path, suffix: str = ".sql") -> list[Path]:
    """The paths of the SQL files of a folder, by name."""
    return sorted(path for path in where.glob(f"*{suffix}") if not path.name.startswith("."))  # editors leave such behind


def in_order(files: Iterable[SqlFile]) -> list[SqlFile]:
    """Files of any kinds in the order in which they are shown: trigger files as they fire, then the others by name."""
    return sorted(files, key=lambda file: (not file.kind.attaches, file.order, file.name))


def refuse_same_order(files: list[SqlFile]) -> None:
    """Refuse two trigger files that would fire in no order.

    Raises:
        SqlFileInvalid: two would; with file and line.
    """
    for one, other in itertools.combinations(files, 2):
        if one.order == other.order and any(a.may_meet(b) for a in one.attachments for b in other.attachments):
            raise SqlFileInvalid(
                f"{other.path}:{other.line('order')}: order {other.order} is also {one.path.name}'s, and they may meet on"
                " one table",
                remedy="give one of them an order of its own",
            )


def read_file(path: Path, stem: str | None = None, kind: Kind = TRIGGER) -> SqlFile:
    """One SQL file.

    Args:
        path: where it is.
        stem: what it is called, if not as its path.
        kind: which kind of object it defines.

    Raises:
        SqlFileInvalid: it cannot be used; with file and line.
    """
    name = stem or path.stem
    if not NAME.fullmatch(name):
        raise SqlFileInvalid(f"{path}:1: {name!r} is no name for an SQL file", remedy="use a-z, 0-9 and _")
    text = read_text(path)
    fields = _fields(path, text, kind)
    if kind.suffix == ".sql":
        refuse_transaction_control(path, text)
    attach = fields.get("attach", [])
    listed = [attach | {"when": fields.get("when")}] if isinstance(attach, dict) else attach
    if not isinstance(listed, list):
        raise SqlFileInvalid(f"{path}:1: attach is neither a table nor a list of tables", remedy="correct the header")
    order = fields.get("order", 0)
    attachments = tuple(_attachment(path, name, order, each) for each in listed)
    if len({each.trigger for each in attachments}) < len(attachments):
        raise SqlFileInvalid(f"{path}:1: two attachments have one name", remedy="give one of them a name")
    needed = read_needs(path, fields.get("needs", {}), _line_of_key(text, "needs"))
    file = SqlFile(kind.name_of(name), path, fields["version"], fields["summary"], order, text, attachments, kind, needed)
    return replace(file, policies=_policies(path, text, fields)) if kind is POLICY else file


def read_text(path: Path) -> str:
    """The text of an SQL file.

    Raises:
        SqlFileInvalid: it cannot be read, has line ends of Windows, or is not UTF-8; with file and line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SqlFileInvalid(f"{path}:1: cannot be read: {error.strerror}", remedy=f"correct or remove {path.name}") from None
    if b"\r" in raw:
        line = raw[: raw.index(b"\r")].count(b"\n") + 1
        raise SqlFileInvalid(f"{path}:{line}: line ends are CRLF", remedy=f"convert {path.name} to LF")
    try:
        return raw.decode("utf-8-sig")  # Windows' editors begin a file with a mark
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SqlFileInvalid(f"{path}:{line}: not UTF-8", remedy=f"convert {path.name} to UTF-8") from None


def _policies(path: Path, text: str, fields: dict[str, Any]) -> tuple[Policy, ...]:
    if body := re.search(r"\S", statements_only(text)):
        line = text[: body.start()].count("\n") + 1
        raise SqlFileInvalid(f"{path}:{line}: a policy file is a header alone", remedy="take out what follows the header")
    return read_policies(path, fields.get("policy", []), _line_of_key(text, "policy"))


def _line_of_key(text: str, key: str) -> int:
    match = re.search(rf"^[ \t]*(\[\[?)?{key}\b", text, re.MULTILINE)
    return text[: match.start()].count("\n") + 1 if match else 1


def header(path: Path, text: str, form: re.Pattern[str] = HEADER) -> dict[str, Any]:
    """The fields of a file's header, which is TOML.

    Args:
        path: the file, for errors.
        text: its text.
        form: where the header is in it.

    Raises:
        SqlFileInvalid: there is none, or it is no TOML; with file and line.
    """
    found = form.match(text)
    if found is None:
        raise SqlFileInvalid(f"{path}:1: there is no header", remedy="begin it with /* and TOML, as the other files do")
    try:
        return tomllib.loads(found[1])
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"at line (\d+)", str(error))
        line = text[: found.start(1)].count("\n") + (int(match[1]) if match else 1)
        raise SqlFileInvalid(f"{path}:{line}: the header is not TOML: {error}", remedy="correct the header") from None


def _fields(path: Path, text: str, kind: Kind) -> dict[str, Any]:
    fields = header(path, text, HEADER if kind.suffix == ".sql" else WHOLE)
    required = REQUIRED | (ORDER if kind.attaches else {})
    for key, needed in required.items():
        if type(fields.get(key)) is not needed:
            raise SqlFileInvalid(f"{path}:1: the header needs {key}, {needed.__name__}", remedy="correct the header")
    if kind.suffix == ".sql":
        optional = OPTIONAL if kind.attaches else POLICIES if kind is POLICY else {}
        _refuse_unknown(path, fields, required | NEEDS | optional)
    return fields


def _attachment(path: Path, name: str, order: int, given: Any) -> Attachment:
    _refuse_unknown(path, given, ATTACH)
    function = given.get("function", name)
    order = given.get("order", order)
    lists = {key: tuple(given.get(key, ())) for key in ("columns", "types", "without", "tables", "exclude")}
    trigger = f"_{order:03d}_{given.get('name', function)}"
    length = given.get("length", 0)
    attachment = Attachment(trigger, function, given.get("when") or "", given.get("condition", ""), **lists, length=length)
    if not attachment.when or not (attachment.columns or attachment.tables):
        raise SqlFileInvalid(f"{path}:1: an attachment needs when, and columns or tables", remedy="correct the header")
    if not 0 <= order <= 999:
        raise SqlFileInvalid(f"{path}:1: order is not from 0 to 999", remedy="triggers fire in the order of their names")
    if len(attachment.trigger.encode()) > 63:
        raise SqlFileInvalid(f"{path}:1: the trigger name {attachment.trigger} is over 63 bytes", remedy="shorten it")
    return attachment


def _refuse_unknown(path: Path, given: Any, known: dict[str, type]) -> None:
    if not isinstance(given, dict):
        raise SqlFileInvalid(f"{path}:1: attach is neither a table nor a list of tables", remedy="correct the header")
    for key, value in given.items():
        if key not in known:
            raise SqlFileInvalid(f"{path}:1: the header has an unknown key {key}", remedy="correct the header")
        if value is not None and not isinstance(value, known[key]):
            raise SqlFileInvalid(f"{path}:1: {key} must be {known[key].__name__}", remedy="correct the header")


def refuse_transaction_control(path: Path, text: str) -> None:
    """Refuse a file that would begin or end a transaction.

    Raises:
        SqlFileInvalid: it would; with file and line.
    """
    if match := TRANSACTION_CONTROL.search(statements_only(text)):
        line = text[: match.start(1)].count("\n") + 1
        raise SqlFileInvalid(f"{path}:{line}: {match[1].upper()} in an SQL file", remedy="remove it")
