"""A real hot standby: backups are made there, what writes is refused, and of two hosts the primary is found."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from conftest import Project, throw_away_home
from service_app import service as service
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from test_hosts import application

from skinspire_db.database_service import close_db_connections, get_db_session
from skinspire_db.postgres import failover
from skinspire_db.postgres.embedded_server import EmbeddedServer

pytestmark = pytest.mark.slow


class Pair(NamedTuple):
    """A clinic on a primary, the hosts of the primary and of its standby, and these two themselves."""

    project: Project
    primary: str
    standby: str
    server: EmbeddedServer
    other: EmbeddedServer


def replicated(primary: EmbeddedServer, standby: EmbeddedServer) -> None:
    """Start the primary so that it can be replicated, and a standby that follows it."""
    primary.start()
    primary.stop()
    with (primary.data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("wal_level = replica\nmax_wal_senders = 4\n")
    address = primary.start()
    standby.home.mkdir(parents=True)
    account = primary.account
    as_whom = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    if account:
        os.chown(standby.home, account.uid, account.gid)
    subprocess.run(
        [
            str(primary.binaries.tool("pg_basebackup")), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast",
            "-h", address.host, "-p", str(address.port), "-U", address.user, "-D", str(standby.data),
        ],
        env={"PGPASSWORD": address.password, "PATH": os.environ["PATH"]}, cwd=standby.home, check=True, capture_output=True,
        timeout=120, **as_whom,
    )  # type: ignore[call-overload]  # fmt: skip
    (standby.home / "password").write_text(address.password)
    if account:
        os.chown(standby.home / "password", account.uid, account.gid)
    standby.start()


def caught_up(project: Project, primary: EmbeddedServer, standby: EmbeddedServer) -> None:
    """Wait until the standby has replayed what the primary has written."""
    ends = [each.address() for each in (primary, standby)]
    assert ends[0] and ends[1]
    with psycopg.connect(**ends[0].parameters, dbname="postgres") as connection:
        row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
    for _ in range(300):
        with psycopg.connect(**ends[1].parameters, dbname="postgres") as connection:
            if connection.execute("SELECT pg_last_wal_replay_lsn() >= %s", row).fetchone() == (True,):
                return
        time.sleep(0.1)
    raise AssertionError("the standby does not follow")


@pytest.fixture
def pair(make_project: Callable[..., Project], tmp_path: Path) -> Iterator[Pair]:
    primary, standby = (EmbeddedServer(throw_away_home(tmp_path / name), durable=False) for name in ("primary", "standby"))
    try:
        replicated(primary, standby)
        first, second = primary.address(), standby.address()
        assert first and second
        project = make_project()
        project.address = first
        hosts = f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"
        project.env = {"DEV_DATABASE_URL": at(project, hosts[0])}
        outcome = project.invoke("db.setup")
        assert outcome.code == 0, outcome.err
        caught_up(project, primary, standby)
        yield Pair(project, *hosts, primary, standby)
        project.env = {}
    finally:
        standby.destroy()
        primary.destroy()


def at(project: Project, *hosts: str, options: str = "") -> str:
    return f"postgresql://{project.address.user}:{project.address.password}@{','.join(hosts)}/clinic{options}"


def test_a_backup_is_made_on_a_standby_and_nothing_else(pair: Pair) -> None:
    project, primary, standby = pair.project, pair.primary, pair.standby
    project.env["DEV_DATABASE_URL"] = at(project, standby)
    outcome = project.invoke("backup.create")
    assert outcome.code == 0, outcome.err
    assert "not in the database's journal" in outcome.out + outcome.err
    assert len(project.invoke("backup.list", "--json").json["backups"]) == 1
    for command in (
        ["db.inspect"],
        ["db.history"],
        ["migrate.status"],
        ["triggers.status"],
        ["backup.verify"],
        ["db.activity"],
    ):
        outcome = project.invoke(*command)
        assert outcome.code == 0, (command, outcome.err)
    for command in (
        ["db.setup"], ["db.reset"], ["db.seed"], ["triggers.install"], ["env.stamp"], ["backup.restore"], ["backup.verify", "--full"],
        ["db.drift"], ["db.undo"], ["migrate.downgrade"],
    ):  # fmt: skip
        outcome = project.invoke(*command)
        assert outcome.code == 2, (command, outcome.out, outcome.err)
        assert "is a standby" in outcome.err and "DEV_DATABASE_URL" in outcome.err, (command, outcome.err)
    outcome = project.invoke("db.doctor", "--json")
    assert outcome.code == 1 and outcome.json["checks"][-1]["name"] == "primary", outcome.json["checks"]
    project.env["DEV_DATABASE_URL"] = at(project, primary)
    for command in (["backup.verify", "--full"], ["backup.restore"], ["db.verify"]):
        outcome = project.invoke(*command)
        assert outcome.code == 0, (command, outcome.err)


def test_of_two_hosts_the_primary_is_found(pair: Pair) -> None:
    project, primary, standby = pair.project, pair.primary, pair.standby
    project.env["DEV_DATABASE_URL"] = at(project, standby, primary)
    outcome = project.invoke("db.setup")
    assert outcome.code == 2 and "target_session_attrs=read-write" in outcome.err, outcome.err
    project.env["DEV_DATABASE_URL"] = at(project, standby, primary, options="?target_session_attrs=read-write")
    for command in (["db.setup"], ["backup.create"], ["backup.verify", "--full"], ["db.doctor"]):
        outcome = project.invoke(*command)
        assert outcome.code == 0, (command, outcome.err)
    code = """
        from skinspire_db.database_service import get_db_session
        from sqlalchemy import text
        with get_db_session() as session:
            print(session.execute(text("SELECT pg_is_in_recovery()")).scalar_one())
    """
    assert application(project, code) == "False\n"
    pair.server.stop()
    with psycopg.connect(at(project, standby), autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")
    assert application(project, code) == "False\n", "after the failover the other one serves"
    assert project.invoke("db.prepare").code == 0


def test_a_promoted_standby_is_followed_and_the_former_primary_refused_by_name(
    pair: Pair, service: Callable[[Project], Project], caplog: pytest.LogCaptureFixture
) -> None:
    project, primary, standby = pair.project, pair.primary, pair.standby
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nconnect_retry = 60\n")
    project.env["DEV_DATABASE_URL"] = at(project, primary, standby, options="?target_session_attrs=read-write")
    service(project)

    def port() -> str:
        with get_db_session() as session:
            session.execute(text("UPDATE hospitals SET name = name"))
            return str(session.execute(text("SHOW port")).scalar_one())

    def served() -> str:
        """As an application whose blocks of the moment are lost with the server."""
        for _ in range(50):
            with contextlib.suppress(DBAPIError):
                return port()
        raise AssertionError("no block succeeds")

    old, new = primary.partition(":")[2], standby.partition(":")[2]
    assert port() == old
    process = pair.server.status().pid
    assert process
    with psycopg.connect(at(project, primary)) as connection:
        backends = [
            pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        ]
    os.kill(process, signal.SIGKILL)
    for backend in backends:  # without this, one can answer a block after the server's end
        with contextlib.suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)
    with ThreadPoolExecutor() as pool:
        followed, verified = pool.submit(served), pool.submit(project.process, "db.history", "--json")
        time.sleep(1)
        assert not followed.done() and not verified.done(), "no server takes writes yet"
        with psycopg.connect(at(project, standby), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        assert followed.result(120) == new
        assert verified.result(120).code == 0, verified.result().err
    assert port() == new
    assert project.invoke("db.verify").code == 0
    # The former primary comes back, and is the first in the list: it takes writes that nothing else would see.
    pair.server.start()
    failover._seen.clear()
    refused = project.invoke("db.history")
    assert refused.code == 1 and f"{primary} is a former primary of clinic: {standby} was promoted" in refused.err, (
        refused.err
    )
    assert "timeline 2, not 1" in refused.err and f"take {primary} out of DEV_DATABASE_URL" in refused.err
    close_db_connections()
    with caplog.at_level("WARNING"):
        assert port() == new
    assert f"{primary} is a former primary" in caplog.text
    project.env["DEV_DATABASE_URL"] = at(project, standby)
    assert project.invoke("db.history").code == 0


def test_the_receiver_follows_a_promoted_standby(pair: Pair) -> None:
    """One that was behind it: what was received of the former primary alone is of no timeline that is left."""
    project, primary, standby = pair.project, pair.primary, pair.standby
    project.env["DEV_DATABASE_URL"] = at(project, primary, standby, options="?target_session_attrs=read-write")
    folder = project.root / "backups" / "dev.continuous"
    second = pair.other

    def state() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "receiver.json").read_text())
        return found

    def until(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, state()
            time.sleep(0.1)

    def write(host: str, number: int) -> None:
        with psycopg.connect(at(project, host), autocommit=True) as connection:
            connection.execute("INSERT INTO seen VALUES (%s)", (number,))
            row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert row
        until(lambda: state()["at"] > row[0])

    try:
        outcome = project.invoke("backup.start")
        assert outcome.code == 0, outcome.err
        project.execute("CREATE TABLE seen (n int)", "clinic")
        assert project.invoke("backup.create", "--physical").code == 0
        write(primary, 1)
        caught_up(project, pair.server, second)
        second.stop()
        project.execute("SELECT pg_switch_wal()", "clinic")
        write(primary, 2)
        pid = pair.server.status().pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: state()["said"])
        second.start()
        with psycopg.connect(at(project, standby), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        write(standby, 3)
        outcome = project.invoke("backup.status")
        assert "receiver  ok" in outcome.out and "000000020000" in outcome.out, outcome.out
        outcome = project.invoke("backup.restore", "--to=latest", "--keep", "--json")
        assert outcome.code == 0, outcome.out
        with psycopg.connect(outcome.json["url"]) as connection:
            assert connection.execute("SELECT array_agg(n ORDER BY n) FROM seen").fetchall() == [([1, 3],)]
    finally:
        project.invoke("backup.stop")
        project.invoke("backup.stop", "--kept")
