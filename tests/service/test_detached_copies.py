"""Copies of entities that outlive their session."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import sqlalchemy
from conftest import Project
from service_app import add, app, names, service  # noqa: F401
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from skinspire_db.clinic.models import Hospital, RoleMaster, User, UserRoleMapping
from skinspire_db.database_service import (
    get_db_session,
    get_detached_copy,
)
from skinspire_db.errors import NotCopied, UsageError


def test_a_copy_outlives_its_session(app: Project) -> None:
    with get_db_session() as session:
        user = session.scalars(select(User).join(UserRoleMapping).order_by(User.user_id)).first()
        assert user is not None
        columns = {key: getattr(user, key) for key in sqlalchemy.inspect(User).column_attrs.keys()}  # noqa: SIM118
        copy = get_detached_copy(user)
        assert copy is not user and sqlalchemy.inspect(copy).session is None
        assert sqlalchemy.inspect(user).session is session and all(role in session for role in user.roles)
        assert not session.dirty and not session.new
        roles = [role.role_name for role in user.roles]
    assert {key: getattr(copy, key) for key in columns} == columns
    assert [role.role_name for role in copy.roles] == roles and isinstance(copy, User)
    assert all(type(role) is RoleMaster for role in copy.roles)
    for name in ("sessions", "logins", "role_mappings"):
        with pytest.raises(NotCopied, match=f"User.{name} was not copied"):
            getattr(copy, name)
    again = pickle.loads(pickle.dumps(copy))
    assert again.user_id == copy.user_id and [role.role_name for role in again.roles] == roles
    with pytest.raises(NotCopied):
        _ = again.sessions


def test_a_copy_of_a_list_with_circles(app: Project) -> None:
    with get_db_session() as session:
        users = list(session.scalars(select(User).join(UserRoleMapping).order_by(User.user_id).limit(3)).unique())
        before = [list(user.role_mappings) for user in users]
        copies = get_detached_copy(users, include=("role_mappings", "user", "role"))
        assert [list(user.role_mappings) for user in users] == before
    for copy in copies:
        for mapping in copy.role_mappings:
            assert mapping.user is copy
            assert mapping.role.role_name
    shared = {id(m.role) for c in copies for m in c.role_mappings}
    assert len(shared) == len({m.role_id for c in copies for m in c.role_mappings}), "one copy of each role"


def test_a_copy_of_an_expired_and_of_a_new_entity(app: Project) -> None:
    with get_db_session() as session:
        hospital = Hospital(name="t:new")
        session.add(hospital)
        session.flush()
        session.expire(hospital)
        copy = get_detached_copy(hospital)
    assert copy.name == "t:new" and copy.created_by == "skinspire"
    assert get_detached_copy(None) is None and get_detached_copy([]) == []
    pending = get_detached_copy(Hospital(name="t:pending"), include=())
    with get_db_session() as session:
        session.add(pending)
    assert names(app) == ["t:new", "t:pending"], "a copy of what was never stored can be"


def test_a_copy_shares_nothing_and_can_come_back(app: Project) -> None:
    with get_db_session() as session:
        user = session.scalars(select(User)).first()
        assert user is not None
        user.ui_preferences = {"theme": {"colour": "green"}}
        session.flush()
        copy = get_detached_copy(user)
        assert copy.ui_preferences
        copy.ui_preferences["theme"]["colour"] = "red"
        assert user.ui_preferences == {"theme": {"colour": "green"}} and not session.dirty
    with get_db_session() as session:
        merged = session.merge(copy)
        assert (
            merged in session
            and merged.sessions == []
            and merged.ui_preferences
            and merged.ui_preferences["theme"]["colour"] == "red"
        )


def test_a_copy_of_a_long_chain(app: Project) -> None:
    """Longer than Python's stack is deep."""

    class Base(DeclarativeBase):
        pass

    class Node(Base):
        __tablename__ = "nodes"
        key: Mapped[int] = mapped_column(primary_key=True)
        next_key: Mapped[int | None] = mapped_column(ForeignKey("nodes.key"))
        next: Mapped[Node | None] = relationship(remote_side=[key])

    Node.__annotations__["next"] = Mapped[Node | None]
    app.execute("CREATE TABLE nodes (key int PRIMARY KEY, next_key int REFERENCES nodes)")
    app.execute("INSERT INTO nodes SELECT n, nullif(n, 1) - 1 FROM generate_series(1, 1500) AS n")
    with get_db_session() as session:
        nodes = list(session.scalars(select(Node)))
        copy = get_detached_copy(nodes[-1], include=("next",))
    length = 0
    node: Node | None = copy
    while node is not None:
        node, length = node.next, length + 1
    assert length == 1500


@pytest.mark.parametrize(
    ("what", "include", "says"),
    [
        ("text", ("roles",), "str is no entity"),
        (User, ("roles",), "is no entity"),
        (None, ("rolls",), "'rolls' is no relationship of User"),
    ],
)
def test_what_cannot_be_copied(app: Project, what: Any, include: tuple[str, ...], says: str) -> None:
    with get_db_session() as session:
        entity = what or session.scalars(select(User)).first()
        with pytest.raises(UsageError, match=says):
            get_detached_copy(entity, include=include)
