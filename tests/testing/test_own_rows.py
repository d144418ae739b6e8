"""Rows of the application's own: once in the template, for a run, for a module."""

from __future__ import annotations

import pytest
from sample_project import Sample, app, status_line  # noqa: F401

TEMPLATE = """
from sqlalchemy import text
from skinspire_db.database_service import get_db_session

def fill(session):
    with get_db_session() as own:  # goes to the template too
        own.execute(text("INSERT INTO parameter_settings (param_code, param_value) VALUES ('T_TEMPLATE', 'x')"))
"""


def settings(app: Sample, more: str = "") -> None:
    app.settings(f"[tool.skinspire_db.unused]\nword = '{app.own}'\n", f'db_template = "template_rows:fill"\n{more}')


@pytest.mark.slow
def test_rows_of_the_template_the_run_and_the_module(app: Sample) -> None:
    settings(app)
    app.write("template_rows", TEMPLATE)
    app.copy("own_rows")
    app.write(
        "test_sample_z",
        "from test_sample import codes\n\n\ndef test_afterwards(db_session):\n    assert codes() == 'T_RUN T_TEMPLATE'\n",
    )
    result = app.run("-p", "no:randomly")
    result.assert_outcomes(passed=9, failed=1)
    assert "db_run_rows is used inside a test -> use it in a fixture of the module or the run" in result.stdout.str()
    assert len(app.databases()) == 1, "the layers are dropped"


@pytest.mark.slow
def test_the_template_is_made_once_for_each_state_of_its_rows(app: Sample) -> None:
    settings(app, 'db_template_files = ["rows/*.json"]\n')
    app.write("template_rows", TEMPLATE)
    (app.pytester.path / "rows").mkdir()
    app.write("test_sample", "def test_one(db_session): pass\n")
    made = [status_line(app.run()), status_line(app.run())]
    assert " made, " in made[0] and " reused, " in made[1]
    (app.pytester.path / "rows" / "more.json").write_text("{}")
    assert " made, " in status_line(app.run())
    app.write("template_rows", TEMPLATE.replace("'x'", "'y'"))
    assert " made, " in status_line(app.run())
    app.write("template_rows", TEMPLATE.replace("param_code", "no_such_column"))
    result = app.run()
    result.assert_outcomes(errors=1)
    assert "the rows of fill could not be added: ProgrammingError: (psycopg.errors.UndefinedColumn)" in status_line(result)
    assert "template_rows.py, line 7) -> correct that line" in status_line(result)
    settings(app, "")
    app.write("template_rows", "fill = 1\n")
    assert "db_template = template_rows:fill is no function" in status_line(app.run())
    assert len(app.databases()) == 3, "what could not be made complete is dropped"
