"""Scratch databases by themselves: their names, who drops them, and what a swap does not touch."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
from conftest import Project

from skinspire_db.config import environment
from skinspire_db.errors import OperationLocked
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, target_of

OPERATION = "db.mine"


@pytest.fixture
def dev(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """The project's dev, an empty database, for the library inside this process; what lies beside it is dropped."""
    for name, value in (project.env | {"SKINSPIRE_PROJECT": str(project.root)}).items():
        monkeypatch.setenv(name, value)
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    yield target_of(environment.resolve("dev"))
    for name in beside(project):
        project.execute(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")


def beside(project: Project) -> list[str]:
    rows = project.query("SELECT datname FROM pg_database ORDER BY 1", "postgres")
    return [name for (name,) in rows if name.startswith(f"{project.database}_")]


def called(target: Target, name: str) -> Target:
    return dataclasses.replace(target, parameters=target.parameters | {"dbname": name})


def sweep(target: Target) -> list[str]:
    with contextlib.closing(connections.maintenance(target, OPERATION)) as watch:
        return scratch.sweep(target, OPERATION, watch)


def test_names_are_never_longer_than_postgresql_keeps(dev: Target) -> None:
    for name in ("a", "a" * 63, "\u00e4" * 31):
        target = called(dev, name)
        for other in (scratch.new_name(target), scratch.former(target)):
            assert len(other.database.encode()) <= 63 and other.database != name
            assert other.parameters | {"dbname": name} == target.parameters
    assert scratch.former(called(dev, "a" * 62)).database != scratch.former(called(dev, "a" * 63)).database
    assert scratch.new_name(dev).database != scratch.new_name(dev).database


def test_a_scratch_database_ends_with_its_block(project: Project, dev: Target) -> None:
    with scratch.database(dev, OPERATION) as aside:
        assert beside(project) == [aside.database]
        assert project.query("SELECT current_database()", aside.database) == [(aside.database,)]
    assert beside(project) == []
    with pytest.raises(KeyboardInterrupt), scratch.database(dev, OPERATION):
        raise KeyboardInterrupt
    assert beside(project) == []


def test_a_sweep_takes_dead_ones_of_this_database_only(project: Project, dev: Target) -> None:
    dead = scratch.new_name(dev).database
    other = scratch.new_name(called(dev, f"{dev.database}_other")).database
    by_chance = f"{dev.database}_scratch_0123456789ab"
    marked = f"{scratch.new_name(dev).database}_kept"
    for name in (dead, other, by_chance, marked):
        project.execute(f'CREATE DATABASE "{name}"', "postgres")
    told: list[str] = []
    with scratch.database(dev, OPERATION, tell=told.append) as alive:
        assert told == [f"a scratch database of an operation that died was dropped: {dead}"]
        assert beside(project) == sorted([alive.database, other, by_chance, marked])
        assert sweep(dev) == []  # its process lives
    assert beside(project) == sorted([other, by_chance, marked])


def test_a_database_is_made_by_one_operation_at_a_time(dev: Target) -> None:
    new = called(dev, f"{dev.database}_new")
    with scratch.alone(new, OPERATION):
        with pytest.raises(OperationLocked, match="another operation is making"), scratch.alone(new, OPERATION):
            pass
        with scratch.alone(called(dev, f"{dev.database}_newer"), OPERATION):
            pass
    with scratch.alone(new, OPERATION):
        pass
