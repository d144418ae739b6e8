"""Everything that prints: step lines, tables, progress, JSON."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config import environment
from skinspire_db.errors import SkinspireError
from skinspire_db.lifecycle.dry_run import Plan
from skinspire_db.lifecycle.operation import Operation
from skinspire_db.lifecycle.remedies import as_typed
from skinspire_db.lifecycle.result import ONCE, Check, Report, Result, SignIn, StepResult, json_object, told
from skinspire_db.postgres.target import Target
from skinspire_db.steps import Context
from skinspire_db.terminal import live
from skinspire_db.terminal.layout import NARROWEST, step_lines, wrapped
from skinspire_db.terminal.rendering import (
    INDENT,
    as_markdown,
    as_mermaid,
    as_text,
    in_lines,
    padded,
    printable,
    tabular,
    width_of,
)

if TYPE_CHECKING:
    from skinspire_db.config.project import Setting
    from skinspire_db.inspection.overview import Inspection

NOTHING = "nothing to do"
LISTED = 10  # things that one check has found

unwritten: list[OSError] = []  # why output was lost; the executor makes a failure of it


class ConsoleReport(Report):
    """Shows an operation as it goes; silent when `quiet`. `verbose` says for every check what was looked at."""

    def __init__(self, *, quiet: bool, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._bar: Any = None
        self._activity: live.Activity | None = None

    def target(self, target: Target) -> None:
        """Show the database that the operation is about to begin on."""
        self.end()
        if not self.quiet:
            say_wrapped(f"{target.environment}: {target}")

    def begin(self, name: str) -> None:
        """Show a step while it runs, on a terminal."""
        self.end()
        if not self.quiet and live.is_lively(sys.stdout) and live.is_lively(sys.stderr):
            self._activity = live.Activity(name, sys.stderr)

    def end(self) -> None:
        """Take away what is shown of a step that runs."""
        for shown in (self._activity and self._activity.end, self._bar is not None and self._bar.close):
            if shown:
                shown()
        self._activity = self._bar = None

    def step(self, done: StepResult) -> None:
        """Show a step that has ended, with its numbers and seconds."""
        self.end()
        if self.quiet:
            return
        for line in step_lines(done.name, _numbers(done), done.seconds):
            say(line)
        for line in done.summary.lines:
            say_wrapped(line, "    ")
        if rows := done.summary.rows:
            table([list(row.values()) for row in rows], list(rows[0]))
        shown = [check for check in done.summary.checks if self.verbose or check.status != "pass"]
        width = max((width_of(check.name) for check in shown), default=0)
        for check in shown:
            head = f"    {check.status:<8} {padded(check.name, width)}  "
            for part in _parts(check, self.verbose):
                for line in wrapped(head, part):
                    say(line)
                head = " " * width_of(head)

    def progress(self, done: int, total: int) -> None:
        """Show a bar of rows, where there are many.

        Args:
            done: how many are in.
            total: how many there are.
        """
        if total >= 10_000:
            self._show(done, total, "  seed", unit=" people")

    def transfer(self, done: int, total: int, rows: int) -> None:
        """Show a bar of bytes.

        Args:
            done: how many have gone over.
            total: about how many there are.
            rows: in how many rows.
        """
        self._show(done, total, "  copied", unit="B", unit_scale=True)
        if self._bar is not None and rows:
            self._bar.set_postfix_str(f"{rows:,} rows")

    def _show(self, done: int, total: int, what: str, **options: Any) -> None:
        if self.quiet or not live.is_lively(sys.stderr):
            return
        if self._bar is None:
            self.end()
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, leave=False, **options)
        self._bar.update(done - self._bar.n)


def operate(
    ctx: Any,
    env: str | None,
    make: Callable[[Context], Operation],
    *,
    json: bool,
    confirm: str | None = None,
    verbose: bool = False,
    given_by: str = "--env",
) -> Result | None:
    """Run the operation that `make` gives for the environment, or with --dry show its plan; print what came of it.

    Args:
        ctx: Invoke's context, for `--dry` and the defaults of invoke.yaml.
        env: The environment's name; None is the active one.
        make: Gives the operation.
        json: One JSON object is printed, and nothing else.
        confirm: The database's name, as it was given.
        verbose: Every check says what was looked at.
        given_by: The flag that named the environment, for the error.

    Returns:
        What became of it; None for a plan.

    Raises:
        SkinspireError: The operation's.
    """
    report = ConsoleReport(quiet=json, verbose=verbose)
    operation = make(Context(environment.resolve(env, given_by), report, dict(ctx.config.get("seed", {}))))
    backups = Path(ctx.config.get("backup", {}).get("folder", "backups"))
    if ctx.config.run.dry and operation.plans:
        plan = operation.plan(confirm=confirm, report=report, backups=backups)
        show_json(plan.as_dict()) if json else _show_plan(plan)
        return None
    try:
        result = operation.run(confirm=confirm, report=report, backups=backups)
    except SkinspireError as error:
        if not json and (made := error.result.get("sign_in")):  # committed, though not read back: shown now or never
            _show_sign_in([SignIn(**each) for each in made])
        raise
    show_json(result.as_dict()) if json else _show(operation, result)
    return result


def diagnose(env: str | None, *, json: bool, backups: Path | None = None) -> None:
    """Tell each link of the diagnosis as it is looked at.

    Args:
        env: the environment's name; None for the active one.
        json: one JSON object in place of lines.
        backups: the folder of backups; None is the project's.

    Raises:
        SkinspireError: what doctor.chain.diagnose() raises.
    """
    from skinspire_db.doctor import chain

    class Aloud(chain.Listener):
        def settings(self, rows: list[Setting]) -> None:
            table([(row.name, row.value or "-", row.source) for row in rows], ("setting", "value", "from"))

        def check(self, done: Check) -> None:
            for line in wrapped(f"  {done.status:<8} {done.name:<15}  ", done.detail):
                say(line)

    found = chain.diagnose(env, chain.Listener() if json else Aloud(), backups)
    if json:
        show_json(found.as_dict())
        return
    for note in found.notes:
        warn(note)
    say(f"db.doctor: nothing is broken, {found.seconds:.2f} s")


def onboard(ctx: Any, env: str | None, *, json: bool) -> None:
    """Run db.prepare and db.verify for dev and test, or with --dry show their plans, and what to type next.

    Args:
        ctx: Invoke's context.
        env: one environment's name; None for both.
        json: one JSON object in place of lines.

    Raises:
        SkinspireError: what operations.dev.onboard() raises.
    """
    from skinspire_db.operations import dev

    report, defaults = ConsoleReport(quiet=json), dict(ctx.config.get("seed", {}))
    if ctx.config.run.dry:
        plans = []
        for each in dev.chosen(env):
            plans.append(dev.bring_up(Context(each, report, defaults)).plan(report=report))
            if not json:
                _show_plan(plans[-1])
        if json:
            together = plans[0].as_dict() | {"environment": None, "database": None, "target": None}
            show_json(together | {"plans": [plan.as_dict() for plan in plans]})
        return
    done = dev.onboard(env, defaults, report)
    if json:
        show_json(done.as_dict())
        return
    if made := [each for result in done.done for each in result.sign_in]:
        _show_sign_in(list(dict.fromkeys(made)))
    say(f"{dev.OPERATION}: ready and verified, {done.seconds:.2f} s. Next:")
    for command, what in done.next.items():
        say(f"  {command:<29} {what}")


def table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> None:
    """Show a table; values are shown as they are, also what looks like a number.

    Args:
        rows: the values.
        headers: the names of the columns.
    """
    width = terminal_width()
    text = tabular(rows, headers, width=width and width - len(INDENT))
    say_lines("\n".join(f"{INDENT}{line}".rstrip() for line in text.split("\n")))


def terminal_width() -> int | None:
    """In columns, 80 at the least; None where the output goes elsewhere than to a terminal."""
    return max(NARROWEST, shutil.get_terminal_size((NARROWEST, 24)).columns) if sys.stdout.isatty() else None


def show_json(value: Any) -> None:
    """The one object that stdout holds with --json."""
    say(json.dumps(value, default=str).replace("\x7f", "\\u007f"))  # the one control character that JSON allows


def say(line: str) -> None:
    """Print a line, harmless to a terminal whatever names it holds.

    A reader that has gone away (`| head -1`) does not stop an operation, nor change what came of it. Output that cannot be
    written for another reason (a full disk) does not stop it either, and is a failure at the end.
    """
    _print(_coloured(as_typed(printable(line))))


def say_wrapped(text: str, indent: str = "") -> None:
    """Print a sentence, on a terminal in lines of its width; elsewhere as one line.

    Args:
        text: the sentence.
        indent: what the first line begins with; the later ones are indented by more.
    """
    for line in in_lines(printable(text), terminal_width(), indent).split("\n"):
        say(line)


def say_lines(text: str) -> None:
    """Print a text of several lines; what is not from us in it was made harmless before, or is for a file."""
    _print(_coloured(printable(text, keep="\n\t")) if sys.stdout.isatty() else text)


def _coloured(text: str) -> str:
    return live.coloured(text) if live.is_coloured(sys.stdout) else text


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            unwritten.append(error)
        forget_output()


def forget_output() -> None:
    """Nothing more is written, not even what the stream still holds: Python would try it again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # until the process ends


