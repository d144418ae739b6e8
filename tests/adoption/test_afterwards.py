"""What an adopted database allows afterwards, and adoptions that are disturbed."""

from __future__ import annotations

import pytest
from conftest import Project

pytestmark = pytest.mark.slow
MEND = """
    UPDATE bills SET billed_on = '2024-01-01' WHERE billed_on IS NULL; UPDATE staff SET contact_info = '{}' WHERE contact_info IS NULL;
    UPDATE role_master SET status = 'inactive' WHERE status = 'retired'; UPDATE vendors SET tax_number = NULL WHERE tax_number = 'T1';
    UPDATE bill_lines l SET slip_id = NULL WHERE NOT EXISTS (SELECT FROM slips s WHERE s.slip_id = l.slip_id)
"""
OWN_REVISION = """
from alembic import op

revision, down_revision = "aaaa", None


def upgrade():
    op.execute("CREATE TABLE bills ()")


def downgrade():
    op.execute("DROP TABLE bills CASCADE")
"""


def run(project: Project, *arguments: str, code: int = 0) -> str:
    outcome = project.forked(*arguments)
    assert outcome.code == code, outcome.out + outcome.err
    return outcome.out + outcome.err


def adopt(project: Project, *more: str) -> None:
    run(project, "db.adopt", f"--confirm={project.database}", *more)


def test_one_revision_of_the_whole_difference_there_and_back(old_clinic: Project) -> None:
    adopt(old_clinic)
    assert "0 changes" in run(old_clinic, "migrate.new", "-m", "nothing")
    old_clinic.execute(MEND)
    for view in ("open_bills_view", "phone_book", "monthly_income"):
        run(old_clinic, "sql.new", f"--view={view}", "--from-database")
    run(old_clinic, "db.prepare")
    run(old_clinic, "migrate.new", "-m", "whole", "--accepted")
    run(old_clinic, "migrate.upgrade")
    assert old_clinic.query("SELECT DISTINCT marketing_consent FROM patients") == [(False,)]
    assert old_clinic.query("SELECT count(*) FROM phone_book") == [(30,)]
    run(old_clinic, "db.drift")
    run(old_clinic, "migrate.downgrade")
    run(old_clinic, "db.drift")
    assert "it is not taken back" in run(old_clinic, "migrate.downgrade", code=2)
    run(old_clinic, "backup.create")


def test_a_revision_from_before_the_adoption_is_not_taken_back(old_clinic: Project) -> None:
    versions = old_clinic.root / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "aaaa.py").write_text(OWN_REVISION)
    old_clinic.execute("INSERT INTO alembic_version VALUES ('aaaa')")
    adopt(old_clinic)
    assert [file.name for file in versions.glob("*.py")] == ["aaaa.py"]
    assert "was there when the database came under the tools" in run(old_clinic, "migrate.downgrade", code=2)
    assert old_clinic.query("SELECT count(*) FROM bills") == [(12,)]


def test_a_stamp_that_the_tables_disagree_with_is_told(old_clinic: Project) -> None:
    adopt(old_clinic)
    assert "careful" not in run(old_clinic, "migrate.stamp")
    old_clinic.execute("DROP TABLE zz_restore_probe")
    assert "table public.zz_restore_probe is missing" in run(old_clinic, "migrate.stamp")
    assert "is extra" in run(old_clinic, "migrate.stamp", "--to=base")


def test_two_adoptions_at_once(old_clinic: Project) -> None:
    started = [old_clinic.start("db.adopt", f"--confirm={old_clinic.database}") for _ in range(2)]
    told = [process.communicate(timeout=120) for process in started]
    assert sorted(process.returncode for process in started) == [0, 2], told
    run(old_clinic, "db.drift")


def test_a_protected_environment(old_clinic: Project) -> None:
    old_clinic.env["PROD_DATABASE_URL"] = old_clinic.env.pop("DEV_DATABASE_URL")
    name = old_clinic.env["PROD_DATABASE_URL"].rpartition("/")[2]
    run(old_clinic, "db.adopt", "--env=prod", code=3)
    run(old_clinic, "db.adopt", "--env=prod", f"--confirm={name}")
    run(old_clinic, "db.drift", "--env=prod")
    old_clinic.env["DEV_DATABASE_URL"] = old_clinic.env["PROD_DATABASE_URL"]
    assert "prod" in run(old_clinic, "db.adopt", "--env=dev", f"--confirm={name}", code=2)


def test_a_role_without_rights(old_clinic: Project) -> None:
    url, role = old_clinic.env["DEV_DATABASE_URL"], f"guest_{old_clinic.database}"
    old_clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    before = old_clinic.dump()
    try:
        old_clinic.env["DEV_DATABASE_URL"] = old_clinic.url(old_clinic.database, user=role, password="secret")
        told = run(old_clinic, "db.adopt", f"--confirm={old_clinic.database}", code=1)
        assert "->" in told and not (old_clinic.root / "accepted.toml").exists()
    finally:
        old_clinic.env["DEV_DATABASE_URL"] = url
        assert old_clinic.dump() == before
        old_clinic.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
