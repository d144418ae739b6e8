from shop import Product
from sqlalchemy import select, func


def test_client(client, db_session):
    db_session.add(Product(name="mine"))
    assert client.post("/products", json={"name": "theirs"}).json == {"count": 2}
    assert db_session.scalar(select(func.count()).select_from(Product)) == 2


def test_again(client, db_database):
    assert client.post("/products", json={"name": "theirs"}).json == {"count": 1}
