"""Hospitals, the tenants, and their branches."""

from __future__ import annotations

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from skinspire_db.clinic.models.base import Active, Base, Json, Name, SoftDeleteMixin, TenantMixin, TimestampMixin, UuidKey


class Hospital(TimestampMixin, SoftDeleteMixin, Base):
    """A tenant: everything below belongs to exactly one."""

    __tablename__ = "hospitals"

    hospital_id: Mapped[UuidKey]
    name: Mapped[Name]
    license_no: Mapped[str | None] = mapped_column(String(50), unique=True)
    address: Mapped[Json | None]
    contact_details: Mapped[Json | None]
    settings: Mapped[Json | None]
    encryption_enabled: Mapped[bool | None] = mapped_column(server_default=text("false"))
    timezone: Mapped[str | None] = mapped_column(String(50), server_default=text("'Asia/Kolkata'"))
    default_currency: Mapped[str | None] = mapped_column(String(3), server_default=text("'INR'"))
    is_active: Mapped[Active]

    branches: Mapped[list[Branch]] = relationship(back_populates="hospital")


class Branch(TimestampMixin, TenantMixin, SoftDeleteMixin, Base):
    """A place of a hospital."""

    __tablename__ = "branches"
    __table_args__ = (
        Index("ix_branches_live", "hospital_id", "name", postgresql_where=text("NOT is_deleted AND is_active")),
    )

    branch_id: Mapped[UuidKey]
    name: Mapped[Name]
    address: Mapped[Json | None]
    contact_details: Mapped[Json | None]
    settings: Mapped[Json | None]
    timezone: Mapped[str | None] = mapped_column(String(50))
    is_active: Mapped[Active]

    hospital: Mapped[Hospital] = relationship(back_populates="branches")
