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
    from skinspire_db.testing.modes import Bench, ClinicDatabase, Mode

SEEDED = {"patients": "20", "doctors": "5", "random_seed": "1"}
NOT_GIVEN = (None, "", "127.0.0.1", "/usr/lib/postgresql/14/bin/pg_ctl")  # the defaults of pytest-postgresql's settings


class Run:
    """What one process of a test run uses; made when the first test needs it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.current: ClinicDatabase | None = None
        self.words = ""
        self.renewed: list[tuple[str, str]] = []
        self.noted: Path | None = None  # under pytest-xdist, where the workers leave word for the controller
        self.collecting = 0  # workers who have not yet
        self._bench: Bench | None = None
        self._error: SkinspireError | None = None

    def bench(self, request: pytest.FixtureRequest | None = None) -> Bench:
        """The databases of this process. Raises what making the template raised, again for every test."""
        if self._error is not None:
            raise self._error
        if self._bench is None:
            self._prepare(request)
            if self._error is not None:
                raise self._error
        assert self._bench is not None
        return self._bench

    @property
    def by_postgresql_proc(self) -> bool:
        """Whether pytest-postgresql is to start a server; only one of its fixtures can."""
        return _was_given(self.config, "postgresql_exec") and not self.config.getoption("db_server")

    def use(self, mode: Mode, item: pytest.Item, request: pytest.FixtureRequest) -> ClinicDatabase:
        """Give the test a database, which stands in for the active environment's from now on."""
        import psycopg

        from skinspire_db.testing.modes import KINDS

        try:
            self.current = KINDS[mode](self.bench(request), item.nodeid)
        except psycopg.OperationalError:  # the server has died, or was started anew
            self.close()
            self.current = KINDS[mode](self.bench(request), item.nodeid)
        test_override.serve(self.current)
        return self.current

    def close(self) -> None:
        """Drop the process's databases; the template stays for the next run."""
        if self._bench is not None:
            self.renewed += self._bench.renewed
            bench, self._bench = self._bench, None
            bench.close()

    def _prepare(self, request: pytest.FixtureRequest | None) -> None:
        import psycopg

        from skinspire_db.clinic.seed import Options
        from skinspire_db.postgres.failures import sentence
        from skinspire_db.testing.modes import Bench
        from skinspire_db.testing.workshop import Workshop

        started = time.monotonic()
        patients, doctors, random_seed = (self.config.getini(f"db_{name}") or value for name, value in SEEDED.items())
        try:
            host = self._host(request)
            workshop = Workshop(host, Options.parse(patients, doctors, random_seed))
        except (SkinspireError, psycopg.Error) as error:
            self._error = error if isinstance(error, SkinspireError) else ConnectionFailed(sentence(error))
            self.words = f"skinspire-db: no database: {self._error}"
            return
        self._bench = Bench(workshop)
        template = workshop.template
        seconds = time.monotonic() - started
        self.words = f"skinspire-db: {host.words}, template {template.name} {template.how}, {seconds:.2f} s"

    def _host(self, request: pytest.FixtureRequest | None) -> Host:
        from skinspire_db.config import environment, project
        from skinspire_db.testing import hosting

        here = project.current_project()
        for name, value in (
            ("--db-server", self.config.getoption("db_server")),
            ("db_server", self.config.getini("db_server")),
        ):
            if value:
                return hosting.given(here, value, name)
        if self.by_postgresql_proc:
            assert request is not None
            return hosting.from_pytest_postgresql(here, request.getfixturevalue("postgresql_proc"))
        if any(_was_given(self.config, f"postgresql_{name}") for name in ("host", "port")):
            from pytest_postgresql.config import get_config

            told: Any = get_config(SimpleNamespace(config=self.config))  # type: ignore[arg-type]
            told = SimpleNamespace(**vars(told) | {"port": told.port or 5432})
            return hosting.from_pytest_postgresql(here, told)
        url = environment.resolve(hosting.ENVIRONMENT).url
        return hosting.given(here, url.value, url.name) if url.value else hosting.embedded(here)


def _was_given(config: pytest.Config, name: str) -> bool:
    """Whether an option of pytest-postgresql was given, on the command line or in the settings."""
    if not config.pluginmanager.has_plugin("pytest_postgresql"):
        return False
    return bool(config.getoption(name)) or config.getini(name) not in NOT_GIVEN
