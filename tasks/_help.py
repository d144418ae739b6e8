"""What tasks share: help texts, and which flags have a short form."""

from __future__ import annotations

from functools import partial
from typing import Any

import invoke.tasks
from invoke.parser.argument import Argument

ENV = {"env": "environment: dev, test, prod or a declared one (default: the active one)"}
JSON = {"json": "print one JSON object and nothing else"}
CONFIRM = {"confirm": "the database's name: needed where a protected environment could lose something"}
# A short form means one thing in every task, so Invoke, which takes the first free letter, is not asked for one.
SHORT = {
    "env": "e", "json": "j", "confirm": "c", "message": "m", "name": "n", "verbose": "v", "table": "t", "file": "f",
    "patients": "p", "limit": "l", "source": "s",
}  # fmt: skip


class Task(invoke.tasks.Task[Any]):
    """A task whose flags have the short forms of SHORT, and no other."""

    def arg_opts(self, name: str, default: Any, taken_names: set[str]) -> dict[str, Any]:
        """A flag's names: its long one, and its short form where SHORT has one."""
        opts = super().arg_opts(name, default, taken_names)
        return opts | {"names": [opts["names"][0], *([SHORT[name]] if name in SHORT else [])]}

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """The task's flags, with their help texts each time that they are asked for."""
        help_texts = dict(self.help)  # Invoke takes each text out as it uses it: a second call would find none
        try:
            return super().get_arguments(ignore_unknown_help)
        finally:
            self.help = help_texts


task = partial(invoke.tasks.task, klass=Task)
