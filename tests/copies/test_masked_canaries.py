"""Unique tokens in everything that a database can hold: a plain copy brings each of them, a masked one none."""

from __future__ import annotations

import base64
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from canaries import Canaries
from conftest import CHECKOUT, Project, dump, throw_away_home
from support import database

from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.copies import copied_tables, streaming
from skinspire_db.copies.masking import expressions, plan, types
from skinspire_db.copies.masking.masking import Masking
from skinspire_db.errors import UsageError
from skinspire_db.postgres.connections import begin
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.target import target_of

ROWS = 40
# Which of the server's words comes first is its affair: without room for its log it ends all sessions.
FULL = (
    "free some space",
    "No space left on device",
    "disk is full",
    "went away",
    "crash of another server process",
    "server closed the connection",
)


def test_the_search_finds_a_token_in_every_encoding() -> None:
    canaries = Canaries(random.Random(7))
    token = canaries.token("here")
    for text in (token, token.upper(), token.title(), token[::-1], token[::-1].upper()):
        for around in range(3):
            data = b"x" * around + text.encode() + b"y"
            for coded in (data, data.hex().encode(), data.hex().upper().encode(), base64.b64encode(data)):
                assert canaries.search(b"some " + coded + b" bytes") or text in (token.title(), token[::-1].upper()), (
                    text,
                    coded,
                )
    assert "here" in canaries.search(token.upper().encode()) and "here" in canaries.search(token.encode().hex().encode())
    other = Canaries(random.Random(8))
    assert not other.search(token.encode()) and not canaries.search(bytes(range(256)) * 100)


@pytest.fixture
def canaries(project: Project) -> Canaries:
    """The canaries in the project's test database."""
    found, test = Canaries(), database(project, "TEST")
    (project.root / "shop.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase\n\n\nclass Base(DeclarativeBase): ...\n"
    )
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:Base"]\n')
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    with psycopg.connect(**project.address.parameters, dbname=test) as connection:
        for statement in found.statements(ROWS):
            connection.execute(statement.encode())
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    assert found.total >= 10_000
    return found


