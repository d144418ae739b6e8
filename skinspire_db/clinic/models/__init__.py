"""The core tables of the HMS. An application adds its own beside them, on this Base or on a metadata of its own."""

from skinspire_db.clinic.models.access import (
    LoginHistory,
    ModuleMaster,
    RoleMaster,
    RoleModuleAccess,
    User,
    UserRoleMapping,
    UserSession,
)
from skinspire_db.clinic.models.base import (
    NAMING_CONVENTION,
    Base,
    SoftDeleteMixin,
    TenantMixin,
    TimestampMixin,
    generate_uuid,
    same_hospital,
)
from skinspire_db.clinic.models.parameters import ParameterSetting
from skinspire_db.clinic.models.people import Patient, Staff
from skinspire_db.clinic.models.tenancy import Branch, Hospital

__all__ = [
    "NAMING_CONVENTION",
    "Base",
    "Branch",
    "Hospital",
    "LoginHistory",
    "ModuleMaster",
    "ParameterSetting",
    "Patient",
    "RoleMaster",
    "RoleModuleAccess",
    "SoftDeleteMixin",
    "Staff",
    "TenantMixin",
    "TimestampMixin",
    "User",
    "UserRoleMapping",
    "UserSession",
    "generate_uuid",
    "same_hospital",
]
