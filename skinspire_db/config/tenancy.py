"""Tenancy: its setting in pyproject.toml, the names of its roles, and the setting of the current hospital in PostgreSQL."""

from __future__ import annotations

import enum
import hashlib
from typing import Final

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

CURRENT_HOSPITAL = "app.current_hospital"  # a setting of PostgreSQL's; the policies compare hospital_id with it
LONGEST = 63  # bytes of a name; PostgreSQL cuts what is longer, and two names could become one


class AllHospitals(enum.Enum):
    """The type of ALL_HOSPITALS, which is its only value."""

    ALL_HOSPITALS = "all hospitals"

    def __repr__(self) -> str:
        return self.name


ALL_HOSPITALS: Final = AllHospitals.ALL_HOSPITALS


def is_on(project: Project) -> bool:
    """Whether `tenancy = true` stands in [tool.skinspire_db].

    Args:
        project: The project.

    Raises:
        InvalidSetting: it is neither true nor false.
    """
    value = project.config.get("tenancy", False)
    if not isinstance(value, bool):
        raise InvalidSetting(
            f"tenancy = {value!r} in pyproject.toml is neither true nor false", remedy="write tenancy = true"
        )
    return value


def application_role(database: str) -> str:
    """The role under which the application works for one hospital: NOLOGIN, no owner, bound by the policies.

    Args:
        database: The database's name.
    """
    return _role(database, "_app")


def system_role(database: str) -> str:
    """The role of the few jobs over all hospitals, which has a policy of its own.

    Args:
        database: The database's name.
    """
    return _role(database, "_system")


def _role(database: str, ending: str) -> str:
    name = f"{database}{ending}"
    if len(name.encode()) <= LONGEST:
        return name
    # Two databases with one beginning have two roles, as a digest of the whole name takes the place of what is cut.
    ending = f"_{hashlib.sha256(database.encode()).hexdigest()[:12]}{ending}"
    return database.encode()[: LONGEST - len(ending)].decode(errors="ignore") + ending
