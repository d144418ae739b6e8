"""Pipelines of one's own: the public steps in a row, run, guarded and printed as the tools' own operations are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config import environment
from skinspire_db.lifecycle.dry_run import Plan
from skinspire_db.lifecycle.pipeline import Pipeline
from skinspire_db.lifecycle.result import Result, Summary
from skinspire_db.steps import Context, ReusableStep, bound

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

    Chosen = ReusableStep | Callable[[Connection], Summary | None]


@dataclass(frozen=True)
class OwnPipeline:
    """What pipeline() gives.

    Args:
        name: What it is called, in the journal and in remedies: the command that runs it.
        env: The environment's name; None is the active one.
        steps: In the order in which they run.
    """

    name: str
    env: str | None
    steps: tuple[Chosen, ...]

    def bind(self, context: Context) -> Pipeline:
        """The operation on one environment.

        Raises:
            SkinspireError: what steps.bound() raises.
        """
        return Pipeline(self.name, context.environment, bound(context, *self.steps))

    def run(self, ctx: Any = None, *, confirm: str | None = None, json: bool | None = None) -> Result | None:
        """Run it, in one transaction.

        Args:
            ctx: Invoke's context, of the task that this is called in: then it prints as db.setup does and answers `--dry`,
                and, where the task was called with it, `--json`. Without it nothing is printed.
            confirm: The database's name, where a protected environment asks for it.
            json: Print one JSON object, and nothing else; only with `ctx`.

        Returns:
            What became of it; None for a plan.

        Raises:
            SkinspireError: The database is as it was; the error's `result` says how far it came.
        """
        if ctx is None:
            return self.bind(Context(environment.resolve(self.env))).run(confirm=confirm)
        from skinspire_db.terminal import console

        wanted = bool(ctx.config.get("json", False)) if json is None else json
        return console.operate(ctx, self.env, self.bind, json=wanted, confirm=confirm)

    def plan(self, *, confirm: str | None = None, backups: Path | None = None) -> Plan:
        """What run() would do; nothing is changed.

        Raises:
            SkinspireError: what run() would begin with.
        """
        return self.bind(Context(environment.resolve(self.env))).plan(confirm=confirm, backups=backups)


def pipeline(name: str, env: str | None, *steps: Chosen) -> OwnPipeline:
    """Chain steps into an operation.

    What the steps destroy and create holds for the whole: in a protected environment a confirmation is asked for and a
    proved backup is taken first, without a word of it here.

    Args:
        name: The command that runs it.
        env: The environment's name; None is the active one.
        steps: Those of skinspire_db.steps, and functions that take the open connection and answer a Summary or None.
    """
    return OwnPipeline(name, env, steps)
