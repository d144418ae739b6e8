"""The peer of the seed: the rows in three files, as ORM objects, through add_all. Prints the seconds."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine
from sqlalchemy.orm import Session

from skinspire_db.clinic.models import Patient, User, UserRoleMapping

from .bench_seed import COLUMNS

CONVERT: dict[str, Callable[[str], Any]] = dict.fromkeys(
    ("personal_info", "contact_info", "emergency_contact", "preferences"), json.loads
)
CONVERT |= dict.fromkeys(("patient_id", "hospital_id", "branch_id", "entity_id"), uuid.UUID) | {"role_id": int}
engine = create_engine(
    URL.create(
        "postgresql+psycopg",
        os.environ["PGUSER"],
        os.environ["PGPASSWORD"],
        os.environ["PGHOST"],
        int(os.environ["PGPORT"]),
        "skinspire_dev",
    )
)


def objects(table: str, kind: type) -> list[object]:
    names = [name.strip() for name in COLUMNS[table].split(",")]
    with (Path(sys.argv[1]) / table).open(newline="") as file:
        made = []
        for values in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            row: dict[str, Any] = {
                name: None if value == "\\N" else value.replace("\\\\", "\\")
                for name, value in zip(names, values, strict=True)
            }
            row = {name: CONVERT[name](value) if name in CONVERT and value else value for name, value in row.items()}
            made.append(kind(**row))
        return made


everything = [objects("patients", Patient), objects("users", User), objects("user_role_mapping", UserRoleMapping)]
started = time.perf_counter()
with Session(engine) as session:
    for group in everything:
        session.add_all(group)
    session.commit()
print(time.perf_counter() - started)
