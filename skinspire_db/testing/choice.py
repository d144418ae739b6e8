"""Which tests get a database, of which kind, and what surrounds a test that has one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from skinspire_db.errors import SkinspireError, UsageError
from skinspire_db.service import ownership, test_override
from skinspire_db.testing.run import Run

if TYPE_CHECKING:
    from skinspire_db.testing.modes import ClinicDatabase, Mode

FIXTURES = "skinspire_db.testing.fixtures"  # the module of this plugin's own


MODES = ("session", "database", "clone")


OF_FIXTURE: dict[str, Mode] = {"db_session": "session", "db_database": "database", "db_clone": "clone"}


ANY_MODE = {
    "db", "make_doctor", "make_hospital", "make_patient", "make_staff", "make_user", "assert_no_changes",
    "assert_only_changed", "assert_valid",
}  # fmt: skip


SERVER_ONLY = {"db_empty", "db_server"}


RUN = pytest.StashKey[Run]()


KEEP = pytest.StashKey[str]()


@contextlib.contextmanager
def database_of(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a test its database, if it has one, before all other fixtures, and take it away after them."""
    run, item = request.config.stash[RUN], request.node
    with told():
        mode = _mode(item)
    if mode is None:
        yield
        return
    with told():
        database = run.use(mode, item, request)
    with _surroundings(database):
        yield
    test_override.serve(None)
    run.current = None
    keep = item.stash.get(KEEP, None)
    if keep is not None:
        del item.stash[KEEP]  # it may run again
    with told():
        database.finish(keep)


def _mode(item: Any) -> Mode | None:
    """What kind of database a test has, by its fixtures, its marker, the setting. Raises UsageError for two kinds at once."""
    names = _ours(item)
    asked = {OF_FIXTURE[name] for name in names & OF_FIXTURE.keys()}
    if (marker := item.get_closest_marker("db")) is not None:
        given = [*marker.args, *marker.kwargs.items()]
        mode = marker.kwargs["mode"] if marker.kwargs.keys() == {"mode"} else marker.args[0] if marker.args else "session"
        if len(given) > 1 or mode not in MODES or marker.kwargs.keys() - {"mode"}:
            said = ", ".join(repr(each) for each in given)
            raise UsageError(f"@pytest.mark.db({said}) is none of {', '.join(MODES)}", remedy='@pytest.mark.db("session")')
        asked.add(cast("Mode", mode))
    if len(asked) > 1:
        raise UsageError(f"a test has one kind of database, not {' and '.join(sorted(asked))}", remedy="choose one")
    if asked:
        return asked.pop()
    setting: Mode | None = item.config.getini("db_mode") or None
    return setting or ("session" if names & ANY_MODE else None)


def needs(item: Any) -> bool:
    with contextlib.suppress(UsageError):  # the test tells
        return _mode(item) is not None or bool(SERVER_ONLY & _ours(item))
    return True


def _ours(item: Any) -> set[str]:
    """The fixtures of this plugin that a test uses; a project's own of the same name are its own."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    names = (name for name in getattr(item, "fixturenames", ()) if name in known)
    return {name for name in names if known[name][-1].func.__module__ == FIXTURES}


@contextlib.contextmanager
def told() -> Iterator[None]:
    """An error that a user can mend, as one line."""
    try:
        yield
    except SkinspireError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@contextlib.contextmanager
def _surroundings(database: ClinicDatabase) -> Iterator[None]:
    """What processes that the test starts are told; what it chooses for get_db_session() is not the next test's choice."""
    name = database.environment.name
    told = {"SKINSPIRE_ENV": name, "TEST_DATABASE_URL": str(database.environment.url.value), test_override.MAY_REACH: name}
    before = {name: os.environ.get(name) for name in told}
    nested_transactions = ownership.nested_transactions_choice()
    os.environ |= told
    try:
        yield
    finally:
        for name, value in before.items():
            put_back(name, value)
        ownership.restore_nested_transactions(nested_transactions)
        ownership.set_innermost(None)


def put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
