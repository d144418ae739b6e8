"""db.drift --accept and --forget: the file of accepted differences follows the database, and keeps what was written."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from conftest import Project

pytestmark = pytest.mark.slow
KEPT = "# the hospital's own\n'column public.staff.surplus extra' = 'asked for by the laboratory'\n"
REASON = '--reason=the "old" way'


def drift(project: Project, *flags: str, code: int = 0) -> Any:
    outcome = project.invoke("db.drift", *flags, "--json")
    assert outcome.code == code, outcome.out + outcome.err
    return outcome.json


def test_differences_are_accepted_and_forgotten(clinic: Project) -> None:
    file = clinic.root / "accepted.toml"
    file.write_text(KEPT)
    clinic.execute(
        "ALTER TABLE staff ADD surplus int; ALTER TABLE patients ALTER title SET DEFAULT 'Ms', ALTER personal_info DROP NOT NULL;"
        "CREATE INDEX own ON branches (name); CREATE INDEX other ON branches (branch_id)"
    )
    assert len(drift(clinic, code=3)["drift"]) == 4
    planned = json.loads(clinic.invoke("--dry", "db.drift", "--accept", "--name=ow?", REASON, "--json").out)
    assert planned["would"] == ["accept index own on public.branches extra"] and file.read_text() == KEPT
    # The name of a table is that of what is on it, too; --name leaves the others.
    done = drift(clinic, "--accept", "--name=branches", REASON)
    assert done["steps"][0]["summary"] == {"accepted": 2, "differences_left": 2}
    assert file.read_text().startswith(KEPT) and 'the \\"old\\" way' in file.read_text()
    drift(clinic, "--accept", "--reason=all")
    lines = file.read_text()
    assert drift(clinic)["accepted"] == 5 == len(tomllib.loads(lines))
    assert drift(clinic, "--accept", "--reason=again")["steps"][0]["summary"] == {} and file.read_text() == lines
    # Another definition is another difference: its line is replaced, and no line goes by itself.
    clinic.execute("ALTER TABLE patients ALTER title SET DEFAULT 'Mr'; DROP INDEX own, other")
    assert drift(clinic, code=3)["accepted_and_gone"] == [
        f"index {name} on public.branches extra" for name in ("other", "own")
    ]
    assert drift(clinic, "--accept", "--reason=new")["newly_accepted"] == ["column public.patients.title default"]
    assert file.read_text().count("public.patients.title default") == 1 and "index own" in file.read_text()
    clinic.execute("ALTER TABLE staff DROP surplus")
    assert drift(clinic, "--forget", "--name=branches")["forgotten"] == [
        f"index {name} on public.branches extra" for name in ("other", "own")
    ]
    assert drift(clinic, "--forget")["forgotten"] == ["column public.staff.surplus extra"]
    assert file.read_text().startswith("# the hospital's own\n") and drift(clinic)["accepted_and_gone"] == []


REFUSED = [
    (["--accept"], "accepting needs a reason"),
    (["--accept", "--reason= "], "accepting needs a reason"),
    (["--reason=x"], "--reason is for --accept"),
    (["--name=x"], "--name is for --accept and --forget"),
    (["--accept", "--reason=x", "--name=nothing*"], "--name=nothing* is the pattern of no such difference"),
    (["--forget"], "has an entry of several lines"),
    (["--accept", "--reason=x"], "what the pending ones change would be accepted"),
]


def test_what_is_refused(clinic: Project) -> None:
    file = clinic.root / "accepted.toml"
    clinic.execute("CREATE INDEX own ON branches (name)")
    for flags, said in REFUSED:
        file.write_text("[\"index gone on public.staff extra\"]\nreason = 'x'\n" if "several lines" in said else KEPT)
        text = file.read_text()
        if "pending" in said:
            clinic.execute("DELETE FROM alembic_version")
        for dry in ([], ["--dry"]):
            outcome = clinic.invoke(*dry, "db.drift", *flags)
            assert (outcome.code, said in outcome.err, " -> " in outcome.err) == (2, True, True), outcome.err
            assert file.read_text() == text


def test_a_protected_environment_needs_no_confirmation(clinic: Project) -> None:
    clinic.env["PROD_DATABASE_URL"] = clinic.env.pop("DEV_DATABASE_URL")
    name = clinic.env["PROD_DATABASE_URL"].rpartition("/")[2]
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'; CREATE INDEX own ON branches (name)", name)
    before = clinic.dump(name)
    assert drift(clinic, "--env=prod", "--accept", "--reason=theirs")["newly_accepted"] == [
        "index own on public.branches extra"
    ]
    assert clinic.dump(name) == before and drift(clinic, "--env=prod")["drift"] == []
