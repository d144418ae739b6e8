"""People into the database by COPY, in chunks, so that memory stays flat whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.clinic import reference
from skinspire_db.clinic.people import MOST, Kind, Person, code_prefix, person
from skinspire_db.config.policy import Policy
from skinspire_db.errors import GuardRefused, StepFailed, UsageError
from skinspire_db.lifecycle.result import SignIn, Summary

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

CHUNK = 5_000
ROLE_OF: dict[Kind, str] = {
    "doctor": "Doctor", "nurse": "Nurse", "receptionist": "Receptionist", "pharmacy": "Pharmacy Staff", "patient": "Patient",
}  # fmt: skip
SUPPORT: tuple[Kind, ...] = ("nurse", "receptionist", "pharmacy")
SUPPORT_EACH = 2

Progress = Callable[[int, int], None]  # people done, people in all


@dataclass(frozen=True)
class Options:
    """How many people to seed. Raises UsageError for numbers that mean nothing."""

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


def seed(connection: Connection, policy: Policy, options: Options, progress: Progress | None = None) -> Summary:
    """Reference data, then invented people with a user and a role each, in the caller's transaction.

    People are numbered; seeding adds the numbers above the highest one present. Raises GuardRefused when the policy
    forbids test data and the options ask for it, StepFailed when the tables are missing.
    """
    refuse_people(policy, options)
    refuse_without_tables(connection)
    connection.execute("SELECT set_config('app.current_user', 'seed', true)")
    if options.reference_only:
        summary = reference.apply(connection, policy)
    else:
        test_hash = reference.hash_of_test_password(connection)
        summary = reference.apply(connection, policy, test_hash=test_hash)
        _add_people(_Loader(connection, test_hash), options, summary, progress)
    connection.execute("SELECT set_config('app.current_user', '', true)")
    _analyze_new(connection)
    return summary


def _analyze_new(connection: Connection) -> None:
    """ANALYZE the role's tables that nothing has looked at yet: until then nobody knows how many rows they have."""
    from psycopg import sql

    rows = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"  # noqa: S608
        " WHERE c.relkind IN ('r', 'p') AND c.reltuples = -1 AND pg_has_role(c.relowner, 'USAGE')"
        f" AND {objects.USER_SCHEMA}"
    ).fetchall()
    if rows:
        tables = sql.SQL(", ").join(sql.Identifier(*names) for names in rows)
        connection.execute(sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(tables))


def refuse_people(policy: Policy, options: Options) -> None:
    """Raise GuardRefused when invented people are asked for where the policy forbids them."""
    if not options.reference_only and not policy.test_data:
        raise GuardRefused("test data is never seeded into a protected environment", remedy="add --reference-only")


def refuse_without_tables(connection: Connection) -> None:
    """Raise StepFailed when the tables are missing."""
    if connection.execute("SELECT to_regclass('public.parameter_settings')").fetchone() == (None,):
        raise StepFailed("seed: the tables are not there", remedy="invoke db.setup --env={env}")


def _add_people(loader: _Loader, options: Options, summary: Summary, progress: Progress | None) -> None:
    wanted: dict[Kind, int] = {
        "doctor": options.doctors,
        **dict.fromkeys(SUPPORT, SUPPORT_EACH),
        "patient": options.patients,
    }
    present = _highest(loader.connection)
    missing = {kind: max(0, number - present.get(code_prefix(kind), 0)) for kind, number in wanted.items()}
    total, done = sum(missing.values()), 0

    def people(kind: Kind) -> Iterator[Person]:
        numbers = range(wanted[kind] - missing[kind] + 1, wanted[kind] + 1)
        return (person(options.random_seed, kind, number) for number in numbers)

    staff = chain.from_iterable(people(kind) for kind in wanted if kind != "patient")
    for add, everybody, count in (
        (loader.add_staff, staff, total - missing["patient"]),
        (loader.add_patients, people("patient"), missing["patient"]),
    ):
        for start in range(0, count, CHUNK):
            add(islice(everybody, CHUNK))
            done += min(CHUNK, count - start)
            if progress:
                progress(done, total)
    support = sum(missing[kind] for kind in SUPPORT)
    summary.numbers |= {"doctors": missing["doctor"], "support_staff": support, "patients": missing["patient"]}
    if total:
        loader.connection.execute(
            "ANALYZE (SKIP_LOCKED) public.staff, public.patients, public.users, public.user_role_mapping"
        )
    examples: tuple[Kind, ...] = ("doctor", "patient")
    for kind in examples:  # one of each to sign in as
        if missing[kind] == wanted[kind]:
            summary.sign_in.append(SignIn(ROLE_OF[kind], person(options.random_seed, kind, 1).phone, reference.TEST_PASSWORD))


