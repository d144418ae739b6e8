"""Blocks in threads, asyncio tasks and forked processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Project
from service_app import POOL, Oops, add, app, checked_out, names, service  # noqa: F401
from sqlalchemy import text

from skinspire_db.clinic.models import Hospital
from skinspire_db.database_service import (
    get_db_engine,
    get_db_session,
    use_nested_transactions,
)
from skinspire_db.errors import ConnectionFailed, UsageError
from skinspire_db.service import engines, ownership


def test_32_threads_on_a_pool_of_five(app: Project) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            with get_db_session(user=f"thread {number}") as session:
                add(session, f"{number}/{turn}")
                with get_db_session() as inner:
                    assert inner is session

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert app.query("SELECT count(*), count(*) FILTER (WHERE 'thread ' || split_part(substr(name, 3), '/', 1) = created_by)"
                     " FROM hospitals WHERE name LIKE 't:%'") == [(320, 320)]  # fmt: skip
    assert checked_out() == 0


def test_200_tasks_on_a_pool_of_five(app: Project) -> None:
    async def work(number: int) -> None:
        async with get_db_session(user=f"task {number}") as session:
            add(session, f"{number}")
            await asyncio.sleep(0)
            async with get_db_session() as inner:
                assert inner is session
                await asyncio.sleep(0.001)
                add(session, f"{number}'")

    async def together() -> None:
        await asyncio.gather(*(work(number) for number in range(200)))

    asyncio.run(together())
    assert app.query("SELECT count(*), count(*) FILTER (WHERE 'task ' || rtrim(substr(name, 3), '''') = created_by)"
                     " FROM hospitals WHERE name LIKE 't:%'") == [(400, 400)]  # fmt: skip
    assert checked_out() == 0


def test_200_tasks_in_threads_and_without_an_await(app: Project) -> None:
    def write(number: int) -> None:
        with get_db_session(user=f"task {number}") as session:
            add(session, f"{number}")

    async def work(number: int) -> None:
        if number % 2:
            await asyncio.to_thread(write, number)
        else:
            write(number)

    async def together() -> None:
        await asyncio.gather(*(work(number) for number in range(200)))

    asyncio.run(together())
    assert app.query("SELECT count(*) FROM hospitals WHERE 't:' || substr(created_by, 6) = name") == [(200,)]


def test_a_task_started_inside_a_block_has_a_unit_of_its_own(app: Project) -> None:
    async def child() -> None:
        with get_db_session() as session:
            add(session, "child")

    async def parent() -> None:
        async with get_db_session() as session:
            add(session, "parent")
            await asyncio.create_task(child())
            await asyncio.to_thread(lambda: asyncio.run(child()))
            raise Oops

    with pytest.raises(Oops):
        asyncio.run(parent())
    assert names(app) == ["t:child", "t:child"]


def test_waiting_in_a_coroutine_for_tasks_of_the_same_loop_is_refused(app: Project) -> None:
    async def hold(ready: asyncio.Semaphore, go: asyncio.Event) -> None:
        with get_db_session() as session:
            session.execute(text("SELECT 1"))
            ready.release()
            await go.wait()

    async def main() -> None:
        ready, go = asyncio.Semaphore(0), asyncio.Event()
        holders = [asyncio.create_task(hold(ready, go)) for _ in range(5)]
        for _ in holders:
            await ready.acquire()
        with pytest.raises(UsageError, match="would stop it"), get_db_session():
            pass
        go.set()
        await asyncio.gather(*holders)
        with get_db_session() as session:
            add(session, "after")

    asyncio.run(main())
    assert names(app) == ["t:after"]


def test_the_choice_of_savepoints_is_each_threads_own(app: Project) -> None:
    use_nested_transactions(True)
    seen: list[bool] = []

    def other(choice: bool | None) -> None:
        if choice is not None:
            use_nested_transactions(choice)
        seen.append(ownership.nested_transactions())

    for choice in (None, False):
        thread = threading.Thread(target=other, args=(choice,))
        thread.start()
        thread.join()
    assert seen == [True, False] and ownership.nested_transactions()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_use(app: Project) -> None:
    """A pre-fork web server: the child gets connections of its own, the parent keeps its."""
    engine = get_db_engine()
    with get_db_session() as session:
        [backend] = session.execute(text("SELECT pg_backend_pid()")).one()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads, as servers do
            child = os.fork()
        if child == 0:
            try:
                with get_db_session(user="child") as own:
                    add(own, "child")
                    assert own.execute(text("SELECT pg_backend_pid()")).one() != (backend,)
                with engine.connect() as connection:
                    assert connection.scalar(text("SELECT 1")) == 1
                gc.collect()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert session.execute(text("SELECT pg_backend_pid()")).one() == (backend,)
        add(session, "parent")
    assert names(app) == ["t:child", "t:parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("how", ["falls through", "raises", "commits"])
def test_a_child_leaves_its_parents_block(app: Project, how: str) -> None:
    block: Any = get_db_session(user="parent")
    with block as session:
        add(session, "before")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(2)
            try:
                with contextlib.ExitStack() as stack:
                    stack.push(block.__exit__)
                    if how == "raises":
                        raise SystemExit
                    if how == "commits":
                        session.commit()
            finally:
                gc.collect()
                os._exit(0)
        os.waitpid(child, 0)
        assert names(app) == [], "nothing is committed by the child"
        add(session, "after")
    found = app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")
    assert found == [("t:after", "parent"), ("t:before", "parent")]


@pytest.mark.slow
def test_tasks_and_threads_that_share_a_pool(app: Project) -> None:
    """A thread may take the connection that a task has just seen free."""
    stop = threading.Event()

    def thread() -> None:
        while not stop.is_set():
            with get_db_session() as session:
                session.execute(text("SELECT 1"))

    async def task(number: int) -> None:
        for _ in range(3):
            async with get_db_session(user=f"task {number}") as session:
                add(session, f"{number}")
                await asyncio.sleep(0)

    async def together() -> None:
        await asyncio.gather(*(task(number) for number in range(60)))

    threads = [threading.Thread(target=thread) for _ in range(8)]
    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for each in threads:
            each.start()
        asyncio.run(together())
    finally:
        sys.setswitchinterval(former)
        stop.set()
        for each in threads:
            each.join(20)
    assert len(names(app)) == 180 and engines.service("dev").units_in_loops.total() == 0


def test_waiting_for_ever_in_a_task_is_refused_in_words(app: Project, service: Callable[[Project], Project]) -> None:
    (app.root / "pyproject.toml").write_text(POOL.replace("pool_timeout = 20", "pool_timeout = 0.2"))
    service(app)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await asyncio.create_task(hold(stack))
            with pytest.raises(ConnectionFailed, match=r"no connection to dev came free in 0.2 s"):
                await asyncio.create_task(hold(stack))

    async def hold(stack: contextlib.AsyncExitStack) -> None:
        await stack.enter_async_context(get_db_session())

    asyncio.run(main())
    assert checked_out() == 0


def test_blocks_that_are_closed_elsewhere_do_not_pile_up(app: Project) -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        for _ in range(50):
            block = get_db_session()
            block.__enter__()
            elsewhere.submit(block.__exit__, None, None, None).result()
    assert ownership.innermost() is None


def test_a_commit_by_hand_in_a_coroutine(app: Project) -> None:
    """Its connection is held through the whole block, and is in no transaction after the commit."""

    async def work() -> None:
        async with get_db_session() as session:
            add(session, "a")
            with pytest.warns(UserWarning, match="is not needed"):
                session.commit()
            session.add(Hospital(name="t:b"))

    asyncio.run(work())
    assert names(app) == ["t:a", "t:b"]
