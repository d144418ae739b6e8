"""People into the database by COPY, in chunks, so that memory stays flat whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from skinspire_db.clinic import reference
from skinspire_db.clinic.people import Kind, Person, code_prefix, person
from skinspire_db.content.seeding import Options, Progress, Seeding
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle.result import SignIn, Summary

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

CHUNK = 5_000
ROLE_OF: dict[Kind, str] = {
    "doctor": "Doctor", "nurse": "Nurse", "receptionist": "Receptionist", "pharmacy": "Pharmacy Staff", "patient": "Patient",
}  # fmt: skip
SUPPORT: tuple[Kind, ...] = ("nurse", "receptionist", "pharmacy")
SUPPORT_EACH = 2
# Without JSON documents, which no index holds and which take three quarters of its time: autovacuum looks at them later.
ANALYZE = """
    ANALYZE (SKIP_LOCKED) public.users, public.user_role_mapping,
        public.staff (staff_id, hospital_id, branch_id, employee_code, staff_type, last_name, is_active, is_deleted),
        public.patients (patient_id, hospital_id, branch_id, mrn, last_name, first_name, is_active, is_deleted)
"""


def people(connection: Connection, seeding: Seeding) -> Summary:
    """Invented people with a user and a role each, in the caller's transaction.

    People are numbered; seeding adds the numbers above the highest one present.
    """
    summary = Summary()
    loader = _Loader(connection, reference.hash_of_test_password(connection))
    _add_people(loader, seeding.options, summary, seeding.progress)
    return summary


def _add_people(loader: _Loader, options: Options, summary: Summary, progress: Progress) -> None:
    wanted: dict[Kind, int] = {
        "doctor": options.doctors,
        **dict.fromkeys(SUPPORT, SUPPORT_EACH),
        "patient": options.patients,
    }
    present = _highest(loader.connection)
    missing = {kind: max(0, number - present.get(code_prefix(kind), 0)) for kind, number in wanted.items()}
    total, done = sum(missing.values()), 0

    def invented(kind: Kind) -> Iterator[Person]:
        numbers = range(wanted[kind] - missing[kind] + 1, wanted[kind] + 1)
        return (person(options.random_seed, kind, number) for number in numbers)

    staff = chain.from_iterable(invented(kind) for kind in wanted if kind != "patient")
    for add, everybody, count in (
        (loader.add_staff, _Ahead(staff), total - missing["patient"]),
        (loader.add_patients, _Ahead(invented("patient")), missing["patient"]),
    ):
        for start in range(0, count, CHUNK):
            add(everybody)
            done += min(CHUNK, count - start)
            progress(done, total)
    support = sum(missing[kind] for kind in SUPPORT)
    summary.numbers |= {"doctors": missing["doctor"], "support_staff": support, "patients": missing["patient"]}
    if total:
        loader.connection.execute(ANALYZE.encode())
    examples: tuple[Kind, ...] = ("doctor", "patient")
    for kind in examples:  # one of each to sign in as
        if missing[kind] == wanted[kind]:
            summary.sign_in.append(SignIn(ROLE_OF[kind], person(options.random_seed, kind, 1).phone, reference.TEST_PASSWORD))


class _Ahead:
    """People in chunks, a part of the next one made while the server is at work on this one."""

    def __init__(self, people: Iterator[Person]) -> None:
        self.people = people
        self.made: list[Person] = []

    def chunk(self) -> Iterator[Person]:
        """The next chunk; who is not made yet is made while it is read."""
        made, self.made = self.made, []
        return chain(made, islice(self.people, CHUNK - len(made)))

    def make_some(self) -> None:
        """Make a third of the next chunk: there are three tables to wait for."""
        self.made += islice(self.people, CHUNK // 3)


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
        query = "SELECT bool_or(row_security_active(name::regclass)) FROM unnest(%s::text[]) AS name"
        tables = [f"public.{table}" for table in ("staff", "patients", "users", "user_role_mapping")]
        self.under_policies = connection.execute(query, (tables,)).fetchone() == (True,)
        query = "SELECT 1 FROM public.branches WHERE branch_id = %s"
        if not self.roles.keys() >= set(ROLE_OF.values()) or not connection.execute(query, (self.branch,)).fetchone():
            raise StepFailed(
                "the core's people need the hospital, branch and roles of the core's reference data, which are not there",
                remedy="name that file in reference of pyproject.toml, or write people = false there",
            )

    def add_staff(self, people: _Ahead) -> None:
        columns = (
            "staff_id, hospital_id, branch_id, employee_code, title, first_name, last_name, personal_info, contact_info,"
            " professional_info, staff_type, specialization"
        )
        self._add("staff", columns, people, lambda p: (p.kind, p.specialization))

    def add_patients(self, people: _Ahead) -> None:
        columns = (
            "patient_id, hospital_id, branch_id, mrn, title, first_name, last_name, personal_info, contact_info,"
            " medical_info, blood_group, emergency_contact, preferences"
        )
        self._add("patients", columns, people, lambda p: (p.blood_group, p.guardian, p.preferences))

    def _add(self, table: str, columns: str, people: _Ahead, own: Callable[[Person], tuple[object, ...]]) -> None:
        """Copy the next chunk in."""
        accounts: list[tuple[str, str, int]] = []

        def rows() -> Iterator[tuple[object, ...]]:
            for p in people.chunk():
                accounts.append((p.phone, p.key, self.roles[ROLE_OF[p.kind]]))
                shared = (p.code, p.title, p.first_name, p.last_name, p.personal_info, p.contact_info, p.details)
                yield (p.key, self.hospital, self.branch, *shared, *own(p))

        self._copy(table, columns, rows(), people.make_some)
        entity = "patient" if table == "patients" else "staff"
        users = ((phone, self.hospital, entity, key, self.hash) for phone, key, _ in accounts)
        self._copy("users", "user_id, hospital_id, entity_type, entity_id, password_hash", users, people.make_some)
        mappings = ((phone, role, self.hospital) for phone, _, role in accounts)
        self._copy("user_role_mapping", "user_id, role_id, hospital_id", mappings, people.make_some)

    def _copy(self, table: str, columns: str, rows: Iterable[tuple[object, ...]], meanwhile: Callable[[], None]) -> None:
        """Copy rows in; `meanwhile` is called when they are sent, and the server has not answered yet."""
        if self.under_policies:  # COPY is refused then
            values = ", ".join("%s" for _ in columns.split(", "))
            statement = f"INSERT INTO public.{table} ({columns}) VALUES ({values})"  # noqa: S608
            self.connection.cursor().executemany(statement.encode(), rows)
            return
        with self.connection.cursor().copy(f"COPY public.{table} ({columns}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)
            meanwhile()


def _highest(connection: Connection) -> dict[str, int]:
    """The highest number among the invented people that are present, by the prefix of their codes."""
    return dict(
        connection.execute(
            """
            SELECT substring(code FROM '^[A-Z]+'), max(substring(code FROM '[0-9]+$')::int)
            FROM (SELECT mrn AS code FROM public.patients UNION ALL SELECT employee_code FROM public.staff) AS codes
            WHERE code OPERATOR(pg_catalog.~) '^(T|DOC|NUR|REC|PHA)[0-9]{6,9}$' GROUP BY 1
            """
        ).fetchall()
    )
