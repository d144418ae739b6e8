"""Invoke's own output: the list, which begins with commands for a newcomer, and a task's help, which ends with an example."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.program import Program
from invoke.util import Lexicon  # type: ignore[attr-defined]

FIRST = {
    "db.prepare": "make the database, or bring it up to date after a pull",
    "db.verify": "is everything as it should be?",
    "db.inspect": "what the database holds",
    "db.doctor": "why does it not work?",
    "db.setup": "begin anew, with invented people",
}
# Of the tasks for which `--env=dev` alone does not show how they are used.
EXAMPLES = {
    "backup.prune": "backup.prune --env=prod --daily=7 --apply",
    "backup.restore": "backup.restore --env=dev --file=clinic.dump",
    "db.adopt": 'db.adopt --env=prod --confirm=clinic --reason="made before the tools"',
    "db.advise": "db.advise --env=prod --fail-on=warning",
    "db.copy": "db.copy --source=test --target=dev",
    "db.drift": 'db.drift --env=dev --accept --name=bills --reason="the billing team made it"',
    "db.history": "db.history --env=dev --limit=5",
    "db.inspect": "db.inspect --env=dev --table=patients",
    "db.run": "db.run --env=dev --pipeline=demo",
    "db.seed": "db.seed --env=dev --patients=500",
    "db.setup": "db.setup --env=dev --patients=200",
    "db.verify": "db.verify --env=dev --verbose",
    "dev.bench": "dev.bench --name=bench_inspect",
    "env.stamp": "env.stamp --env=prod --confirm=clinic",
    "env.switch": "env.switch --env=test",
    "migrate.downgrade": "migrate.downgrade --env=dev --steps=1",
    "migrate.new": 'migrate.new --env=dev --message="add appointments"',
    "migrate.stamp": "migrate.stamp --env=dev --to=head",
    "sql.bump": "sql.bump --name=active_patients",
    "sql.new": "sql.new --view=active_patients",
    "triggers.bump": "triggers.bump --name=timestamps",
    "triggers.disable": "triggers.disable --env=dev --name=timestamps",
    "triggers.enable": "triggers.enable --env=dev --name=timestamps",
}
INVOKES_OWN = {name: getattr(Program, name) for name in ("_make_parser", "parse_cleanup", "print_task_help", "list_tasks")}


def install() -> None:
    """Let Invoke print its list and helps so; it lets a project choose neither."""
    for each in (_make_parser, parse_cleanup, print_task_help, list_tasks):
        setattr(Program, each.__name__, each)


class _Contexts(Lexicon):
    """The commands with their flags, which the parser copies whole before it copies the one that was typed."""

    def __deepcopy__(self, _: Any) -> _Contexts:
        return self


def _make_parser(program: Any) -> Any:
    """Invoke's own parser, without the copy of all commands, which takes as long as loading them."""
    parser = INVOKES_OWN["_make_parser"](program)
    object.__setattr__(parser.contexts, "__class__", _Contexts)  # its own __setattr__ adds a command
    return parser


def example_of(program: Any, name: str) -> str:
    """A command line of the task, as it could be typed."""
    flags = program.parser.contexts[name].flags
    return f"{_called(program)} {EXAMPLES.get(name) or name + (' --env=dev' if '--env' in flags else '')}"


def _called(program: Any) -> str:
    return "invoke" if "[" in program.binary else str(program.binary)


def print_task_help(program: Any, name: str) -> None:
    """Invoke's own help of a task, and an example."""
    INVOKES_OWN["print_task_help"](program, name)
    print(f"Example:\n  {example_of(program, name)}")


def list_tasks(program: Any) -> None:
    """Invoke's own list; the whole of it begins with the commands of a first day."""
    if program.list_format != "json" and program.list_root is None and set(FIRST) <= set(program.collection.task_names):
        print("For a start:\n")
        for command, what in FIRST.items():
            print(f"  {_called(program)} {command:<12}  {what}")
        print()
    INVOKES_OWN["list_tasks"](program)


def parse_cleanup(program: Any) -> None:
    """Invoke's own answers to --help and --list, with errors as ours are; a reader that has gone away is none."""
    from ._executor import as_exit
    from ._usage import no_command

    try:
        INVOKES_OWN["parse_cleanup"](program)
        sys.stdout.flush()
    except ParseError as error:
        named = re.fullmatch(r"No idea what '(.*)' is!", str(error), re.DOTALL)
        if not named or program.args.debug.value:
            raise
        raise as_exit(no_command(program, named[1], "--help "), None, {}) from None
    except Exit as ended:
        named = re.fullmatch(r"Sub-collection '(.*)' not found!", ended.message or "", re.DOTALL)
        if not named:
            raise
        raise as_exit(no_command(program, named[1], "--list "), None, {}) from None
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(code=0) from None
