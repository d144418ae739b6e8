"""Tenancy: the setting, and the names of the roles."""

from pathlib import Path

import pytest

from skinspire_db.config import tenancy
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting


def test_tenancy_is_off_unless_it_is_set_to_true() -> None:
    """A value that is no boolean is refused, as "no" would be true."""
    assert not tenancy.is_on(Project(Path(), {}))
    assert tenancy.is_on(Project(Path(), {"tenancy": True}))
    wrong: list[object] = ["no", 1, None, []]
    for value in wrong:
        with pytest.raises(InvalidSetting, match="neither true nor false"):
            tenancy.is_on(Project(Path(), {"tenancy": value}))


def test_the_roles_of_two_databases_are_never_the_same() -> None:
    """Names that PostgreSQL would cut, which may have letters of several bytes."""
    names = ["clinic", "c" * 56, "c" * 57, "c" * 60, "c" * 63, "c" * 62 + "d", "ä" * 31, "ä" * 30 + "o", "日" * 21]
    roles = [role(name) for name in names for role in (tenancy.application_role, tenancy.system_role)]
    assert roles[:3] == ["clinic_app", "clinic_system", "c" * 56 + "_app"]
    assert len(set(roles)) == len(roles) == 2 * len(names)
    assert all(len(role.encode()) <= 63 and role.endswith(("_app", "_system")) for role in roles)
