"""Seeding: the reference data of the project's files, then the people that its function invents."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

from skinspire_db.catalog import objects
from skinspire_db.config import content, project_code
from skinspire_db.config.environment import Environment
from skinspire_db.config.policy import Policy
from skinspire_db.content import files, reference
from skinspire_db.content.files import ReferenceFile, Row, TableRows
from skinspire_db.content.relations import Place
from skinspire_db.content.scenarios import Scenario
from skinspire_db.errors import GuardRefused, InvalidSetting, StepFailed, UsageError
from skinspire_db.lifecycle import own_code
from skinspire_db.lifecycle.failures import AS_IT_WAS
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.postgres import side_by_side
from skinspire_db.schema import inserting, models
from skinspire_db.schema.alchemy import over

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from skinspire_db.postgres.connections import Connection

MOST = 799_800_000  # people of a kind: as many as there are telephone numbers for
Progress = Callable[[int, int], None]  # people done, people in all


@dataclass(frozen=True)
class Options:
    """How many people to seed.

    Raises:
        UsageError: a number means nothing.
    """

    patients: int = 20
    doctors: int = 5
    random_seed: int = 1
    reference_only: bool = False

    def __post_init__(self) -> None:
        for name, value in (("patients", self.patients), ("doctors", self.doctors)):
            if not 1 <= value <= MOST:
                raise UsageError(
                    f"--{name}={value} is not between 1 and {MOST}", remedy=f"--{name}=20, or --reference-only for none"
                )

    @classmethod
    def parse(cls, patients: str, doctors: str, random_seed: str, reference_only: bool = False) -> Options:
        """The options from what was typed."""
        return cls(
            _number("patients", patients),
            _number("doctors", doctors),
            _number("random-seed", random_seed),
            reference_only,
        )


@dataclass(frozen=True)
class Seeding:
    """What the function that invents people is asked for.

    Args:
        connection: The database, in the pipeline's transaction.
        policy: Of the environment.
        options: How many people, and the random seed that makes them the same everywhere.
        report: Shows how far it is.
    """

    connection: Connection
    policy: Policy
    options: Options
    report: Progress | None = None

    def progress(self, done: int, total: int) -> None:
        """Show how far it is, on a terminal."""
        if self.report:
            self.report(done, total)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A SQLAlchemy Session in the pipeline's transaction, which it cannot end; flushed after the block."""
        from sqlalchemy.exc import StatementError
        from sqlalchemy.orm import Session

        try:
            with (
                over(self.connection) as alchemist,
                Session(bind=alchemist, join_transaction_mode="control_fully") as session,
            ):
                yield session
                session.flush()
        except StatementError as error:  # its text holds the values of rows
            raise error.orig or error from None


@dataclass(frozen=True)
class Content:
    """The reference data and the people of an environment's project."""

    environment: Environment
    python_defaults: Mapping[str, list[str]]

    @cached_property
    def has_core(self) -> bool:
        """Whether the core's tables are content."""
        return models.has_core(self.environment.project)

    @cached_property
    def files(self) -> list[ReferenceFile]:
        """The files of reference data, in their order.

        Raises:
            InvalidSetting: a file cannot be used.
        """
        project = self.environment.project
        return files.read(project, content.reference(project, core=self.has_core))

    @cached_property
    def tables(self) -> list[TableRows]:
        """The rows of reference data, by table.

        Raises:
            InvalidSetting: a file cannot be used.
        """
        return files.merged(table for file in self.files for table in file.tables(self.environment.policy))

    @cached_property
    def people(self) -> str | None:
        """The function that invents people, as `module:function`.

        Raises:
            InvalidSetting: the setting names none.
        """
        return content.people(self.environment.project, core=self.has_core)

    def insert(self, connection: Connection, place: Place, rows: list[Row]) -> bool:
        """Add rows by SQLAlchemy where they leave out a column whose default it alone knows; returns whether it did."""
        name = ".".join(place)
        left_out = set(self.python_defaults.get(name, ())) - {
            column for column in rows[0] if all(column in row for row in rows)
        }
        if left_out:
            inserting.insert(connection, models.metadata(self.environment.project), name, rows)
        return bool(left_out)