@pytest.fixture
def elsewhere(project: Project, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of its own for the project's dev database, in whose files nothing else is, on a small disk where one can be made."""
    home = throw_away_home(tmp_path) / "home"
    home.parent.mkdir(parents=True, exist_ok=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=0755", "tmpfs", str(home.parent)]
    mounted = shutil.which("mount") and subprocess.run(small, capture_output=True, check=False).returncode == 0
    server = EmbeddedServer(home, durable=False)
    try:
        address = server.start()
        location = f"{address.user}:{address.password}@127.0.0.1:{address.port}/{project.database}"
        project.env["DEV_DATABASE_URL"] = f"postgresql://{location}"
        yield server
    finally:
        server.destroy()
        if mounted:
            subprocess.run(["umount", str(home.parent)], check=True)
        shutil.rmtree(home.parent)


def written(server: EmbeddedServer, name: str) -> bytes:
    """The dump of a database; the server is stopped then, and all that it held in memory is in its files."""
    text = dump(server.start(), name, "--large-objects", "--create").encode()
    server.stop()
    return text


@pytest.mark.slow
def test_a_masked_copy_brings_no_canary_and_a_plain_one_brings_all(
    project: Project, canaries: Canaries, elsewhere: EmbeddedServer
) -> None:
    """That all are found in the plain copy shows that the search works."""
    outcome = project.invoke("db.copy", "--source=test", "--target=dev", "--masked")
    assert outcome.code == 0, outcome.err
    assert canaries.search(f"{outcome.out}{outcome.err}".encode()) == set()
    assert canaries.search_text(written(elsewhere, project.database)) == set()
    assert canaries.search_files(elsewhere.home) == {}
    elsewhere.start()
    outcome = project.invoke("db.copy", "--source=test", "--target=dev")
    assert outcome.code == 0, outcome.err
    wanted = set(canaries.places.values()) | set(canaries.exact.values())
    assert wanted - canaries.search_text(written(elsewhere, project.database)) == set()
    inside = set().union(*canaries.search_files(elsewhere.home).values())
    assert set(canaries.places.values()) - inside == set()
    assert {f"{type_}, raw" for type_ in (*canaries.bytes, "bigint", "numeric")} - inside == set()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends no process by a signal")
def test_what_an_ended_masked_copy_leaves_holds_nothing_of_the_source(
    project: Project, canaries: Canaries, elsewhere: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed task, Ctrl-C, a killed server and a full disk, in every step: scratch databases, logs, and temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    project.env["TMPDIR"] = str(temporary)
    halting = [sys.executable, str(CHECKOUT / "tests/halting_invoke.py")]
    copy = ["-r", str(CHECKOUT), "db.copy", "--source=test", "--target=dev", "--masked"]
    disk = elsewhere.home.parent
    ends = [("source", 3, "Ctrl-C"), ("copy", 3, "task"), ("copy", -1, "task"), ("compare", 0, "server"), ("search", 2, "server"),
            ("stamp", 1, "task"), ("swap", 6, "Ctrl-C")]  # fmt: skip
    ends += [("copy", 3, "disk")] if disk.is_mount() else []
    for step, count, ended in ends:
        address = elsewhere.start()
        with subprocess.Popen(
            [*halting, step, str(count), *copy], env=project.environment, cwd=project.root, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as task:  # fmt: skip
            try:
                assert task.stdout and "HALTED\n" in iter(task.stdout.readline, ""), (step, task.communicate())
                if ended == "server":
                    os.kill(elsewhere.status().pid or 0, signal.SIGKILL)
                elif ended == "disk":
                    (disk / "filler").write_bytes(bytes(max(shutil.disk_usage(disk).free - 300_000, 0)))
                else:
                    task.send_signal(signal.SIGKILL if ended == "task" else signal.SIGINT)
                _, err = task.communicate("go on\n" if ended in ("disk", "server") else None, timeout=90)
            finally:
                task.kill()
        (disk / "filler").unlink(missing_ok=True)
        assert ended != "disk" or any(each in err for each in FULL), err
        assert task.returncode != 0 and not canaries.search(err.encode()), (step, err)
        assert canaries.search_files(temporary) == {}, (step, ended)
        address = elsewhere.start()
        with psycopg.connect(**address.parameters, dbname="postgres") as connection:
            names = [name for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname ~ '_scratch_'")]
            assert connection.execute("SELECT FROM pg_database WHERE datname = %s", (project.database,)).fetchall() == []
        if (step, count) == ("copy", -1):
            assert any(b"COPY public.loose" in dump(address, name).encode() for name in names), (
                "there is something to be searched"
            )
        for name in names:
            assert canaries.search_text(dump(address, name, "--large-objects").encode()) == set(), (step, ended)
    if disk.is_mount():
        full_while_rows_are_copied(project, canaries, elsewhere, monkeypatch)
    elsewhere.stop()
    assert canaries.search_files(elsewhere.home) == {} and canaries.search_files(project.root) == {}
    if not disk.is_mount():
        pytest.skip("no tmpfs can be mounted here: all but the full disk was tried")


def full_while_rows_are_copied(
    project: Project, canaries: Canaries, elsewhere: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are made, and their first rows find no room."""
    disk, copied, filler = elsewhere.home.parent, streaming._Pipes.small, elsewhere.home.parent / "filler"

    def without_room(*arguments: Any) -> Any:
        filler.write_bytes(bytes(max(shutil.disk_usage(disk).free - 50_000, 0)))
        return copied(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(streaming._Pipes, "small", without_room)
        outcome = project.invoke("db.copy", "--source=test", "--target=dev", "--masked")
    assert filler.exists(), "rows were to be copied"
    filler.unlink()
    assert outcome.code == 1 and any(each in outcome.err for each in FULL), outcome.err
    assert not canaries.search(outcome.err.encode())
    with psycopg.connect(**elsewhere.start().parameters, dbname="postgres") as connection:
        assert connection.execute("SELECT FROM pg_database WHERE datname = %s", (project.database,)).fetchall() == []


@pytest.fixture
def read(project: Project, canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[bytes]]]:
    """What the reading programs of a masked copy print: for each table its rows, as text."""
    for name, value in {"SKINSPIRE_PROJECT": str(project.root), **project.env}.items():
        monkeypatch.setenv(name, value)
    settings._tool_table.cache_clear()
    source = environment.resolve("test")
    target = target_of(source)

    def rows(secret: str = "s" * 64) -> dict[str, list[bytes]]:
        masking = Masking(source.project, plan.secret_of(secret))
        with psycopg.connect(**project.address.parameters, dbname=database(project, "TEST")) as connection:
            begin(connection, target.policy)
            connection.execute(f"SET LOCAL {expressions.SETTING} = '{masking.secret}'".encode())
            made = masking.plan(connection, target)
            found = {}
            for table in copied_tables.tables(connection):
                with connection.cursor().copy(replace(made.table(table), binary=False).read.encode()) as copy:
                    found[table.quoted] = b"".join(map(bytes, copy)).splitlines()
        return found

    return rows


@pytest.mark.slow
def test_masks_depend_on_secret_and_value_alone_and_a_broken_one_is_found(
    project: Project, canaries: Canaries, read: Callable[..., dict[str, list[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, other = read(), read(), read("t" * 64)
    assert first == again, "the same secret gives the same bytes"
    assert {table: len(rows) for table, rows in first.items()} == {table: len(rows) for table, rows in other.items()}
    key, elsewhere = ({row.split(b"\t")[0] for row in each['"public"."computed"']} for each in (first, other))
    assert len(key) == len(elsewhere) == ROWS and not key & elsewhere, (
        "as many values as before, and none of another secret's"
    )
    written = [
        {word for rows in each.values() for word in re.findall(rb"[a-z]{12,}", b"\t".join(rows))} for each in (first, other)
    ]
    assert len(written[0]) > 1000 and not written[0] & written[1], "no invented text of one secret is one of another's"
    child = [row.split(b"\t") for row in first['"public"."child"']]
    assert {row[0] for row in child} == {row[2] for row in child} == key, "the same value has the same mask everywhere"

    def found() -> set[str]:
        return canaries.search_text(b"\n".join(row for rows in read().values() for row in rows))

    assert found() == set()
    for kept in ("citext", "jsonb", "bytea", "uuid", "int8", "timestamp"):
        with monkeypatch.context() as broken:
            broken.setattr(types, "KEPT", types.KEPT | {kept})
            assert found(), f"{kept} is kept, and nothing is found"
    with monkeypatch.context() as broken:  # what is not resolved is not known, and what is not known is never let through
        broken.setattr(types, "TEXTS", types.TEXTS - {"citext"})
        with pytest.raises(UsageError, match=r"strict.citext.* is of type .*citext, which no mask is known for"):
            read()
        project.execute(
            "ALTER TABLE strict ALTER citext DROP NOT NULL, ALTER citexts DROP NOT NULL", database(project, "TEST")
        )
        assert found() == set()
    # A rule that keeps a column lets it through; without the rule the default masks it.
    rule = project.root / "sql" / "masks" / "shop.toml"
    rule.parent.mkdir(parents=True)
    rule.write_text('version = 1\nsummary = "x"\n[tables.loose]\nvarchar = "keep"\n')
    assert project.invoke("sql.bump", "--name=masks/shop").code == 0
    assert found() == {"loose.varchar", "a token"}
    shutil.rmtree(project.root / "sql")
    assert found() == set()
