"""uuid-ossp on the embedded server, in SQL: the functions of PostgreSQL's own, and the folder of links that offers them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.postgres import added_extensions
from skinspire_db.postgres.programs import Binaries, find_binaries

NAMES = ["", "www.widgets.com", "Zürich \N{PILE OF POO}", *("x" * length for length in (38, 39, 40, 47, 48, 100, 1000))]
NAMESPACES = {"dns": uuid.NAMESPACE_DNS, "url": uuid.NAMESPACE_URL, "oid": uuid.NAMESPACE_OID, "x500": uuid.NAMESPACE_X500}


@pytest.fixture
def connection(project: Project) -> Iterator[psycopg.Connection[Any]]:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    with project.connect() as connected:
        connected.execute('CREATE EXTENSION "uuid-ossp"')
        yield connected


def test_the_functions_of_uuid_ossp(connection: psycopg.Connection[Any]) -> None:
    def one(sql: str, *values: str) -> uuid.UUID:
        row = connection.execute(f"SELECT {sql}".encode(), values).fetchone()
        assert row
        return uuid.UUID(str(row[0]))

    assert one("uuid_nil()") == uuid.UUID(int=0)
    for name, namespace in NAMESPACES.items():
        assert one(f"uuid_ns_{name}()") == namespace
        assert one(f"uuid_generate_v3(uuid_ns_{name}(), %s)", "a name") == uuid.uuid3(namespace, "a name")
    for name in NAMES:
        assert one("uuid_generate_v5(uuid_ns_dns(), %s)", name) == uuid.uuid5(uuid.NAMESPACE_DNS, name), name
        assert one("uuid_generate_v3(uuid_ns_url(), %s)", name) == uuid.uuid3(uuid.NAMESPACE_URL, name), name
    assert one("uuid_generate_v4()").version == 4
    for function in ("uuid_generate_v1", "uuid_generate_v1mc"):
        made = [
            row[0] for row in connection.execute(f"SELECT {function}() FROM generate_series(1, 2000)".encode()).fetchall()
        ]
        assert len(set(made)) == 2000
        assert {(each.version, each.variant) for each in made} == {(1, uuid.RFC_4122)}
        assert all(each.node >> 40 & 1 for each in made), "a node that is no network card's is a multicast address"
        now = connection.execute(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1e7)::bigint + 122192928000000000"
        ).fetchone()
        assert now and all(0 <= int(str(now[0])) - each.time < 60 * 10**7 for each in made)


def test_it_is_trusted_and_has_the_same_signatures(project: Project, connection: psycopg.Connection[Any]) -> None:
    listed = connection.execute("""
        SELECT p.oid::regprocedure::text, p.provolatile::text, p.proparallel::text, p.proisstrict
        FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
        WHERE e.extname = 'uuid-ossp' ORDER BY 1""").fetchall()
    stable = {
        "uuid_nil()",
        "uuid_generate_v3(uuid,text)",
        "uuid_generate_v5(uuid,text)",
        *(f"uuid_ns_{name}()" for name in NAMESPACES),
    }
    volatile = {"uuid_generate_v1()", "uuid_generate_v1mc()", "uuid_generate_v4()"}
    assert {name for name, *_ in listed} == stable | volatile
    assert all(
        (kind, parallel, strict) == ("i" if name in stable else "v", "s", True) for name, kind, parallel, strict in listed
    )
    role = f"lesser_{project.database}"
    connection.execute('DROP EXTENSION "uuid-ossp"')
    connection.execute(f'CREATE ROLE {role}; GRANT CREATE ON DATABASE "{project.database}" TO {role}'.encode())
    try:
        connection.execute(f"CREATE SCHEMA theirs AUTHORIZATION {role}; SET ROLE {role}; SET search_path = theirs".encode())
        connection.execute('CREATE EXTENSION "uuid-ossp"')
        connection.execute('ALTER EXTENSION "uuid-ossp" SET SCHEMA theirs')
        assert connection.execute("SELECT theirs.uuid_generate_v4() IS NOT NULL").fetchone() == (True,)
    finally:
        connection.execute(f"RESET ROLE; DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def build(folder: Path, *extensions: str) -> Binaries:
    """What looks like an installed PostgreSQL; its programs are the real ones."""
    (folder / "bin").mkdir(parents=True)
    (folder / "share/extension").mkdir(parents=True)
    for name in ("postgres", "psql"):
        (folder / "bin" / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 17.1'\n")
        (folder / "bin" / name).chmod(0o755)
    for name in extensions:
        (folder / "share/extension" / f"{name}.control").write_text("default_version = '1'\n")
    return Binaries(folder / "bin", 17)


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand in for the programs")
def test_installed_files_are_left_alone(tmp_path: Path) -> None:
    found = build(tmp_path / "17", "citext")
    before = sorted(str(path) for path in (tmp_path / "17").rglob("*"))
    linked = added_extensions.with_extensions(found, tmp_path / "home")
    assert linked.folder.parent.parent == tmp_path / "home/programs" and linked.major == 17
    offered = {path.name for path in (linked.folder.parent / "share/extension").iterdir()}
    assert offered == {"citext.control", "uuid-ossp.control", "uuid-ossp--1.1.sql"}
    assert not linked.tool("postgres").is_symlink() and linked.tool("psql").is_symlink()
    assert added_extensions.with_extensions(found, tmp_path / "home") == linked
    assert sorted(str(path) for path in (tmp_path / "17").rglob("*")) == before
    os.utime(found.tool("postgres"), (1, 1))  # another build of it was installed
    again = added_extensions.with_extensions(found, tmp_path / "home")
    assert again != linked
    added_extensions.clean(tmp_path / "home", again)
    assert [path.name for path in (tmp_path / "home/programs").iterdir()] == [again.folder.parent.name]


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand in for the programs")
def test_where_it_cannot_be_offered_the_programs_serve_as_they_are(tmp_path: Path) -> None:
    has_it = build(tmp_path / "has it", "uuid-ossp")
    assert added_extensions.with_extensions(has_it, tmp_path / "home") == has_it
    apart = build(tmp_path / "apart")
    (tmp_path / "apart/share/extension").rmdir()
    assert added_extensions.with_extensions(apart, tmp_path / "home") == apart
    found = build(tmp_path / "17")
    (tmp_path / "no folder").write_text("")
    assert added_extensions.with_extensions(found, tmp_path / "no folder") == found
    found.tool("postgres").write_text("#!/bin/sh\nexit 1\n")
    assert added_extensions.with_extensions(found, tmp_path / "home") == found, "programs that do not run from there"


def test_the_programs_of_this_run_were_not_changed() -> None:
    installed = find_binaries().folder.parent
    assert not list(installed.rglob("uuid-ossp*")) or "uuid-ossp" in str(list(installed.rglob("*.so")))
