"""What a step answers, what became of an operation, and who is told how it goes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db.errors import SkinspireError

if TYPE_CHECKING:
    from skinspire_db.postgres.target import Target

ONCE = "the passwords are shown only now, and are kept nowhere: write them down"
SINGULAR = {  # of what does not only lose its s
    "indexes": "index", "policies": "policy", "classes": "class", "families": "family", "dictionaries": "dictionary",
    "statistics": "statistics", "privileges": "privileges", "access": "access", "losses": "loss",
}  # fmt: skip


def counted(number: int, noun: str, verb: str = "", verb_of_one: str = "") -> str:
    """1 table, 2 tables; with a verb, 1 table is, 2 tables are."""
    several = f"{noun[:-1]}ies" if noun.endswith("cy") else f"{noun}s"
    words = [str(number), noun if number == 1 else several, verb_of_one if number == 1 else verb]
    return " ".join(word for word in words if word)


def json_object(
    operation: str | None,
    environment: str | None = None,
    database: str | None = None,
    *,
    seconds: float = 0.0,
    steps: Iterable[StepResult] = (),
    **more: Any,
) -> dict[str, Any]:
    """What `--json` shows of an operation that went well.

    Args:
        operation: the command, `db.setup`.
        environment: the environment's name.
        database: the database's name.
        seconds: the wall time.
        steps: the steps that ran.
        more: what only this operation answers.
    """
    return {
        "operation": operation,
        "environment": environment,
        "database": database,
        "ok": True,
        "exit_code": 0,
        "seconds": round(seconds, 3),
        "steps": [step.as_dict() for step in steps],
        "error": None,
    } | more


def failed(shown: dict[str, Any], error: SkinspireError) -> dict[str, Any]:
    """The same object for an operation that ended in this error."""
    return shown | {"ok": False, "exit_code": error.exit_code, "error": error.as_dict()}


def told(value: int | str, name: str) -> str:
    """A number of a summary as a reader wants it: 2 tables_created -> 2 tables created, or of one, 1 table created."""
    words = name.split("_")
    if value == 1:
        words = [SINGULAR.get(word, word.removesuffix("s")) for word in words]
    return f"{value} {' '.join(words)}"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. A check that could not run is `unknown`, and that is not passed.

    `remedy`: what to do about it, where it did not pass; `in_files`: that is done in the project's files, so it helps also
    after an operation that took the database back.
    """

    name: str
    status: Literal["pass", "fail", "unknown"]
    detail: str
    remedy: str | None = None
    in_files: bool = False

    def as_dict(self) -> dict[str, str]:
        """The check as `--json` shows it."""
        return {"name": self.name, "status": self.status, "detail": self.detail}


@dataclass(frozen=True)
class SignIn:
    """A way to sign in that the operation made, to be shown once. The password stays out of repr, journal and logs.
    `generated`: it was made up here, and is known nowhere else.
    """

    role: str
    user_id: str
    password: str = field(repr=False)
    generated: bool = False


@dataclass
class Summary:
    """What a step did. `numbers` goes into the journal and `--json`; `lines` are for a reader, e.g. what was added.

    A step that looks also answers `rows`, a table for a reader, `data`, the same for `--json`, and `drift`, a sentence when
    it found something pending or drifted (exit code 3), with `remedy`, the command that mends it. `noted` is for the journal
    and `--json` alone.
    """

    numbers: dict[str, int | str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    sign_in: list[SignIn] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    noted: dict[str, str] = field(default_factory=dict)
    drift: str = ""
    remedy: str | None = None


class Report:
    """What an operation tells how it goes. This one shows nothing."""

    def target(self, target: Target) -> None:
        """The operation is about to begin on this database."""

    def begin(self, name: str) -> None:
        """A step has begun."""

    def end(self) -> None:
        """Nothing runs any more."""

    def step(self, done: StepResult) -> None:
        """A step has ended; nothing is committed yet."""

    def progress(self, done: int, total: int) -> None:
        """So many of so many rows are in."""

    def transfer(self, done: int, total: int, rows: int) -> None:
        """So many of about so many bytes have gone over, in so many rows."""


@dataclass(frozen=True)
class StepResult:
    """A step that ran; `seconds` is its wall time, `failure` what ended it, for a reader."""

    name: str
    ok: bool
    seconds: float
    summary: Summary = field(default_factory=Summary)
    failure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The step as the journal and `--json` show it."""
        shown: dict[str, Any] = {
            "name": self.name, "ok": self.ok, "seconds": round(self.seconds, 3), "summary": self.summary.numbers,
        }  # fmt: skip
        shown |= self.summary.noted
        if self.summary.lines:
            shown["lines"] = self.summary.lines
        if self.summary.checks:
            shown["checks"] = [check.as_dict() for check in self.summary.checks]
        return shown


@dataclass
class Result:
    """What became of an operation. `notes` are sentences the user should read even when all went well; `commit` says how
    far it came with that; `ending`, in place of the operation's own, what has been done where that is less.
    """

    operation: str
    environment: str
    database: str | None = None
    steps: list[StepResult] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    commit: Literal["not begun", "begun", "done"] = "not begun"
    ending: str = ""

    @property
    def sign_in(self) -> list[SignIn]:
        """The ways to sign in that the steps have made."""
        return [sign_in for step in self.steps for sign_in in step.summary.sign_in]

    def as_dict(self) -> dict[str, Any]:
        """The result of an operation that went well, as `--json` shows it."""
        shown = json_object(self.operation, self.environment, self.database, seconds=self.seconds, steps=self.steps)
        for step in self.steps:
            shown |= step.summary.data
        if checks := [check for step in shown["steps"] for check in step.pop("checks", [])]:
            shown["checks"] = checks
        if self.sign_in and self.commit != "not begun":
            shown["sign_in"] = [vars(each) for each in self.sign_in]
        notes = [*self.notes, *([ONCE] if any(each.generated for each in self.sign_in) and "sign_in" in shown else [])]
        if notes:
            shown["notes"] = notes
        return shown

    def tell(self, error: SkinspireError, seconds: float) -> None:
        """Put into the error how far the operation came, after so many seconds, and into its remedy which environment's."""
        self.seconds = seconds
        error.remedy = error.remedy and error.remedy.replace("{env}", self.environment)
        error.result = failed(self.as_dict(), error)
