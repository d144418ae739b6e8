"""db.doctor up to an open connection: every failure is made for real, named by its link, and mended by its remedy."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Project, throw_away_home
from doctor_support import ASK, QUICK, broken, follow, healthy, nowhere, quick, role  # noqa: F401

from skinspire_db.postgres.embedded_server import EmbeddedServer

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
    assert "DEV_DATABASE_URL" in broken(nowhere, "port", f"nothing listens on 127.0.0.1:{port}")


@pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")
def test_no_server_behind_the_local_socket(nowhere: Project, tmp_path: Path) -> None:
    nowhere.env["DEV_DATABASE_URL"] = f"postgresql:///d?host={tmp_path}&user=u"
    broken(nowhere, "port", f"nothing listens on {tmp_path}/.s.PGSQL.5432")


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
