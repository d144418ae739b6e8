"""Hospitals in asyncio tasks, in each of the plugin's modes."""

import asyncio
import uuid
import pytest
from shop import Clinic, Line, Order
from skinspire_db.database_service import ALL_HOSPITALS, get_async_session, get_db_session, set_current_hospital
from skinspire_db.errors import HospitalNotSet, HospitalRefused
from sqlalchemy import func, select, text
from sqlalchemy.orm import selectinload

KEYS = [uuid.UUID(int=number, version=4) for number in (1, 2, 3)]  # the third is not active


def fill():
    with get_db_session(hospital=ALL_HOSPITALS, reason="the tests' rows") as session:
        session.add_all(Clinic(id=key, is_active=key != KEYS[2]) for key in KEYS)
        session.flush()
        for key in KEYS * 2:
            session.add(Order(owner=key, item=str(key), lines=[Line(hospital_id=key), Line()]))


async def rows_of(hospital):
    set_current_hospital(hospital)
    async with get_async_session(user="me") as session:
        assert (await session.scalar(text("SELECT current_user"))).endswith("_app")
        seen = set(await session.scalars(text("SELECT hospital_id FROM orders")))
        await asyncio.sleep(0)
        assert await session.scalar(select(func.count()).select_from(Order)) == 2
        async with get_async_session() as inner:
            orders = (await inner.scalars(select(Order).options(selectinload(Order.lines)))).all()
            assert {order.owner for order in orders} == seen
            assert sorted(str(line.hospital_id) for line in orders[0].lines) == sorted([str(hospital), "None"])
        with pytest.raises(HospitalRefused):
            async with get_async_session(hospital=ALL_HOSPITALS, reason="no"):
                pass
        await session.rollback()
        assert set(await session.scalars(text("SELECT hospital_id FROM orders"))) == seen
    return seen


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")]
)
def test_tasks(db, mode):
    fill()

    async def work():
        with pytest.raises(HospitalNotSet):
            async with get_async_session():
                pass
        for hospital, words in ((KEYS[2], "is not active"), (uuid.uuid4(), "does not exist")):
            with pytest.raises(HospitalRefused, match=words):
                async with get_async_session(hospital=hospital) as session:
                    await session.scalars(select(Order))
        wanted = KEYS[:2] * (1 if mode == "session" else 20)
        if mode == "session":  # one connection
            seen = [await asyncio.create_task(rows_of(hospital)) for hospital in wanted]
        else:
            seen = await asyncio.gather(*(rows_of(hospital) for hospital in wanted))
        assert seen == [{hospital} for hospital in wanted]
        async with get_async_session(hospital=ALL_HOSPITALS, reason="a test", read_only=True) as session:
            return set(await session.scalars(select(Order.owner)))

    assert asyncio.run(work()) == set(KEYS)
