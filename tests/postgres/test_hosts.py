"""URLs with several hosts: each operation is on one server, whichever it reached first; the application survives a failover."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Project, throw_away_home

from skinspire_db.config import environment, urls
from skinspire_db.config import project as settings
from skinspire_db.config.policy import Policy
from skinspire_db.copies import copied_tables, streaming
from skinspire_db.errors import ConnectionFailed, StepFailed
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import connections, failover, scripts, target
from skinspire_db.postgres.client_programs import client_tools
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.target import Target
from skinspire_db.service import test_override
from skinspire_db.terminal import psql


def closed_port() -> int:
    """A port on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def several(project: Project, *hosts: str, database: str | None = None, options: str = "") -> str:
    """The URL of the project's dev database with these hosts in place of its own."""
    address = project.address
    return f"postgresql://{address.user}:{address.password}@{','.join(hosts)}/{database or project.database}{options}"


def application(project: Project, code: str) -> str:
    """What an application's process prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={key: value for key, value in project.environment.items() if key != test_override.MAY_REACH}, cwd=project.root, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("url", "shown", "host", "port"),
    [
        ("postgresql://u:p@h1:5432,h2:5433/d", "h1:5432,h2:5433", "h1,h2", "5432,5433"),
        ("postgres://u@h1,h2:5433/d?target_session_attrs=read-write", "h1,h2:5433", "h1,h2", ",5433"),
        ("postgresql+psycopg://u:a,b@h1,h2/d", "h1,h2", "h1,h2", ","),
        ("postgresql://h1,h2/d", "h1,h2", "h1,h2", ","),
        ("postgresql://u@[::1]:5432,[fe80::2]/d", "[::1]:5432,[fe80::2]", "::1,fe80::2", "5432,"),
        ("postgresql://u@h,h:54143/d", "h,h:54143", "h,h", ",54143"),
        ("postgresql://u:p@/d?host=h1:1&host=h2:2", "h1:1,h2:2", "h1,h2", "1,2"),
        ("postgresql://u:p@/d?host=h1,h2&port=1,2", "h1:1,h2:2", "h1,h2", "1,2"),
        ("postgresql://u:a,b@h1:5432/d", "h1:5432", "h1", "5432"),
    ],
)
def test_lists_of_hosts_are_understood_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, shown: str, host: str, port: str
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEV_DATABASE_URL", url)
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    to = target.target_of(environment.resolve("dev"))
    assert str(to) == f"d on {shown}"
    assert (to.parameters["host"], str(to.parameters["port"])) == (host, port)
    hidden = environment.hide_password(url)
    assert ":p@" not in hidden and "a,b" not in hidden and urls.SEVERAL not in hidden
    assert "?host=" in url or f"{shown}/d" in hidden


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@h1:x,h2/d", "postgresql://u:hunter2@h1,h2:1:2/d", "postgresql://u:hunter2@[::1,h2/d"]
)
def test_a_list_that_means_nothing_is_refused(project: Project, url: str) -> None:
    project.env["DEV_DATABASE_URL"] = url
    outcome = project.invoke("db.history")
    assert outcome.code == 2 and "DEV_DATABASE_URL" in outcome.err and "hunter2" not in outcome.err


def test_a_failover_list_serves_tools_and_application(project: Project) -> None:
    """The first host is down: setup, backup, doctor and a unit of work go to the second."""
    here = f"127.0.0.1:{project.address.port}"
    project.env["DEV_DATABASE_URL"] = several(
        project, f"127.0.0.1:{closed_port()}", here, options="?target_session_attrs=read-write"
    )
    outcome = project.invoke("db.setup")
    assert outcome.code == 0, outcome.err
    assert f",{here}" in outcome.out
    for command in (["backup.create"], ["backup.verify", "--full"], ["db.drift"], ["db.doctor"], ["db.inspect"]):
        outcome = project.invoke(*command)
        assert outcome.code == 0, (command, outcome.err)
    assert f",{here}/" in project.invoke("db.url").out
    assert f",{here}/" in project.invoke("env.status").out
    done = application(
        project,
        """
        from skinspire_db.database_service import get_db_session, get_database_url
        from sqlalchemy import create_engine, text
        with get_db_session() as session:
            print(session.execute(text("SELECT count(*) FROM hospitals")).scalar_one() > 0)
        from skinspire_db.postgres.target import target_of; from skinspire_db.config import environment
        with get_db_session(read_only=True) as session:
            print(session.execute(text("SHOW port")).scalar_one())
        url = get_database_url()
        password = target_of(environment.resolve()).parameters["password"]
        with create_engine(url.set(password=password)).connect() as connection:
            print(connection.execute(text("SHOW port")).scalar_one())
        """,
    )
    assert done.split() == ["True", str(project.address.port), str(project.address.port)]


def test_a_session_that_comes_out_elsewhere_does_nothing(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is the same; behind it is another server, or another database of the name."""
    monkeypatch.chdir(clinic.root)
    monkeypatch.setenv("DEV_DATABASE_URL", clinic.env["DEV_DATABASE_URL"])
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    to = target.target_of(environment.resolve("dev"))
    aside = clinic.database + "_aside"
    with to.pin.operation():
        connections.connect(to, "test").close()
        clinic.execute(f'ALTER DATABASE "{clinic.database}" RENAME TO "{aside}"', "postgres")
        clinic.execute(f'CREATE DATABASE "{clinic.database}"', "postgres")
        try:
            with pytest.raises(ConnectionFailed, match="another database is called"):
                connections.connect(to, "test")
        finally:
            clinic.execute(f'DROP DATABASE "{clinic.database}"', "postgres")
            clinic.execute(f'ALTER DATABASE "{aside}" RENAME TO "{clinic.database}"', "postgres")
        connections.connect(to, "test").close()
    with to.pin.operation():  # the next operation begins anew
        connections.connect(to, "test").close()


