"""Revisions for tests: writing them, and what a database has of them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.migrations import revisions

APPOINTMENT = """
import uuid
from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column
from skinspire_db.clinic.models import Base, TenantMixin, TimestampMixin
from skinspire_db.clinic.models.base import UuidKey

class Appointment(TimestampMixin, TenantMixin, Base):
    __tablename__ = "appointments"
    appointment_id: Mapped[UuidKey]
    patient_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("patients.patient_id"), index=True)
    minutes: Mapped[int] = mapped_column(server_default=text("15"))
    __table_args__ = (
        CheckConstraint("minutes > 0", name="minutes"),
        Index("ix_appointments_long", "patient_id", postgresql_where=text("minutes > 60")),
    )
"""


@pytest.fixture
def app(make_project: Callable[..., Project], template: str) -> Project:
    """A project with a folder of its own for revisions, whose dev database is set up."""
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "clinic_app:Base"]\nmigrations = "migrations"\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "clinic_app.py").write_text("from skinspire_db.clinic.models import Base\n")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    return project


def head() -> str:
    """The newest of the core's own revisions."""
    with tempfile.TemporaryDirectory() as folder:  # the cache of heads is written into the project's folder
        [newest] = revisions.heads(settings.Project(Path(folder), {}))
    return newest


def revision(project: Project, name: str, after: str | None, up: str = "", down: str = "") -> str:
    """Write a revision whose statements are these."""
    up, down = (f"op.execute({sql!r})" if sql else "pass" for sql in (up, down))
    (project.root / "migrations" / "versions" / f"{name}.py").write_text(
        f'"""{name}"""\nfrom alembic import op\nrevision = {name!r}\ndown_revision = {after!r}\nbranch_labels = None\n'
        f"depends_on = None\ndef upgrade():\n    {up}\ndef downgrade():\n    {down}\n"
    )
    return name


def at(project: Project) -> list[str]:
    return [name for (name,) in project.query("SELECT version_num FROM alembic_version ORDER BY 1")]


def definitions(project: Project) -> list[str]:
    """What pg_dump -s says of the tables, sorted, since the order of columns apart the order of making means nothing."""
    dumped = project.dump()
    statements = re.findall(
        r"^(?:CREATE (?:TABLE|SEQUENCE|INDEX|UNIQUE INDEX)|ALTER TABLE|ALTER SEQUENCE) .*?;\n", dumped, re.M | re.S
    )
    return sorted(each for each in statements if "skinspire_tools" not in each)
