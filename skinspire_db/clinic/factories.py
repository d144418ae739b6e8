"""People for a test, as the seeder makes them: valid by construction, and the same in every run of the same test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from skinspire_db.clinic import reference
from skinspire_db.clinic.models import Branch, Hospital, Patient, RoleMaster, Staff, User, UserRoleMapping
from skinspire_db.clinic.people import KINDS, Kind, Person, person
from skinspire_db.clinic.seed import ROLE_OF
from skinspire_db.errors import UsageError

if TYPE_CHECKING:
    from skinspire_db.testing.modes import ClinicDatabase

FIRST = 500_000_001  # higher than any number of a seeding: no code and no phone number is in use


class Factory:
    """Makes people in a test's database, and commits them as the code under test would."""

    def __init__(self, database: ClinicDatabase) -> None:
        self.database = database
        self.session = database.session
        self.hospital_id = uuid.UUID(
            database.hospital or reference.load()["hospital"]["hospital_id"]
        )  # that rows are made for
        self.random_seed = int.from_bytes(hashlib.sha256(database.test.encode()).digest()[:4], "big")
        self.made = 0

    def hospital(self, **columns: Any) -> Hospital:
        """A hospital with one branch, beside the seeded one."""
        number = self._number()
        hospital = Hospital(
            **{"hospital_id": self._key("hospital", number), "name": f"Test Clinic {number - FIRST + 1}"} | columns
        )
        branch = Branch(branch_id=self._key("branch", number), name="Main Branch")
        hospital.branches.append(branch)
        with self._working_for(hospital.hospital_id):
            return self._keep(hospital)  # type: ignore[no-any-return]

    def patient(
        self, age: int | None = None, hospital: Hospital | None = None, user: bool = False, **columns: Any
    ) -> Patient:
        """A new patient.

        Args:
            age: In years, 0 to 90; None is a random one.
            hospital: None is the test's own, the seeded one where tenancy is off.
            user: Whether the patient has an account.
            columns: Values in place of the invented ones.

        Raises:
            UsageError: for another age.
        """
        if age is not None and not (type(age) is int and 0 <= age <= 90):
            raise UsageError(f"make_patient(age={age!r}): an age is 0 to 90", remedy="make_patient(age=30)")
        # A person who was born on 1 January has this age all year long.
        born = None if age is None else date(date.today().year - age, 1, 1)
        values = person(self.random_seed, "patient", self._number(), born=born)
        with self._working_for(hospital.hospital_id if hospital else columns.get("hospital_id")):
            patient = Patient(**{
                "patient_id": uuid.UUID(values.key), "mrn": values.code, "medical_info": values.details,
                "blood_group": values.blood_group,
                "emergency_contact": values.guardian and json.loads(values.guardian),
                "preferences": json.loads(values.preferences),
            } | self._shared(values) | columns)  # fmt: skip
            self._keep(patient)
            if user:
                self.user(of=patient)
        return patient

    def staff(self, kind: Kind = "nurse", hospital: Hospital | None = None, user: bool = False, **columns: Any) -> Staff:
        """A new staff member.

        Args:
            kind: doctor, nurse, receptionist or pharmacy.
            hospital: None is the test's own, the seeded one where tenancy is off.
            user: Whether the staff member has an account.
            columns: Values in place of the invented ones.

        Raises:
            UsageError: for another kind.
        """
        if kind not in KINDS or kind == "patient":
            raise UsageError(f"make_staff({kind!r}) is none of {', '.join(KINDS[:-1])}", remedy='make_staff("nurse")')
        values = person(self.random_seed, kind, self._number())
        with self._working_for(hospital.hospital_id if hospital else columns.get("hospital_id")):
            member = Staff(**{
                "staff_id": uuid.UUID(values.key), "employee_code": values.code, "staff_type": kind,
                "specialization": values.specialization, "professional_info": json.loads(values.details),
            } | self._shared(values) | columns)  # fmt: skip
            self._keep(member)
            if user:
                self.user(of=member)
        return member

    def doctor(self, hospital: Hospital | None = None, user: bool = False, **columns: Any) -> Staff:
        """A new doctor; otherwise as staff()."""
        return self.staff("doctor", hospital, user, **columns)

    def user(
        self, of: Patient | Staff | None = None, role: str | None = None, hospital: Hospital | None = None, **columns: Any
    ) -> User:
        """A new account. Its password is that of the seeded people, which the documentation names.

        Args:
            of: The patient or staff member; None is a new receptionist.
            role: The name of a role; None is the one that goes with the person's kind.
            hospital: Of the new receptionist.
            columns: Values in place of the invented ones.

        Raises:
            UsageError: for a role that does not exist, and for a person who has an account.
        """
        holder = of if of is not None else self.staff("receptionist", hospital)
        with self._working_for(holder.hospital_id):
            return self._user(holder, role, columns)

    def _user(self, holder: Patient | Staff, role: str | None, columns: dict[str, Any]) -> User:
        kind = "patient" if isinstance(holder, Patient) else holder.staff_type
        name = role or ROLE_OF.get(kind)  # type: ignore[call-overload]
        query = select(RoleMaster).where(RoleMaster.role_name == name).order_by(RoleMaster.hospital_id.nulls_first())
        role_row = self.session.scalars(query.limit(1)).first()
        if role_row is None:
            known = ", ".join(self.session.scalars(select(RoleMaster.role_name).distinct().order_by(RoleMaster.role_name)))
            raise UsageError(f"make_user(role={name!r}): there is no such role", remedy=f"use one of: {known}")
        account = User(**{
            "user_id": holder.contact_info["phone"], "hospital_id": holder.hospital_id, "entity_type": "staff",
            "entity_id": holder.patient_id if isinstance(holder, Patient) else holder.staff_id,
            "password_hash": self._test_password(),
        } | ({"entity_type": "patient"} if isinstance(holder, Patient) else {}) | columns)  # fmt: skip
        if self.session.get(User, account.user_id) is not None:
            raise UsageError(
                f"make_user: {account.user_id} has an account already", remedy="session.get(User, ...) is that one"
            )
        account.role_mappings.append(UserRoleMapping(role_id=role_row.role_id))
        return self._keep(account)  # type: ignore[no-any-return]

    def _shared(self, values: Person) -> dict[str, Any]:
        """The columns that patients and staff have in common."""
        query = (
            select(Branch.branch_id)
            .where(Branch.hospital_id == self.hospital_id)
            .order_by(Branch.created_at, Branch.branch_id)
        )
        return {
            "hospital_id": self.hospital_id, "branch_id": self.session.scalars(query.limit(1)).first(), "title": values.title,
            "first_name": values.first_name, "last_name": values.last_name,
            "personal_info": json.loads(values.personal_info),
            "contact_info": json.loads(values.contact_info),
        }  # fmt: skip

    @contextlib.contextmanager
    def _working_for(self, hospital_id: uuid.UUID | None) -> Iterator[None]:
        """Make rows for a hospital; None is the one that they are made for now."""
        if hospital_id is None or hospital_id == self.hospital_id:
            yield
            return
        former = self.session, self.hospital_id
        with self.database.session_for(str(hospital_id)) as self.session:
            self.hospital_id = hospital_id
            try:
                yield
            finally:
                self.session, self.hospital_id = former

    def _keep(self, entity: Any) -> Any:
        self.session.add(entity)
        self.session.commit()
        return entity

    def _test_password(self) -> str:
        """The hash of the documented password, the same in every run of the test."""
        salt = f"$2a${reference.TEST_PASSWORD_COST:02}${hashlib.sha256(str(self.random_seed).encode()).hexdigest()[:22]}"
        return str(self.session.scalar(select(func.crypt(reference.TEST_PASSWORD, salt))))

    def _number(self) -> int:
        self.made += 1
        return FIRST + self.made - 1

    def _key(self, kind: str, number: int) -> uuid.UUID:
        digest = hashlib.sha256(f"{self.random_seed}/{kind}/{number}".encode()).digest()
        return uuid.UUID(bytes=digest[:16], version=4)
