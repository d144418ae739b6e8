"""Code that the project brings, its models and revisions: run so that nothing but a normal return counts as success."""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, ProjectCodeEnded

REMEDY = "take that out; raise an exception where something is wrong"
WAYS_OUT = ("_exit", "execv", "execve")  # of os; they end the process without an exception, perhaps with exit code 0


@contextlib.contextmanager
def running(project: Project) -> Iterator[None]:
    """Run code of the project: its folder is the first on the path, and what it prints goes to stderr.

    Exceptions and Ctrl-C pass.

    Raises:
        ProjectCodeEnded: with the traceback of its cause, for every other way out: sys.exit(), os._exit(), os.exec*(),
            GeneratorExit and whatever else is no Exception.
    """
    root = str(project.root)
    sys.path[:] = [root, *(each for each in sys.path if each != root)]
    with _output_to_stderr(), _no_way_out():
        try:
            yield
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            ended = ProjectCodeEnded(f"it {_told(error)} instead of returning", remedy=REMEDY)
            raise ended.with_traceback(error.__traceback__) from None


class _WayOut(BaseException):
    """What os._exit() and its like do while the project's code runs."""


def _told(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"calls sys.exit({'' if error.code is None else repr(error.code)})"
    return str(error) if isinstance(error, _WayOut) else f"raises {type(error).__name__}"


@contextlib.contextmanager
def _no_way_out() -> Iterator[None]:
    """A process that it forks may end as it likes."""
    process = os.getpid()
    kept = {name: getattr(os, name) for name in WAYS_OUT}

    def instead(name: str, real: Any) -> Any:
        def ended(*arguments: Any) -> NoReturn:
            if os.getpid() != process:
                real(*arguments)
            raise _WayOut(f"calls os.{name}()")

        return ended

    for name, real in kept.items():
        setattr(os, name, instead(name, real))
    try:
        yield
    finally:
        for name, real in kept.items():
            setattr(os, name, real)


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """For what is printed, and for programs that are started: stdout holds our answer alone."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        kept = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def module(project: Project, name: str, remedy: str = "correct that name", shown: str = "") -> ModuleType:
    """The module of this name, of the project or of an installed package.

    Raises:
        InvalidSetting: The module cannot be imported.
        ProjectCodeEnded: The module ends the process.
    """
    try:
        with running(project):
            return importlib.import_module(name)
    except ProjectCodeEnded:
        raise
    except Exception as error:  # whatever a module does when it is imported
        raise InvalidSetting(f"{shown or name} cannot be loaded: {type(error).__name__}: {error}", remedy=remedy) from None


def attribute(project: Project, text: str, remedy: str = "correct the step") -> Any:
    """What `module:name` names in the project.

    Raises:
        InvalidSetting: The module cannot be imported, or has no such name.
        ProjectCodeEnded: The module ends the process.
    """
    name, _, attribute_name = text.partition(":")
    found = module(project, name, remedy, text)
    try:
        return operator.attrgetter(attribute_name)(found)
    except AttributeError as error:
        raise InvalidSetting(f"{text} cannot be loaded: {type(error).__name__}: {error}", remedy=remedy) from None
