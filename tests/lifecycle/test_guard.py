"""The stamp, the guard and the operation lock by themselves: which database is let pass, and who waits for whom."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import environment
from skinspire_db.errors import GuardRefused, OperationLocked
from skinspire_db.lifecycle import guard, lock, stamp
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, target_of

DECLARED = """
[tool.skinspire_db.environments.dev]
operation_wait = {wait}

[tool.skinspire_db.environments.live]
extends = "prod"
sslmode = "prefer"
operation_wait = {wait}
"""
Connection = psycopg.Connection[Any]
WAITING = """
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
Opener = Callable[..., Connection]


@pytest.fixture
def project(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Project:
    """A project whose dev and live, which is protected, are one empty database, for the library inside this process."""
    project = make_project(DECLARED.format(wait=getattr(request, "param", 0.1)))
    project.env["LIVE_DATABASE_URL"] = project.env["DEV_DATABASE_URL"]
    for name, value in (project.env | {"SKINSPIRE_PROJECT": str(project.root)}).items():
        monkeypatch.setenv(name, value)
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    return project


@pytest.fixture
def opened(project: Project) -> Iterator[Opener]:
    """Opens connections of operations, in a transaction; they are closed at the end."""
    made: list[Connection] = []

    def opener(target: Target, operation: str = "db.mine") -> Connection:
        connection = connections.connect(target, operation)
        made.append(connection)
        connections.begin(connection, target.policy)
        return connection

    yield opener
    for connection in made:
        connection.close()


def target(name: str) -> Target:
    return target_of(environment.resolve(name))


def stamped(opened: Opener, name: str) -> None:
    connection = opened(target(name))
    stamp.write(connection, name)
    connection.commit()


def test_a_database_without_a_stamp(project: Project, opened: Opener) -> None:
    dev = target("dev")
    assert stamp.identify(opened(dev), dev) is False  # it is empty, and belongs to no environment
    project.execute("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql RETURN 1")
    with pytest.raises(GuardRefused, match="holds 1 object and no stamp") as refused:
        stamp.identify(opened(dev), dev)
    assert f"invoke env.stamp --env=dev --confirm={project.database}" in str(refused.value.remedy)


def test_the_stamp_of_another_environment(project: Project, opened: Opener) -> None:
    dev, live = target("dev"), target("live")
    stamped(opened, "dev")
    with pytest.raises(GuardRefused, match="is stamped dev, not live"):
        stamp.identify(opened(live), live)
    before = project.query("SELECT identity FROM skinspire_tools.stamp")
    stamped(opened, "dev")
    assert project.query("SELECT identity FROM skinspire_tools.stamp") == before
    stamped(opened, "live")  # what is not protected is taken over, and gets another identity
    assert project.query("SELECT identity FROM skinspire_tools.stamp") != before
    with pytest.raises(GuardRefused, match="is live's, which is protected: it is not made dev's") as refused:
        stamp.write(opened(dev), "dev")
    assert "env.unstamp" not in str(refused.value.remedy)
    assert project.query("SELECT environment FROM skinspire_tools.stamp") == [("live",)]


@pytest.mark.parametrize(
    ("name", "confirm", "refused"),
    [
        ("dev", None, ""),
        ("dev", "right", ""),
        ("dev", "wrong", "--confirm=wrong does not name it"),
        ("live", None, "live is protected"),
        ("live", "right", ""),
        ("live", "wrong", "--confirm=wrong does not name it"),
    ],
)
def test_the_confirmation(project: Project, name: str, confirm: str | None, refused: str) -> None:
    given = project.database if confirm == "right" else confirm
    if not refused:
        guard.require_confirmation("db.reset", "empty {}", target(name), given)
        return
    with pytest.raises(GuardRefused) as raised:
        guard.require_confirmation("db.reset", "empty {}", target(name), given)
    assert raised.value.message.startswith(f"db.reset would empty {project.database} on ") and refused in raised.value.message
    assert raised.value.remedy == f"invoke db.reset --env={name} --confirm={project.database}"


def test_what_holds_nothing_needs_no_confirmation(project: Project, opened: Opener) -> None:
    live = target("live")
    empty = opened(live)
    assert guard.admit(empty, live, "db.reset", "empty {}", None) is False
    with pytest.raises(GuardRefused, match="--confirm=wrong does not name it"):
        guard.admit(empty, live, "db.reset", "empty {}", "wrong")
    empty.close()
    stamped(opened, "live")
    project.execute("CREATE VIEW public.v AS SELECT 1")  # in a protected environment every object counts, not only tables
    with pytest.raises(GuardRefused, match="live is protected"):
        guard.admit(opened(live), live, "db.reset", "empty {}", None, hold=False)
    confirmed = opened(live)
    assert guard.admit(confirmed, live, "db.reset", "empty {}", project.database, hold=False) is True
    assert guard.admit(confirmed, live, "db.verify", "", None, hold=False) is True


def test_a_refused_database_is_not_waited_for(project: Project, opened: Opener) -> None:
    stamped(opened, "live")
    dev, holder = target("dev"), opened(target("live"), "db.seed")
    assert lock.try_take(holder)
    with pytest.raises(GuardRefused, match="is stamped live, not dev"):
        guard.admit(opened(dev), dev, "db.reset", "empty {}", None)


def test_the_lock_is_one_for_all_operations_and_names_its_holder(project: Project, opened: Opener) -> None:
    dev = target("dev")
    holder, other = opened(dev, "db.seed"), opened(dev, "db.reset")
    assert lock.holder(other) == "" and lock.try_take(holder)
    assert not lock.try_take(other)
    who = f"skinspire-db db.seed (pid {holder.info.backend_pid}, for "
    assert lock.holder(other).startswith(who)
    with pytest.raises(OperationLocked, match=r"waited 0\.1 s") as refused:
        lock.take(other, dev)
    assert who in refused.value.message and refused.value.remedy == "run it again when that has ended"
    assert other.execute("SELECT 1").fetchone() == (1,)  # its transaction can go on
    holder.rollback()
    lock.take(other, dev)
    assert other.execute("SHOW lock_timeout").fetchone() == ("5s",)  # tables are waited for as long as the policy says
    assert not lock.try_take(holder)


@pytest.mark.parametrize("project", [60], indirect=True)
def test_the_lock_waits_until_its_holder_has_ended(project: Project, opened: Opener) -> None:
    dev = target("dev")
    holder, other = opened(dev, "db.seed"), opened(dev, "db.reset")
    assert lock.try_take(holder)
    waiting = threading.Thread(target=lock.take, args=(other, dev))
    waiting.start()
    try:
        deadline = time.monotonic() + 30
        while not project.query(WAITING):
            assert time.monotonic() < deadline and waiting.is_alive()
            time.sleep(0.02)
    finally:
        holder.rollback()
        waiting.join(60)
    assert not waiting.is_alive() and lock.holder(holder).startswith("skinspire-db db.reset (pid ")


def test_who_holds_tables_is_named(project: Project, opened: Opener) -> None:
    project.execute("CREATE TABLE public.visits (x int)")
    dev = target("dev")
    holder, waiter = opened(dev, "db.seed"), opened(dev, "db.reset")
    holder.execute("LOCK TABLE public.visits IN ACCESS SHARE MODE")
    named = lock.blockers(dev, "db.reset", waiter.info.backend_pid)
    assert named.startswith(f"pid {holder.info.backend_pid} (skinspire-db db.seed, for ") and "visits" in named
    assert lock.blockers(dev, "db.reset", holder.info.backend_pid) == "a transaction that has ended since"
