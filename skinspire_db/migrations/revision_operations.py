"""A revision as operations: its transaction with its SQL files and journal line, and what a concurrent one runs before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.lifecycle.pipeline import Pipeline, Step
from skinspire_db.lifecycle.result import Summary
from skinspire_db.migrations import concurrent, revision_steps, revisions
from skinspire_db.migrations.concurrent_operation import ConcurrentRevision
from skinspire_db.objects import kinds, versions

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory


def one_by_one(several: Callable[[], list[Pipeline]]) -> Callable[[], Pipeline | None]:
    """For a Series: gives what was asked for last one by one, then asks for more."""
    left: list[Pipeline] = []

    def following() -> Pipeline | None:
        left.extend([] if left else several())
        return left.pop(0) if left else None

    return following


def step_names(environment: Environment) -> tuple[str, ...]:
    """The names of the steps of each revision, for a plan."""
    return "revision", kinds.step_name(kind for kind, _ in versions.paths(environment.project).values()), "proofs"


def of(
    environment: Environment,
    operation: str,
    files: ScriptDirectory,
    script: Script,
    *,
    danger: str = "",
    backs_up: bool,
    down: bool = False,
) -> list[Pipeline]:
    """The operations that apply a revision or take it back: one transaction, before it what a concurrent one runs outside.

    Args:
        environment: whose database is changed.
        operation: the command, as it is typed.
        files: all revisions of the project.
        script: the revision.
        danger: what a protected environment must confirm to; "" for nothing.
        backs_up: a proved backup is taken first in a protected environment.
        down: it is taken back.

    Raises:
        MigrationInvalid: a concurrent revision holds statements of another kind.
    """
    project, apart = environment.project, concurrent.is_concurrent(script)
    steps = revision_steps.of(
        environment, files, script, danger=danger, backs_up=backs_up and not apart, down=down, done=apart
    )
    noting = Pipeline(operation, environment, steps, retries=True)
    if not apart:
        return [noting]
    wanted = tuple(concurrent.statements(project, script, down=down))
    begun = Summary({"begun": f"{script.revision} {script.doc}"}, lines=[str(each) for each in wanted])
    begin = Step("begin", lambda _: begun, destroys="", confirms=danger, backs_up=backs_up)
    is_next = partial(revision_steps.is_next, project=project, files=files, script=script, down=down)
    file = revisions.path(script, project)
    return [ConcurrentRevision(operation, environment, (begin,), "", True, wanted, file, is_next), noting]