def test_a_program_that_comes_out_in_another_database_does_nothing(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clinic.root)
    monkeypatch.setenv("DEV_DATABASE_URL", clinic.env["DEV_DATABASE_URL"])
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    to = target.target_of(environment.resolve("dev"))
    aside = clinic.database + "_aside"
    with to.pin.operation():
        connections.connect(to, "test").close()
        write_a_table(to)
        clinic.execute("DROP TABLE written")
        clinic.execute(f'ALTER DATABASE "{clinic.database}" RENAME TO "{aside}"', "postgres")
        clinic.execute(f'CREATE DATABASE "{clinic.database}"', "postgres")
        try:
            with pytest.raises(StepFailed, match="another database is called"):
                write_a_table(to)
            assert clinic.query("SELECT to_regclass('written')") == [(None,)]
        finally:
            clinic.execute(f'DROP DATABASE "{clinic.database}"', "postgres")
            clinic.execute(f'ALTER DATABASE "{aside}" RENAME TO "{clinic.database}"', "postgres")


def write_a_table(to: Target) -> None:
    """A script that is no transaction: whatever of it was run, stays."""
    with scripts.script(client_tools(170000), transaction=False) as script:
        script.write("CREATE TABLE public.written ();")
        script.run(to)


def test_a_role_that_may_not_ask_for_the_system_identifier(clinic: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some hosted servers; here in one database only, so that both answers meet in one operation."""
    role = f"plain_{clinic.database}"
    clinic.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC"
    )
    monkeypatch.chdir(clinic.root)
    monkeypatch.setenv("DEV_DATABASE_URL", clinic.url(clinic.database, user=role, password="p"))
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    to = target.target_of(environment.resolve("dev"))
    try:
        with to.pin.operation():
            connections.connect(to, "test").close()
            assert to.pin.server and to.pin.server.system is None and not to.pin.pooled
            connections.maintenance(to, "test").close()
            connections.connect(to, "test").close()
            with scripts.script(client_tools(170000)) as script:
                script.write("SELECT 1;")
                script.run(to)
    finally:
        clinic.execute(f"DROP ROLE {role}")


# Two servers


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    pair = tuple(EmbeddedServer(throw_away_home(tmp_path / name), durable=False) for name in "ab")
    try:
        first = pair[0].start()
        second = pair[1].start()
        with psycopg.connect(**second.parameters, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"ALTER ROLE skinspire PASSWORD '{first.password}'")
        (pair[1].home / "password").write_text(first.password)
        yield pair[0], pair[1]
    finally:
        for each in pair:
            each.destroy()


def databases(server: EmbeddedServer) -> list[tuple[object, ...]]:
    """Every database of the server, by oid and name."""
    address = server.address()
    assert address
    with psycopg.connect(**address.parameters, dbname="postgres") as connection:
        return connection.execute("SELECT oid, datname FROM pg_database ORDER BY 1").fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["{}/{database}?", "/{database}?host={}&"])
def test_a_list_of_servers_that_are_not_one_database_is_refused_and_changes_neither(
    make_project: Callable[..., Project], servers: tuple[EmbeddedServer, EmbeddedServer], form: str
) -> None:
    """One server has dev's database, the other prod's of the same name, and each connection is given either."""
    ours, theirs = servers
    here, there = ours.address(), theirs.address()
    assert here and there
    one = f"postgresql://skinspire:{here.password}@127.0.0.1:{here.port}"
    hosts = [f"127.0.0.1:{each.port}" for each in (here, there)]
    listed = ("&host=" if "host=" in form else ",").join(hosts)
    both = f"postgresql://skinspire:{here.password}@{form}load_balance_hosts=random"
    project = make_project(
        DEV_DATABASE_URL=f"{one}/clinic", TEST_DATABASE_URL=f"{one}/source",
        PROD_DATABASE_URL=f"postgresql://skinspire:{here.password}@127.0.0.1:{there.port}/clinic",
    )  # fmt: skip
    project.address = here
    try:
        for command in (["db.setup", "--env=dev"], ["db.setup", "--env=test"], ["db.copy", "--source=test", "--target=dev"]):
            outcome = project.invoke(*command)
            assert outcome.code == 0, outcome.err
        former = next(str(name) for _, name in databases(ours) if "_former_" in str(name))
        with psycopg.connect(**there.parameters, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE clinic")
            connection.execute(f'CREATE DATABASE "{former}"')
        outcome = project.invoke("db.setup", "--env=prod", "--confirm=clinic")
        assert outcome.code == 0, outcome.err
        before = databases(theirs)
        project.env["DEV_DATABASE_URL"] = both.format(listed, database="clinic")
        project.env["TEST_DATABASE_URL"] = both.format(listed, database="source")
        ours_before = databases(ours)
        for command in (
            ["db.undo", "--env=dev"],
            ["db.copy", "--source=test", "--target=dev", "--method=stream"],
            ["backup.create", "--env=dev"],
            ["backup.restore", "--env=dev"],
            ["db.drift", "--env=dev"],
            ["db.prepare", "--env=dev"],
        ):
            outcome = project.invoke(*command)
            assert outcome.code == 1 or command[0] == "backup.restore", (command, outcome.out, outcome.err)
            assert "not servers of one database" in outcome.err or command[0] == "backup.restore", (command, outcome.err)
            assert (databases(ours), databases(theirs)) == (ours_before, before), (command, outcome.out, outcome.err)
    finally:
        project.env = {}


@pytest.mark.slow
def test_a_server_that_goes_away_is_not_replaced_by_another(
    make_project: Callable[..., Project], servers: tuple[EmbeddedServer, EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an operation its server stops: the rest of it does not go to the next host of the list."""
    ours, theirs = servers
    here, there = ours.address(), theirs.address()
    assert here and there
    for address in (here, there):
        with psycopg.connect(**address.parameters, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE clinic")
    project = make_project()
    monkeypatch.chdir(project.root)
    monkeypatch.setenv(
        "DEV_DATABASE_URL", f"postgresql://skinspire:{here.password}@127.0.0.1:{here.port},127.0.0.1:{there.port}/clinic"
    )
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    chosen = environment.resolve("dev")
    to = target.target_of(chosen)
    theirs.stop()
    with chosen.pin.operation():
        connections.connect(to, "test").close()
        assert to.where == f"127.0.0.1:{here.port}"
        ours.stop()
        assert theirs.start().port == there.port
        for connect in (connections.connect, connections.maintenance):
            with pytest.raises(Exception, match=r"refused|reaches"):
                connect(to, "test")
    with chosen.pin.operation():
        connections.connect(to, "test").close()
        assert to.where == f"127.0.0.1:{there.port}"


@pytest.mark.slow
def test_a_program_that_comes_out_on_another_server_does_nothing(
    make_project: Callable[..., Project],
    servers: tuple[EmbeddedServer, EmbeddedServer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The address leads to another server than it did for the operation's first connection, whose databases have the names."""
    here, there = (each.address() for each in servers)
    assert here and there
    for address in (here, there):
        with psycopg.connect(**address.parameters, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE clinic")
    project = make_project()
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DEV_DATABASE_URL", f"postgresql://skinspire:{here.password}@127.0.0.1:{here.port}/clinic")
    settings._tool_table.cache_clear()
    settings._dotenv.cache_clear()
    chosen, tools = environment.resolve("dev"), client_tools(170000)
    ready = psql.prepare(chosen, terminal=False)
    elsewhere = [each.replace(f"port={here.port}", f"port={there.port}") for each in ready.command]
    assert elsewhere != ready.command
    done = subprocess.run(
        [*elsewhere, "--command=CREATE TABLE public.written ()"], env=ready.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and "on another server" in done.stderr, done
    to = target.target_of(chosen)
    with chosen.pin.operation(), connections.connect(to, "test") as connection:
        snapshot = copied_tables.hold(connection, to)
        archive = str(tmp_path / "archive")
        dump = ("-Fd", "--jobs=2", f"--snapshot={snapshot}")
        tools.run("pg_dump", to, *dump, f"--file={archive}")
        chosen.pin.address["port"] = str(there.port)
        with pytest.raises(StepFailed, match="on another server") as failed:
            write_a_table(to)
        assert "name one server's own address" in str(failed.value.remedy)
        with pytest.raises(StepFailed, match="on another server"):
            streaming._Pipes(tools, to, to, snapshot)._pump(
                "it", ["--command=SELECT 1"], ["--command=CREATE TABLE public.written ()"]
            )
        with pytest.raises(StepFailed, match="snapshot"):
            tools.run("pg_dump", to, *dump, f"--file={archive}-again")
        with pytest.raises(StepFailed, match="does not exist"):
            tools.run("pg_restore", scratch.new_name(to), "--exit-on-error", "--jobs=2", archive)
    with psycopg.connect(**there.parameters, dbname="clinic") as connection:
        assert connection.execute("SELECT to_regclass('public.written')").fetchone() == (None,)


def test_a_former_primary_is_taken_out_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"host": "h1,h2,h3", "port": "1,2,3", "dbname": "d", "user": "u"}
    to = target.Target("dev", Policy(), parameters, setting="DEV_DATABASE_URL")
    there = {"1": failover.Primary({"host": "h1", "hostaddr": "", "port": "1"}, 1, 7, ""),
             "3": failover.Primary({"host": "h3", "hostaddr": "", "port": "3"}, 2, 7, "")}  # fmt: skip
    monkeypatch.setattr(failover, "_seen", {})
    monkeypatch.setattr(failover, "_asked", lambda _, address: there.get(address["port"]))
    old = failover.former(to)
    assert [each.shown for each in old] == ["h1:1"] and "h3:3 was promoted" in failover.refusal(to, old[0]).message
    left = failover.without(to, old)
    assert (left.parameters["host"], left.parameters["port"]) == ("h2,h3", "2,3") and left.parameters["user"] == "u"
    assert failover.without(to, []) is to
    failover._seen.clear()
    there["3"] = failover.Primary(there["3"].address, 2, 8, "")
    with pytest.raises(ConnectionFailed, match="DEV_DATABASE_URL names h1:1 and h3:3, which are not servers of one database"):
        failover.former(to)
    alone = target.Target("dev", Policy(), {"host": "h1", "dbname": "d"})
    assert failover.former(alone) == [] and failover.servers(alone) == [{"host": "h1", "hostaddr": "", "port": ""}]
