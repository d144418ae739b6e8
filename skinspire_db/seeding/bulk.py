"""People into the database by COPY, in chunks, so that memory stays flat whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.environment import Policy
from skinspire_db.errors import GuardRefused, UsageError
from skinspire_db.seeding import reference
from skinspire_db.seeding.people import MOST, Kind, Names, Person, code, person
from skinspire_db.settings import Project
from skinspire_db.summary import SignIn, Summary

if TYPE_CHECKING:
    from skinspire_db.connections import Connection

CHUNK = 5_000
ANALYZE_FROM = 10_000  # people; fewer make no difference to the planner
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


def seed(
    connection: Connection, here: Project, policy: Policy, options: Options, progress: Progress | None = None
) -> Summary:
    """Reference data, then invented people with a user and a role each, in the caller's transaction.

    People are numbered; seeding adds the numbers above the highest one present. Raises GuardRefused when the policy
    forbids test data and the options ask for it.
    """
    if not options.reference_only and not policy.test_data:
        raise GuardRefused("test data is never seeded into a protected environment", remedy="add --reference-only")
    connection.execute("SELECT set_config('app.current_user', 'seed', true)")
    if options.reference_only:
        summary = reference.apply(connection, policy)
    else:
        test_hash = reference.hash_of_test_password(connection)
        summary = reference.apply(connection, policy, test_hash=test_hash)
        _add_people(_Loader(connection, test_hash), Names.load(here), options, summary, progress)
    connection.execute("SELECT set_config('app.current_user', '', true)")
    return summary


def _add_people(loader: _Loader, names: Names, options: Options, summary: Summary, progress: Progress | None) -> None:
    wanted: dict[Kind, int] = {
        "doctor": options.doctors,
        **dict.fromkeys(SUPPORT, SUPPORT_EACH),
        "patient": options.patients,
    }
    present = {kind: _highest(loader.connection, kind) for kind in wanted}
    total = sum(max(0, wanted[kind] - present[kind]) for kind in wanted)
    done = 0
    for kind, number in wanted.items():
        for start in range(present[kind] + 1, number + 1, CHUNK):
            numbers = range(start, min(start + CHUNK, number + 1))
            loader.add(kind, (person(names, options.random_seed, kind, each) for each in numbers))
            done += len(numbers)
            if progress:
                progress(done, total)
        summary.numbers[f"{kind}s" if kind != "pharmacy" else "pharmacy_staff"] = max(0, number - present[kind])
    if total >= ANALYZE_FROM:
        loader.connection.execute("ANALYZE staff, patients, users, user_role_mapping")
    examples: tuple[Kind, ...] = ("doctor", "patient")
    for kind in examples:  # one of each to sign in as
        if present[kind] == 0:
            summary.sign_in.append(
                SignIn(ROLE_OF[kind], person(names, options.random_seed, kind, 1).phone, reference.TEST_PASSWORD)
            )


class _Loader:
    """Copies people into the tables; what all of them share is looked up once. `password_hash` is everybody's."""

    def __init__(self, connection: Connection, password_hash: str) -> None:
        self.connection = connection
        data = reference.load()
        self.hospital, self.branch = data["hospital"]["hospital_id"], data["branch"]["branch_id"]
        self.roles = dict(
            connection.execute("SELECT role_name, role_id FROM role_master WHERE hospital_id IS NULL").fetchall()
        )
        self.hash = password_hash

    def add(self, kind: Kind, people: Iterator[Person]) -> None:
        """Copy them in. They are made while they are sent: the server works on the first as we make the next."""
        accounts: list[tuple[str, str]] = []

        def rows() -> Iterator[tuple[object, ...]]:
            for p in people:
                accounts.append((p.phone, p.key))
                name = (p.title, p.first_name, p.last_name)
                own = (p.blood_group, p.guardian, p.preferences) if kind == "patient" else (p.kind, p.specialization)
                yield (p.key, self.hospital, self.branch, p.code, *name, p.personal_info, p.contact_info, p.details, *own)

        if kind == "patient":
            columns = "patient_id, hospital_id, branch_id, mrn, title, first_name, last_name, personal_info, contact_info,"
            self._copy("patients", f"{columns} medical_info, blood_group, emergency_contact, preferences", rows())
        else:
            columns = "staff_id, hospital_id, branch_id, employee_code, title, first_name, last_name, personal_info,"
            self._copy("staff", f"{columns} contact_info, professional_info, staff_type, specialization", rows())
        entity, role = ("patient" if kind == "patient" else "staff"), self.roles[ROLE_OF[kind]]
        users = ((phone, self.hospital, entity, key, self.hash) for phone, key in accounts)
        self._copy("users", "user_id, hospital_id, entity_type, entity_id, password_hash", users)
        self._copy("user_role_mapping", "user_id, role_id", ((phone, role) for phone, _ in accounts))

    def _copy(self, table: str, columns: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self.connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)


def _highest(connection: Connection, kind: Kind) -> int:
    """The highest number among the people of a kind that are present, 0 when there are none."""
    table, column = ("patients", "mrn") if kind == "patient" else ("staff", "employee_code")
    prefix = code(kind, 0)[:-6]
    row = connection.execute(
        f"SELECT coalesce(max(substr({column}, %s)::int), 0) FROM {table} WHERE {column} ~ %s".encode(),  # noqa: S608
        (len(prefix) + 1, f"^{prefix}[0-9]{{6,9}}$"),
    ).fetchone()
    assert row
    return int(row[0])


def _number(name: str, text: str) -> int:
    try:
        return int(str(text))
    except ValueError:
        raise UsageError(f"--{name}={text} is not a whole number", remedy=f"--{name}=20") from None