def seed(
    connection: Connection,
    source: Content,
    options: Options,
    progress: Progress | None = None,
    scenario: Scenario | None = None,
) -> Summary:
    """Reference data, then invented people and the rows of a scenario, in the caller's transaction.

    Raises:
        GuardRefused: the policy forbids test data, and the options ask for it.
        StepFailed: tables are missing, or a file does not fit them.
    """
    policy = source.environment.policy
    refuse_people(policy, options)
    refuse_without_tables(connection)
    connection.execute("SELECT set_config('app.current_user', 'seed', true)")
    summary = apply_reference(connection, source)
    if source.people and not options.reference_only:
        _invent(connection, source, Seeding(connection, policy, options, progress), summary)
    if scenario:
        tables = scenario.file.tables(policy)
        made = reference.apply(connection, tables, source.insert if source.python_defaults else None)
        summary.numbers |= {f"scenario_{name.removeprefix('reference_')}": value for name, value in made.numbers.items()}
    connection.execute("SELECT set_config('app.current_user', '', true)")
    _analyze_new(connection)
    return summary


def apply_reference(connection: Connection, source: Content) -> Summary:
    """Bring the rows of the project's files up to date, and what comes with them.

    Args:
        connection: an open connection, in the caller's transaction.
        source: the project's files.

    Raises:
        StepFailed: a row cannot be written.
    """
    summary = reference.apply(connection, source.tables, source.insert if source.python_defaults else None)
    for file in source.files:
        done = file.complete(connection, source.environment.policy)
        summary.numbers |= done.numbers
        summary.sign_in += done.sign_in
    return summary


def pending(connection: Connection, source: Content, scenario: Iterable[TableRows] = ()) -> dict[str, tuple[int, int]]:
    """How many rows seeding would add to and change in which table, found out by reading only.

    Args:
        connection: an open connection.
        source: the project's files.
        scenario: rows that would be added after them.

    Returns:
        table -> rows that would be added, rows that would be changed.

    Raises:
        StepFailed: a row of the files cannot be looked up.
    """
    counts: dict[str, tuple[int, int]] = {}
    asked: list[Callable[[Connection], Any]] = [
        lambda reader: reference.plan(reader, files.merged([*source.tables, *scenario])),
        *(partial(_incomplete, file) for file in source.files),
    ]
    planned, *added_by_code = side_by_side.run(connection, *asked)
    for changes in planned:
        if (number := (len(changes.added) + len(changes.waiting), len(changes.updated))) != (0, 0):
            counts[changes.table.table] = number
    for each in added_by_code:
        for table, added in each.items():
            before = counts.get(table, (0, 0))
            counts[table] = before[0] + added, before[1]
    return counts


def _incomplete(file: ReferenceFile, reader: Connection) -> dict[str, int]:
    """What of its rows a file's module has still to make. A module of the project gets the connection itself."""
    if file.code is None:
        return {}
    own = file.code.__name__.startswith("skinspire_db.")
    found: dict[str, int] = file.code.incomplete(reader if own else side_by_side.whole(reader), file.data)
    return found


def plan(connection: Connection | None, source: Content, options: Options, scenario: Scenario | None = None) -> list[str]:
    """What seeding would do, in phrases.

    Args:
        connection: The database; None where it will be empty, and every row is added.
        source: What is seeded.
        options: Whether people are invented.
        scenario: What else is seeded.
    """
    added_later = scenario.file.tables(source.environment.policy) if scenario else []
    if connection is None:
        counts = {table.table: (len(table.rows), 0) for table in files.merged([*source.tables, *added_later])}
    else:
        counts = pending(connection, source, added_later)
    phrases = []
    for table, (added, changed) in counts.items():
        phrases += [f"add {counted(added, 'row')} to {table}"] if added else []
        phrases += [f"change {counted(changed, 'row')} of {table}"] if changed else []
    if source.people and not options.reference_only:
        _function(source, source.people)
        phrases.append(f"invent people by {source.people}")
    return phrases


