"""What the header of a policy file says: the policies that the tool makes, and on which tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinspire_db.errors import SqlFileInvalid

KEYS: dict[str, type] = {
    "name": str, "using": str, "check": str, "for": str, "to": str, "columns": list, "tables": list, "exclude": list,
    "nullable": bool,
}  # fmt: skip
COMMANDS, TO = ("ALL", "SELECT", "INSERT", "UPDATE", "DELETE"), ("public", "application", "system")
FORM = 'write [[policy]] with name = "tenant", columns = ["hospital_id"] and using = "..."'


@dataclass(frozen=True)
class Policy:
    """A policy on each of `tables`, or on every table that has all of `columns`, except those in `exclude`.

    Attributes:
        using: its USING expression; empty for INSERT.
        check: its WITH CHECK expression; empty where the command has none, or USING serves.
        command: as FOR names it.
        to: "public", or which of the database's two roles: "application" or "system".
        nullable: it is made only where one of the columns may be NULL.
    """

    name: str
    using: str
    check: str = ""
    command: str = "ALL"
    to: str = "public"
    columns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    nullable: bool = False


def read_policies(path: Path, given: Any, line: int) -> tuple[Policy, ...]:
    """The header's key `policy`.

    Args:
        path: the file.
        given: what the key has.
        line: the line of the key.

    Raises:
        SqlFileInvalid: there is none, or one cannot be understood; with file and line.
    """
    listed = given if isinstance(given, list) else [given]
    wrong = next((text for each in listed if (text := _wrong(each))), "" if given else "there is no [[policy]]")
    names = [each["name"] for each in listed if isinstance(each, dict) and "name" in each]
    if wrong or len(set(names)) < len(names):
        raise SqlFileInvalid(f"{path}:{line}: {wrong or 'two policies have one name'}", remedy=FORM)
    return tuple(_policy(each) for each in listed)


def _wrong(given: Any) -> str:
    """What is wrong with one policy of a header; empty where nothing is."""
    if not isinstance(given, dict):
        return "policy is neither a table nor a list of tables"
    for key, value in given.items():
        if key not in KEYS or not isinstance(value, KEYS[key]):
            return f"{key} = {value!r} of a policy is not understood"
    if not given.get("name") or len(given["name"].encode()) > 63:
        return "a policy needs a name, of at most 63 bytes"
    if not (given.get("columns") or given.get("tables")):
        return "a policy needs columns or tables"
    command = given.get("for", "ALL")
    if command not in COMMANDS or given.get("to", "public") not in TO:
        return f"for is one of {', '.join(COMMANDS)}, to one of {', '.join(TO)}"
    if bool(given.get("using")) == (command == "INSERT") or (given.get("check") and command in ("SELECT", "DELETE")):
        return "a policy needs using, but FOR INSERT has check alone, and FOR SELECT and FOR DELETE have no check"
    if command == "INSERT" and not given.get("check"):
        return "a policy FOR INSERT needs check"
    return ""


def _policy(given: dict[str, Any]) -> Policy:
    lists = {key: tuple(given.get(key, ())) for key in ("columns", "tables", "exclude")}
    # PostgreSQL takes USING for a missing WITH CHECK; it is written all the same, as a reader looks for it.
    check = given.get("check", "") or (given.get("using", "") if given.get("for", "ALL") in ("ALL", "UPDATE") else "")
    command, to = given.get("for", "ALL"), given.get("to", "public")
    return Policy(given["name"], given.get("using", ""), check, command, to, nullable=given.get("nullable", False), **lists)
