"""Which backups are kept, and which are deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Project
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import backups, both, edit

from skinspire_db.copies import backup_folder
from skinspire_db.copies.backup_folder import Backup, Manifest


@pytest.fixture
def kept(project: Project, template: str) -> Iterator[Project]:
    """A project with a dev and a test database, both set up; test holds everything that a database can hold."""
    with both(project, template):
        yield project


@pytest.mark.slow
def test_prune(kept: Project) -> None:
    assert kept.invoke("backup.create").code == 0
    [newest] = backups(kept)
    now = datetime.now(UTC)
    for days in (1, 2, 3, 40, 41, 80):
        copy = newest.with_name(f"dev-{days}")
        shutil.copytree(newest, copy)
        edit(copy, created_at=(now - timedelta(days=days)).strftime(backup_folder.TIME))
    backup_folder.mark_verified(backup_folder.read(newest.with_name("dev-41")), "restored")
    (newest.with_name("dev-damaged")).mkdir()
    arguments = ("backup.prune", "--daily=2", "--weekly=0", "--monthly=0", "--json")
    planned = kept.invoke(*arguments)
    assert planned.code == 0 and sorted(planned.json["to_delete"]) == ["dev-2", "dev-3", "dev-40", "dev-80"]
    assert len(backups(kept)) == 8, "only shown"
    assert kept.invoke(*arguments, "--apply").code == 0
    assert sorted(path.name for path in backups(kept)) == sorted([newest.name, "dev-1", "dev-41", "dev-damaged"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no fault
@given(
    st.lists(st.integers(0, 2000), min_size=1, unique=True),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 2000),
)
def test_what_is_kept(ages: list[int], daily: int, weekly: int, monthly: int, proved: int) -> None:
    """The newest and the newest proved one always; and never more than was asked for."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    made = [backup(start - timedelta(hours=age * 7), "restored" if age >= proved else "") for age in sorted(ages)]
    kept = backup_folder.kept(made, daily, weekly, monthly)
    assert made[0].name in kept
    verified = [each for each in made if each.verified]
    assert not verified or verified[0].name in kept
    assert len(kept) <= daily + weekly + monthly + 2
    days = list(dict.fromkeys(each.manifest.taken.date() for each in made))[:daily]
    for day in days:
        assert next(each for each in made if each.manifest.taken.date() == day).name in kept


def backup(taken: datetime, verified: str) -> Backup:
    at = taken.strftime(backup_folder.TIME)
    manifest = Manifest(
        "dev", "d", at, "", 0, 0, [], {}, 0, [], {"tables": {}, "sequences": {}, "definitions": {}, "major": 17}, {}
    )
    return Backup(Path(at), manifest, verified)