def refuse_people(policy: Policy, options: Options, scenario: Scenario | None = None) -> None:
    """Let people be invented only where the policy allows it.

    Args:
        policy: what the environment allows.
        options: how many people are asked for.
        scenario: test data, too.

    Raises:
        GuardRefused: people are asked for, and the policy forbids test data.
    """
    if (scenario or not options.reference_only) and not policy.test_data:
        raise GuardRefused("test data is never seeded into a protected environment", remedy="add --reference-only")


def refuse_without_people(source: Content) -> None:
    """Let people be asked for only where the project can invent them.

    Raises:
        UsageError: people are asked for, and the project has no function that invents them.
    """
    if source.people is None:
        raise UsageError(
            "this project invents no people: pyproject.toml names no function that does",
            remedy='write people = "app.testdata:people" in [tool.skinspire_db], or leave --patients and --doctors out',
        )


def refuse_without_tables(connection: Connection) -> None:
    """Let rows be seeded only where tables are.

    Raises:
        StepFailed: the database is empty.
    """
    if objects.count_tables(connection) == 0:
        raise StepFailed("seed: the tables are not there", remedy="invoke db.setup --env={env}")


def _invent(connection: Connection, source: Content, seeding: Seeding, summary: Summary) -> None:
    assert source.people
    function = _function(source, source.people)

    def invent(_: Connection) -> Any:
        return _answer(function(connection, seeding), name)

    name, project = source.people, source.environment.project
    with _index_plans(connection):
        made = own_code.run(invent, name, project, connection)
    summary.numbers |= made.numbers
    summary.lines += made.lines
    summary.sign_in += made.sign_in


@contextlib.contextmanager
def _index_plans(connection: Connection) -> Iterator[None]:
    """Plans made in the block, those of foreign keys too, use indexes: small tables grow large in it, and plans are kept."""
    [(usual,)] = connection.execute("SHOW enable_seqscan").fetchall()
    connection.execute("SET LOCAL enable_seqscan = off")
    yield
    connection.execute("SELECT set_config('enable_seqscan', %s, true)", (usual,))


def _function(source: Content, name: str) -> Callable[[Connection, Seeding], Any]:
    """The function that `people` names. Raises InvalidSetting where it names none."""
    found = project_code.attribute(source.environment.project, name, "correct people in pyproject.toml")
    if not callable(found):
        raise InvalidSetting(
            f"people in pyproject.toml: {name} is a {type(found).__name__}, not a function",
            remedy="name a function of (connection, seeding), as docs/content.md shows, or write people = false",
        )
    return cast("Callable[[Connection, Seeding], Any]", found)


def _answer(answered: Any, name: str) -> Any:
    """What a function of people answers, as a Summary where it is numbers by name."""
    if not isinstance(answered, Mapping):
        return answered
    if wrong := [key for key, value in answered.items() if not isinstance(value, int)]:
        raise StepFailed(
            f"{name} answers a {type(answered[wrong[0]]).__name__} for {wrong[0]}, not a number; {AS_IT_WAS}",
            remedy='answer numbers by name, as {"beds": 12}, a Summary, or None',
        )
    return Summary({str(key): value for key, value in answered.items()})


def _analyze_new(connection: Connection) -> None:
    """ANALYZE the role's tables that nothing has looked at yet: until then their numbers of rows are not known.

    Not the empty ones: for a table that is known to be empty PostgreSQL plans to scan it, and keeps that plan while a
    transaction fills it, also for its own checks of foreign keys.
    """
    from psycopg import sql

    rows = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"  # noqa: S608
        " WHERE (c.relkind = 'p' OR c.relkind = 'r' AND pg_relation_size(c.oid) > 0) AND c.reltuples = -1"
        " AND pg_has_role(c.relowner, 'USAGE')"
        f" AND {objects.USER_SCHEMA}"
    ).fetchall()
    if rows:
        tables = sql.SQL(", ").join(sql.Identifier(*names) for names in rows)
        connection.execute(sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(tables))


def _number(name: str, text: str) -> int:
    try:
        return int(str(text))
    except ValueError:
        raise UsageError(f"--{name}={text} is not a whole number", remedy=f"--{name}=20") from None
