"""Seeds: reference data that respects people's edits, and invented people that are the same everywhere."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest
from conftest import Project
from hypothesis import given, settings
from hypothesis import strategies as st

from skinspire_db.clinic import names, people, reference, seed
from skinspire_db.clinic.people import person
from skinspire_db.config import project as current
from skinspire_db.config.environment import Environment
from skinspire_db.config.policy import PRESETS
from skinspire_db.content import reference as applying
from skinspire_db.content import seeding
from skinspire_db.content.files import ReferenceFile
from skinspire_db.content.seeding import MOST, Options
from skinspire_db.errors import GuardRefused, UsageError
from skinspire_db.lifecycle.result import Summary

Connection = psycopg.Connection[Any]
ALL_ROWS = "SELECT to_jsonb(p) - 'created_at' - 'updated_at' FROM {} p ORDER BY 1"


def rows(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT to_jsonb(t) FROM {table} t ORDER BY to_jsonb(t)::text".encode()).fetchall()


# Invented people


def test_the_first_people_never_change() -> None:
    """Byte for byte, on every machine, Python and day. When this fails, everybody's test data has changed."""
    made = [person(1, kind, number) for kind in people.KINDS for number in range(1, 51)]
    text = "\n".join(json.dumps(list(p)) for p in made)
    assert hashlib.sha256(text.encode()).hexdigest() == "73c331fd7bb155bffa8df9386c0c1375923425fb3355c828233c695aa0a9ef1a"


def test_what_is_written_into_json_needs_no_escape() -> None:
    words = [*names.FEMALE, *names.MALE, *names.LAST, *people.STREETS, *(word for place in people.PLACES for word in place)]
    assert not [word for word in words if json.dumps(word) != f'"{word}"']


def test_seeds_differ() -> None:
    assert person(1, "patient", 1) != person(2, "patient", 1)


def test_a_thousand_patients_are_diverse() -> None:
    made = [person(3, "patient", number) for number in range(1, 1001)]
    infos = [json.loads(p.personal_info) for p in made]
    contacts = [json.loads(p.contact_info) for p in made]
    ages = [(people.TODAY - date.fromisoformat(info["date_of_birth"])).days / 365 for info in infos]
    assert min(ages) < 1 and max(ages) > 88
    assert 400 < sum(info["gender"] == "female" for info in infos) < 600
    groups = Counter(p.blood_group for p in made)
    assert 300 < groups["O+"] < 430 and groups["O-"] < 30 and sum(groups.values()) == 1000
    assert len({language for info in infos for language in info["languages"]}) > 8
    assert all(p.guardian and json.loads(p.guardian)["guardian"] for p, age in zip(made, ages, strict=True) if age < 17.9)
    without = sum(contact["email"] is None for contact in contacts)
    assert 250 < without < 500
    assert len({(p.first_name, p.last_name) for p in made}) > 950


@settings(deadline=None)
@given(st.integers(1, MOST), st.integers(1, MOST), st.sampled_from(people.KINDS), st.sampled_from(people.KINDS))
def test_no_two_people_share_a_phone_number(first: int, second: int, one: people.Kind, other: people.Kind) -> None:
    a, b = person(1, one, first), person(1, other, second)
    assert (a.phone == b.phone) == ((one, first) == (other, second))
    assert len(a.phone) == 10 and a.phone[0] in "6789" and int(a.phone) < 9_999_000_000


