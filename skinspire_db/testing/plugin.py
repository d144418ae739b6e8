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
from skinspire_db.service import test_override
from skinspire_db.testing import fixtures
from skinspire_db.testing.choice import KEEP, MODES, RUN, needs, told
from skinspire_db.testing.run import Run

MARKER = 'db(mode): the test has a clinic database: "session" (rolled back; the default), "database" (real commits), "clone"'
INI = {
    "db_server": "URL of a server for the test databases; without one the checkout's own is used",
    "db_mode": 'the mode of tests that name none: "session", "database", "clone"; without it they have no database',
    "db_patients": "how many patients are seeded (20)",
    "db_doctors": "how many doctors are seeded (5)",
    "db_random_seed": "the random seed of the people (1)",
}


FORMER = pytest.StashKey[test_override.State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and settings."""
    group = parser.getgroup("skinspire-db", "clinic databases for tests")
    group.addoption("--db-server", metavar="URL", help="server for the test databases, in place of the setting db_server")
    group.addoption(
        "--keep-failed-db", action="store_true", help="keep the database of a test that fails, and say where it is"
    )
    for name, words in INI.items():
        parser.addini(name, words, default="")
    parser.addini("db_guard", "refuse get_db_session() in tests that have no database (true)", type="bool", default=True)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Shut the application's door to its databases, before a conftest.py opens it: only a test's database is reached now."""
    early_config.stash[FORMER] = test_override.state()
    if early_config.getini("db_guard") and _is_of_skinspire():
        test_override.refuse_all()


def pytest_configure(config: pytest.Config) -> None:
    """Bring the fixtures, in a project with a table [tool.skinspire_db]; in others this plugin does nothing."""
    config.stash[RUN] = Run(config)
    if not _is_of_skinspire():
        return
    config.pluginmanager.register(fixtures, "skinspire_db.testing.fixtures")
    config.addinivalue_line("markers", MARKER)
    mode = config.getini("db_mode")
    if mode and mode not in MODES:
        raise pytest.UsageError(f"db_mode = {mode} is none of {', '.join(MODES)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the process as it was."""
    if (run := config.stash.get(RUN, None)) is not None:
        run.close()
        if run.noted is not None:
            shutil.rmtree(run.noted.parent, ignore_errors=True)
    if FORMER in config.stash:
        test_override.restore(config.stash[FORMER])


@pytest.hookimpl(tryfirst=True)  # pytest-xdist tells the controller of the collection next
def pytest_collection_finish(session: pytest.Session) -> None:
    """Make or find the template before the first test, if any test needs it, and say so."""
    run = session.config.stash[RUN]
    needed = _is_of_skinspire() and any(needs(item) for item in session.items)
    if not needed or session.config.option.collectonly or run.by_postgresql_proc:
        return
    with contextlib.suppress(SkinspireError):  # each test that needs it tells
        run.bench()
    if (worker := getattr(session.config, "workerinput", None)) is not None:
        _leave_word(Path(worker["db_noted"]), run.words)
    elif reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        reporter.write_line(run.words)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where to leave word."""
    if not _is_of_skinspire():
        return
    run = node.config.stash[RUN]
    if run.noted is None:
        run.noted = Path(tempfile.mkdtemp(prefix="skinspire-db-")) / "word"
    run.collecting += 1
    node.workerinput["db_noted"] = str(run.noted)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Any) -> None:
    """Say once what the workers use: what the one says that has made the template, else the first."""
    run = node.config.stash[RUN]
    run.collecting -= 1
    if run.words or run.noted is None or not run.noted.exists():
        return
    words = run.noted.read_text(encoding="utf-8")
    if " made, " in words or run.collecting <= 0:
        run.words = words
        if reporter := node.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.ensure_newline()
            reporter.write_line(words)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Collect what a worker of pytest-xdist has to tell at the end."""
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

        from skinspire_db.postgres.failures import sentence

        try:
            with told():
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
    run = item.config.stash[RUN]
    failed = report.failed and report.when in ("setup", "call")  # what a fixture ends with comes too late
    if failed and run.current is not None and item.config.getoption("keep_failed_db"):
        from skinspire_db.testing.workshop import kept_name

        item.stash[KEEP] = name = kept_name(item.nodeid)
        report.sections.append(("database kept", run.bench().workshop.host.address(name)))
    return report


def _is_of_skinspire() -> bool:
    from skinspire_db.config import project

    try:
        return project.current_project().found_by in ("SKINSPIRE_PROJECT", "the current folder")
    except SkinspireError:  # a pyproject.toml that cannot be read; pytest tells
        return False


def _leave_word(path: Path, words: str) -> None:
    """The first worker's word stays, unless another one has made the template."""
    if " made, " in words or not path.exists():
        mine = path.with_name(os.environ.get("PYTEST_XDIST_WORKER", "worker"))
        mine.write_text(words, encoding="utf-8")
        mine.replace(path)
