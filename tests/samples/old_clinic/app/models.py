"""A clinic that is years older than the tools: no naming convention, defaults on Python's side alone, a ring of tables."""

import uuid
from datetime import datetime, timezone

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import declarative_base

Base = declarative_base()
event.listen(Base.metadata, "before_create", DDL("CREATE SCHEMA IF NOT EXISTS claims"))


def clock():
    return datetime.now(timezone.utc)


class Stamped:
    created_at = Column(DateTime(timezone=True), nullable=False, default=clock)
    updated_at = Column(DateTime(timezone=True), nullable=False, default=clock, onupdate=clock)


class Hospital(Stamped, Base):
    __tablename__ = "hospitals"

    hospital_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    name = Column(String(100), nullable=False)
    license_no = Column(String(50), unique=True)
    head_id = Column(UUID(as_uuid=True), ForeignKey("staff.staff_id", use_alter=True, name="hospitals_head_id_fkey"))
    ownership = Column(Enum("trust", "company", native_enum=False, create_constraint=True, name="hospitals_ownership_check"))


class Branch(Stamped, Base):
    __tablename__ = "branches"

    branch_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    hospital_id = Column(UUID(as_uuid=True), ForeignKey("hospitals.hospital_id"), nullable=False)
    name = Column(String(100), nullable=False)
    is_active = Column(Boolean, nullable=False, default=True)


class Staff(Stamped, Base):
    __tablename__ = "staff"

    staff_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    hospital_id = Column(UUID(as_uuid=True), ForeignKey("hospitals.hospital_id"), nullable=False)
    branch_id = Column(UUID(as_uuid=True), ForeignKey("branches.branch_id"))
    chief_id = Column(UUID(as_uuid=True), ForeignKey("staff.staff_id"))
    last_name = Column(String(80), nullable=False)
    contact_info = Column(JSONB, nullable=False, default=dict)


class Patient(Stamped, Base):
    __tablename__ = "patients"
    __table_args__ = (
        CheckConstraint("blood IN ('A', 'B', 'AB', 'O')", name="chk_patients_blood"),
        Index("ix_patients_active", "last_name", postgresql_where=text("state IN ('active', 'travelling')")),
    )

    patient_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    hospital_id = Column(UUID(as_uuid=True), ForeignKey("hospitals.hospital_id"), nullable=False)
    file_no = Column(String(20), unique=True)
    last_name = Column(String(80), nullable=False)
    phone = Column(String(15))
    blood = Column(String(2))
    state = Column(String(20), nullable=False, default="active")
    tags = Column(ARRAY(Text))
    marketing_consent = Column(Boolean, nullable=False, default=False)
    is_deleted = Column(Boolean, nullable=False, default=False)


class User(Stamped, Base):
    __tablename__ = "users"
    __table_args__ = (CheckConstraint("entity_type IN ('staff', 'patient')"),)

    user_id = Column(String(15), primary_key=True)
    hospital_id = Column(UUID(as_uuid=True), ForeignKey("hospitals.hospital_id"))
    entity_type = Column(String(10), nullable=False)
    entity_id = Column(UUID(as_uuid=True), nullable=False)
    password_hash = Column(String(255))
    failed_login_attempts = Column(Integer, default=0)
    is_active = Column(Boolean, default=True)


class LoginHistory(Stamped, Base):
    __tablename__ = "login_history"

    history_id = Column(BigInteger, primary_key=True)
    user_id = Column(String(15), ForeignKey("users.user_id"), nullable=False)
    status = Column(String(20))


class Role(Stamped, Base):
    __tablename__ = "role_master"
    __table_args__ = (CheckConstraint("status IN ('active', 'inactive')"),)

    role_id = Column(Integer, primary_key=True)
    role_name = Column(String(60), nullable=False)
    status = Column(String(20), nullable=False, default="active")


class Bill(Stamped, Base):
    __tablename__ = "bills"

    bill_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    hospital_id = Column(UUID(as_uuid=True), ForeignKey("hospitals.hospital_id"), nullable=False)
    patient_id = Column(UUID(as_uuid=True), ForeignKey("patients.patient_id"), nullable=False)
    bill_no = Column(String(30), unique=True, nullable=False)
    billed_on = Column(Date, nullable=False)
    gross = Column(Numeric(14, 2), nullable=False)
    memo = Column(Text)


class BillLine(Stamped, Base):
    __tablename__ = "bill_lines"

    line_id = Column(BigInteger, primary_key=True)
    bill_id = Column(UUID(as_uuid=True), ForeignKey("bills.bill_id", ondelete="CASCADE"), nullable=False)
    quantity = Column(Numeric(10, 3), nullable=False)
    price = Column(Numeric(12, 2), nullable=False)
    amount = Column(Numeric(14, 2), Computed("round(quantity * price, 2)", persisted=True))
    slip_id = Column(UUID(as_uuid=True), ForeignKey("slips.slip_id"))


class Slip(Stamped, Base):
    __tablename__ = "slips"

    slip_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    staff_id = Column(UUID(as_uuid=True), ForeignKey("staff.staff_id"))


class Vendor(Stamped, Base):
    __tablename__ = "vendors"
    __table_args__ = (UniqueConstraint("tax_number"),)

    vendor_id = Column(Integer, primary_key=True)
    name = Column(String(80), nullable=False)
    tax_number = Column(String(20))


class ClaimFile(Stamped, Base):
    __tablename__ = "claim_files"
    __table_args__ = {"schema": "claims"}

    claim_id = Column(UUID(as_uuid=True), primary_key=True, default=uuid.uuid4)
    bill_id = Column(UUID(as_uuid=True), ForeignKey("bills.bill_id"), nullable=False)
    stage = Column(
        Enum("open", "paid", native_enum=False, create_constraint=True, name="chk_claim_files_stage"), nullable=False
    )


class Round(Base):
    """A pair of new tables that refer to each other."""

    __tablename__ = "rounds"

    round_id = Column(Integer, primary_key=True)
    first_stop_id = Column(Integer, ForeignKey("stops.stop_id", use_alter=True, name="rounds_first_stop_id_fkey"))


class Stop(Base):
    __tablename__ = "stops"

    stop_id = Column(Integer, primary_key=True)
    round_id = Column(Integer, ForeignKey("rounds.round_id"), nullable=False)


class OpenBill(Base):
    """A view, which is made by hand after create_all."""

    __tablename__ = "open_bills_view"
    __table_args__ = {"info": {"is_view": True}}

    bill_id = Column(UUID(as_uuid=True), primary_key=True)
    gross = Column(Numeric(14, 2))


class DoctorDay(Base):
    """A view that the old database has not got."""

    __tablename__ = "doctor_day_view"
    __table_args__ = {"info": {"is_view": True}}

    staff_id = Column(UUID(as_uuid=True), primary_key=True)
    patients = Column(Integer)
