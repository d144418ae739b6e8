"""The pytest plugin: options, what a test run uses, and which of its tests get a database."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from skinspire_db.errors import SkinspireError
from skinspire_db.patterns import lazy_regex
from skinspire_db.service import test_override
from skinspire_db.testing import fixtures
from skinspire_db.testing.choice import KEEP, MODES, RUN, errors_as_one_line, is_ours, needs_server, put_database_first
from skinspire_db.testing.run import Run

MARKER = 'db(mode): the test has a clinic database: "session" (rolled back; the default), "database" (real commits), "clone"'
HOSPITAL_MARKER = "db_hospital(key): the hospital that the test works for, where tenancy is on; else the seeded one"
INI = {
    "db_server": "URL of a server for the test databases; without one the checkout's own is used",
    "db_mode": 'the mode of tests that name none: "session", "database", "clone"; without it they have no database',
    "db_patients": "how many patients are seeded (20)",
    "db_doctors": "how many doctors are seeded (5)",
    "db_random_seed": "the random seed of the people (1)",
    "db_template": 'a function that adds rows to the template, "module:function"; it is given a Session',
}


FORMER = pytest.StashKey[test_override.State]()

# pytest's words for a fixture of a module, a class or the run that asks for one of a test.
WIDER = lazy_regex(r"ScopeMismatch: You tried to access the function scoped fixture (\w+) with a (\w+) scoped request")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and settings."""
    group = parser.getgroup("skinspire-db", "clinic databases for tests")
    group.addoption("--db-server", metavar="URL", help="server for the test databases, in place of the setting db_server")
    group.addoption(
        "--keep-failed-db", action="store_true", help="keep the database of a test that fails, and say where it is"
    )
    for name, description in INI.items():
        parser.addini(name, description, default="")
    parser.addini("db_template_files", "what db_template reads: patterns; a change makes a new template", type="args")
    parser.addini("db_guard", "refuse get_db_session() in tests that have no database (true)", type="bool", default=True)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Refuse connections to the environments' databases before a conftest.py can open one: see service/test_override.py."""
    early_config.stash[FORMER] = test_override.state()
    if early_config.getini("db_guard") and _uses_skinspire_db():
        test_override.refuse_all()


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures in a project with a table [tool.skinspire_db]; in others this plugin does nothing."""
    config.stash[RUN] = Run(config)
    if not _uses_skinspire_db():
        return
    config.pluginmanager.register(fixtures, "skinspire_db.testing.fixtures")
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", HOSPITAL_MARKER)
    mode = config.getini("db_mode")
    if mode and mode not in MODES:
        raise pytest.UsageError(f"db_mode = {mode} is none of {', '.join(MODES)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the process as it was."""
    if (run := config.stash.get(RUN, None)) is not None:
        run.close()
        if run.message_file is not None:
            shutil.rmtree(run.message_file.parent, ignore_errors=True)
    if FORMER in config.stash:
        test_override.restore(config.stash[FORMER])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test's database come before every other fixture of the test, those of plugins that were loaded earlier too."""
    for item in items:
        put_database_first(item)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist tells the controller of the collection next
