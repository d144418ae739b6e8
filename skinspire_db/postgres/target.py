"""Where an environment's database is, and what libpq needs to get there."""

from __future__ import annotations

import getpass
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.config import urls
from skinspire_db.config.environment import Environment, embedded_database, replica_setting, url_setting
from skinspire_db.config.policy import Policy
from skinspire_db.config.project import Setting
from skinspire_db.config.server_pin import Pin
from skinspire_db.errors import InvalidSetting
from skinspire_db.postgres.cluster import ROLE
from skinspire_db.postgres.embedded_server import EmbeddedServer, project_server


@dataclass(frozen=True)
class Target:
    """A database on a server. `parameters` is what libpq needs to get there, the password included; it stays secret.

    `parameters` may name several hosts; `pin` is the one that the operation's first connection reached. `setting` is the name
    of the one that holds the URL.
    """

    environment: str
    policy: Policy
    parameters: dict[str, Any] = field(repr=False)
    server: EmbeddedServer | None = field(repr=False, default=None)
    pin: Pin = field(repr=False, compare=False, default_factory=Pin)
    setting: str = ""

    @property
    def route(self) -> dict[str, Any]:
        """The parameters that lead to the server: all that the URL names, or the one that was reached."""
        return self.parameters | self.pin.address

    @property
    def host(self) -> str:
        """The host, or several with commas between; empty for libpq's default."""
        return str(self.route.get("hostaddr" if self.parameters.get("hostaddr") else "host", ""))

    @property
    def port(self) -> str:
        """The port, or several with commas between; empty for libpq's default."""
        return str(self.route.get("port", ""))

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """Host and port of each server that is meant; the port is empty where libpq's default holds."""
        hosts, ports = self.host.split(","), self.port.split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        return list(zip(hosts, ports, strict=False))

    @property
    def where(self) -> str:
        """The server, or all that the URL names, as a person writes it."""
        shown = [(f"[{host}]" if ":" in host else host or "the local socket", port) for host, port in self.addresses]
        return ",".join(f"{host}:{port}" if port else host for host, port in shown)

    @property
    def database(self) -> str:
        """The database's name."""
        return str(self.parameters["dbname"])

    @property
    def user(self) -> str:
        """The role; empty where the URL names none."""
        return str(self.parameters.get("user", ""))

    def __str__(self) -> str:
        return f"{self.database} on {self.where}{' (embedded server)' if self.server else ''}"


def target_of(environment: Environment, *, start: bool = True, application: bool = False) -> Target:
    """Where the environment's database is; with `start`, an embedded server that was never started is started.

    The tools' way there, by the admin URL where there is one; with `application`, the application's, whose every connection
    may go to another one of several hosts.

    Raises:
        InvalidSetting: for a URL that cannot be used.
        ServerFailed: the embedded server cannot be started.
    """
    pin = Pin() if application else environment.pin
    if not environment.embedded:
        url = environment.url if application else environment.admin or environment.url
        return Target(environment.name, environment.policy, _parameters(environment, url), pin=pin, setting=url.name)
    server = project_server(environment.project)
    address = server.address() or (server.start() if start else None)
    parameters = address.parameters if address else {"host": "127.0.0.1", "user": ROLE}
    database = {"dbname": environment.database(embedded_database(environment.name))}
    return Target(environment.name, environment.policy, parameters | database, server, pin, environment.url.name)


def replica(environment: Environment) -> Target | None:
    """Where the environment's read replica is, None when it has none.

    Raises:
        InvalidSetting: for an unusable URL.
    """
    url = environment.project.setting(replica_setting(environment.name))
    if url.value is None:
        return None
    return Target(environment.name, environment.policy, _parameters(environment, url), setting=url.name)


def _parameters(environment: Environment, url: Setting) -> dict[str, Any]:
    found = urls.parameters(url, environment.policy.sslmode)
    return found | {"dbname": environment.database(found["dbname"])}


def libpq_parameters(target: Target, application_name: str) -> dict[str, Any]:
    """Everything that decides where a connection goes, so that nothing is taken from the process environment."""
    # What is given here, be it empty, libpq does not take from PGHOST, PGHOSTADDR, PGPORT or PGOPTIONS.
    defaults: dict[str, Any] = dict.fromkeys(("host", "hostaddr", "port", "options"), "")
    defaults |= {"connect_timeout": target.policy.connect_timeout}
    if "user" not in target.route:
        defaults["user"] = _own_name(target)
    return defaults | target.route | {"application_name": application_name, "client_encoding": "UTF8"}


def _own_name(target: Target) -> str:
    """The account's name, which libpq takes where a URL names no role. Raises InvalidSetting where it has none, as in a
    container that runs as a number.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        setting = target.setting or url_setting(target.environment)
        raise InvalidSetting(
            f"{setting} names no role, and the account that runs this has no name",
            remedy=f"write {setting}=postgresql://user:password@host:5432/database",
        ) from None
