"""Environments and their policies, and which one is active."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.config import urls
from skinspire_db.config.project import Project, Setting, current_project, write_atomically
from skinspire_db.config.server_pin import Pin
from skinspire_db.errors import InvalidSetting, UnknownEnvironment

ALIASES = {"development": "dev", "testing": "test", "production": "prod"}
ACTIVE_FILE = "environment"  # in Project.state; written by `invoke env.switch`


@dataclass(frozen=True)
class Policy:
    """What an environment allows. All times are in seconds.

    `protected`: destructive operations need a confirmation. `test_data`: invented people may be seeded. `embedded`: the
    embedded server serves when no URL is set. `sslmode`: libpq's word, used when the URL has none and the host is not
    this machine. `password_cost`: bcrypt's work factor for new passwords.

    The application's connections (database_service): `pool_size` kept open and `pool_overflow` more under load, per process;
    `pool_timeout` to wait for one; `pool_recycle`, the age at which one is replaced; `connect_retry`, how long a server that
    restarts is waited for; `transaction_pooler`: a pooler such as PgBouncer in transaction mode is in between;
    `report_unclosed`: a session or connection that was left open is logged with the place that opened it.
    """

    protected: bool = False
    test_data: bool = True
    embedded: bool = True
    sslmode: str | None = None
    connect_timeout: int = 10
    lock_timeout: float = 5.0
    operation_wait: float = 10.0
    password_cost: int = 12
    pool_size: int = 5
    pool_overflow: int = 10
    pool_timeout: float = 30.0
    pool_recycle: float = 1800.0
    connect_retry: float = 10.0
    transaction_pooler: bool = False
    report_unclosed: bool = True


PRESETS = {
    "dev": Policy(),
    "test": Policy(password_cost=4),
    "prod": Policy(protected=True, test_data=False, embedded=False, sslmode="require", report_unclosed=False),
}


@dataclass(frozen=True)
class Environment:
    """A name, a database URL and a policy. `url.value` is None where the embedded server serves; it is secret.

    `url` is the application's; the tools use `admin`, which is direct, where there is one. `pin` is the server that the
    operation which is running on it has reached.
    """

    name: str
    policy: Policy
    url: Setting
    project: Project = field(repr=False)
    admin: Setting | None = None
    pin: Pin = field(repr=False, compare=False, default_factory=Pin)

    @property
    def embedded(self) -> bool:
        return self.url.value is None


def resolve(name: str | None = None, given_by: str = "--env") -> Environment:
    """The environment called `name`, or the active one. `given_by` is the flag that named it, for the error.

    Raises UnknownEnvironment for a name that is not declared, and InvalidSetting when the environment needs a URL and
    has none. Nothing is connected to and nothing is started.
    """
    project = current_project()
    chosen = active(project).value if name is None else _canonical(name, project, given_by)
    assert chosen is not None
    policy = _policy(chosen, project)
    url = project.setting(url_setting(chosen))
    if url.value is None and not policy.embedded:
        raise InvalidSetting(
            f"{chosen} has no database: {url_setting(chosen)} is not set",
            remedy=f"set {url_setting(chosen)}=postgresql://user:password@host/database in .env",
        )
    admin = project.setting(admin_setting(chosen))
    if admin.value and url.value is None:
        raise InvalidSetting(
            f"{admin.name} is set and {url.name} is not: the tools would use another database than the application",
            remedy=f"set {url.name} too, to what the application uses",
        )
    return Environment(chosen, policy, url, project, admin if admin.value else None)


def active(project: Project) -> Setting:
    """The active environment's name and which of SKINSPIRE_ENV, `env.switch`, FLASK_ENV or the default decided it."""
    explicit = project.setting("SKINSPIRE_ENV")
    if explicit.value:
        return Setting(
            "environment", _canonical(explicit.value, project, "SKINSPIRE_ENV"), f"SKINSPIRE_ENV, {explicit.source}"
        )
    switched = _read_switch(project)
    if switched:
        return Setting("environment", _canonical(switched, project, "env.switch"), "invoke env.switch")
    flask = project.setting("FLASK_ENV")
    if flask.value:
        return Setting("environment", _canonical(flask.value, project, "FLASK_ENV"), f"FLASK_ENV, {flask.source}")
    return Setting("environment", "dev", "default")


def switch(name: str) -> Setting:
    """Make `name` the active environment of this checkout and return the active one, read back.

    What is returned can differ from `name`: SKINSPIRE_ENV, when set, beats the file that this writes.

    Raises UnknownEnvironment, or InvalidSetting when the file cannot be written; the former choice then stands.
    """
    project = current_project()
    canonical = _canonical(name, project, "--env")
    try:
        write_atomically(project.state / ACTIVE_FILE, canonical + "\n")
    except OSError as error:
        raise InvalidSetting(
            f"cannot write {project.state / ACTIVE_FILE}: {error.strerror}",
            remedy=f"set SKINSPIRE_ENV={canonical} instead",
        ) from None
    return active(project)


def resolve_name(name: str) -> str:
    """The environment that is meant by `name`: old names and upper case are understood. Raises UnknownEnvironment."""
    return _canonical(name, current_project(), "--env")


def resolve_active(name: str | None) -> str:
    """The name of the environment that is meant, of the active one for None; whether it has a database or not.

    Raises UnknownEnvironment.
    """
    return resolve_name(name) if name is not None else str(active(current_project()).value)


def is_protected(name: str) -> bool:
    """Whether the environment of that name is protected; one that this project does not declare counts as such.

    Raises InvalidSetting.
    """
    project = current_project()
    return name not in names(project) or _policy(name, project).protected


