"""Users, their roles, what the roles may do, and who signed in when."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Identity, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from skinspire_db.clinic.models.base import (
    Active,
    Base,
    Code,
    Flag,
    Json,
    LongText,
    SoftDeleteMixin,
    TimestampMixin,
    UserTenantMixin,
    UuidKey,
    also_same_hospital,
)

# Compared as text: of a varchar PostgreSQL would write the comparison otherwise after a dump and restore.
STATUS = "CAST(status AS text) IN ('active', 'inactive')"


def _own_user() -> ForeignKeyConstraint:
    """The user is of the row's hospital; deferrable, as a user moves before hospital_of_user moves the rows."""
    return also_same_hospital("user_id", "users.user_id", ondelete="CASCADE", deferrable=True)


class User(TimestampMixin, SoftDeleteMixin, Base):
    """An account. Its key is the phone number that it signs in with; `entity_id` is a staff_id or a patient_id."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("hospital_id", "user_id"),
        CheckConstraint("CAST(entity_type AS text) IN ('staff', 'patient')", name="entity_type"),
        Index("ix_users_entity", "entity_type", "entity_id"),
        Index("ix_users_live", "hospital_id", "entity_type", postgresql_where=text("NOT is_deleted AND is_active")),
    )

    user_id: Mapped[str] = mapped_column(String(15), primary_key=True)
    hospital_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hospitals.hospital_id"))
    entity_type: Mapped[str] = mapped_column(String(10))
    entity_id: Mapped[uuid.UUID]
    password_hash: Mapped[LongText | None]
    failed_login_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    locked_until: Mapped[datetime | None]
    last_login: Mapped[datetime | None]
    verification_status: Mapped[Json | None]
    ui_preferences: Mapped[Json | None]
    is_active: Mapped[Active]

    # passive_deletes: PostgreSQL takes these rows along by foreign key.
    role_mappings: Mapped[list[UserRoleMapping]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )
    roles: Mapped[list[RoleMaster]] = relationship(secondary="user_role_mapping", viewonly=True)
    sessions: Mapped[list[UserSession]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )
    logins: Mapped[list[LoginHistory]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )


class RoleMaster(TimestampMixin, Base):
    """A role, of one hospital or, without a hospital, of the whole system."""

    __tablename__ = "role_master"
    __table_args__ = (
        # NULLS NOT DISTINCT: two system roles of one name would otherwise both be allowed.
        UniqueConstraint("hospital_id", "role_name", postgresql_nulls_not_distinct=True),
        UniqueConstraint("hospital_id", "role_id"),
        CheckConstraint(STATUS, name="status"),
    )

    role_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    hospital_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hospitals.hospital_id"))
    role_name: Mapped[str] = mapped_column(String(50))
    description: Mapped[str | None] = mapped_column(String(200))
    is_system_role: Mapped[bool | None] = mapped_column(server_default=text("false"))
    status: Mapped[Code | None] = mapped_column(server_default=text("'active'"))
    is_active: Mapped[Active]

    module_access: Mapped[list[RoleModuleAccess]] = relationship(
        back_populates="role", cascade="all, delete-orphan", passive_deletes=True
    )


class ModuleMaster(TimestampMixin, Base):
    """A part of the application, shown as an entry of its menu."""

    __tablename__ = "module_master"
    __table_args__ = (
        UniqueConstraint("hospital_id", "parent_module", "module_name", postgresql_nulls_not_distinct=True),
        UniqueConstraint("hospital_id", "module_id"),
        CheckConstraint(STATUS, name="status"),
    )

    module_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    module_name: Mapped[str] = mapped_column(String(50))
    description: Mapped[str | None] = mapped_column(String(200))
    parent_module: Mapped[int | None] = mapped_column(ForeignKey("module_master.module_id"), index=True)
    sequence: Mapped[int | None]
    icon: Mapped[str | None] = mapped_column(String(50))
    route: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[Code | None] = mapped_column(server_default=text("'active'"))
    hospital_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hospitals.hospital_id"))
    is_active: Mapped[Active]


class RoleModuleAccess(TimestampMixin, Base):
    """What a role may do in a module."""

    __tablename__ = "role_module_access"
    __table_args__ = (UniqueConstraint("hospital_id", "role_id", "module_id"),)

    role_id: Mapped[int] = mapped_column(ForeignKey("role_master.role_id", ondelete="CASCADE"), primary_key=True)
    module_id: Mapped[int] = mapped_column(
        ForeignKey("module_master.module_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    can_view: Mapped[Flag]
    can_add: Mapped[Flag]
    can_edit: Mapped[Flag]
    can_delete: Mapped[Flag]
    can_export: Mapped[Flag]
    hospital_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("hospitals.hospital_id"))

    role: Mapped[RoleMaster] = relationship(back_populates="module_access")
    module: Mapped[ModuleMaster] = relationship()


class UserRoleMapping(TimestampMixin, UserTenantMixin, Base):
    """Which roles a user has."""

    __tablename__ = "user_role_mapping"
    __table_args__ = (_own_user(),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True)
    role_id: Mapped[int] = mapped_column(ForeignKey("role_master.role_id"), primary_key=True, index=True)
    is_active: Mapped[Active]

    user: Mapped[User] = relationship(back_populates="role_mappings")
    role: Mapped[RoleMaster] = relationship()


class UserSession(TimestampMixin, UserTenantMixin, Base):
    """A signed-in session of a user."""

    __tablename__ = "user_sessions"
    __table_args__ = (
        _own_user(),
        Index("ix_user_sessions_user_id_hospital_id", "user_id", "hospital_id"),
        Index("ix_user_sessions_live", "user_id", "created_at", postgresql_where=text("is_active")),
    )

    session_id: Mapped[UuidKey]
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    token: Mapped[str] = mapped_column(String(500))
    expires_at: Mapped[datetime]
    is_active: Mapped[Active]

    user: Mapped[User] = relationship(back_populates="sessions")


class LoginHistory(TimestampMixin, UserTenantMixin, Base):
    """One attempt to sign in, and when it ended."""

    __tablename__ = "login_history"
    __table_args__ = (
        CheckConstraint("CAST(status AS text) IN ('success', 'failed')", name="status"),
        _own_user(),
        # Deferred: the other foreign key sets session_id to NULL when the session is deleted, before or after this one looks.
        also_same_hospital("session_id", "user_sessions.session_id", deferrable=True, initially="DEFERRED"),
        Index("ix_login_history_user_id_hospital_id_login_time", "user_id", "hospital_id", "login_time"),
        Index("ix_login_history_session_id_hospital_id", "session_id", "hospital_id"),
    )

    history_id: Mapped[UuidKey]
    user_id: Mapped[str] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    session_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("user_sessions.session_id", ondelete="SET NULL"))
    login_time: Mapped[datetime] = mapped_column(server_default=text("now()"))
    logout_time: Mapped[datetime | None]
    ip_address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(255))
    status: Mapped[Code]
    failure_reason: Mapped[str | None] = mapped_column(String(100))

    user: Mapped[User] = relationship(back_populates="logins")
