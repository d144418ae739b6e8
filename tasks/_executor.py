"""One place that turns a SkinspireError into one line, or one JSON object, and an exit code."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys
from functools import partial
from typing import Any

from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.tasks import Call

from . import _usage


class SkinspireExecutor(Executor):
    """Invoke's executor, with the errors of skinspire_db made readable. `invoke -d` shows their tracebacks."""

    running: Any = None  # the command that has begun last

    def execute(self, *tasks: Any) -> Any:
        """Run the tasks; an error of ours becomes a line or a JSON object, and an exit code."""
        with contextlib.suppress(ValueError, AttributeError):  # not the main thread
            signal.signal(signal.SIGTERM, _interrupt)
        logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # it logs what we report
        for name in ("PGSERVICE", "PGSERVICEFILE"):  # they would lead elsewhere than the target that is shown
            os.environ.pop(name, None)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        from skinspire_db.errors import Interrupted, SkinspireError, UsageError

        try:
            if len(tasks) > 1 and any(_json(task.as_kwargs) for task in tasks):
                raise UsageError("--json goes with one task at a time", remedy="run them one after the other")
            if len(tasks) > 1:
                _usage.refuse_mixed_environments(tasks)
            done = super().execute(*tasks)
            refuse_lost_output()
            return done
        except KeyboardInterrupt:
            self._exit(Interrupted("interrupted before the operation began or after it ended"), tasks)
        except SkinspireError as error:
            self._exit(error, tasks)

    def normalize(self, tasks: Any) -> list[Call]:
        """The calls of the tasks; each says when it begins, as the error of a row of commands is that of one of them."""
        calls = super().normalize(tasks)
        for task, call in zip(tasks, calls, strict=False):  # without tasks there is a call of the default one
            call.make_context = partial(self._begin, task, call.make_context)  # type: ignore[method-assign]
        return calls

    def _begin(self, task: Any, make_context: Any, *arguments: Any, **named: Any) -> Any:
        self.running = task
        return make_context(*arguments, **named)

    def _exit(self, error: Any, tasks: Any) -> None:
        if self.core and "debug" in self.core[0].args and self.core[0].args.debug.value:
            raise error
        task = self.running or (tasks[-1] if tasks else None)
        given = getattr(task, "as_kwargs", {})
        error.remedy = error.remedy and _completed(error, given.get("env") or given.get("target"))
        raise as_exit(error, getattr(task, "name", None), given)


def as_exit(error: Any, task: str | None, given: dict[str, Any]) -> Exit:
    """A SkinspireError as Invoke ends with it: one line, or one JSON object that is printed here, and the exit code.

    Args:
        error: what went wrong.
        task: the command, `db.setup`; None where it is not known.
        given: the command's parameters.
    """
    from skinspire_db.errors import OutputLost
    from skinspire_db.lifecycle.remedies import as_typed
    from skinspire_db.lifecycle.result import failed, json_object
    from skinspire_db.terminal.rendering import printable

    if _json(given) and not isinstance(error, OutputLost):
        blank = json_object(task, given.get("env") or given.get("target"))
        try:
            print(as_typed(json.dumps(failed(blank | error.result, error), default=str)), flush=True)
        except OSError as lost:
            from skinspire_db.terminal import console

            console.forget_output()
            if not isinstance(lost, BrokenPipeError):  # said where it can be read
                return Exit(f"error: {printable(error.message)}", code=error.exit_code)
        return Exit(code=error.exit_code)
    remedy = (
        f"\n  try: {printable(error.remedy)}"
        if error.remedy and sys.stderr.isatty()
        else f" -> {printable(error.remedy)}"
        if error.remedy
        else ""
    )
    return Exit(as_typed(f"error: {printable(error.message)}{remedy}"), code=error.exit_code)


def _completed(error: Any, env: str | None) -> str:
    """The error's remedy for the environment that was meant; as it is where none can be found out."""
    from skinspire_db.config import environment
    from skinspire_db.errors import SkinspireError
    from skinspire_db.lifecycle import remedies

    try:
        chosen = environment.resolve(env)
    except SkinspireError:
        return str(error.remedy)
    database, protected = error.result.get("database") or "", chosen.policy.protected
    return remedies.complete(error.remedy, chosen.name, given=env is not None, database=database, protected=protected)


def refuse_lost_output() -> None:
    """Look whether something that a task printed could not be written: a full disk is no success.

    Raises:
        OutputLost: something could not be written.
    """
    console = sys.modules.get("skinspire_db.terminal.console")
    if console and console.unwritten:
        from skinspire_db.errors import OutputLost

        reason = console.unwritten.pop().strerror
        console.unwritten.clear()
        raise OutputLost(
            f"the output could not be written: {reason}; what was to be done is done", remedy="invoke db.history"
        )


def _json(given: dict[str, Any]) -> bool:
    """Whether one JSON object is what was asked for."""
    return bool(given.get("json")) or given.get("format") == "json"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
