"""What an environment allows: the presets, and what pyproject.toml declares on top of them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, UnknownEnvironment

ALIASES = {"development": "dev", "testing": "test", "production": "prod"}


@dataclass(frozen=True)
class Policy:
    """What an environment allows. All times are in seconds.

    `protected`: destructive operations need a confirmation. `test_data`: invented people may be seeded. `embedded`: the
    embedded server serves when no URL is set. `sslmode`: libpq's word, used when the URL has none and the host is not
    this machine. `password_cost`: bcrypt's work factor for new passwords. `snapshots`: how many are kept of a database; the
    next one's making drops the oldest. `database_per_branch`: each branch of the checkout has a database of its own.

    Revisions: `ddl_lock_timeout` to wait for a table's lock, which makes later sessions wait as long; `ddl_tries` in all
    before it fails; `online_above`, the rows of a table for which migrate.new writes the forms that block no session.

    The application's connections (database_service): `pool_size` kept open and `pool_overflow` more under load, per process;
    `pool_timeout` to wait for one; `pool_recycle`, the age at which one is replaced; `connect_retry`, how long a server that
    restarts is waited for; `transaction_pooler`: a pooler such as PgBouncer in transaction mode is in between;
    `report_unclosed`: a session or connection that was left open is logged with the place that opened it.

    Continuous backups, as "90s", "15m", "12h" or "7d": `drill_every`, the age at which the last drill is complained of;
    `longest_rpo`, how far the received WAL may be behind.
    """

    protected: bool = False
    test_data: bool = True
    embedded: bool = True
    sslmode: str | None = None
    connect_timeout: int = 10
    lock_timeout: float = 5.0
    operation_wait: float = 10.0
    ddl_lock_timeout: float = 2.0
    ddl_tries: int = 3
    online_above: int = 100_000
    password_cost: int = 12
    snapshots: int = 10
    database_per_branch: bool = False
    pool_size: int = 5
    pool_overflow: int = 10
    pool_timeout: float = 30.0
    pool_recycle: float = 1800.0
    connect_retry: float = 10.0
    transaction_pooler: bool = False
    report_unclosed: bool = True
    drill_every: str = "7d"
    longest_rpo: str = "60s"


DURATIONS = ("drill_every", "longest_rpo")
DURATION = r"[1-9][0-9]{0,8}[smhd]"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(duration: str) -> int:
    """How many seconds "90s", "15m", "12h" or "7d" are.

    Raises:
        ValueError: it is none of these.
    """
    if not re.fullmatch(DURATION, duration):
        raise ValueError(duration)
    return int(duration[:-1]) * UNITS[duration[-1]]


PRESETS = {
    "dev": Policy(),
    "test": Policy(password_cost=4),
    "prod": Policy(protected=True, test_data=False, embedded=False, sslmode="require", ddl_tries=10, report_unclosed=False),
}


def environment_names(project: Project) -> list[str]:
    """All environments: the built-in ones, then what pyproject.toml declares.

    Raises:
        InvalidSetting: The environments in pyproject.toml are not usable.
    """
    _declared(project)  # refuses what is no table
    return list(project.environments)


def canonical(name: str, project: Project, source: str) -> str:
    """The declared name of an environment; old names and upper case are understood.

    Args:
        name: As it was typed or set.
        project: Whose environments.
        source: Where `name` stands, for the error.

    Raises:
        UnknownEnvironment: No environment has that name.
        InvalidSetting: The environments in pyproject.toml are not usable.
    """
    wanted = str(name).strip().lower()
    wanted = wanted if wanted in _declared(project) else ALIASES.get(wanted, wanted)
    if wanted in environment_names(project):
        return wanted
    raise UnknownEnvironment(
        f"unknown environment {name!r} (from {source})", remedy=f"use one of: {', '.join(environment_names(project))}"
    )


def _declared(project: Project) -> dict[str, dict[str, Any]]:
    declared = project.config.get("environments", {})
    if not isinstance(declared, dict) or not all(isinstance(value, dict) for value in declared.values()):
        raise InvalidSetting(
            "tool.skinspire_db.environments in pyproject.toml must hold one table per environment",
            remedy='write [tool.skinspire_db.environments.staging] and extends = "prod"',
        )
    for name in declared:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name):
            raise InvalidSetting(
                f"environment name {name!r} in pyproject.toml is not usable",
                remedy="use lower case letters, digits, - and _",
            )
    return declared


def policy_of(name: str, project: Project, children: tuple[str, ...] = ()) -> Policy:
    """What a declared environment allows: its `extends` (a preset or another declared one) plus what it sets itself.

    Args:
        name: A declared environment.
        project: Whose pyproject.toml declares it.
        children: The environments that led here by `extends`; they may not come again.

    Raises:
        InvalidSetting: pyproject.toml says something that is unknown, or that is not allowed.
    """
    own = dict(_declared(project).get(name, {}))
    parent = own.pop("extends", None)
    if name in PRESETS:
        base = PRESETS[name]
    elif parent is None:
        raise InvalidSetting(
            f"environment {name} in pyproject.toml extends nothing", remedy='add extends = "dev", "test" or "prod"'
        )
    elif parent in children or parent == name:
        raise InvalidSetting(f"environment {name} in pyproject.toml extends itself", remedy="break the circle")
    else:
        base = policy_of(canonical(parent, project, f"extends of {name}"), project, (*children, name))
    policy = _with(base, own, name)
    if name == "prod" and not policy.protected:
        raise InvalidSetting("pyproject.toml makes prod unprotected", remedy="remove protected = false")
    if policy.protected and policy.database_per_branch:
        raise InvalidSetting(
            f"pyproject.toml makes {name} protected, with a database for each branch", remedy="remove database_per_branch"
        )
    if policy.protected and policy.test_data:
        raise InvalidSetting(
            f"pyproject.toml makes {name} protected and allows test data in it", remedy="add test_data = false, or remove it"
        )
    return policy


def preset_of(name: str, project: Project) -> str:
    """The preset at the end of what an environment extends. The chain has been checked by policy_of()."""
    while name not in PRESETS:
        name = canonical(_declared(project)[name]["extends"], project, "extends")
    return name


def _with(base: Policy, own: dict[str, Any], name: str) -> Policy:
    for key, value in own.items():
        default = getattr(Policy(), key, dataclasses.MISSING)
        wanted: tuple[type, ...] = (str,) if key == "sslmode" else (type(default),)
        wanted = (int, float) if wanted == (float,) else wanted
        # PostgreSQL takes a time-out of 0 for none at all.
        pointless = type(value) in (int, float) and (value < 0 or (value == 0 and key != "pool_overflow"))
        pointless = pointless or (key in DURATIONS and not re.fullmatch(DURATION, str(value)))
        if default is dataclasses.MISSING or type(value) not in wanted or pointless:
            keys = ", ".join(field.name for field in dataclasses.fields(Policy))
            raise InvalidSetting(
                f"environment {name} in pyproject.toml: {key} = {value!r} is not understood",
                remedy=f"keys are extends, {keys}",
            )
    return dataclasses.replace(base, **own)
