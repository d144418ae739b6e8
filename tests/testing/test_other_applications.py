"""The plugin with applications of other kinds: their own sessions, TestClients, plugins that were loaded earlier, and no table."""

from __future__ import annotations

import pytest
from sample_project import PYPROJECT, Sample, app  # noqa: F401

EARLIER = """
import pytest

@pytest.fixture
def app():
    from application import patients
    return f"made with {patients()} patients"

@pytest.fixture(autouse=True)
def _push_request_context(request):
    # as pytest-flask's, which is loaded before this plugin by its name
    if "app" in request.fixturenames:
        request.getfixturevalue("app")
"""


def test_sessions_and_threads_of_other_applications(app: Sample) -> None:
    app.write("a_flask_plugin", EARLIER)
    app.copy("other_applications")
    result = app.run("-p", "a_flask_plugin", "-p", "no:randomly")
    result.assert_outcomes(passed=5)


@pytest.mark.parametrize("fixture", ["db_session", pytest.param("make_patient", marks=pytest.mark.slow)])
def test_where_the_table_in_pyproject_is_missing(app: Sample, fixture: str) -> None:
    (app.pytester.path / "pyproject.toml").write_text(PYPROJECT.replace("[tool.skinspire_db]\n", ""))
    app.write("test_sample", f"def test_one({fixture}): pass\ndef test_other(no_such): pass\n")
    result = app.run("-p", "no:randomly")
    result.assert_outcomes(errors=2)
    text = result.stdout.str()
    assert f"fixture '{fixture}' not found: no pyproject.toml here or above has a table [tool.skinspire_db]" in text
    assert f"-> write [tool.skinspire_db] into {app.pytester.path / 'pyproject.toml'}" in text
    assert "fixture 'no_such' not found" in text
