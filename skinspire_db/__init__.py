"""The database toolkit of the SkinSpire Clinic hospital management system."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

# Where the public names come from; each is loaded when it is asked for, so that importing the package costs nothing.
_PUBLIC = {
    "Base": "skinspire_db.clinic.models",
    "SoftDeleteMixin": "skinspire_db.clinic.models",
    "TenantMixin": "skinspire_db.clinic.models",
    "TimestampMixin": "skinspire_db.clinic.models",
    "HospitalNotSet": "skinspire_db.errors",
    "HospitalRefused": "skinspire_db.errors",
    "SkinspireError": "skinspire_db.errors",
    "pipeline": "skinspire_db.pipelines",
}

_MODULES = ("steps",)

__all__ = [
    "Base",
    "HospitalNotSet",
    "HospitalRefused",
    "SkinspireError",
    "SoftDeleteMixin",
    "TenantMixin",
    "TimestampMixin",
    "__version__",
    "pipeline",
    "steps",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
