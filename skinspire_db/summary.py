"""What a step answers: numbers, checks, and who can sign in now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

ONCE = "the passwords are shown only now, and nobody else knows them: write them down"
SINGULAR = {  # of what does not only lose its s
    "indexes": "index", "policies": "policy", "classes": "class", "families": "family", "dictionaries": "dictionary",
    "statistics": "statistics", "privileges": "privileges", "access": "access",
}  # fmt: skip


def counted(number: int, noun: str, verb: str = "", verb_of_one: str = "") -> str:
    """1 table, 2 tables; with a verb, 1 table is, 2 tables are."""
    words = [str(number), noun if number == 1 else f"{noun}s", verb_of_one if number == 1 else verb]
    return " ".join(word for word in words if word)


def told(value: int | str, name: str) -> str:
    """A number of a summary as a reader wants it: 2 tables_created -> 2 tables created, or of one, 1 table created."""
    words = name.split("_")
    if value == 1:
        words = [SINGULAR.get(word, word.removesuffix("s")) for word in words]
    return f"{value} {' '.join(words)}"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. A check that could not run is `unknown`, and that is not passed.

    `remedy`: what to do about it, where it did not pass.
    """

    name: str
    status: Literal["pass", "fail", "unknown"]
    detail: str
    remedy: str | None = None

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "status": self.status, "detail": self.detail}


@dataclass(frozen=True)
class SignIn:
    """A way to sign in that the operation made, to be shown once. The password stays out of repr, journal and logs.
    `generated`: nobody else knows it.
    """

    role: str
    user_id: str
    password: str = field(repr=False)
    generated: bool = False


@dataclass
class Summary:
    """What a step did. `numbers` goes into the journal and `--json`; `lines` are for a reader, e.g. what was added.

    A step that looks also answers `rows`, a table for a reader, `data`, the same for `--json`, and `drift`, a sentence when
    it found something pending or drifted (exit code 3), with `remedy`, the command that mends it.
    """

    numbers: dict[str, int | str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    sign_in: list[SignIn] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    drift: str = ""
    remedy: str | None = None