def pytest_collection_finish(session: pytest.Session) -> None:
    """Make or find the template before the first test, if a test needs it, and print which server and template are used."""
    run = session.config.stash[RUN]
    needed = _uses_skinspire_db() and any(needs_server(item) for item in session.items)
    if not needed or session.config.option.collectonly or run.by_postgresql_proc:
        return
    with contextlib.suppress(SkinspireError):  # reported by each test that needs the server
        run.databases()
    if (worker := getattr(session.config, "workerinput", None)) is not None:
        _write_message(Path(worker["db_message_file"]), run.message)
    elif reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        reporter.write_line(run.message)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist in which file it leaves its message for the controller."""
    if not _uses_skinspire_db():
        return
    run = node.config.stash[RUN]
    if run.message_file is None:
        run.message_file = Path(tempfile.mkdtemp(prefix="skinspire-db-")) / "message"
    run.workers_collecting += 1
    node.workerinput["db_message_file"] = str(run.message_file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Any) -> None:
    """Print one worker's message: that of the worker which made the template, else the first."""
    run = node.config.stash[RUN]
    run.workers_collecting -= 1
    if run.message or run.message_file is None or not run.message_file.exists():
        return
    message = run.message_file.read_text(encoding="utf-8")
    if " made, " in message or run.workers_collecting <= 0:
        run.message = message
        if reporter := node.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.ensure_newline()
            reporter.write_line(message)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Collect from a worker of pytest-xdist which tests needed a new clone."""
    node.config.stash[RUN].renewed += map(tuple, getattr(node, "workeroutput", {}).get("db_renewed", []))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Drop this process's databases."""
    run = session.config.stash[RUN]
    run.close()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["db_renewed"] = run.renewed


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the tests that cost the next one a new clone."""
    if renewed := config.stash[RUN].renewed:
        test, reason = renewed[0]
        more = f", and {len(renewed) - 1} more" if len(renewed) > 1 else ""
        terminalreporter.write_line(f"skinspire-db: a new clone was needed after {test}: {reason}{more}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that has passed fails when a deferred constraint says so, as its commit would have."""
    result = yield
    run = item.config.stash[RUN]
    if run.current is not None:
        import psycopg

        from skinspire_db.postgres.error_text import sentence

        try:
            with errors_as_one_line():
                run.current.check()
        except psycopg.OperationalError as error:
            pytest.fail(f"the test's database was lost: {sentence(error)}", pytrace=False)
        except psycopg.Error as error:
            text = " ".join(each for each in (error.diag.message_primary, error.diag.message_detail) if each)
            pytest.fail(f"a deferred constraint is violated: {text}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Decide under which name a failed test's database is kept, and print where it will be."""
    report = yield
    if call.excinfo is not None and not _uses_skinspire_db() and is_ours(getattr(call.excinfo.value, "argname", "")):
        report.longrepr = _no_table(str(call.excinfo.value.argname), item.config.rootpath)  # type: ignore[attr-defined]
        return report
    if call.excinfo is not None and (found := WIDER.match(str(call.excinfo.value))) and is_ours(found[1]):
        report.longrepr = (
            f"{found[1]} is the database of one test, and this fixture is for a whole {found[2]}"
            " -> add rows by db_module_rows or db_run_rows, or let the fixture be of one test"
        )
    run = item.config.stash[RUN]
    failed = report.failed and report.when in ("setup", "call")  # at teardown the database is gone already
    if failed and run.current is not None and item.config.getoption("keep_failed_db"):
        from skinspire_db.testing.databases import kept_name

        item.stash[KEEP] = name = kept_name(item.nodeid)
        report.sections.append(("database kept", run.databases().maker.host.address(name)))
    return report


def _uses_skinspire_db() -> bool:
    from skinspire_db.config import project

    try:
        return project.current_project().found_by in ("SKINSPIRE_PROJECT", "the current folder")
    except SkinspireError:  # a pyproject.toml that cannot be read; pytest reports it
        return False


def _no_table(fixture: str, root: Path) -> str:
    """Why there is no such fixture: pytest's own words name only those that there are."""
    return (
        f"fixture {fixture!r} not found: no pyproject.toml here or above has a table [tool.skinspire_db]"
        f" -> write [tool.skinspire_db] into {root / 'pyproject.toml'}"
    )


def _write_message(path: Path, message: str) -> None:
    """Write a worker's message; the first one stays, unless another worker has made the template."""
    if " made, " in message or not path.exists():
        own_file = path.with_name(os.environ.get("PYTEST_XDIST_WORKER", "worker"))
        own_file.write_text(message, encoding="utf-8")
        own_file.replace(path)
