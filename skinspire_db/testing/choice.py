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

FIXTURES = "skinspire_db.testing.fixtures"  # the module with this plugin's own fixtures
MODES = ("session", "database", "clone")
OF_FIXTURE: dict[str, Mode] = {"db_session": "session", "db_database": "database", "db_clone": "clone"}
ANY_MODE = {
    "db", "make_doctor", "make_hospital", "make_patient", "make_staff", "make_user", "assert_no_changes",
    "assert_only_changed", "assert_valid",
}  # fmt: skip
SERVER_ONLY = {"db_empty", "db_module_rows", "db_run_rows", "db_server"}
FIRST = "_skinspire_db"  # the fixture that gives a test its database
RUN = pytest.StashKey[Run]()
KEEP = pytest.StashKey[str]()


@contextlib.contextmanager
def database_of(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a test its database, if it has one, before all other fixtures, and take it away after them.

    Raises:
        pytest.fail.Exception: one line, for a mode that cannot be used, a database that cannot be made, or one that the test
            has left in a state that the plugin cannot accept.
    """
    run, item = request.config.stash[RUN], request.node
    with errors_as_one_line():
        mode = _mode(item)
    if mode is None:
        yield
        return
    with errors_as_one_line():
        database = run.use(mode, item, request)
    with _surroundings(database):
        yield
    test_override.serve(None)
    run.current = None
    keep = item.stash.get(KEEP, None)
    if keep is not None:
        del item.stash[KEEP]  # it may run again
    with errors_as_one_line():
        database.finish(keep)


def _mode(item: Any) -> Mode | None:
    """The mode of a test's database, by its fixtures, its marker or the setting; None for a test without one.

    Raises:
        UsageError: for an unknown mode, and for two modes at once.
    """
    names = _plugin_fixtures(item)
    asked = {OF_FIXTURE[name] for name in names & OF_FIXTURE.keys()}
    if (marker := item.get_closest_marker("db")) is not None:
        given = [*marker.args, *marker.kwargs.items()]
        mode = marker.kwargs["mode"] if marker.kwargs.keys() == {"mode"} else marker.args[0] if marker.args else "session"
        if len(given) > 1 or mode not in MODES or marker.kwargs.keys() - {"mode"}:
            arguments = ", ".join(repr(argument) for argument in given)
            raise UsageError(
                f"@pytest.mark.db({arguments}) is none of {', '.join(MODES)}", remedy='@pytest.mark.db("session")'
            )
        asked.add(cast("Mode", mode))
    if len(asked) > 1:
        raise UsageError(f"a test has one kind of database, not {' and '.join(sorted(asked))}", remedy="choose one")
    if asked:
        return asked.pop()
    setting: Mode | None = item.config.getini("db_mode") or None
    return setting or ("session" if names & ANY_MODE else None)


def needs_server(item: Any) -> bool:
    """Whether a test needs the server with the test databases."""
    with contextlib.suppress(UsageError):  # reported when the test runs
        return _mode(item) is not None or bool(SERVER_ONLY & _plugin_fixtures(item))
    return True


def is_ours(name: str) -> bool:
    """Whether a fixture of this name is this plugin's, where the project uses it."""
    return name in OF_FIXTURE or name in ANY_MODE or name in SERVER_ONLY or name == "db_hospital"


def put_database_first(item: Any) -> None:
    """Let the database come before all other fixtures of the test's own scope; those of a module or the run come earlier."""
    names = getattr(item, "fixturenames", [])
    if FIRST not in names:
        return
    definitions = item._fixtureinfo.name2fixturedefs
    wider = [name for name in names if name in definitions and definitions[name][-1].scope != "function"]
    others = [name for name in names if name not in wider and name != FIRST]
    names[:] = [*wider, FIRST, *others]


def _plugin_fixtures(item: Any) -> set[str]:
    """The fixtures of this plugin that a test uses; a project's own fixtures of the same names do not count."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    names = (name for name in getattr(item, "fixturenames", ()) if name in known)
    return {name for name in names if known[name][-1].func.__module__ == FIXTURES}


@contextlib.contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Report a SkinspireError as one line, without a traceback: the user can mend it."""
    try:
        yield
    except SkinspireError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@contextlib.contextmanager
def _surroundings(database: ClinicDatabase) -> Iterator[None]:
    """Set the variables that processes of the test read, and take back what the test chooses for get_db_session()."""
    name = database.environment.name
    variables = {
        "SKINSPIRE_ENV": name,
        "TEST_DATABASE_URL": str(database.environment.url.value),
        test_override.MAY_REACH: name,
    }
    before = {name: os.environ.get(name) for name in variables}
    nested_transactions = ownership.nested_transactions_choice()
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        ownership.restore_nested_transactions(nested_transactions)
        ownership.set_innermost(None)
