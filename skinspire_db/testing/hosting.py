"""Which server the test databases are made on, and how one of them is addressed."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any

from skinspire_db.config import environment
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project, Setting
from skinspire_db.config.urls import split_hosts
from skinspire_db.errors import DatabaseMissing, GuardRefused, InvalidSetting, SkinspireError
from skinspire_db.lifecycle import stamp
from skinspire_db.postgres import connections
from skinspire_db.postgres.embedded_server import throw_away_server
from skinspire_db.postgres.programs import find_client_programs
from skinspire_db.postgres.target import Target, target_of

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

ENVIRONMENT = "test"
SETTING = environment.url_setting(ENVIRONMENT)
PATIENCE = "-clock_timeout=20s"  # two connections of one test that wait for each other fail: the run does not hang


@dataclass(frozen=True)
class Host:
    """A server for test databases: its description, and its URL. `password_file` is the embedded server's."""

    description: str
    url: URL = field(repr=False)
    project: Project = field(repr=False)
    password_file: str = ""

    def environment(self, database: str) -> Environment:
        """The environment test, with that database on this server."""
        policy = environment.resolve(ENVIRONMENT).without_branches.policy  # the run's databases are its own
        options = f"{self.url.query.get('options', '')} {PATIENCE}".strip()
        url = self.url.set(database=database).update_query_dict({"options": options}).render_as_string(hide_password=False)
        return Environment(ENVIRONMENT, policy, Setting(SETTING, url, "pytest"), self.project)

    def target(self, database: str) -> Target:
        """How to connect to that database on this server.

        Raises:
            InvalidSetting: for a URL that cannot be used.
        """
        return target_of(self.environment(database))

    def address(self, database: str) -> str:
        """The psql command that opens the database, without the password."""
        from sqlalchemy.engine import URL

        url = URL.create("postgresql", self.url.username, None, self.url.host, self.url.port, database)
        try:
            psql = str(find_client_programs(0, "psql").tool("psql"))  # of any version; it may be on no PATH
        except SkinspireError:
            psql = "psql"
        command = f"{quote(psql)} {quote(url.render_as_string())}"
        if not self.password_file:
            return command
        if os.name == "posix":
            return f'PGPASSWORD="$(cat {quote(str(self.password_file))})" {command}'
        return f"{command}  (password in {self.password_file})"


def embedded(project: Project) -> Host:
    """The checkout's throw-away server, made and started when necessary."""
    from sqlalchemy.engine import URL

    server = throw_away_server(project)
    parameters = dict(server.start().parameters)
    names = {"host": "host", "port": "port", "user": "username", "password": "password"}
    parts: dict[str, Any] = {name: parameters.pop(key) for key, name in names.items()}
    query = {key: str(value) for key, value in parameters.items()}
    url = URL.create("postgresql", query=query, **parts)
    return Host(f"embedded server, port {parts['port']}", url, project, str(server.home / "password"))


def given(project: Project, text: str, source: str) -> Host:
    """The server of a URL. A database that the URL names is looked at, and not used.

    Args:
        project: The project under test.
        text: The URL.
        source: The setting or option that it comes from, for messages.

    Raises:
        InvalidSetting: for what is no URL of one server.
        GuardRefused: when the database is stamped for another environment than test.
    """
    from sqlalchemy import exc, make_url

    try:
        single, several = split_hosts(text)
        url = make_url(single)
    except (exc.ArgumentError, ValueError):  # the text can hold the password
        raise InvalidSetting(
            f"{source} is not a database URL", remedy=f"write {source}=postgresql://user:password@host:5432/"
        ) from None
    if several or "," in str(url.query.get("host", "")) or isinstance(url.query.get("host"), tuple):
        raise InvalidSetting(
            f"{source} names several hosts, and a run's test databases are on one",
            remedy=f"write {source}=postgresql://user:password@host:5432/",
        )
    if elsewhere := {"dbname", "service"} & url.query.keys():
        raise InvalidSetting(
            f"{source} has {min(elsewhere)} among its options, which would send every test there",
            remedy=f"write {source}=postgresql://user:password@host:5432/",
        )
    port = f":{url.port}" if url.port else ""
    host = Host(f"{url.host or 'the local socket'}{port} ({source})", url, project)
    try:
        host.target("tests")
    except InvalidSetting as error:
        text = error.message.replace(SETTING, source)
        raise InvalidSetting(text, remedy=f"write {source}=postgresql://user:password@host:5432/") from None
    if url.database and url.database not in connections.MAINTENANCE_DATABASES:
        refuse_real(host.target(url.database))
    return host


def refuse_real(target: Target) -> None:
    """Refuse a database that is stamped for another environment than test, whatever its name is.

    Raises:
        GuardRefused: when it is.
    """
    try:
        with connections.connect(target, "tests") as connection:
            stamped = stamp.read(connection)
    except DatabaseMissing:
        return
    if stamped is not None and stamped.environment != ENVIRONMENT:
        raise GuardRefused(
            f"{target} is stamped {stamped.environment}: no tests are run where it is",
            remedy="give the tests a server of their own, or none: the embedded one then serves",
        )


def from_pytest_postgresql(project: Project, executor: Any) -> Host:
    """The server that pytest-postgresql runs or is configured for.

    Args:
        project: The project under test.
        executor: What pytest-postgresql's fixture postgresql_proc returns.
    """
    from sqlalchemy.engine import URL

    query = {"options": executor.options} if executor.options else {}
    url = URL.create("postgresql", executor.user, executor.password, executor.host, int(executor.port), query=query)
    return dataclasses.replace(Host("", url, project), description=f"{url.host}:{url.port} (pytest-postgresql)")