def describe(name: str | None = None) -> list[Setting]:
    """Every setting of the environment called `name`, or of the active one, with its source; passwords are hidden.

    Raises UnknownEnvironment or InvalidSetting; connects to nothing.
    """
    project = current_project()
    chosen = active(project) if name is None else Setting("environment", _canonical(name, project, "--env"), "--env")
    assert chosen.value is not None
    policy = _policy(chosen.value, project)
    shown = [chosen, Setting("project", str(project.root), project.found_by)]
    for each in names(project):
        url = project.setting(url_setting(each))
        if url.value is None and _policy(each, project).embedded:
            shown.append(Setting(url.name, f"embedded server, database {embedded_database(each)}", url.source))
        else:
            shown.append(Setting(url.name, url.value and hide_password(url.value), url.source))
        for more in (project.setting(admin_setting(each)), project.setting(replica_setting(each))):
            if more.value:
                shown.append(Setting(more.name, hide_password(more.value), more.source))
    for setting in ("SKINSPIRE_PG_BIN", "SKINSPIRE_PG_HOME", "SKINSPIRE_PG_ACCOUNT"):
        shown.append(project.setting(setting))
    for key in ("metadata", "migrations", "disabled_triggers"):
        declared = project.config.get(key)
        shown.append(
            Setting(key, None if declared is None else str(declared), "default" if declared is None else "pyproject.toml")
        )
    preset = PRESETS[_preset(chosen.value, project)]
    for field_ in dataclasses.fields(Policy):
        value = getattr(policy, field_.name)
        source = "preset" if value == getattr(preset, field_.name) else "pyproject.toml"
        shown.append(Setting(f"policy.{field_.name}", str(value), source))
    return shown


def embedded_database(name: str) -> str:
    """What an environment's database is called on the embedded server."""
    return f"skinspire_{name.replace('-', '_')}"


def hide_password(url: str) -> str:
    """The URL with *** for its password; of one that cannot be parsed, nothing is shown."""
    from sqlalchemy import exc, make_url

    try:
        single, hosts = urls.split_hosts(url)
        parsed = make_url(single)
        if "@" in f"{parsed.host}{parsed.database}":  # then a part of the password may stand there
            return "not a usable database URL"
        secret = {key: "***" for key in parsed.query if "password" in key}
        shown = parsed.update_query_dict(secret).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
        return shown.replace(urls.SEVERAL, hosts, 1)
    except (exc.ArgumentError, ValueError):
        return "not a database URL"


def names(project: Project) -> list[str]:
    """All environments: the built-in ones, then what pyproject.toml declares."""
    _declared(project)  # refuses what is no table
    return list(project.environments)


def url_setting(name: str) -> str:
    """The setting that holds an environment's URL: `dev` -> `DEV_DATABASE_URL`."""
    return name.upper().replace("-", "_") + "_DATABASE_URL"


def admin_setting(name: str) -> str:
    """The setting that may hold a direct URL for the tools: `prod` -> `PROD_ADMIN_URL`."""
    return name.upper().replace("-", "_") + "_ADMIN_URL"


def replica_setting(name: str) -> str:
    """The setting that may hold the URL of an environment's read replica: `prod` -> `PROD_REPLICA_URL`."""
    return name.upper().replace("-", "_") + "_REPLICA_URL"


def _read_switch(project: Project) -> str | None:
    try:
        return (project.state / ACTIVE_FILE).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(
            f"cannot read {project.state / ACTIVE_FILE}: {error}",
            remedy="invoke env.switch --env=dev, as the checkout's owner",
        ) from None


def _canonical(name: str, project: Project, source: str) -> str:
    wanted = str(name).strip().lower()
    wanted = wanted if wanted in _declared(project) else ALIASES.get(wanted, wanted)
    if wanted in names(project):
        return wanted
    raise UnknownEnvironment(
        f"unknown environment {name!r} (from {source})", remedy=f"use one of: {', '.join(names(project))}"
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


def _policy(name: str, project: Project, children: tuple[str, ...] = ()) -> Policy:
    """A declared environment is its `extends` (a preset or another declared one) plus what it sets itself."""
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
        base = _policy(_canonical(parent, project, f"extends of {name}"), project, (*children, name))
    policy = _with(base, own, name)
    if name == "prod" and not policy.protected:
        raise InvalidSetting("pyproject.toml makes prod unprotected", remedy="remove protected = false")
    if policy.protected and policy.test_data:
        raise InvalidSetting(
            f"pyproject.toml makes {name} protected and allows test data in it", remedy="add test_data = false, or remove it"
        )
    return policy


def _preset(name: str, project: Project) -> str:
    """The preset at the end of what an environment extends. The chain has been checked by _policy()."""
    while name not in PRESETS:
        name = _canonical(_declared(project)[name]["extends"], project, "extends")
    return name


def _with(base: Policy, own: dict[str, Any], name: str) -> Policy:
    for key, value in own.items():
        default = getattr(Policy(), key, dataclasses.MISSING)
        wanted: tuple[type, ...] = (str,) if key == "sslmode" else (type(default),)
        wanted = (int, float) if wanted == (float,) else wanted
        # PostgreSQL takes a time-out of 0 for none at all.
        pointless = type(value) in (int, float) and (value < 0 or (value == 0 and key != "pool_overflow"))
        if default is dataclasses.MISSING or type(value) not in wanted or pointless:
            keys = ", ".join(each.name for each in dataclasses.fields(Policy))
            raise InvalidSetting(
                f"environment {name} in pyproject.toml: {key} = {value!r} is not understood",
                remedy=f"keys are extends, {keys}",
            )
    return dataclasses.replace(base, **own)