def test_a_second_run_adds_nothing_and_a_larger_number_the_difference(clinic: Project) -> None:
    with clinic.connect() as connection:
        before = rows(connection, "patients")
        assert clinic.invoke("db.seed", "--random-seed=99").code == 0
        assert rows(connection, "patients") == before
        outcome = clinic.invoke("db.seed", "--patients=30", "--doctors=6", "--json")
        summary = outcome.json["steps"][0]["summary"]
        assert (summary["patients"], summary["doctors"], summary["support_staff"], summary["reference_rows_added"]) == (
            10,
            1,
            0,
            0,
        )
        assert [row for row in rows(connection, "patients") if row in before] == before
        clinic.execute(
            "DELETE FROM users USING patients WHERE entity_id = patient_id AND mrn < 'T000031' AND mrn > 'T000020'"
        )
        clinic.execute("DELETE FROM patients WHERE mrn > 'T000020'")
        assert rows(connection, "patients") == before
        assert clinic.invoke("db.seed", "--patients=30").code == 0
        assert connection.execute("SELECT count(*) FROM patients").fetchone() == (30,)


def test_the_same_seed_gives_the_same_rows_whatever_the_steps(clinic: Project) -> None:
    """20 and then 40 patients, or 40 at once: the same rows."""
    other = clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    assert clinic.invoke("db.seed", "--patients=40").code == 0
    assert clinic.invoke("db.setup", "--env=test", "--patients=40").code == 0
    for table in ("patients", "staff", "user_role_mapping"):
        assert clinic.query(ALL_ROWS.format(table)) == clinic.query(ALL_ROWS.format(table), other)


