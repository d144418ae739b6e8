"""A sample project whose own suite is run: what the tests of the pytest plugin share."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import CHECKOUT, url

from skinspire_db.postgres.cluster import Address
from skinspire_db.service import test_override

PYPROJECT = """
[tool.skinspire_db]
[tool.pytest.ini_options]
filterwarnings = ["error"]
addopts = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
asyncio_default_fixture_loop_scope = "function"
"""


@pytest.fixture
def app(pytester: pytest.Pytester, server: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    """A sample application whose tests use the run's cluster."""
    monkeypatch.setenv("TEST_DATABASE_URL", url(server, "nobody_made_this"))
    for name in [name for name in os.environ if name.startswith(("PYTEST_XDIST", test_override.MAY_REACH))]:
        monkeypatch.delenv(name)
    sample = Sample(pytester, server)
    yield sample
    for name in sample.databases():
        sample.drop(name)


class Sample:
    """A project folder with an application and a suite, and what its runs leave on the server."""

    def __init__(self, pytester: pytest.Pytester, server: Address) -> None:
        self.pytester = pytester
        self.server = server
        # Part of the settings, so that no other sample has the same template.
        self.own = secrets.token_hex(4)
        self.settings(f"[tool.skinspire_db.unused]\nword = '{self.own}'\n")
        self.copy("application", "application")

    def settings(self, more: str, ini: str = "") -> None:
        (self.pytester.path / "pyproject.toml").write_text(PYPROJECT + ini + more)

    def write(self, name: str, text: str) -> None:
        (self.pytester.path / f"{name}.py").write_text(textwrap.dedent(text))

    def copy(self, sample: str, name: str = "test_sample") -> None:
        """Put a file of tests/samples into the project under that name."""
        shutil.copy(CHECKOUT / "tests" / "samples" / f"{sample}.py", self.pytester.path / f"{name}.py")

    def run(self, *arguments: str) -> pytest.RunResult:
        result = self.pytester.runpytest_subprocess(*arguments, timeout=400)
        text = result.stdout.str() + result.stderr.str()
        assert self.server.password not in text, "the password was shown"
        return result

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.Popen(command, cwd=self.pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def databases(self) -> set[str]:
        """The templates and kept databases of this sample, not those of tests that run beside this one."""
        rows = self.query("SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database")
        root = json.dumps(str(self.pytester.path))
        return {name for name, note in rows if root in (note or "") or self.own in name}

    def query(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with psycopg.connect(**self.server.parameters, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def drop(self, name: str) -> None:
        if self.query(f"SELECT datistemplate FROM pg_database WHERE datname = '{name}'") == [(True,)]:
            self.query(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        self.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def status_line(result: pytest.RunResult) -> str:
    """The line that says what the run uses."""
    [line] = [line for line in result.outlines if line.startswith("skinspire-db: ")][:1]
    return line
