"""The links in order, and what is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinspire_db.config import environment
from skinspire_db.config.project import Setting
from skinspire_db.doctor import health, reach
from skinspire_db.doctor.link import Broken, Case, NotAsked, Unknown
from skinspire_db.errors import ChecksFailed, SkinspireError
from skinspire_db.lifecycle.result import Check, json_object

Link = tuple[str, Callable[[Case], str]]


@dataclass
class Diagnosis:
    """What was found. `settings` are those that decide where the environment's database is, passwords hidden; `notes` are
    the links that could not be broken where this server is, and were not looked at.
    """

    environment: str
    settings: list[Setting]
    database: str | None = None
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as `--json` shows it."""
        return json_object(
            "db.doctor",
            self.environment,
            self.database,
            seconds=self.seconds,
            settings=[{"name": each.name, "value": each.value, "source": each.source} for each in self.settings],
            checks=[check.as_dict() for check in self.checks],
        ) | ({"notes": self.notes} if self.notes else {})


class Listener:
    """Whom the diagnosis tells how it goes. This one keeps silent."""

    def settings(self, rows: list[Setting]) -> None:
        """Where everything comes from; the links are looked at next."""

    def check(self, done: Check) -> None:
        """A link was looked at."""


def diagnose(name: str | None, listener: Listener, backups: Path | None = None) -> Diagnosis:
    """Look at one link after the other, each of which needs those before it; start nothing and change nothing.

    Args:
        name: the environment's name; None for the active one.
        listener: is told each link as it is looked at.
        backups: the folder of backups; None is the project's.

    Returns:
        What was found, when every link passes.

    Raises:
        ChecksFailed: a link is broken, which ends the diagnosis, or could not be looked at, which does not; its remedy mends
            the last of them.
        UnknownEnvironment: no environment of that name is declared.
    """
    started = time.monotonic()
    found = Diagnosis(environment.resolve_active(name), _settings(name))
    listener.settings(found.settings)
    case = Case(found.environment, backups=backups)
    try:
        remedy = _follow(case, found, listener)
    finally:
        case.close()
    found.database = case.target.database if case.target else None
    found.seconds = time.monotonic() - started
    bad = [check for check in found.checks if check.status != "pass"]
    if bad:
        worst = bad[-1]  # a broken link is the last
        error = ChecksFailed(f"{worst.name}: {worst.detail}", remedy=remedy)
        error.result = found.as_dict()
        raise error
    return found


def _follow(case: Case, found: Diagnosis, listener: Listener) -> str | None:
    """Look at the links up to the first broken one; returns its remedy."""
    for name, look in _links(case):
        remedy = None
        try:
            check = Check(name, "pass", look(case))
        except Broken as broken:
            check, remedy = Check(name, "fail", broken.detail), broken.remedy
        except SkinspireError as error:
            check, remedy = Check(name, "fail", error.message), error.remedy
        except Unknown as unknown:
            check = Check(name, "unknown", unknown.detail)
        except NotAsked as not_asked:
            found.notes.append(f"{name} was not looked at: {not_asked.detail}")
            continue
        found.checks.append(check)
        listener.check(check)
        if check.status == "fail":
            return remedy and remedy.replace("{env}", case.name)
    return f"invoke db.activity --env={case.name}"  # what keeps a look from looking is mostly a lock


def _links(case: Case) -> Iterator[Link]:
    """Asked for one at a time: which come next depends on what the last has found."""
    yield "settings", reach.settings
    if case.target and case.target.server:
        yield "embedded server", reach.embedded_server
    yield from reach.LINKS.items()
    yield from health.links(case)


def _settings(name: str | None) -> list[Setting]:
    """What decides where the database is, and of the policy what pyproject.toml says."""
    rows = environment.describe(name)
    chosen = str(rows[0].value)
    urls = (environment.url_setting(chosen), environment.admin_setting(chosen), environment.replica_setting(chosen))
    names = ("environment", "project", *urls)
    return [
        row
        for row in rows
        if row.name in names
        or (row.name.startswith("SKINSPIRE_PG_") and row.value is not None)
        or (row.name.startswith("policy.") and row.source != "preset")
    ]
