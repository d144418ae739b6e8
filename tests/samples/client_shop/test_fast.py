import pytest
from fastapi import FastAPI, Depends
from fastapi.testclient import TestClient
from sqlalchemy import select, func
from sqlalchemy.orm import Session
from shop import Product
from skinspire_db.database_service import get_db_engine, get_db_session, get_async_session

api = FastAPI()


def own():
    with Session(get_db_engine()) as s:
        yield s


@api.post("/own/{name}")
def post_own(name: str, s: Session = Depends(own)):
    s.add(Product(name=name))
    s.commit()
    return s.scalar(select(func.count()).select_from(Product))


@api.post("/block/{name}")
def post_block(name: str):
    with get_db_session() as s:
        s.add(Product(name=name))
        s.flush()
        return s.scalar(select(func.count()).select_from(Product))


@api.post("/async/{name}")
async def post_async(name: str):
    async with get_async_session() as s:
        s.add(Product(name=name))
        await s.flush()
        return await s.scalar(select(func.count()).select_from(Product))


@api.post("/rename/{a}/{b}")
def rename(a: str, b: str, s: Session = Depends(own)):
    s.scalars(select(Product).where(Product.name == a)).one().name = b
    s.commit()


@pytest.mark.parametrize("kind", ["own", "block", "async"])
@pytest.mark.parametrize("mode", [pytest.param(m, marks=pytest.mark.db(m)) for m in ("session", "database")])
def test_api(db, mode, kind):
    with TestClient(api) as client:
        mine = Product(name="mine")
        db.session.add(mine)
        if mode == "database":
            db.session.commit()
        assert client.post(f"/{kind}/a").json() == 2
        assert db.session.scalar(select(func.count()).select_from(Product)) == 2
        if mode == "database":
            db.session.rollback()
        assert client.post("/rename/mine/yours").status_code == 200
        if mode == "database":
            db.session.expire_all()
        assert mine.name == "yours"
        assert client.post(f"/{kind}/b").json() == 3
