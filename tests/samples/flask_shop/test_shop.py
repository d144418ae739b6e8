import pytest
from shop import Product, create_app, db as flask_db
from skinspire_db.database_service import get_db_session
from sqlalchemy import func, select


@pytest.fixture
def app():
    return create_app()


@pytest.fixture(autouse=True)
def context(app):
    with app.app_context():
        yield


@pytest.mark.parametrize("time", [1, 2])
def test_an_endpoint(app, db_session, time):
    db_session.add(Product(name="mine"))
    assert app.test_client().post("/products", json={"name": "theirs"}).json == {"count": 2}
    assert db_session.scalar(select(func.count()).select_from(Product)) == 2


@pytest.mark.parametrize("time", [1, 2])
def test_real_commits(app, db_database, time):
    assert app.test_client().post("/products", json={"name": "theirs"}).json == {"count": 1}
    with get_db_session() as session:
        assert session.scalar(select(Product.name)) == "theirs"
    assert Product.query.count() == 1
    flask_db.session.remove()


def test_nothing_of_the_core_is_there(db_session):
    assert db_session.scalar(select(func.to_regclass("patients"))) is None