class _Loader:
    """Copies people into the tables; what all of them share is looked up once. `password_hash` is everybody's."""

    def __init__(self, connection: Connection, password_hash: str) -> None:
        self.connection = connection
        data = reference.load()
        self.hospital, self.branch = data["hospital"]["hospital_id"], data["branch"]["branch_id"]
        self.roles = dict(
            connection.execute("SELECT role_name, role_id FROM public.role_master WHERE hospital_id IS NULL").fetchall()
        )
        self.hash = password_hash

    def add_staff(self, people: Iterator[Person]) -> None:
        columns = (
            "staff_id, hospital_id, branch_id, employee_code, title, first_name, last_name, personal_info, contact_info,"
            " professional_info, staff_type, specialization"
        )
        self._add("staff", columns, people, lambda p: (p.kind, p.specialization))

    def add_patients(self, people: Iterator[Person]) -> None:
        columns = (
            "patient_id, hospital_id, branch_id, mrn, title, first_name, last_name, personal_info, contact_info,"
            " medical_info, blood_group, emergency_contact, preferences"
        )
        self._add("patients", columns, people, lambda p: (p.blood_group, p.guardian, p.preferences))

    def _add(self, table: str, columns: str, people: Iterator[Person], own: Callable[[Person], tuple[object, ...]]) -> None:
        """Copy them in. They are made while they are sent: the server works on the first as we make the next."""
        accounts: list[tuple[str, str, int]] = []

        def rows() -> Iterator[tuple[object, ...]]:
            for p in people:
                accounts.append((p.phone, p.key, self.roles[ROLE_OF[p.kind]]))
                shared = (p.code, p.title, p.first_name, p.last_name, p.personal_info, p.contact_info, p.details)
                yield (p.key, self.hospital, self.branch, *shared, *own(p))

        self._copy(table, columns, rows())
        entity = "patient" if table == "patients" else "staff"
        users = ((phone, self.hospital, entity, key, self.hash) for phone, key, _ in accounts)
        self._copy("users", "user_id, hospital_id, entity_type, entity_id, password_hash", users)
        self._copy("user_role_mapping", "user_id, role_id", ((phone, role) for phone, _, role in accounts))

    def _copy(self, table: str, columns: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self.connection.cursor().copy(f"COPY public.{table} ({columns}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)


def _highest(connection: Connection) -> dict[str, int]:
    """The highest number among the invented people that are present, by the prefix of their codes."""
    return dict(
        connection.execute(
            """
            SELECT substring(code FROM '^[A-Z]+'), max(substring(code FROM '[0-9]+$')::int)
            FROM (SELECT mrn AS code FROM public.patients UNION ALL SELECT employee_code FROM public.staff) AS codes
            WHERE code ~ '^(T|DOC|NUR|REC|PHA)[0-9]{6,9}$' GROUP BY 1
            """
        ).fetchall()
    )


def _number(name: str, text: str) -> int:
    try:
        return int(str(text))
    except ValueError:
        raise UsageError(f"--{name}={text} is not a whole number", remedy=f"--{name}=20") from None
