"""Adoptions that are killed."""

from __future__ import annotations

import time

import pytest
from conftest import Project

pytestmark = pytest.mark.slow


def run(project: Project, *arguments: str, code: int = 0) -> str:
    outcome = project.forked(*arguments)
    assert outcome.code == code, outcome.out + outcome.err
    return outcome.out + outcome.err


@pytest.mark.parametrize("at", ["backups", "accepted.toml"])
def test_a_killed_adoption_can_be_done_again(old_clinic: Project, at: str) -> None:
    process = old_clinic.start("db.adopt", f"--confirm={old_clinic.database}")
    try:
        deadline = time.monotonic() + 90
        while not (old_clinic.root / at).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate(timeout=30)
    again = old_clinic.forked("db.adopt", f"--confirm={old_clinic.database}")
    assert again.code == 0 or "it is adopted" in again.err, again.err  # the commit may have been faster than the kill
    run(old_clinic, "db.drift")
    run(old_clinic, "db.prepare")
