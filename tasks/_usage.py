"""What was typed and is no command: words without their flag, unknown flags, rows that would not go to one environment."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Sequence
from shlex import quote
from typing import Any

from invoke.exceptions import ParseError
from invoke.program import Program
from invoke.tasks import Task

from . import _program

ON_A_DATABASE = ("db", "sql", "triggers", "migrate", "backup", "scale")  # collections whose --env says which database


def refuse_mixed_environments(tasks: Sequence[Any]) -> None:
    """Invoke gives a flag to the command before it only: `db.reset db.create --env=test` would reset the active one.

    Args:
        tasks: the commands of the line.

    Raises:
        UsageError: some commands name an environment, and others would go to another one.
    """
    from skinspire_db.config import environment
    from skinspire_db.errors import UsageError

    active, meant = None, []
    for task in tasks:
        given = getattr(task, "as_kwargs", {})
        if task.name == "env.switch" and given.get("env"):
            active = environment.resolve_name(given["env"])
        if "env" in given and (task.name.partition(".")[0] in ON_A_DATABASE or task.name in ("env.stamp", "env.unstamp")):
            meant.append((task.name, given["env"] and environment.resolve_name(given["env"]), active))
    named = [name for _, name, _ in meant if name]
    if not named or len(named) == len(meant):
        return
    for task, name, switched in meant:
        if name is None and {switched or environment.resolve_active(None)} != set(named):
            raise UsageError(
                f"{task} has no --env, and --env={named[-1]} goes to the command before it only",
                remedy=f"give each command its own --env={named[-1]}",
            )


# What a word without a flag means that is no environment's name: the first of these that the command has and was not given.
WORDS = ("pipeline", "file", "name", "table", "message", "to")
NUMBERS = ("steps", "limit", "patients", *WORDS)
ENVIRONMENTS = ("env", "source", "target")
INVOKES_OWN = Program.parse_tasks
_own: dict[str, Any] = {}  # the globals of the tasks.py whose tasks are run


def install(module: dict[str, Any]) -> None:
    """Let Invoke parse and run the tasks of that module, and ours, as ours are: Invoke lets a project choose neither its
    parser nor, without a file, its executor.
    """
    _own.clear()
    _own.update({"globals": module})
    Program.parse_tasks = parse_tasks  # type: ignore[method-assign, assignment]
    _program.install()


def parse_tasks(program: Program) -> None:
    """Invoke's own parsing, whose errors say what to type in place of what was typed."""
    from ._executor import SkinspireExecutor

    program.executor_class = SkinspireExecutor
    for name, found in list(_own["globals"].items()):
        if isinstance(found, Task):
            answer_json(found)
            if name not in program.collection.tasks and found.name not in program.collection.tasks:
                program.collection.add_task(found)
    try:
        INVOKES_OWN(program)
    except ParseError as error:
        if program.core[0].args.debug.value:
            raise
        from ._executor import as_exit

        typed = list(program.core.unparsed)
        given = {"json": "--json" in typed}
        raise as_exit(_explained(program, error, typed), error.context.name if error.context else None, given) from None


def answer_json(task: Task[Any]) -> None:
    """Give a task that runs a pipeline the flag --json, if it has none; the pipeline finds it in Invoke's context."""
    body: Any = task.body
    known = inspect.signature(body)
    if "json" in known.parameters or "pipeline" not in getattr(getattr(body, "__code__", None), "co_names", ()):
        return

    @functools.wraps(body)
    def run(ctx: Any, *arguments: Any, json: bool = False, **options: Any) -> Any:
        ctx.config.json = json
        return body(ctx, *arguments, **options)

    flag = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False)
    run.__signature__ = known.replace(parameters=[*known.parameters.values(), flag])  # type: ignore[attr-defined]
    task.body = run


