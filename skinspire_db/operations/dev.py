"""The first morning: the databases of a new developer, made and verified, and what to type next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.clinic.seed import Options
from skinspire_db.config import environment
from skinspire_db.config.environment import Environment
from skinspire_db.errors import SkinspireError
from skinspire_db.lifecycle.pipeline import Pipeline, Series
from skinspire_db.lifecycle.result import Report, Result
from skinspire_db.operations import db

OPERATION = "dev.onboard"
ENVIRONMENTS = ("dev", "test")
NEXT = {
    "invoke db.inspect --env={env}": "what the database holds",
    "invoke db.shell --env={env}": "psql in it",
    "invoke dev.test": "the tests",
}


@dataclass
class Onboarded:
    """What became of each environment, and what to type next: command -> what it is for."""

    done: list[Result] = field(default_factory=list)
    next: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "operation": OPERATION, "environment": None, "database": None, "ok": True, "exit_code": 0,
            "seconds": round(self.seconds, 3), "steps": [], "error": None,
            "environments": [each.as_dict() for each in self.done], "next": list(self.next),
        }  # fmt: skip


def chosen(name: str | None) -> list[Environment]:
    """dev and test, or the one that was named. Raises as environment.resolve() does."""
    return [environment.resolve(each) for each in (ENVIRONMENTS if name is None else (name,))]


def series(of: Environment, options: Options, report: Report | None = None) -> Series:
    """What brings an environment to where it should be without losing a row, then looks whether it is there."""
    prepare = db.prepare(of, options, report)

    def in_turn() -> Iterator[Pipeline]:
        verified = False
        while (pipeline := prepare.next()) is not None:
            verified = any(step.name == "verify" for step in pipeline.steps)
            yield pipeline
        if not verified:
            yield db.verify(of)

    queue = in_turn()
    return Series(OPERATION, of, lambda: next(queue, None), (*prepare.steps, "verify"), first=prepare.first)


def onboard(name: str | None, options: Callable[[Environment], Options], report: Report) -> Onboarded:
    """Make or bring up to date the databases of dev and test, or of the one environment that is named; verify each.

    Safe to run again at any time: as `db.prepare` it resets nothing. Raises the first error; what was committed before it
    stays, and the error's `result` has it.
    """
    started = time.monotonic()
    environments = chosen(name)
    first = environments[0].name
    together = Onboarded(next={command.format(env=first): what for command, what in NEXT.items()})
    try:
        for each in environments:
            together.done.append(series(each, options(each), report).run(report=report))
    except SkinspireError as error:
        error.result = together.as_dict() | {"environments": [*(done.as_dict() for done in together.done), error.result]}
        raise
    together.seconds = time.monotonic() - started
    return together