def test_users_of_many_chunks(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is made while the server is at work on the one before."""
    ahead: list[int] = []
    chunk = seed._Ahead.chunk

    def counted(ready: seed._Ahead) -> Iterator[people.Person]:
        ahead.append(len(ready.made))
        return chunk(ready)

    monkeypatch.setattr(seed, "CHUNK", 7)
    monkeypatch.setattr(seed._Ahead, "chunk", counted)
    assert clinic.invoke("db.seed", "--patients=100").code == 0
    assert ahead == [0, *[6] * 10, 3], "80 patients in 12 chunks"
    assert clinic.query("SELECT count(*), count(DISTINCT mrn) FROM patients") == [(100, 100)]
    assert clinic.query("SELECT count(*) FROM users WHERE entity_type = 'patient'") == [(100,)]
    assert clinic.query("SELECT reltuples FROM pg_class WHERE relname = 'patients'") == [(100,)], "ANALYZE"
    distinct = "SELECT n_distinct FROM pg_stats WHERE schemaname = 'public' AND tablename = 'patients' AND attname = 'mrn'"
    assert clinic.query(distinct) == [(-1,)]


def test_who_seeded_is_recorded(connection: Connection) -> None:
    assert connection.execute("SELECT DISTINCT created_by FROM patients").fetchall() == [("seed",)]


def test_no_test_data_in_a_protected_environment(clinic: Project, connection: Connection) -> None:
    before = rows(connection, "patients")
    project = current.Project(clinic.root, {})
    prod = seeding.Content(
        Environment("prod", PRESETS["prod"], current.Setting("PROD_DATABASE_URL", None, "not set"), project), {}
    )
    with pytest.raises(GuardRefused, match="test data is never seeded"):
        seeding.seed(connection, prod, Options())
    assert rows(connection, "patients") == before
    seeding.seed(connection, prod, Options(reference_only=True))


@pytest.mark.parametrize("numbers", [{"patients": 0}, {"patients": -5}, {"doctors": 0}, {"patients": MOST + 1}])
def test_numbers_that_mean_nothing(numbers: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Options(**numbers)  # type: ignore[arg-type]


# Reference data


@pytest.fixture
def data() -> dict[str, Any]:
    return copy.deepcopy(reference.load())


def apply_all(connection: Connection, policy: str, data: dict[str, Any]) -> Summary:
    """What the core's file stands for, and its administrators, under one of the policies."""
    file = ReferenceFile(reference.FILE, {name: each for name, each in data.items() if name != "code"}, reference)
    done = applying.apply(connection, file.tables(PRESETS[policy]))
    administrators = file.complete(connection, PRESETS[policy])
    return Summary(done.numbers, sign_in=administrators.sign_in)


def apply(connection: Connection, data: dict[str, Any]) -> tuple[int, int]:
    numbers = apply_all(connection, "test", data).numbers
    return int(numbers["reference_rows_added"]), int(numbers["reference_rows_updated"])


TABLES = (
    "hospitals",
    "branches",
    "parameter_settings",
    "module_master",
    "role_master",
    "role_module_access",
    "users",
    "staff",
)


def test_a_second_run_changes_nothing(connection: Connection, data: dict[str, Any]) -> None:
    before = [rows(connection, table) for table in TABLES]
    assert apply(connection, data) == (0, 0)
    assert [rows(connection, table) for table in TABLES] == before


def test_a_change_in_the_file_updates_what_it_describes_and_nothing_else(
    connection: Connection, data: dict[str, Any]
) -> None:
    before = {table: rows(connection, table) for table in TABLES}
    data["parameters"][0]["param_value"] = "7"
    data["roles"][2]["description"] = "Heals"
    data["roles"][2]["access"]["Inventory"] = "v"
    assert apply(connection, data) == (4, 2)
    changed = {table for table in TABLES if rows(connection, table) != before[table]}
    assert changed == {"parameter_settings", "role_master", "role_module_access"}
    assert connection.execute(
        "SELECT param_value FROM parameter_settings WHERE param_code = 'MAX_LOGIN_ATTEMPTS'"
    ).fetchone() == ("7",)
    assert apply(connection, data) == (0, 0)


def test_what_people_edited_stays(connection: Connection, data: dict[str, Any]) -> None:
    connection.execute(
        "UPDATE parameter_settings SET param_value = '9', description = 'ours' WHERE param_code = 'MAX_LOGIN_ATTEMPTS';"
        "UPDATE hospitals SET name = 'Our Clinic', license_no = 'KA-1'"
    )
    assert apply(connection, data) == (0, 0)
    data["parameters"][0]["description"] = "theirs"  # the file changes one column: that one is written, the other stays
    assert apply(connection, data) == (0, 1)
    row = connection.execute(
        "SELECT param_value, description FROM parameter_settings WHERE param_code = 'MAX_LOGIN_ATTEMPTS'"
    )
    assert row.fetchone() == ("9", "theirs")
    assert connection.execute("SELECT name, license_no FROM hospitals").fetchall() == [("Our Clinic", "KA-1")]


def test_what_is_missing_comes_back(connection: Connection, data: dict[str, Any]) -> None:
    connection.execute("DELETE FROM parameter_settings")
    assert apply(connection, data) == (4, 0)


def test_a_right_that_was_revoked_stays_so(connection: Connection, data: dict[str, Any]) -> None:
    connection.execute(
        "DELETE FROM role_module_access WHERE role_id = (SELECT role_id FROM role_master WHERE role_name = 'Nurse') AND can_edit"
    )
    assert apply(connection, data) == (0, 0)


def test_an_administrator_comes_back_when_nobody_is_left(connection: Connection, data: dict[str, Any]) -> None:
    connection.execute("DELETE FROM users WHERE user_id = '9999999999'")
    assert [each.user_id for each in apply_all(connection, "test", data).sign_in] == ["9999999999"]
    connection.execute("DELETE FROM user_role_mapping WHERE user_id = '9999999999'")
    assert apply_all(connection, "test", data).sign_in == [], "people took the role away"


def test_who_sees_a_part_sees_its_module(connection: Connection) -> None:
    hidden = connection.execute(
        "SELECT r.role_name, m.module_name FROM role_module_access a JOIN role_master r USING (role_id) JOIN module_master m USING (module_id)"
        " WHERE m.parent_module IS NOT NULL AND NOT EXISTS (SELECT FROM role_module_access p WHERE p.role_id = a.role_id"
        " AND p.module_id = m.parent_module AND p.can_view)"
    ).fetchall()
    assert hidden == []


def test_new_rows_of_the_file_are_added(connection: Connection, data: dict[str, Any]) -> None:
    data["parameters"].append({"param_code": "NEW", "param_value": "1"})
    data["modules"].append(
        {"name": "Billing", "icon": "b", "route": "/b", "parts": [{"name": "Invoices", "icon": "i", "route": "/i"}]}
    )
    added, _ = apply(connection, data)
    assert added == 1 + 2 + 4, "a parameter, two modules, and the two administrators' rights in them"


def test_an_administrator_that_was_removed_does_not_come_back_while_another_is_there(
    connection: Connection, data: dict[str, Any]
) -> None:
    connection.execute(
        "INSERT INTO users (user_id, entity_type, entity_id) VALUES ('9000000000', 'staff', gen_random_uuid());"
        "INSERT INTO user_role_mapping (user_id, role_id) SELECT '9000000000', role_id FROM role_master WHERE role_name = 'System Administrator';"
        "DELETE FROM users WHERE user_id = '9999999999'"
    )
    assert apply_all(connection, "test", data).sign_in == []
    assert connection.execute("SELECT count(*) FROM users WHERE user_id = '9999999999'").fetchone() == (0,)


def test_every_role_has_rights_and_they_are_the_described_ones(connection: Connection) -> None:
    found = {
        role: (modules, deletes)
        for role, modules, deletes in connection.execute(
            "SELECT role_name, count(*), count(*) FILTER (WHERE can_delete) FROM role_master JOIN role_module_access USING (role_id) GROUP BY 1"
        ).fetchall()
    }
    expected = reference.rows(reference.load(), PRESETS["test"])
    modules = len(expected["module_master"]["rows"])
    assert set(found) == {row["role_name"] for row in expected["role_master"]["rows"]}
    assert found["System Administrator"] == (modules, modules)
    assert found["Hospital Administrator"] == (modules, 0)
    doctor = connection.execute(
        "SELECT array_agg(module_name ORDER BY module_name) FROM role_module_access JOIN role_master USING (role_id) JOIN module_master m USING (module_id) WHERE role_name = 'Doctor'"
    ).fetchone()
    assert doctor == (["Appointments", "Clinical", "Consultations", "Dashboard", "Prescriptions"],)


def test_a_protected_environment_gets_generated_passwords(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("db.create").code == 0
    with project.connect() as connection:
        made = apply_all(connection, "prod", reference.load()).sign_in
        assert len({each.password for each in made}) == 2
        assert reference.TEST_PASSWORD not in {each.password for each in made}
        hashes = connection.execute("SELECT password_hash FROM users").fetchall()
    for hashed, salt in ((hashed, hashed.split("$")[1]) for (hashed,) in hashes):
        keys = {
            hashlib.scrypt(each.password.encode(), salt=salt.encode(), n=32768, r=8, p=1, maxmem=2**26).hex() for each in made
        }
        assert hashed.split("$")[2] in keys, "what Werkzeug's check_password_hash computes"
    assert made[0].password not in repr(made)


def test_many_people_are_added_without_a_scan_of_the_tables_for_each(project: Project) -> None:
    """Plans are made while the tables are empty, for triggers and foreign keys too, and kept for the transaction."""
    assert project.invoke("db.setup", "--reference-only").code == 0
    assert project.invoke("db.seed", "--patients=300").code == 0
    project.execute(
        """
        INSERT INTO patients (hospital_id, first_name, last_name, personal_info, contact_info)
            SELECT hospital_id, 'Many', 'People', '{}', '{}' FROM hospitals, generate_series(1, 300);
        INSERT INTO users (user_id, hospital_id, entity_type, entity_id, password_hash)
            SELECT 'many' || row_number() OVER (), hospital_id, 'patient', patient_id,
                   (SELECT min(password_hash) FROM users) FROM patients WHERE first_name = 'Many'
        """
    )
    scans = dict(project.query("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('users', 'patients')"))
    assert scans["users"] < 100 and scans["patients"] < 100, scans
