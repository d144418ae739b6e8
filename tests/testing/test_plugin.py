"""The pytest plugin's fixtures, markers and settings, by the suites of a sample project, with one worker and with two."""

from __future__ import annotations

import re

import pytest
from sample_project import Sample, app, status_line  # noqa: F401

from skinspire_db.config import project as settings
from skinspire_db.migrations import revisions


@pytest.mark.parametrize("workers", ["0", *(pytest.param(number, marks=pytest.mark.slow) for number in "12")])
def test_every_fixture_and_marker(app: Sample, workers: str) -> None:
    app.copy("every_fixture")
    result = app.run("-n", workers)
    result.assert_outcomes(passed=22)
    first = re.fullmatch(
        r"skinspire-db: 127\.0\.0\.1:\d+ \(TEST_DATABASE_URL\), template (skinspire_template_\w{12}) made, [\d.]+ s",
        status_line(result),
    )
    assert first, status_line(result)
    assert app.databases() == {first[1]}
    again = app.run("-n", workers, "-k", "rolled_back")
    again.assert_outcomes(passed=2)
    assert f"{first[1]} reused, " in status_line(again)


def test_nothing_is_started_for_tests_without_a_database(app: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    app.write("test_sample", "def test_plain():\n    assert True\n")
    result = app.run()
    result.assert_outcomes(passed=1)
    assert "skinspire-db:" not in result.stdout.str()


def test_what_a_person_can_get_wrong(app: Sample) -> None:
    app.copy("mistakes")
    result = app.run("-p", "no:randomly", "-p", "no:threadexception", "-rA")
    result.assert_outcomes(passed=4, failed=9, errors=7)
    text = result.stdout.str()
    for line in (
        "a test has one kind of database, not clone and session -> choose one",
        "@pytest.mark.db('transaction') is none of session, database, clone -> @pytest.mark.db(\"session\")",
        "a db_session test may not leave its transaction: it ended the test's transaction with a COMMIT or ROLLBACK of its own -> use db_database",
        'db_session is asked for too late -> name it in the test\'s arguments, or mark it @pytest.mark.db("session")',
        "db_session is the database of one test, and this fixture is for a whole module -> add rows by db_module_rows or db_run_rows",
        "a fixture of a module or the run adds rows by db_module_rows or db_run_rows",
        "make_patient(age=200): an age is 0 to 90 -> make_patient(age=30)",
        "make_user(role='Wizard'): there is no such role -> use one of: ",
        "has an account already -> session.get(User, ...) is that one",
        "make_staff('wizard') is none of doctor, nurse, receptionist, pharmacy -> make_staff(\"nurse\")",
        "there is no table public.patient",
        "patients: 1 rows changed, not 2",
        "parameter_settings: 1 rows changed, not 0",
        "parameter_settings: changed param_code=MAX_LOGIN_ATTEMPTS: param_value '5' -> '6'",
        "user_role_mapping: deleted user_id=",
        "patients: added patient_id=",
        "reference data: fail: roles without any right: ",
        "two threads work at the same time in a db_session test -> use db_database",
    ):
        assert line in text, line


@pytest.mark.parametrize(
    ("ini", "arguments", "message"),
    [
        ('db_mode = "rollback"\n', (), "db_mode = rollback is none of session, database, clone"),
        pytest.param('db_patients = "many"\n', (), "--patients=many is not a whole number", marks=pytest.mark.slow),
        pytest.param("", ("--db-server=nonsense",), "--db-server is not a database URL", marks=pytest.mark.slow),
        pytest.param("", ("--db-server=postgresql://h1:1,h2:2/",), "--db-server names several hosts", marks=pytest.mark.slow),
        (
            "",
            ("--db-server=mysql://a:secret@h/x",),
            "--db-server is a URL for mysql, not for PostgreSQL -> write --db-server=postgresql://user:password@host:5432/",
        ),
        ("", ("--db-server=postgresql://skinspire:secret@127.0.0.1:1/",), "cannot connect to"),
    ],
)
def test_settings_that_cannot_be_used(app: Sample, ini: str, arguments: tuple[str, ...], message: str) -> None:
    app.settings("", ini)
    app.write("test_sample", "def test_one(db_session): pass\n")
    result = app.run(*arguments)
    assert result.ret != 0
    text = " ".join((result.stdout.str() + result.stderr.str()).split())
    assert message in text and "secret" not in text.replace("".join(arguments), ""), text


REVISION = '''
"""one more table"""
from alembic import op
revision, down_revision, branch_labels, depends_on = "aaaaaaaaaaaa", "{core}", None, None
def upgrade():
    op.execute("CREATE TABLE extra (x int)")
def downgrade():
    {downgrade}
'''


@pytest.mark.slow
def test_migrations_of_an_application(app: Sample) -> None:
    app.write("test_migrations", "from skinspire_db.testing.migrations import *\n")
    app.run().assert_outcomes(passed=3)
    [core] = revisions.heads(settings.Project(app.pytester.path, {}))
    (app.pytester.path / "migrations" / "versions").mkdir(parents=True)
    revision = app.pytester.path / "migrations" / "versions" / "extra.py"
    revision.write_text(REVISION.format(core=core, downgrade="op.execute('DROP TABLE extra')"))
    result = app.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: table public.extra is extra*"])
    revision.write_text(REVISION.format(core=core, downgrade="pass"))
    result = app.run("-k", "up_down")
    result.assert_outcomes(failed=1)
    assert "taking back aaaaaaaaaaaa does not leave what was there before" in result.stdout.str()


def test_the_setting_gives_all_tests_a_database(app: Sample) -> None:
    app.settings(
        f"[tool.skinspire_db.unused]\nword = '{app.own}'\n", 'db_mode = "session"\ndb_patients = "3"\ndb_doctors = "1"\n'
    )
    app.write(
        "test_sample",
        """
        import pytest
        import unittest
        from application import *

        def test_plain(): assert patients() == 3

        class TestOld(unittest.TestCase):
            def test_method(self): self.assertEqual(patients(), 3)

        @pytest.mark.db("clone")
        def test_marked(db): assert db.mode == "clone" and patients() == 3

        def test_fixture(db_database): assert db_database.mode == "database" and patients() == 3
        """,
    )
    app.run().assert_outcomes(passed=4)