def warn(note: str) -> None:
    """Something to read that is no part of the answer."""
    print(as_typed(f"note: {printable(note)}"), file=sys.stderr)


def show_result(operation: str, *, json: bool, text: str, **values: Any) -> None:
    """Show what a task answers that is no pipeline.

    Args:
        operation: the command, `env.switch`.
        json: one JSON object in place of the sentence.
        text: the sentence.
        values: what the JSON object has beside the fields that every one has.
    """
    if json:
        show_json(json_object(operation, **values))
    else:
        say_lines(text)


def show_inspection(found: Inspection, how: str) -> None:
    """Show what a database holds; notes go where they disturb no format.

    Args:
        found: what was found.
        how: table, json, markdown or mermaid.
    """
    if how == "json":
        show_json(found.as_dict())
        return
    for note in found.notes:
        warn(note)
    if how == "table":
        say_lines(as_text(found, terminal_width()))
    else:
        say_lines({"markdown": as_markdown, "mermaid": as_mermaid}[how](found))


def _show(operation: Operation, result: Result) -> None:
    for note in result.notes:
        warn(note)
    if result.sign_in:
        _show_sign_in(result.sign_in)
    looked = "all checks pass" if any(step.summary.checks for step in result.steps) else "the database was not changed"
    idle = all(map(_is_idle, result.steps))
    done = "all is right, nothing to do" if idle else "committed and read back"
    ending = result.ending or operation.ending or (done if operation.changes else looked)
    say_wrapped(f"{result.operation}: {ending}, {result.seconds:.2f} s")


