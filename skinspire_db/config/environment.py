"""Environments: which one is meant, which one is active, and what is set for it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field

from skinspire_db.config import branches, urls
from skinspire_db.config.policy import PRESETS, Policy, canonical, environment_names, policy_of, preset_of
from skinspire_db.config.project import Project, Setting, current_project, write_atomically
from skinspire_db.config.server_pin import Pin
from skinspire_db.errors import InvalidSetting

MASKED = "MASKED"  # whose a masked backup is said to be; no environment can be called so
MAY_REACH = "SKINSPIRE_TEST_MAY_REACH"  # tells processes that a test starts the one environment that they may reach
ACTIVE_FILE = "environment"  # in Project.state; written by `invoke env.switch`


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
        """Whether the embedded server serves: no URL is set."""
        return self.url.value is None

    @property
    def branch(self) -> str | None:
        """The checkout's branch now, where each has a database of its own; None where not, and where there is no checkout."""
        if not self.policy.database_per_branch or os.environ.get(MAY_REACH) == self.name:  # a test run's database is its own
            return None
        return branches.current(self.project.root)

    def database(self, plain: str) -> str:
        """What its database is called now.

        Args:
            plain: as the URL or the embedded server has it.
        """
        branch = self.branch
        return plain if branch is None else branches.database(plain, branch)

    @property
    def without_branches(self) -> Environment:
        """The same, on the database that all branches would share."""
        return dataclasses.replace(self, policy=dataclasses.replace(self.policy, database_per_branch=False))


def resolve(name: str | None = None, given_by: str = "--env") -> Environment:
    """The environment called `name`, or the active one. `given_by` is the flag that named it, for the error.

    Nothing is connected to and nothing is started.

    Raises:
        UnknownEnvironment: for a name that is not declared.
        InvalidSetting: the environment needs a URL and has none.
    """
    project = current_project()
    chosen = active(project).value if name is None else canonical(name, project, given_by)
    assert chosen is not None
    policy = policy_of(chosen, project)
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
            "environment", canonical(explicit.value, project, "SKINSPIRE_ENV"), f"SKINSPIRE_ENV, {explicit.source}"
        )
    switched = _read_switch(project)
    if switched:
        return Setting("environment", canonical(switched, project, "env.switch"), "invoke env.switch")
    flask = project.setting("FLASK_ENV")
    if flask.value:
        return Setting("environment", canonical(flask.value, project, "FLASK_ENV"), f"FLASK_ENV, {flask.source}")
    return Setting("environment", "dev", "default")


def switch(name: str) -> Setting:
    """Make `name` the active environment of this checkout.

    Returns:
        The active one, read back. It can differ from `name`: SKINSPIRE_ENV, when set, beats the file that this writes.

    Raises:
        UnknownEnvironment: none of that name is declared.
        InvalidSetting: the file cannot be written; the former choice then stands.
    """
    project = current_project()
    chosen = canonical(name, project, "--env")
    try:
        write_atomically(project.state / ACTIVE_FILE, chosen + "\n")
    except OSError as error:
        raise InvalidSetting(
            f"cannot write {project.state / ACTIVE_FILE}: {error.strerror}",
            remedy=f"set SKINSPIRE_ENV={chosen} instead",
        ) from None
    return active(project)


def resolve_name(name: str) -> str:
    """The name of the environment that is meant by `name`: old names and upper case are understood.

    Raises:
        UnknownEnvironment: none of that name is declared.
    """
    return canonical(name, current_project(), "--env")


def resolve_active(name: str | None) -> str:
    """The name of the environment that is meant, of the active one for None; whether it has a database or not.

    Raises:
        UnknownEnvironment: none of that name is declared.
    """
    return resolve_name(name) if name is not None else str(active(current_project()).value)


def is_protected(name: str) -> bool:
    """Whether the environment of that name is protected; one that this project does not declare counts as such, but not that
    of masked backups.

    Raises:
        InvalidSetting: pyproject.toml declares what cannot be used.
    """
    project = current_project()
    return name != MASKED and (name not in environment_names(project) or policy_of(name, project).protected)


def describe(name: str | None = None) -> list[Setting]:
    """Every setting of the environment called `name`, or of the active one, with its source; passwords are hidden.

    Connects to nothing.

    Raises:
        UnknownEnvironment: none of that name is declared.
        InvalidSetting: a setting cannot be used.
    """
    project = current_project()
    chosen = active(project) if name is None else Setting("environment", canonical(name, project, "--env"), "--env")
    assert chosen.value is not None
    policy = policy_of(chosen.value, project)
    shown = [chosen, Setting("project", str(project.root), project.found_by)]
    if policy.database_per_branch:
        branch = branches.current(project.root)
        shown.append(Setting("branch", branch, "git" if branch else "no git checkout: the database has its plain name"))
    for other in environment_names(project):
        url = project.setting(url_setting(other))
        if url.value is None and policy_of(other, project).embedded:
            shown.append(Setting(url.name, f"embedded server, database {_database(other, project)}", url.source))
        else:
            shown.append(Setting(url.name, url.value and hide_password(url.value), url.source))
        for more in (project.setting(admin_setting(other)), project.setting(replica_setting(other))):
            if more.value:
                shown.append(Setting(more.name, hide_password(more.value), more.source))
    for setting in ("SKINSPIRE_PG_BIN", "SKINSPIRE_PG_HOME", "SKINSPIRE_PG_ACCOUNT"):
        shown.append(project.setting(setting))
    for key in (
        "metadata",
        "migrations",
        "version_table",
        "disabled_triggers",
        "required_triggers",
        "function_schema",
        "tenancy",
    ):
        declared = project.config.get(key)
        shown.append(
            Setting(key, None if declared is None else str(declared), "default" if declared is None else "pyproject.toml")
        )
    preset = PRESETS[preset_of(chosen.value, project)]
    for field_ in dataclasses.fields(Policy):
        value = getattr(policy, field_.name)
        source = "preset" if value == getattr(preset, field_.name) else "pyproject.toml"
        shown.append(Setting(f"policy.{field_.name}", str(value), source))
    return shown


def embedded_database(name: str) -> str:
    """What an environment's database is called on the embedded server."""
    return f"skinspire_{name.replace('-', '_')}"


def _database(name: str, project: Project) -> str:
    """What an environment's database is called on the embedded server now, on this branch."""
    environment = Environment(name, policy_of(name, project), Setting(url_setting(name), None, "not set"), project)
    return environment.database(embedded_database(name))


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
