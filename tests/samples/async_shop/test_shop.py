import asyncio
import pytest
from shop import Product, add, add_by_own_session, count
from skinspire_db.database_service import (
    close_db_connections,
    get_async_engine,
    get_async_session,
    get_db_session,
    use_nested_transactions,
)
from skinspire_db.errors import SessionSpoiled, UsageError
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

both = pytest.mark.parametrize(
    "mode", [pytest.param(each, marks=pytest.mark.db(each)) for each in ("session", "database", "clone")]
)


def seen(db):
    return db.connection.execute("SELECT string_agg(name, ' ' ORDER BY name) FROM products").fetchone()[0]


@both
@pytest.mark.parametrize("time", [1, 2])
def test_blocks(db, mode, time):
    async def work():
        await add("a")
        assert await count() == 1
        assert await add_by_own_session("b") == db.name
        async with get_async_session() as outer:
            outer.add(Product(name="c"))
            await add("d")  # a part of the outer block
            assert await outer.scalar(select(func.count()).select_from(Product)) == 4
            assert await outer.scalar(text("SELECT current_setting('app.current_user', true)")) in ("", None)
        return await count()

    assert asyncio.run(work()) == 4
    assert seen(db) == "a b c d"


@both
def test_what_fails_leaves_nothing(db, mode):
    async def fail():
        async with get_async_session() as session:
            session.add(Product(name="lost"))
            await session.flush()
            raise ValueError

    async def caught():
        async with get_async_session() as session:
            session.add(Product(name="lost"))
            try:
                async with get_async_session():
                    raise ValueError
            except ValueError:
                pass

    async def statement():
        async with get_async_session() as session:
            session.add(Product(name="lost"))
            await session.flush()
            try:
                await session.execute(text("SELECT 1/0"))
            except DBAPIError:
                pass

    for work, error in ((fail, ValueError), (caught, SessionSpoiled), (statement, Exception)):
        with pytest.raises(error):
            asyncio.run(work())
    assert seen(db) is None


@both
def test_identity_and_read_only(db, mode):
    async def work():
        async with get_async_session(user="9876543210", hospital_id=7) as session:
            shown = "SELECT current_setting('app.current_user'), current_setting('app.current_hospital')"
            assert (await session.execute(text(shown))).one() == ("9876543210", "7")
        with pytest.raises(DBAPIError, match="read-only"):
            async with get_async_session(read_only=True) as session:
                await session.execute(text("DELETE FROM products"))

    asyncio.run(work())


@both
def test_savepoints(db, mode):
    async def work():
        use_nested_transactions(True)
        async with get_async_session() as session:
            session.add(Product(name="kept"))
            with pytest.raises(ValueError):
                async with get_async_session() as inner:
                    inner.add(Product(name="undone"))
                    await inner.flush()
                    raise ValueError

    asyncio.run(work())
    assert seen(db) == "kept"


@both
def test_the_two_kinds_do_not_mix(db, mode):
    async def work():
        async with get_async_session():
            with pytest.raises(UsageError, match="that is two transactions"), get_db_session():
                pass
        with get_db_session():
            with pytest.raises(UsageError, match="that is two transactions"):
                async with get_async_session():
                    pass

    asyncio.run(work())


def test_a_commit_inside_is_noticed(db_database):
    async def work():
        async with get_async_session() as session:
            session.add(Product(name="a"))
            await session.flush()
            await session.execute(text("COMMIT"))

    with pytest.raises(SessionSpoiled):
        asyncio.run(work())


def test_many_tasks_wait_for_a_connection_and_not_for_each_other(db_database):
    async def work():
        await asyncio.gather(*(add(f"{number:02}") for number in range(40)))
        assert await count() == 40
        assert get_async_engine().pool.checkedout() == 0

    asyncio.run(work())


def test_a_commit_by_hand_warns(db_database):
    async def work():
        async with get_async_session() as session:
            session.add(Product(name="a"))
            with pytest.warns(UserWarning, match="is not needed"):
                await session.commit()
            session.add(Product(name="a"))

    with pytest.raises(IntegrityError):
        asyncio.run(work())
    assert seen(db_database) == "a"
