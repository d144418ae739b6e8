"""What one process of a test run uses: the server, the template, its own databases."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from skinspire_db.errors import ConnectionFailed, SkinspireError
from skinspire_db.service import test_override

if TYPE_CHECKING:
    from skinspire_db.testing.hosting import Host
    from skinspire_db.testing.modes import ClinicDatabase, Mode
    from skinspire_db.testing.shared import ProcessDatabases

SEEDED = {"patients": "20", "doctors": "5", "random_seed": "1"}
NOT_GIVEN = (None, "", "127.0.0.1", "/usr/lib/postgresql/14/bin/pg_ctl")  # the defaults of pytest-postgresql's settings


class Run:
    """What one process of a test run uses; made when the first test needs it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.current: ClinicDatabase | None = None
        self.message = ""
        self.renewed: list[tuple[str, str]] = []
        self.message_file: Path | None = None  # under pytest-xdist, where the workers leave their message for the controller
        self.workers_collecting = 0  # how many workers have not finished collecting
        self._databases: ProcessDatabases | None = None
        self._error: SkinspireError | None = None

    def databases(self, request: pytest.FixtureRequest | None = None) -> ProcessDatabases:
        """The databases of this process, made at the first call.

        Args:
            request: Of a test, where pytest-postgresql may have to start the server.

        Raises:
            SkinspireError: what making the template raised, again for every test.
        """
        if self._error is not None:
            raise self._error
        if self._databases is None:
            self._prepare(request)
            if self._error is not None:
                raise self._error
        assert self._databases is not None
        return self._databases

    @property
    def by_postgresql_proc(self) -> bool:
        """Whether pytest-postgresql is to start a server; only one of its fixtures can."""
        return _was_given(self.config, "postgresql_exec") and not self.config.getoption("db_server")

    def use(self, mode: Mode, item: pytest.Item, request: pytest.FixtureRequest) -> ClinicDatabase:
        """Give the test a database, which serves in place of the active environment's from now on.

        Raises:
            SkinspireError: when the template or the database cannot be made.
        """
        import psycopg

        from skinspire_db.testing.modes import KINDS

        try:
            self.current = KINDS[mode](self.databases(request), item.nodeid)
        except psycopg.OperationalError:  # the server has died, or was started anew
            self.close()
            self.current = KINDS[mode](self.databases(request), item.nodeid)
        test_override.serve(self.current)
        return self.current

    def close(self) -> None:
        """Drop the process's databases; the template stays for the next run."""
        if self._databases is not None:
            self.renewed += self._databases.renewed
            databases, self._databases = self._databases, None
            databases.close()

    def _prepare(self, request: pytest.FixtureRequest | None) -> None:
        import psycopg

        from skinspire_db.content.seeding import Options
        from skinspire_db.postgres.error_text import sentence
        from skinspire_db.testing.databases import DatabaseMaker
        from skinspire_db.testing.rows import TemplateRows
        from skinspire_db.testing.shared import ProcessDatabases

        started = time.monotonic()
        patients, doctors, random_seed = (self.config.getini(f"db_{name}") or value for name, value in SEEDED.items())
        try:
            host = self._host(request)
            rows = TemplateRows(
                self.config.getini("db_template"), self.config.getini("db_template_files"), self.config.rootpath
            )
            maker = DatabaseMaker(host, Options.parse(patients, doctors, random_seed), rows)
        except (SkinspireError, psycopg.Error) as error:
            self._error = error if isinstance(error, SkinspireError) else ConnectionFailed(sentence(error))
            self.message = f"skinspire-db: no database: {self._error}"
            return
        self._databases = ProcessDatabases(maker)
        template = maker.template
        seconds = time.monotonic() - started
        self.message = f"skinspire-db: {host.description}, template {template.name} {template.how}, {seconds:.2f} s"

    def _host(self, request: pytest.FixtureRequest | None) -> Host:
        from skinspire_db.config import environment, project
        from skinspire_db.testing import hosting

        current = project.current_project()
        for name, value in (
            ("--db-server", self.config.getoption("db_server")),
            ("db_server", self.config.getini("db_server")),
        ):
            if value:
                return hosting.given(current, value, name)
        if self.by_postgresql_proc:
            assert request is not None
            return hosting.from_pytest_postgresql(current, request.getfixturevalue("postgresql_proc"))
        if any(_was_given(self.config, f"postgresql_{name}") for name in ("host", "port")):
            from pytest_postgresql.config import get_config

            settings: Any = get_config(SimpleNamespace(config=self.config))  # type: ignore[arg-type]
            settings = SimpleNamespace(**vars(settings) | {"port": settings.port or 5432})
            return hosting.from_pytest_postgresql(current, settings)
        url = environment.resolve(hosting.ENVIRONMENT).url
        return hosting.given(current, url.value, url.name) if url.value else hosting.embedded(current)


def _was_given(config: pytest.Config, name: str) -> bool:
    """Whether an option of pytest-postgresql was given, on the command line or in the settings."""
    if not config.pluginmanager.has_plugin("pytest_postgresql"):
        return False
    return bool(config.getoption(name)) or config.getini(name) not in NOT_GIVEN
