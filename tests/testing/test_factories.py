"""The people that make_patient and the other factories invent."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from skinspire_db.clinic.factories import Factory
from skinspire_db.clinic.models import Patient, Staff, User
from skinspire_db.testing.modes import ClinicDatabase


def age_today(born: str) -> int:
    day, today = date.fromisoformat(born), date.today()
    return today.year - day.year - ((today.month, today.day) < (day.month, day.day))


@pytest.mark.parametrize("age", [0, 7, 17, 18, 90])
def test_people_of_an_age(make_patient: Any, age: int, assert_valid: Any) -> None:
    patient = make_patient(age=age)
    assert age_today(patient.personal_info["date_of_birth"]) == age
    assert (patient.title in ("Miss", "Master")) == (age < 18)
    if age < 18:
        assert patient.emergency_contact["guardian"] is True and patient.contact_info["email"] is None
    assert_valid()


def test_people_are_valid_and_belong_to_one_hospital(
    db: ClinicDatabase, make_patient: Any, make_doctor: Any, make_staff: Any, make_user: Any, make_hospital: Any
) -> None:
    hospital = make_hospital(name="Other")
    pharmacist = make_staff("pharmacy", hospital=hospital)
    made = [make_patient(hospital=hospital), make_doctor(hospital=hospital, user=True), pharmacist]
    assert {(each.hospital_id, each.branch_id) for each in made} == {(hospital.hospital_id, hospital.branches[0].branch_id)}
    user = make_user(of=made[0])
    assert (user.entity_type, user.entity_id, user.hospital_id) == ("patient", made[0].patient_id, hospital.hospital_id)
    assert [role.role_name for role in make_user(role="Nurse").roles] == ["Nurse"]
    signs_in = "SELECT count(*) FROM users WHERE user_id = %s AND password_hash = crypt('SkinSpire@2024', password_hash)"
    assert db.observer.execute(signs_in, (user.user_id,)).fetchone() == (1,)
    assert db.session.query(Staff).filter_by(staff_type="doctor", hospital_id=hospital.hospital_id).one() is made[1]
    assert db.session.query(User).filter_by(entity_id=made[1].staff_id).count() == 1


MODES = [pytest.param(mode, marks=pytest.mark.db(mode)) for mode in ("session", "database", "clone")]


@pytest.mark.parametrize("mode", MODES)
def test_people_are_the_same_in_every_run_of_a_test(db: ClinicDatabase, mode: str) -> None:
    def some() -> list[tuple[Any, ...]]:
        factory = Factory(db)
        return [(p.patient_id, p.first_name, p.mrn) for p in (factory.patient(), factory.patient(age=3))]

    first = some()
    db.session.query(Patient).filter(Patient.patient_id.in_([each[0] for each in first])).delete()
    db.session.commit()
    assert some() == first
    other: Any = SimpleNamespace(session=db.session, test="another test", hospital="")
    assert Factory(other).random_seed != Factory(db).random_seed
