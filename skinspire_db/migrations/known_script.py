"""A revision whose place among the others is known from an earlier command; its file is run when its code is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any

from alembic.script import Script
from alembic.script.revision import Revision


def facts(script: Script) -> dict[str, Any]:
    """What the order of revisions and their list need of one, as JSON."""
    return {
        "revision": script.revision, "down_revision": script.down_revision, "dependencies": script.dependencies,
        "labels": sorted(script._orig_branch_labels), "path": str(script.path), "text": script.longdoc,
    }  # fmt: skip


class KnownScript(Script):
    """A revision, of the facts about it.

    Args:
        load: runs a file, and gives its module.
        revision: its identifier.
        down_revision: what comes before it.
        dependencies: what has to be applied before it, of other lines.
        labels: those that its own file gives.
        path: its file.
        text: the file's docstring.
    """

    def __init__(
        self, load: Callable[[str], ModuleType], *, revision: str, down_revision: Any, dependencies: Any, labels: list[str],
        path: str, text: str,
    ) -> None:  # fmt: skip
        self.load, self.path, self.text = load, path, text
        before, needs = (tuple(each) if isinstance(each, list) else each for each in (down_revision, dependencies))
        Revision.__init__(self, revision, before, dependencies=needs, branch_labels=tuple(labels) or None)

    @cached_property
    def module(self) -> ModuleType:  # type: ignore[override]
        """The file's code, which `load` runs."""
        return self.load(self.path)

    @property
    def longdoc(self) -> str:
        """The file's docstring."""
        return self.text
