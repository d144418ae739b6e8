"""Seeding many people beside the ORM and beside psql's \\copy of the same rows into the same tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from .harness import CHECKOUT, Bench, Figure, bench, medians

PEOPLE = int(os.environ.get("BENCH_PATIENTS", "100000"))
COLUMNS = {
    "patients": "patient_id, hospital_id, branch_id, mrn, title, first_name, last_name, personal_info, contact_info,"
    " medical_info, blood_group, emergency_contact, preferences",
    "users": "user_id, hospital_id, entity_type, entity_id, password_hash",
    "user_role_mapping": "user_id, role_id",
}


INSERTING = """
    SELECT tgrelid::regclass::text, tgname FROM pg_trigger
    WHERE NOT tgisinternal AND tgtype & 4 = 4 AND tgrelid = ANY (%s::text[]::regclass[]) ORDER BY 1, 2
"""


def bench_seed() -> list[Figure]:
    """100,000 patients with users and roles, triggers on."""
    with bench() as project:
        copies = [argument for copy in _copies(project).values() for argument in copy]

        def ours() -> float:
            project.clone("empty_clinic", "skinspire_dev")
            return project.invoke("db.seed", f"--patients={PEOPLE}")

        def psql() -> float:
            project.clone("empty_clinic", "skinspire_dev")
            return project.psql("skinspire_dev", "-1", *copies)

        seeded, copied = medians(ours, psql)
        project.clone("empty_clinic", "skinspire_dev")
        orm = medians(lambda: _orm(project), rounds=5)[0]
    return [
        Figure(f"seed {PEOPLE:,} patients", seeded, "psql \\copy of the same rows", copied, 1.1),
        Figure(f"seed {PEOPLE:,} patients", seeded, "the ORM's add_all", orm, 0.2),
    ]


def bench_seed_triggers() -> list[Figure]:
    """What each trigger adds to the same rows: each alone beside none, on its own table; and all with no foreign key."""
    with bench() as project:
        copies = _copies(project)
        with project.connect("empty_clinic") as connection:
            triggers = connection.execute(INSERTING, (list(COLUMNS),)).fetchall()
        off = {
            table: "".join(f"ALTER TABLE {t} DISABLE TRIGGER {name};" for t, name in triggers if t == table)
            for table in COLUMNS
        }

        def load(tables: Iterable[str], setting: str) -> float:
            """Seconds for the last of these tables; the others are there before."""
            project.clone("empty_clinic", "skinspire_dev")
            *before, last = tables
            if before:
                prepared = [argument for table in before for argument in copies[table]]
                project.psql("skinspire_dev", "-1", "-c", "SET session_replication_role = replica", *prepared)
            return project.psql("skinspire_dev", "-1", "-c", setting, *copies[last])

        order, found = list(COLUMNS), []
        for index, table in enumerate(order):
            present = order[: index + 1]
            names = [name for t, name in triggers if t == table]
            settings = [
                "SET session_replication_role = replica", off[table],
                *(f"{off[table]} ALTER TABLE {table} ENABLE TRIGGER {name}" for name in names), "SELECT",
            ]  # fmt: skip
            keyless, bare, *alone, everything = medians(*(partial(load, present, each) for each in settings), rounds=3)
            found.append(Figure(f"`{table}` with foreign keys and no trigger", bare, "neither", keyless, 6))
            found += [
                Figure(f"`{table}` with `{name.lstrip('_0123456789')}` alone", took, "no trigger", bare, 3)
                for name, took in zip(names, alone, strict=True)
            ]
            found.append(Figure(f"`{table}` with all triggers", everything, "no trigger", bare, 6))
        return found


def bench_memory() -> list[Figure]:
    """A million patients: the seeding process must not grow with their number."""
    with bench() as project:
        project.invoke("db.setup", "--reference-only")
        return [Figure("seed 1,000,000 patients, memory", _peak(project, 1_000_000), "300 MB", 300, 1, "MB")]


def _copies(project: Bench) -> dict[str, list[str]]:
    """Arguments of psql, by table, that copy 100,000 seeded patients into a clone of empty_clinic, which is made."""
    project.invoke("db.setup", "--reference-only")
    project.clone("skinspire_dev", "empty_clinic")
    project.invoke("db.seed", f"--patients={PEOPLE}")
    copies = {}
    for table, columns in COLUMNS.items():
        path = project.root / table
        rows = f"SELECT {columns} FROM {table} WHERE created_by = 'seed' AND {_of_patients(table)}"
        project.psql("skinspire_dev", "-c", f"\\copy ({rows}) TO '{path}'")
        copies[table] = ["-c", f"\\copy {table} ({columns}) FROM '{path}'"]
    return copies


def _of_patients(table: str) -> str:
    if table == "patients":
        return "true"
    return "user_id IN (SELECT user_id FROM users WHERE entity_type = 'patient')"


def _orm(project: Bench) -> float:
    """The same rows as objects, added and flushed in one unit of work; reading them in is not counted."""
    project.clone("empty_clinic", "skinspire_dev")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.orm_peer", str(project.root)],
        cwd=CHECKOUT, env=project.env, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return float(done.stdout)


def _peak(project: Bench, patients: int) -> float:
    """The highest resident set of the process, in MB."""
    command = [
        str(Path(sys.executable).with_name("invoke")),
        "-r",
        str(CHECKOUT),
        "db.seed",
        f"--patients={patients}",
        "--json",
    ]
    task = subprocess.Popen(command, cwd=project.root, env=project.env, stdout=subprocess.PIPE, text=True)
    peak = 0.0
    while task.poll() is None:
        for line in Path(f"/proc/{task.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]) / 1024)
        time.sleep(0.2)
    out, _ = task.communicate()
    assert json.loads(out)["ok"] and os.name == "posix"
    return peak
