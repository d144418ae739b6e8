"""Tenancy: its setting in pyproject.toml, the names of its roles, and the setting of the current hospital in PostgreSQL."""

from __future__ import annotations

import enum
import hashlib
import os
from dataclasses import dataclass
from typing import Final

from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

CURRENT_HOSPITAL = "app.current_hospital"  # a setting of PostgreSQL's; the policies compare hospital_id with it
ROLES_OF = "SKINSPIRE_TEST_ROLES_OF"  # the pytest plugin sets it: the clones of a template have its roles
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


@dataclass(frozen=True)
class Roles:
    """The roles of a database.

    Attributes:
        database: its name; that of the database which a scratch database is going to replace.
        login: the role of the application's URL; empty where it names none.
    """

    database: str
    login: str = ""

    @property
    def application(self) -> str:
        """As `application_role`."""
        return application_role(os.environ.get(ROLES_OF) or self.database)

    @property
    def system(self) -> str:
        """As `system_role`."""
        return system_role(os.environ.get(ROLES_OF) or self.database)


def _role(database: str, ending: str) -> str:
    room = LONGEST - len("_system")  # the two roles of a database begin alike
    if len(database.encode()) > room:
        # Two databases with one beginning have two roles, as a digest of the whole name takes the place of what is cut.
        digest = f"_{hashlib.sha256(database.encode()).hexdigest()[:12]}"
        database = database.encode()[: room - len(digest)].decode(errors="ignore") + digest
    return f"{database}{ending}"