def _show_sign_in(made: Sequence[SignIn]) -> None:
    say("sign in as")
    table([(each.role, each.user_id, each.password) for each in made], ("role", "user", "password"))
    if any(each.generated for each in made):
        say(f"  {ONCE}")


def _show_plan(plan: Plan) -> None:
    for note in plan.notes:
        warn(note)
    for what in (*plan.would, f"run {' -> '.join(plan.steps)}"):
        say(f"  would {what}")
    say(f"{plan.operation}: nothing was changed (--dry), {plan.seconds:.2f} s")


def _is_idle(step: StepResult) -> bool:
    """Whether the step has changed nothing: it looked at files and checks, and did none of what it counts."""
    numbers = {name: value for name, value in step.summary.numbers.items() if name != "files"}
    return bool(step.summary.checks) or (bool(step.summary.numbers) and not any(numbers.values()))


def _numbers(done: StepResult) -> str:
    numbers = done.summary.numbers
    if done.failure:
        return f"failed: {done.failure}"
    if not numbers:
        return "done" if done.ok else "failed"
    shown = [told(value, name) for name, value in numbers.items() if value != 0 or len(numbers) == 1]
    return ", ".join(shown) or NOTHING


def _parts(check: Check, verbose: bool) -> list[str]:
    """What is wrong, one thing in each line; of many the first."""
    parts = check.detail.split("; ") if check.status != "pass" else [check.detail]
    if verbose or len(parts) <= LISTED:
        return parts
    return [*parts[:LISTED], f"and {len(parts) - LISTED} more: --json has all"]
