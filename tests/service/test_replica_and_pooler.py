"""A read replica, and PgBouncer in transaction mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Project
from service_app import POOL, add, app, checked_out, service  # noqa: F401
from sqlalchemy import select, text
from sqlalchemy.exc import InternalError, ProgrammingError
from tenant_app import A, B, hospitals_of, tenants  # noqa: F401

from skinspire_db.clinic.models import Hospital
from skinspire_db.database_service import (
    close_db_connections,
    get_db_engine,
    get_db_session,
)
from skinspire_db.service import engines


def test_a_replica_serves_what_only_reads(
    app: Project, service: Callable[[Project], Project], template: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another database stands for the replica here: one can see which of the two answered."""
    replica = app.env["TEST_DATABASE_URL"].rpartition("/")[2]
    app.execute(f'CREATE DATABASE "{replica}" TEMPLATE {template}', "postgres")
    app.env["DEV_REPLICA_URL"] = app.url(replica)
    service(app)

    def answers(read_only: bool) -> str:
        with get_db_session(read_only=read_only) as session:
            return str(session.scalar(text("SELECT current_database()")))

    assert (answers(True), answers(False)) == (replica, app.database)
    with pytest.raises(InternalError, match="read-only"), get_db_session(read_only=True) as session:
        add(session, "a")
    app.execute(f'ALTER DATABASE "{replica}" ALLOW_CONNECTIONS false', "postgres")
    app.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{replica}'", "postgres")
    assert [answers(True) for _ in range(3)] == [app.database] * 3
    assert caplog.text.count("the replica of dev does not answer, the primary serves") == 1
    app.execute(f'ALTER DATABASE "{replica}" ALLOW_CONNECTIONS true', "postgres")
    assert answers(True) == app.database, "it is left alone for a while"
    engines.service("dev").replica_down_until = 0.0
    assert answers(True) == replica and "answers again" in caplog.text
    assert checked_out() == 0


PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@pytest.mark.skipif(not PGBOUNCER, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)")
def test_through_pgbouncer_in_transaction_mode(app: Project, service: Callable[[Project], Project], tmp_path: Path) -> None:
    """Two server connections for eight threads: each transaction may land on either."""
    (app.root / "pyproject.toml").write_text(POOL + "transaction_pooler = true\n")
    direct = dict(app.env)
    with pgbouncer(app, tmp_path) as port:
        app.env["DEV_DATABASE_URL"] = app.url(app.database, port=port)
        service(app)

        def work(number: int) -> None:
            for turn in range(20):
                with get_db_session(user=f"thread {number}") as session:
                    add(session, f"{number}/{turn}")
                with get_db_session(read_only=True) as session:
                    session.scalars(select(Hospital).where(Hospital.name == f"t:{number}/{turn}")).one()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        close_db_connections()
        app.env = direct
        assert app.query(
            "SELECT count(*) FROM hospitals WHERE 'thread ' || split_part(substr(name, 3), '/', 1) = created_by"
        ) == [(160,)]


@pytest.mark.slow
@pytest.mark.skipif(not PGBOUNCER, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)")
def test_hospitals_through_pgbouncer(
    tenants: Project, service: Callable[[Project], Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Role and hospital are each transaction's: none is left for the next one on the server's connection."""
    (tenants.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\ntenancy = true\n{POOL}transaction_pooler = true\n")
    database = tenants.env["DEV_ADMIN_URL"].rpartition("/")[2]
    login = {"user": f"{database}_login", "password": database}
    with pgbouncer(tenants, tmp_path, login) as port:
        monkeypatch.setitem(tenants.env, "DEV_DATABASE_URL", tenants.url(database, port=port, **login))
        service(tenants)

        def work(number: int) -> None:
            for hospital in (A, B) * 10:
                with get_db_session(hospital=hospital, read_only=number % 2 == 0) as session:
                    assert hospitals_of(session) == {hospital}
                with pytest.raises(ProgrammingError, match="permission denied"), get_db_engine().connect() as connection:
                    connection.execute(text("SELECT FROM patients"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        close_db_connections()


@contextlib.contextmanager
def pgbouncer(app: Project, folder: Path, login: dict[str, str] | None = None) -> Iterator[int]:
    """PgBouncer in transaction mode before the project's server; gives its port."""
    port = free_port()
    login = login or {"user": app.address.user, "password": app.address.password}
    (folder / "users.txt").write_text('"{user}" "{password}"\n'.format(**login))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={app.address.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = plain\nauth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\n"
        "unix_socket_dir =\n"
    )
    command = [str(PGBOUNCER), str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        for each in (folder, *folder.parents[:2]):
            each.chmod(0o755)
        command[1:1] = ["-u", "nobody"]
        shutil.chown(folder / "users.txt", "nobody")
    bouncer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield port
    finally:
        bouncer.terminate()
        bouncer.communicate()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
