"""Blocks inside blocks, on one transaction or on savepoints."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Project
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from service_app import Oops, add, app, checked_out, names, service  # noqa: F401
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError

from skinspire_db.clinic.models import Hospital
from skinspire_db.database_service import (
    get_db_session,
    use_nested_transactions,
)
from skinspire_db.errors import SessionSpoiled, UsageError


def test_an_inner_block_is_on_the_same_connection(app: Project) -> None:
    with get_db_session() as outer, get_db_session() as inner:
        assert inner is outer
        add(inner, "a")
        assert checked_out() == 1
        assert names(app) == []


def test_another_environment_is_another_unit_of_work(
    app: Project, service: Callable[[Project], Project], template: str
) -> None:
    other = app.env["TEST_DATABASE_URL"].rpartition("/")[2]
    app.execute(f'CREATE DATABASE "{other}" TEMPLATE {template}', "postgres")
    with pytest.raises(ValueError), get_db_session("dev") as dev:
        add(dev, "dev")
        with get_db_session("test") as test, get_db_session("dev") as again:
            add(test, "test")
            assert again is dev and test is not dev
        raise ValueError
    assert names(app) == []
    assert app.query("SELECT name FROM hospitals WHERE name LIKE 't:%'", other) == [("t:test",)]


@pytest.mark.parametrize("savepoints", [False, True])
def test_the_user_of_an_inner_block(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with get_db_session(user="one") as session:
        session.add(Hospital(name="t:1"))
        with get_db_session(user="two"):
            session.add(Hospital(name="t:2"))
            with get_db_session():
                session.add(Hospital(name="t:2b"))
        session.add(Hospital(name="t:1b"))
    found = app.query("SELECT name, created_by FROM hospitals WHERE name LIKE 't:%' ORDER BY 1")
    assert found == [("t:1", "one"), ("t:1b", "one"), ("t:2", "two"), ("t:2b", "two")]


@pytest.mark.parametrize("savepoints", [False, True])
def test_commit_and_rollback_of_an_inner_block_spare_the_outer_one(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with pytest.raises(ValueError), pytest.warns(UserWarning, match="not needed"), get_db_session() as session:
        add(session, "outer")
        with get_db_session() as inner:
            add(inner, "inner")
            inner.commit()
        assert names(app) == []
        raise ValueError
    assert names(app) == []

    def undo() -> None:
        with get_db_session() as session:
            add(session, "outer")
            with get_db_session() as inner:
                add(inner, "undone")
                inner.rollback()
                add(inner, "inner")
            add(session, "end")

    if savepoints:
        undo()
        assert names(app) == ["t:end", "t:inner", "t:outer"]
    else:
        with pytest.raises(SessionSpoiled):
            undo()
        assert names(app) == []


@pytest.mark.parametrize("savepoints", [False, True])
def test_a_read_only_block_inside_a_writing_one_is_refused(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with get_db_session() as session:
        add(session, "a")
        refused = pytest.raises(UsageError, match=r"read_only=True\) block cannot begin inside a block that writes")
        with refused as caught, get_db_session(read_only=True):
            pass
        assert "\n" not in str(caught.value) and "leave out read_only=True" in str(caught.value)
        add(session, "b")
    assert names(app) == ["t:a", "t:b"], "the refusal undoes nothing"
    with pytest.raises(UsageError, match="cannot begin inside"), get_db_session() as session:
        add(session, "c")
        with get_db_session(read_only=True):
            pass
    assert names(app) == ["t:a", "t:b"], "an error that was let through undoes the outer block"


@pytest.mark.parametrize("savepoints", [False, True])
def test_a_block_inside_a_read_only_one_is_part_of_it(app: Project, savepoints: bool) -> None:
    use_nested_transactions(savepoints)
    with get_db_session(read_only=True) as session, get_db_session(user="me", read_only=True) as inner:
        assert inner is session
        assert inner.scalar(text("SELECT current_setting('app.current_user')")) == "me"
    with pytest.raises(InternalError, match="read-only"), get_db_session(read_only=True), get_db_session() as inner:
        add(inner, "refused")
    with get_db_session("dev", read_only=True), get_db_session("dev", read_only=True), get_db_session("dev") as inner:
        assert inner.scalar(select(func.count()).where(Hospital.name == "t:refused")) == 0


def test_blocks_that_end_in_the_wrong_order_keep_nothing(app: Project) -> None:
    outer, inner = get_db_session(), get_db_session()
    add(outer.__enter__(), "a")
    inner.__enter__()
    with pytest.raises(UsageError, match="reverse order"):
        outer.__exit__(None, None, None)
    with pytest.raises(UsageError, match="reverse order"):
        inner.__exit__(None, None, None)
    assert names(app) == [] and checked_out() == 0
    with get_db_session() as session:
        add(session, "b")
    assert names(app) == ["t:b"]


Tree = tuple[bool, str, list[Any]]  # is the block's error caught by the one around it; does it fail, and how; what is inside
LEAVES = st.sampled_from(["", "raise", "constraint"])
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.tuples(st.booleans(), LEAVES, st.just([])),
    lambda inner: st.tuples(st.booleans(), LEAVES, st.lists(inner, max_size=3)),
    max_leaves=8,
)


def play(tree: Tree, label: str) -> None:
    """Run a tree of blocks for real. Each writes a row before and after what is inside it."""
    caught, failure, inside = tree
    try:
        with get_db_session() as session:
            add(session, f"{label}<")
            for number, each in enumerate(inside):
                play(each, f"{label}.{number}")
            add(session, f"{label}>")
            if failure == "raise":
                raise Oops
            if failure == "constraint":
                session.execute(text("INSERT INTO hospitals (name) VALUES (NULL)"))
    except (Oops, IntegrityError):
        if not caught:
            raise


def model(tree: Tree, label: str, savepoints: bool) -> tuple[list[str], bool, bool]:
    """The rules: the rows that stay, whether the block raises out of itself, and whether it has spoiled those around it."""
    caught, failure, inside = tree
    rows, failed, spoiled = [f"t:{label}<"], False, False
    for number, each in enumerate(inside):
        inner, raised, spoils = model(each, f"{label}.{number}", savepoints)
        rows += inner
        spoiled = spoiled or spoils
        if raised:
            failed = True
            break
    else:
        rows.append(f"t:{label}>")
    failed = failed or failure != ""
    if failed:
        rows = []
    return rows, failed and not caught, not savepoints and (spoiled or failed)


@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("savepoints", [False, True])
def test_random_nestings_against_the_rules(app: Project, savepoints: bool, count: int) -> None:
    use_nested_transactions(savepoints)

    @examples(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inside=st.lists(TREES, max_size=3))
    def check(inside: list[Tree]) -> None:
        app.execute("DELETE FROM hospitals WHERE name LIKE 't:%'")
        rows, raised, spoiled = model((False, "", inside), "o", savepoints)
        expected: list[str] = rows
        outcome: type[BaseException] | None = None
        try:
            play((False, "", inside), "o")
        except (Oops, IntegrityError, DBAPIError, SessionSpoiled) as error:
            outcome = type(error)
        if raised or spoiled:
            expected = []
            assert outcome is not None
        else:
            assert outcome is None
        assert names(app) == sorted(expected)
        assert checked_out() == 0

    check()


@pytest.mark.parametrize("savepoints", [False, True])
def test_three_deep(app: Project, savepoints: bool) -> None:
    """The block at one depth fails, the code around the block at another catches."""
    use_nested_transactions(savepoints)
    everything = ["t:r.0.0<", "t:r.0.0>", "t:r.0<", "t:r.0>", "t:r<", "t:r>"]
    for failing, catching in itertools.product([0, 1, 2, None], repeat=2):
        app.execute("DELETE FROM hospitals WHERE name LIKE 't:%'")
        work: Tree = (catching == 2, "raise" if failing == 2 else "", [])
        for depth in (1, 0):
            work = (catching == depth, "raise" if failing == depth else "", [work])
        try:
            play(work, "r")
            outcome = None
        except (Oops, SessionSpoiled) as error:
            outcome = type(error)
        if failing is None:
            expected: tuple[list[str], Any] = (everything, None)
        elif catching is None or catching > failing:
            expected = ([], Oops)
        elif catching == 0:
            expected = ([], None)
        elif savepoints:
            expected = ([name for name in everything if name.count(".") < catching], None)
        else:
            expected = ([], SessionSpoiled)
        assert (names(app), outcome) == expected, (failing, catching)
