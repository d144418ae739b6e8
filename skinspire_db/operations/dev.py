"""The first morning: the databases of a new developer, made and verified, and what to type next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.config import environment
from skinspire_db.config.environment import Environment
from skinspire_db.errors import SkinspireError
from skinspire_db.lifecycle.operation import Operation
from skinspire_db.lifecycle.pipeline import Series
from skinspire_db.lifecycle.result import Report, Result, json_object
from skinspire_db.operations import db
from skinspire_db.steps import Context

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
        """What was done as `--json` shows it."""
        done = [each.as_dict() for each in self.done]
        return json_object(OPERATION, seconds=self.seconds, environments=done, next=list(self.next))


def chosen(name: str | None) -> list[Environment]:
    """dev and test, or the one that was named.

    Args:
        name: the environment's name; None for both.

    Raises:
        UnknownEnvironment: no environment of that name is declared.
    """
    return [environment.resolve(each) for each in (ENVIRONMENTS if name is None else (name,))]


def bring_up(context: Context) -> Series:
    """What brings an environment to where it should be without losing a row, then looks whether it is there."""
    prepare = db.prepare(context)

    def in_turn() -> Iterator[Operation]:
        verified = False
        while (operation := prepare.next()) is not None:
            verified = "verify" in operation.step_names
            yield operation
        if not verified:
            yield db.verify(context)

    queue = in_turn()
    names = (*prepare.steps, "verify")
    return Series(OPERATION, context.environment, lambda: next(queue, None), names)


def onboard(name: str | None, defaults: Mapping[str, Any], report: Report) -> Onboarded:
    """Make or bring up to date the databases of dev and test, or of the one environment that is named; verify each.

    Safe to run again at any time: as `db.prepare` it resets nothing.

    Args:
        name: the environment's name; None for both.
        defaults: the defaults of the tasks, for the rows that are made.
        report: is told how it goes.

    Raises:
        SkinspireError: the first error; what was committed before it stays, and the error's `result` has it.
    """
    started = time.monotonic()
    environments = chosen(name)
    first = environments[0].name
    together = Onboarded(next={command.format(env=first): what for command, what in NEXT.items()})
    try:
        for each in environments:
            together.done.append(bring_up(Context(each, report, defaults)).run(report=report))
    except SkinspireError as error:
        error.result = together.as_dict() | {"environments": [*(done.as_dict() for done in together.done), error.result]}
        raise
    together.seconds = time.monotonic() - started
    return together
