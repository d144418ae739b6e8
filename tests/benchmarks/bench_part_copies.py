"""Copies of a part or in other words: masked beside the plain stream, and one hospital of 500 beside all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .harness import CHECKOUT, Bench, Figure, bench, medians

HOSPITALS = 500
TABLES = 2000
TABLE = """
    CREATE TABLE t_{number} (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hospital_id uuid NOT NULL, name varchar(50) NOT NULL UNIQUE,
        facts jsonb, amount numeric(10, 2) CHECK (amount >= 0), created_at timestamptz DEFAULT now(),
        parent_id bigint REFERENCES t_{parent}
    )
"""
# Each hospital has the patients of the one that db.setup made, so many times, and visits that refer to them.
MULTIPLY = """
    SET session_replication_role = replica;
    INSERT INTO hospitals (hospital_id, name, license_no)
        SELECT gen_random_uuid(), 'Hospital ' || n, 'L' || n FROM generate_series(2, {hospitals}) AS n;
    CREATE TEMP TABLE model AS SELECT * FROM patients;
    INSERT INTO patients (patient_id, hospital_id, mrn, title, first_name, last_name, personal_info, contact_info, emergency_contact)
        SELECT gen_random_uuid(), h.hospital_id, 'N' || k || m.mrn, m.title, m.first_name, m.last_name, m.personal_info,
               m.contact_info, m.emergency_contact
        FROM hospitals AS h, generate_series(1, {times}) AS k, model AS m;
    CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, patient_id uuid NOT NULL, note text NOT NULL);
    INSERT INTO visits (patient_id, note) SELECT patient_id, repeat(mrn || ' ', 10) FROM patients;
    ALTER TABLE visits ADD FOREIGN KEY (patient_id) REFERENCES patients;
    CREATE INDEX ON visits (patient_id);
"""


def bench_masked_450_megabytes_of_patients() -> list[Figure]:
    patients = int(os.environ.get("BENCH_PATIENTS", "330000"))
    size = f"{round(patients / 330_000 * 450)} MB of patients"
    with bench() as project:
        project.invoke("db.setup", "--env=test", f"--patients={patients}")
        copy = ("db.copy", "--source=test", "--target=dev")
        ours, peer = medians(
            lambda: project.invoke(*copy, "--masked"), lambda: project.invoke(*copy, "--method=stream"), rounds=3
        )
        memory = peak(project, *copy, "--masked")
        return [
            Figure(f"db.copy --masked, {size}", ours, "db.copy --method=stream", peer, 1.3),
            Figure(f"memory of db.copy --masked, {size}", memory, "limit", 100, 1, "MB"),
        ]


def bench_one_hospital_of_500_out_of_2_gigabytes() -> list[Figure]:
    return one_hospital(int(os.environ.get("BENCH_TIMES", "180")))


def one_hospital(times: int) -> list[Figure]:
    """One of 500 hospitals beside its share of a copy of all, twice, and a second."""
    with bench() as project:
        project.invoke("db.setup", "--env=test")
        with project.connect("skinspire_test") as connection:
            connection.execute(MULTIPLY.format(hospitals=HOSPITALS, times=times).encode())
            connection.execute("VACUUM ANALYZE")
            hospital, size = connection.execute(
                "SELECT max(hospital_id::text), pg_database_size(current_database()) / 1e9 FROM hospitals"
            ).fetchone() or ("", 0)
        copy = ("db.copy", "--source=test", "--target=dev", "--method=stream")
        ours, whole = medians(
            lambda: project.invoke(*copy, f"--hospital={hospital}"), lambda: project.invoke(*copy), rounds=1
        )
        share = 2 * whole / HOSPITALS + 1
        return [Figure(f"one hospital of {HOSPITALS} out of {size:.1f} GB", ours, "twice its share, and a second", share, 1)]


def bench_mask_check_of_2000_tables() -> list[Figure]:
    """Every column of an application of its own with the mask that its type has."""
    with bench() as project:
        (project.root / "shop.py").write_text("from sqlalchemy import MetaData\n\nmetadata = MetaData()\n")
        (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:metadata"]\n')
        with project.connect("postgres") as connection:
            connection.execute("CREATE DATABASE skinspire_dev")
        with project.connect("skinspire_dev") as connection:
            for number in range(TABLES):
                connection.execute(TABLE.format(number=number, parent=max(number - 1, 0)).encode())
            connection.execute("VACUUM ANALYZE")
        project.invoke("env.stamp", "--env=dev", "--confirm=skinspire_dev")
        (ours,) = medians(lambda: project.invoke("mask.check", "--env=dev", exit_code=3))
        return [Figure(f"mask.check of {TABLES:,} tables", ours, "a fixed second", 1, 1)]


def peak(project: Bench, *arguments: str) -> float:
    """The most memory that a task and its programs use, each of them, in MB."""
    command = [str(Path(sys.executable).with_name("invoke")), "-r", str(CHECKOUT), *arguments]
    env = {name: value for name, value in project.env.items() if not name.startswith("PG")}
    task = subprocess.Popen(command, cwd=project.root, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(task.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1000