def _explained(program: Any, error: ParseError, typed: list[str]) -> Any:
    """The UsageError that says what is wrong and what to type."""
    from difflib import get_close_matches

    from skinspire_db.errors import UsageError

    command = error.context.name if error.context else None
    remedy = f"invoke --help {command}" if command else "invoke --list"
    if missing := re.search(r"Flag <Argument: ([\w-]+).*needed value", str(error)):
        return UsageError(f"{command} --{missing[1]} needs a value", remedy=remedy)
    if not (unknown := _unknown(error)):
        return UsageError(str(error), remedy=remedy)
    if error.context and unknown.startswith("-"):
        remedy = remedy if command else "invoke --help"
        flags = list(error.context.flags)
        near = get_close_matches(unknown, flags, 1) or [flag for flag in flags if unknown.startswith(flag) and len(flag) > 2]
        instead = f", but {near[0]}" if near else ""
        return UsageError(f"{command or 'invoke'} has no flag {unknown}{instead}", remedy=remedy)
    if any("://" in each for each in typed):  # it can hold a password, and nothing of it is shown
        return UsageError("no command takes a URL", remedy="set DEV_DATABASE_URL, or that of another environment, in .env")
    if command and not _near(program, unknown, within=command):
        if not (flagged := _with_flags(program, typed)):
            return UsageError(f"{command} takes no word {unknown}", remedy=remedy)
        words, line = flagged
        dry = "--dry " if program.core[0].args.dry.value else ""
        return UsageError(words, remedy=f"invoke {dry}{line}")
    return no_command(program, unknown, within=command)


def _near(program: Any, unknown: str, within: str | None = None) -> list[str]:
    """The commands that a word may mean; behind a command only one that is written as a command is."""
    from difflib import get_close_matches

    names = list(program.collection.task_names)
    called = [name for name in names if name.endswith(f".{unknown}") and not within]
    return called or (get_close_matches(unknown, names, 1) if "." in unknown or not within else [])


def no_command(program: Any, unknown: str, flag: str = "", within: str | None = None) -> Any:
    """The UsageError for what is no command or collection, with the nearest one.

    Args:
        program: Invoke's.
        unknown: what was typed.
        flag: the flag of invoke that it was given for.
        within: the command before it.
    """
    from difflib import get_close_matches

    from skinspire_db.errors import UsageError

    collections = list(program.collection.collections)
    if flag == "--list ":
        near = get_close_matches(unknown, collections, 1)
        return UsageError(f"there is no collection {unknown}", remedy=f"invoke --list {near[0]}" if near else "invoke --list")
    if unknown in collections:
        return UsageError(f"{unknown} is a collection of commands", remedy=f"invoke --list {unknown}")
    near = _near(program, unknown, within)
    several = f"; there are {', '.join(near)}" if near[1:] else ""
    chosen = next((name for name in near if name.startswith("db.")), near[0] if near else "")
    remedy = f"invoke {flag}{chosen}" if chosen else "invoke --list"
    return UsageError(f"there is no command {unknown}{several}", remedy=remedy)


def _with_flags(program: Any, typed: list[str]) -> tuple[str, str] | None:
    """What was typed, each stray word with the flag that it needs; None where a word means nothing to its command."""
    words: dict[str, list[str]] = {}
    for _ in typed:
        stray = next((n for n in range(len(typed)) if _error(program, typed[: n + 1])), None)
        if stray is None:
            break
        error = _error(program, typed[: stray + 1])
        flag = error.context and _flag_of(error.context, typed[stray])
        if not flag or typed[stray] != _unknown(error):
            return None
        words.setdefault(error.context.name, []).append(f"{typed[stray]} as --{flag}={typed[stray]}")
        typed = [*typed[:stray], f"--{flag}={typed[stray]}", *typed[stray + 1 :]]
    said = (f"{command} takes {', '.join(each)}" for command, each in words.items())
    return "; ".join(said), " ".join(quote(each) for each in typed)


def _error(program: Any, typed: list[str]) -> Any:
    """What Invoke says of a word that it does not know; None where it knows all of them."""
    try:
        program._make_parser().parse_argv(list(typed))
    except ParseError as error:
        return error if _unknown(error) else None
    return None


def _unknown(error: ParseError) -> str:
    from ast import literal_eval

    found = re.fullmatch(r"No idea what (.*) is!", str(error), re.DOTALL)
    return str(literal_eval(found[1])) if found else ""


def _flag_of(context: Any, word: str) -> str | None:
    from skinspire_db.config import environment
    from skinspire_db.errors import SkinspireError

    try:
        environment.resolve_name(word)
        wanted: tuple[str, ...] = ENVIRONMENTS
    except SkinspireError:
        wanted = NUMBERS if word.isdecimal() else WORDS
    free = [name for name in wanted if name in context.args and context.args[name].raw_value is None]
    return free[0].replace("_", "-") if free else None
