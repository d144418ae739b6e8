"""The plugin where tenancy is on."""

from __future__ import annotations

import pytest
from sample_project import Sample, app  # noqa: F401


@pytest.mark.slow
def test_tests_work_for_a_hospital(app: Sample) -> None:
    """Under the application's role, in each mode; the roles of the template are its clones', and go with it."""
    app.settings(f"[tool.skinspire_db.unused]\nword = '{app.own}'\n")
    project = app.pytester.path / "pyproject.toml"
    project.write_text(project.read_text().replace("[tool.skinspire_db]\n", "[tool.skinspire_db]\ntenancy = true\n", 1))
    app.copy("tenants")
    app.run("-p", "no:randomly").assert_outcomes(passed=9)
