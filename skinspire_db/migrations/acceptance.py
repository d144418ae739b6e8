"""Writing the differences that are there into the file of accepted ones, and dropping the lines whose difference is gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from skinspire_db.config import accepted
from skinspire_db.config.accepted import Accepted
from skinspire_db.config.project import Project, write_atomically
from skinspire_db.errors import GuardRefused, InvalidSetting, UsageError
from skinspire_db.lifecycle.result import Summary
from skinspire_db.migrations import drift, position, revisions
from skinspire_db.migrations.drift import Difference

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


@dataclass(frozen=True)
class Acceptance:
    """What was asked for.

    Attributes:
        accept: write the differences that are there.
        forget: drop the lines whose difference is not there.
        name: a pattern with * and ? of the names of objects, or of whole lines of the file; None for all.
        reason: why they are accepted.
    """

    accept: bool
    forget: bool
    name: str | None
    reason: str

    @classmethod
    def parse(cls, accept: bool, forget: bool, name: str | None, reason: str | None) -> Acceptance | None:
        """What was typed.

        Returns:
            None where nothing of it was: then drift is only looked at.

        Raises:
            UsageError: a flag has no use without another one, or there is no reason.
        """
        example = '--accept --reason="the hospital keeps it"'
        if reason is not None and not accept:
            raise UsageError("--reason is for --accept", remedy=f"invoke db.drift {example}")
        if name is not None and not (accept or forget):
            raise UsageError("--name is for --accept and --forget", remedy=f"invoke db.drift --name=public.bills {example}")
        if accept and not (reason and reason.strip()):
            raise UsageError("accepting needs a reason", remedy=f"invoke db.drift {example}")
        return cls(accept, forget, name, reason or "") if accept or forget else None

    def picks(self, line: str) -> bool:
        """Whether the pattern is that of the line itself, of the object that it is about, or of the table that this is on."""
        name = self.name
        return name is None or any(fnmatchcase(line, form) for form in (name, f"* {name} *", f"* public.{name} *"))


@dataclass(frozen=True)
class Change:
    """What the file becomes.

    Attributes:
        new: the lines that are written.
        gone: the keys of those that are dropped.
        left: the differences that are accepted neither before nor after.
        text: the file's text; None where it stays as it is.
    """

    new: list[Accepted]
    gone: list[str]
    left: list[Difference]
    text: str | None

    @property
    def phrases(self) -> list[str]:
        """What is done, for a plan."""
        return [f"accept {each.key}" for each in self.new] + [f"forget {key}" for key in self.gone]


def unsigned(differences: Iterable[Difference], signed: dict[str, Accepted], reason: str) -> list[Accepted]:
    """The lines that the file needs beside those that it has, for these differences to be accepted."""
    return [
        Accepted(key, reason, of)
        for difference in differences
        for key, of in difference.lines.items()
        if key not in signed or signed[key].of not in ("", of)
    ]


def change(connection: Connection, project: Project, every: list[Difference], asked: Acceptance) -> Change:
    """What the file of accepted differences becomes.

    Args:
        connection: the database.
        project: whose file.
        every: all differences of that database, accepted or not.
        asked: which lines are written and dropped.

    Raises:
        GuardRefused: revisions are pending, and what they change would be accepted.
        InvalidSetting: as `accepted.edited`.
        UsageError: the pattern is that of nothing.
    """
    signed = accepted.read(project)
    there = {key for each in every for key in each.lines}
    open_ones = [each for each in every if not drift.is_accepted(each, signed)]
    picked = [each for each in open_ones if asked.accept and any(asked.picks(line) for line in each.lines)]
    gone = [key for key in signed if asked.forget and key not in there and asked.picks(key)]
    if asked.name is not None and not picked and not gone:
        raise UsageError(f"--name={asked.name} is the pattern of no such difference", remedy="invoke db.drift --env={env}")
    if picked and position.current(connection, project) != revisions.heads(project):
        raise GuardRefused(
            "the database is not at the last revision: what the pending ones change would be accepted",
            remedy=position.way_on(connection, project),
        )
    new = unsigned(picked, signed, asked.reason)
    text = accepted.edited(project, new, gone) if new or gone else None
    return Change(new, gone, [each for each in open_ones if each not in picked], text)


def write(project: Project, changed: Change) -> Summary:
    """Write the file.

    Args:
        project: whose file.
        changed: what it becomes.

    Raises:
        InvalidSetting: it cannot be written.
    """
    file = accepted.path(project)
    if changed.text is not None:
        try:
            write_atomically(file, changed.text)
        except OSError as error:
            raise InvalidSetting(f"{file.name} cannot be written: {error.strerror}", remedy=f"make {file} writable") from None
    numbers: dict[str, int | str] = {
        "accepted": len(changed.new), "forgotten": len(changed.gone), "differences_left": len(changed.left),
    }  # fmt: skip
    lines = [f"accepted {each.key}" for each in changed.new] + [f"forgotten {key}" for key in changed.gone]
    data = {
        "file": str(file), "newly_accepted": [each.key for each in changed.new], "forgotten": changed.gone,
        "drift": [each.as_dict() for each in changed.left],
    }  # fmt: skip
    return Summary({name: number for name, number in numbers.items() if number}, lines, data=data)
