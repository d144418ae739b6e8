"""Staff and patients."""

from __future__ import annotations

import uuid

from sqlalchemy import CheckConstraint, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from skinspire_db.clinic.models.base import (
    Active,
    Base,
    Code,
    Json,
    Name,
    SoftDeleteMixin,
    TenantMixin,
    TimestampMixin,
    UuidKey,
    same_hospital,
)
from skinspire_db.clinic.models.tenancy import Branch, Hospital

BLOOD_GROUPS = ("A+", "A-", "B+", "B-", "AB+", "AB-", "O+", "O-")
LIVE = text("NOT is_deleted AND is_active")


class Staff(TimestampMixin, TenantMixin, SoftDeleteMixin, Base):
    """A person who works at a hospital."""

    __tablename__ = "staff"
    __table_args__ = (
        same_hospital("branch_id", "branches.branch_id"),  # a branch alone could be another tenant's
        UniqueConstraint("hospital_id", "employee_code"),
        Index("ix_staff_hospital_id_branch_id", "hospital_id", "branch_id"),
        Index("ix_staff_live", "hospital_id", "staff_type", "last_name", postgresql_where=LIVE),
    )

    staff_id: Mapped[UuidKey]
    branch_id: Mapped[uuid.UUID | None]
    employee_code: Mapped[Code | None]
    staff_type: Mapped[Code | None]
    title: Mapped[str | None] = mapped_column(String(10))
    specialization: Mapped[Name | None]
    first_name: Mapped[Name | None]
    last_name: Mapped[Name | None]
    personal_info: Mapped[Json]
    contact_info: Mapped[Json]
    professional_info: Mapped[Json | None]
    employment_info: Mapped[Json | None]
    documents: Mapped[Json | None]
    is_active: Mapped[Active]

    hospital: Mapped[Hospital] = relationship()
    branch: Mapped[Branch | None] = relationship(viewonly=True)


class Patient(TimestampMixin, TenantMixin, SoftDeleteMixin, Base):
    """A person who is treated at a hospital."""

    __tablename__ = "patients"
    __table_args__ = (
        same_hospital("branch_id", "branches.branch_id"),  # a branch alone could be another tenant's
        UniqueConstraint("hospital_id", "mrn"),
        CheckConstraint(f"CAST(blood_group AS text) IN ({', '.join(map(repr, BLOOD_GROUPS))})", name="blood_group"),
        Index("ix_patients_hospital_id_branch_id", "hospital_id", "branch_id"),
        Index("ix_patients_live", "hospital_id", "last_name", "first_name", postgresql_where=LIVE),
    )

    patient_id: Mapped[UuidKey]
    branch_id: Mapped[uuid.UUID | None]
    mrn: Mapped[Code | None]
    title: Mapped[str | None] = mapped_column(String(10))
    first_name: Mapped[Name | None]
    last_name: Mapped[Name | None]
    blood_group: Mapped[str | None] = mapped_column(String(5))
    personal_info: Mapped[Json]
    contact_info: Mapped[Json]
    medical_info: Mapped[str | None] = mapped_column(Text)
    emergency_contact: Mapped[Json | None]
    documents: Mapped[Json | None]
    preferences: Mapped[Json | None]
    is_active: Mapped[Active]

    hospital: Mapped[Hospital] = relationship()
    branch: Mapped[Branch | None] = relationship(viewonly=True)
