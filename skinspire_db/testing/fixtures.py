"""The fixtures: a test's database, people in it, and assertions on its state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from skinspire_db.errors import SkinspireError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from skinspire_db.clinic.factories import Factory
    from skinspire_db.testing.changes import Changes
    from skinspire_db.testing.databases import Database
    from skinspire_db.testing.modes import ClinicDatabase, Mode


@pytest.fixture(autouse=True)
def _skinspire_db(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test's database, before all other fixtures."""
    from skinspire_db.service import hospitals
    from skinspire_db.testing.choice import RUN, database_of

    with database_of(request):
        database = request.config.stash[RUN].current
        if database is None or not database.service().tenancy:
            yield
            return
        try:
            database.choose_hospital(request.getfixturevalue("db_hospital"))
            yield
        finally:
            hospitals.set_current(None)


@pytest.fixture
def db_hospital(request: pytest.FixtureRequest) -> object:
    """The hospital that a test works for where tenancy is on: the marker's, else the seeded one. A project's own fixture of
    this name chooses another one, by its key.
    """
    if (marker := request.node.get_closest_marker("db_hospital")) is not None:
        return marker.args[0]
    return _current(request, None).seeded_hospital()


@pytest.fixture
def db_session(request: pytest.FixtureRequest) -> Session:
    """A SQLAlchemy Session in a transaction that is rolled back after the test.

    The code under test may commit and roll back: its transactions are savepoints in this one. Deferred constraints are
    checked when it commits, and once more before the end.
    """
    return _current(request, "session").session


@pytest.fixture
def db_database(request: pytest.FixtureRequest) -> ClinicDatabase:
    """A database with real commits; after the test the tables that it has written to are put back to the seeded state."""
    return _current(request, "database")


@pytest.fixture
def db_clone(request: pytest.FixtureRequest) -> ClinicDatabase:
    """A database of the test's own, in which it may change everything; dropped afterwards."""
    return _current(request, "clone")


@pytest.fixture
def db(request: pytest.FixtureRequest) -> ClinicDatabase:
    """The test's database, of the kind that its marker or the setting says: name, url, engine, session, connection."""
    return _current(request, None)


@pytest.fixture
def db_empty(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database of the test's own, with nothing in it and no stamp; get_db_session() does not go there."""
    from skinspire_db.testing.choice import RUN

    maker = request.config.stash[RUN].databases(request).maker
    database = maker.empty()
    yield database
    maker.drop(database)


@pytest.fixture(scope="session")
def db_run_rows(request: pytest.FixtureRequest) -> Iterator[Any]:
    """db_run_rows(function) -> what function(session) returns: its rows are in the tests' databases from now on."""
    with _layers(request) as add:
        yield add


@pytest.fixture(scope="module")
def db_module_rows(request: pytest.FixtureRequest) -> Iterator[Any]:
    """db_module_rows(function): as db_run_rows(), for the tests of this module."""
    with _layers(request) as add:
        yield add


@contextlib.contextmanager
def _layers(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What adds rows; they are taken out at the end."""
    from skinspire_db.testing.choice import RUN, errors_as_one_line

    run = request.config.stash[RUN]
    added: list[Any] = []

    def add(function: Any) -> Any:
        if run.current is not None:
            pytest.fail(f"{request.fixturename} is used inside a test -> use it in a fixture of the module or the run", False)
        with errors_as_one_line():
            result = run.databases().add_rows(function)
        added.append(function)
        return result

    with errors_as_one_line():
        run.databases(request)
    yield add
    for function in reversed(added):
        run.databases().remove_rows(function)


@pytest.fixture(scope="session")
def db_server(request: pytest.FixtureRequest) -> Any:
    """The server, as pytest-postgresql's factories take it: `factories.postgresql("db_server")` clones our template."""
    from pytest_postgresql.executors import NoopExecutor

    from skinspire_db.testing.choice import RUN

    try:
        maker = request.config.stash[RUN].databases(request).maker
    except SkinspireError as error:
        pytest.fail(str(error), pytrace=False)
    parameters = maker.base.parameters

    class Server(NoopExecutor):
        """A server for pytest-postgresql's factories, whose template is this run's."""

        template_dbname = maker.template.name

    worker = getattr(request.config, "workerinput", {}).get("workerid", "")
    return Server(
        host=parameters["host"], port=parameters.get("port", 5432), user=parameters["user"],
        password=parameters.get("password"), options=parameters.get("options", ""), dbname=f"skinspire_postgresql_{worker}",
        maintenance_dbname=maker.watch.info.dbname,
    )  # fmt: skip


@pytest.fixture
def make_hospital(_skinspire_factory: Factory) -> Any:
    """make_hospital(name=...) -> a Hospital with one branch, another tenant."""
    return _skinspire_factory.hospital


@pytest.fixture
def make_patient(_skinspire_factory: Factory) -> Any:
    """make_patient(age=7, hospital=..., user=True, **columns) -> a Patient."""
    return _skinspire_factory.patient


@pytest.fixture
def make_staff(_skinspire_factory: Factory) -> Any:
    """make_staff("nurse", hospital=..., user=True, **columns) -> a Staff."""
    return _skinspire_factory.staff


@pytest.fixture
def make_doctor(_skinspire_factory: Factory) -> Any:
    """make_doctor(hospital=..., **columns) -> a Staff who is a doctor."""
    return _skinspire_factory.doctor


@pytest.fixture
def make_user(_skinspire_factory: Factory) -> Any:
    """make_user(of=patient, role="Nurse", **columns) -> a User with a role, of a patient or staff member."""
    return _skinspire_factory.user


@pytest.fixture
def _skinspire_factory(request: pytest.FixtureRequest) -> Factory:
    from skinspire_db.config import content, project_code
    from skinspire_db.schema import models

    database = _current(request, None)
    project = database.environment.project
    if not models.has_core(project):
        pytest.fail("the factories make people of the core's tables -> metadata in pyproject.toml does not name them", False)
    made: Factory = project_code.attribute(project, content.CORE_FACTORY)(database)
    return made


@pytest.fixture
def assert_only_changed(_skinspire_changes: Changes) -> Any:
    """assert_only_changed(users=1): since the test began, or since what was last asserted, nothing else has changed."""
    return _skinspire_changes.only


@pytest.fixture
def assert_no_changes(_skinspire_changes: Changes) -> Any:
    """assert_no_changes(): as assert_only_changed() without any."""
    return _skinspire_changes.none


@pytest.fixture
def _skinspire_changes(request: pytest.FixtureRequest) -> Changes:
    from skinspire_db.testing.changes import Changes

    return Changes(_current(request, None))


@pytest.fixture
def assert_valid(request: pytest.FixtureRequest) -> Any:
    """assert_valid(): the checks of db.verify pass on the test's database."""
    from skinspire_db.testing.changes import assert_valid

    database = _current(request, None)
    return lambda: assert_valid(database)


def _current(request: pytest.FixtureRequest, mode: Mode | None) -> ClinicDatabase:
    """The database that the test was given before all other fixtures."""
    from skinspire_db.testing.choice import RUN

    current = request.config.stash[RUN].current
    if current is None or (mode is not None and current.mode != mode):
        wanted = f'@pytest.mark.db("{mode}")' if mode else "@pytest.mark.db"
        pytest.fail(
            f"{request.fixturename} is asked for too late -> name it in the test's arguments, or mark it {wanted}", False
        )
    return current
