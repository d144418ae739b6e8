"""People for a test, as the seeder makes them: valid by construction, and the same in every run of the same test."""

from __future__ import annotations

import hashlib
import json
import uuid
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

FIRST = 500_000_001  # numbers that no seeding reaches, so that no code and no phone number is taken


class Factory:
    """Makes people in a test's database, and commits them as the code under test would."""

    def __init__(self, database: ClinicDatabase) -> None:
        self.session = database.session
        self.random_seed = int.from_bytes(hashlib.sha256(database.test.encode()).digest()[:4], "big")
        self.made = 0

    def hospital(self, **columns: Any) -> Hospital:
        """A hospital with one branch, beside the seeded one."""
        number = self._number()
        made = Hospital(
            **{"hospital_id": self._key("hospital", number), "name": f"Test Clinic {number - FIRST + 1}"} | columns
        )
        branch = Branch(branch_id=self._key("branch", number), name="Main Branch")
        made.branches.append(branch)
        return self._keep(made)  # type: ignore[no-any-return]

    def patient(
        self, age: int | None = None, hospital: Hospital | None = None, user: bool = False, **columns: Any
    ) -> Patient:
        """A patient of that age in years (0 to 90), at the seeded hospital or another; with `user` somebody who can sign in.

        Raises UsageError for an age that nobody has.
        """
        if age is not None and not (type(age) is int and 0 <= age <= 90):
            raise UsageError(f"make_patient(age={age!r}): an age is 0 to 90", remedy="make_patient(age=30)")
        # Who was born on 1 January has the age all year long.
        born = None if age is None else date(date.today().year - age, 1, 1)
        new = person(self.random_seed, "patient", self._number(), born=born)
        made = Patient(**{
            "patient_id": uuid.UUID(new.key), "mrn": new.code, "medical_info": new.details, "blood_group": new.blood_group,
            "emergency_contact": new.guardian and json.loads(new.guardian), "preferences": json.loads(new.preferences),
        } | self._shared(new, hospital, columns) | columns)  # fmt: skip
        self._keep(made)
        if user:
            self.user(of=made)
        return made

    def staff(self, kind: Kind = "nurse", hospital: Hospital | None = None, user: bool = False, **columns: Any) -> Staff:
        """Somebody who works there: a doctor, nurse, receptionist, or in the pharmacy.

        Raises UsageError for another kind.
        """
        if kind not in KINDS or kind == "patient":
            raise UsageError(f"make_staff({kind!r}) is none of {', '.join(KINDS[:-1])}", remedy='make_staff("nurse")')
        new = person(self.random_seed, kind, self._number())
        made = Staff(**{
            "staff_id": uuid.UUID(new.key), "employee_code": new.code, "staff_type": kind,
            "specialization": new.specialization, "professional_info": json.loads(new.details),
        } | self._shared(new, hospital, columns) | columns)  # fmt: skip
        self._keep(made)
        if user:
            self.user(of=made)
        return made

    def doctor(self, hospital: Hospital | None = None, user: bool = False, **columns: Any) -> Staff:
        """A doctor."""
        return self.staff("doctor", hospital, user, **columns)

    def user(
        self, of: Patient | Staff | None = None, role: str | None = None, hospital: Hospital | None = None, **columns: Any
    ) -> User:
        """An account of a patient or of somebody who works there, by default of a new receptionist, with the role that goes
        with it or another one. Its password is the seeded people's, which the README names.

        Raises UsageError for a role that there is not, and for somebody who has an account.
        """
        somebody = of if of is not None else self.staff("receptionist", hospital)
        kind = "patient" if isinstance(somebody, Patient) else somebody.staff_type
        name = role or ROLE_OF.get(kind)  # type: ignore[call-overload]
        query = select(RoleMaster).where(RoleMaster.role_name == name).order_by(RoleMaster.hospital_id.nulls_first())
        its_role = self.session.scalars(query.limit(1)).first()
        if its_role is None:
            known = ", ".join(self.session.scalars(select(RoleMaster.role_name).distinct().order_by(RoleMaster.role_name)))
            raise UsageError(f"make_user(role={name!r}): there is no such role", remedy=f"use one of: {known}")
        made = User(**{
            "user_id": somebody.contact_info["phone"], "hospital_id": somebody.hospital_id, "entity_type": "staff",
            "entity_id": somebody.patient_id if isinstance(somebody, Patient) else somebody.staff_id,
            "password_hash": self._test_password(),
        } | ({"entity_type": "patient"} if isinstance(somebody, Patient) else {}) | columns)  # fmt: skip
        if self.session.get(User, made.user_id) is not None:
            raise UsageError(f"make_user: {made.user_id} has an account already", remedy="session.get(User, ...) is that one")
        made.role_mappings.append(UserRoleMapping(role_id=its_role.role_id))
        return self._keep(made)  # type: ignore[no-any-return]

    def _shared(self, new: Person, hospital: Hospital | None, columns: dict[str, Any]) -> dict[str, Any]:
        """The columns that patients and staff have alike; a branch is one of the hospital's."""
        data = reference.load()
        where = hospital.hospital_id if hospital else columns.get("hospital_id") or uuid.UUID(data["hospital"]["hospital_id"])
        query = select(Branch.branch_id).where(Branch.hospital_id == where).order_by(Branch.created_at, Branch.branch_id)
        return {
            "hospital_id": where, "branch_id": self.session.scalars(query.limit(1)).first(), "title": new.title,
            "first_name": new.first_name, "last_name": new.last_name, "personal_info": json.loads(new.personal_info),
            "contact_info": json.loads(new.contact_info),
        }  # fmt: skip

    def _keep(self, made: Any) -> Any:
        self.session.add(made)
        self.session.commit()
        return made

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
