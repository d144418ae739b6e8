"""What the tests of database_service share: an application in this process, on a database of its own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Project
from sqlalchemy import QueuePool

from skinspire_db.clinic.models import Hospital
from skinspire_db.config import project as settings
from skinspire_db.database_service import close_db_connections, get_db_engine
from skinspire_db.service import ownership, test_override, unit_of_work

POOL = "[tool.skinspire_db.environments.dev]\npool_size = 5\npool_overflow = 0\npool_timeout = 20\n"


def checked_out() -> int:
    """How many connections the application's pool has lent."""
    pool = get_db_engine().pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Project], Project]]:
    """Point this process's database_service at a project."""

    def use(project: Project) -> Project:
        for name, value in ({"SKINSPIRE_PROJECT": str(project.root)} | project.env).items():
            monkeypatch.setenv(name, value)
        settings._tool_table.cache_clear()
        settings._dotenv.cache_clear()
        close_db_connections()
        return project

    monkeypatch.delenv(test_override.MAY_REACH, raising=False)
    monkeypatch.setattr(test_override, "guarding", False)  # these tests are of the door itself
    unit_of_work._warned.clear()
    yield use
    gc.collect()
    ownership.restore_nested_transactions((False, None))
    close_db_connections()
    settings._tool_table.cache_clear()


@pytest.fixture
def app(clinic: Project, service: Callable[[Project], Project]) -> Project:
    """A clinic whose dev environment is this process's, with a pool of five."""
    (clinic.root / "pyproject.toml").write_text(POOL)
    return service(clinic)


def names(clinic: Project) -> list[str]:
    """The hospitals that the tests made, read back from another connection."""
    return [name for (name,) in clinic.query("SELECT name FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")]


def add(session: Any, name: str) -> None:
    session.add(Hospital(name=f"t:{name}"))
    session.flush()


class Oops(Exception):
    """What a block raises in a test."""
