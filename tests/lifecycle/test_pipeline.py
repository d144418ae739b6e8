"""Pipeline, Series and Look by themselves: what they take over from their steps, and what a failure leaves behind."""

from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.config import environment
from skinspire_db.config.environment import Environment
from skinspire_db.errors import ChecksFailed, DatabaseMissing, GuardRefused, SkinspireError
from skinspire_db.lifecycle.pipeline import Look, Pipeline, Series, Step
from skinspire_db.lifecycle.result import Check, Summary

Connection = psycopg.Connection[Any]


@pytest.fixture
def dev(project: Project, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The project's dev, for the library inside this process. Its database does not exist."""
    for name, value in (project.env | {"SKINSPIRE_PROJECT": str(project.root)}).items():
        monkeypatch.setenv(name, value)
    return environment.resolve("dev")


def nothing(connection: Connection) -> None:
    """A step that does nothing."""


def makes(table: str, *, creates: bool = False) -> Step:
    def run(connection: Connection) -> Summary:
        connection.execute(f"CREATE TABLE public.{table} (x int)".encode())
        return Summary({"tables_created": 1})

    return Step(f"make {table}", run, creates=creates)


def fails(connection: Connection) -> None:
    connection.execute("CREATE TABLE public.of_the_failed (x int); SELECT nonesuch")


def tables(project: Project) -> list[str]:
    rows = project.query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")
    return [name for (name,) in rows]


def test_a_pipeline_takes_the_union_of_its_steps(dev: Environment) -> None:
    unknown = Step("unknown", nothing)
    quiet = Step("quiet", nothing, destroys="")
    destroys = Step("destroys", nothing, destroys="drop the tables of {}")
    confirms = Step("confirms", nothing, destroys="", confirms="replace the roles of {}")
    creates = Step("creates", nothing, destroys="", creates=True)
    backs_up = Step("backs up", nothing, destroys="", backs_up=True)

    def taken(*steps: Step) -> tuple[str, bool, bool]:
        pipeline = Pipeline("my", dev, steps)
        return pipeline.danger, pipeline.creates, pipeline.backs_up

    assert taken(quiet) == ("", False, False)
    assert taken(quiet, unknown) == ("run unknown in {}", False, True)
    assert taken(quiet, destroys) == ("drop the tables of {}", False, True)
    assert taken(destroys, quiet, destroys) == ("drop the tables of {}", False, True)
    assert taken(confirms, quiet) == ("replace the roles of {}", False, False)
    assert taken(destroys, confirms) == ("drop the tables of {} and replace the roles of {}", False, True)
    assert taken(quiet, creates) == ("", True, False)
    assert taken(backs_up, quiet) == ("", False, True)


def test_a_pipeline_is_one_transaction_with_its_stamp_and_its_journal(project: Project, dev: Environment) -> None:
    result = Pipeline("my", dev, (makes("one", creates=True), makes("two"))).run()
    assert result.commit == "done" and [step.name for step in result.steps] == ["make one", "make two"]
    assert tables(project) == ["one", "two"]
    assert project.query("SELECT environment FROM skinspire_tools.stamp") == [("dev",)]
    assert project.query("SELECT operation, environment FROM skinspire_tools.journal") == [("my", "dev")]
    made_by = project.query(
        "SELECT xmin FROM pg_class WHERE relname IN ('one', 'two')"
        " UNION SELECT xmin FROM skinspire_tools.stamp UNION SELECT xmin FROM skinspire_tools.journal"
    )
    assert len(made_by) == 1
    with pytest.raises(SkinspireError, match=r"of the failed: column .* does not exist; the database is as it was"):
        Pipeline("my", dev, (makes("three"), Step("of the failed", fails))).run()
    assert tables(project) == ["one", "two"] and project.query("SELECT count(*) FROM skinspire_tools.journal") == [(1,)]


def test_a_database_that_a_failed_pipeline_has_made_is_dropped(project: Project, dev: Environment) -> None:
    with pytest.raises(SkinspireError, match="the database is as it was") as raised:
        Pipeline("my", dev, (makes("one", creates=True), Step("of the failed", fails))).run()
    assert raised.value.result is not None and [step["ok"] for step in raised.value.result["steps"]] == [True, False]
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_a_pipeline_without_a_database(project: Project, dev: Environment) -> None:
    """Only a step that says so makes one; where there is nothing to do without one, that is said."""
    with pytest.raises(DatabaseMissing):
        Pipeline("my", dev, (makes("one"),)).run()
    empties = Step("empty", nothing, destroys="empty {}", needs_database=False)
    result = Pipeline("my", dev, (empties,)).run()
    assert result.steps == [] and result.notes[0].endswith("there is nothing to empty")
    assert Pipeline("my", dev, (empties,)).plan().would[0].startswith("find nothing to empty")
    with pytest.raises(DatabaseMissing):
        Pipeline("my", dev, (empties, makes("one"))).run()
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_a_plan_asks_the_first_steps_check_and_runs_no_step(project: Project, dev: Environment) -> None:
    Pipeline("first", dev, (makes("one", creates=True),)).run()
    asked: list[str] = []
    steps = (
        Step("first", fails, check=lambda connection: asked.append("first")),
        Step("second", fails, check=lambda connection: asked.append("second")),
    )
    assert Pipeline("my", dev, steps).plan().steps == ["first", "second"] and asked == ["first"]

    def writes(connection: Connection) -> None:
        connection.execute("CREATE TABLE public.of_the_plan (x int)")

    with pytest.raises(SkinspireError, match="read-only transaction"):
        Pipeline("my", dev, (Step("first", nothing, check=writes),)).plan()
    assert tables(project) == ["one"]


def series(dev: Environment, *steps: Step) -> Series:
    left = [Pipeline("my", dev, (step,)) for step in steps]
    return Series("my", dev, lambda: left.pop(0) if left else None, tuple(step.name for step in steps))


def test_a_series_stops_at_the_first_that_fails_and_says_what_stays(project: Project, dev: Environment) -> None:
    with pytest.raises(SkinspireError) as raised:
        series(dev, makes("one", creates=True), Step("of the failed", fails), makes("three")).run()
    assert raised.value.message.endswith("; what was committed before this step stays"), raised.value.message
    assert raised.value.result is not None
    assert [(step["name"], step["ok"]) for step in raised.value.result["steps"]] == [
        ("make one", True),
        ("of the failed", False),
    ]
    assert tables(project) == ["one"] and project.query("SELECT count(*) FROM skinspire_tools.journal") == [(1,)]
    with pytest.raises(SkinspireError) as raised:
        series(dev, Step("of the failed", fails), makes("three")).run()
    assert raised.value.message.endswith("; the database is as it was"), raised.value.message
    assert series(dev, makes("three"), makes("four")).run().commit == "done" and tables(project) == ["four", "one", "three"]


def test_all_checks_of_a_look_run_and_are_judged_at_the_end(project: Project, dev: Environment) -> None:
    Pipeline("first", dev, (makes("one", creates=True),)).run()
    ran: list[str] = []

    def looks(name: str, status: str) -> Step:
        def run(connection: Connection) -> Summary:
            ran.append(name)
            return Summary(checks=[Check(name, status, f"{name} is {status}", remedy=f"mend {name}")])  # type: ignore[arg-type]

        return Step(name, run)

    look = Look(
        "my", dev, (looks("first", "pass"), looks("second", "fail"), looks("third", "unknown"), looks("last", "pass"))
    )
    with pytest.raises(ChecksFailed, match="second: 1 of 1 check did not pass: second: second is fail") as raised:
        look.run()
    assert ran == ["first", "second", "third", "last"] and raised.value.remedy == "mend second"
    assert raised.value.result is not None
    assert [step["ok"] for step in raised.value.result["steps"]] == [True, False, False, True]
    assert Look("my", dev, (looks("first", "pass"),)).run().commit == "not begun"
    with pytest.raises(ChecksFailed):  # what is not known is not passed
        Look("my", dev, (looks("third", "unknown"),)).run()


def test_a_look_writes_nothing_and_looks_at_its_own_environment_only(project: Project, dev: Environment) -> None:
    Pipeline("first", dev, (makes("one", creates=True),)).run()
    with pytest.raises(SkinspireError, match="read-only transaction"):
        Look("my", dev, (makes("two"),)).run()
    assert Look("my", dev, (makes("two"),), tries=True).run().steps[0].ok and tables(project) == ["one"]
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'test'")
    ran: list[Connection] = []
    step = Step("look", lambda connection: ran.append(connection))
    for look in (Look("my", dev, (step,)).run, Look("my", dev, (step,)).plan):
        with pytest.raises(GuardRefused, match="is stamped test, not dev"):
            look()
    assert not ran and Look("my", dev, (step,), any_stamp=True).run().steps[0].ok
