import pytest
from shop import create_app, db as fdb, Product
from skinspire_db.database_service import get_db_engine


@pytest.fixture
def app():
    app = create_app()
    with app.app_context():
        assert Product.query.count() == 0  # reaches the database while it is made
    return app
