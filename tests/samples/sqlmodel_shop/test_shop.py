import pytest
from shop import Product, add, names


@pytest.mark.parametrize("time", [1, 2])
def test_both_kinds_of_session(db_session, time):
    db_session.add(Product(name="mine"))
    assert add("theirs") == 2
    assert names() == ["mine", "theirs"]
    assert db_session.exec.__self__ is db_session, "the test's session is SQLModel's too"


@pytest.mark.parametrize("time", [1, 2])
def test_real_commits(db_database, time):
    assert add("theirs") == 1 and names() == ["theirs"]
