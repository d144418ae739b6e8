"""Unique tokens in everything that a database can hold: a plain copy brings each of them, a masked one none."""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from canaries import Canaries
from conftest import Project, dump, throw_away_home
from support import database

from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.copies import copied_tables
from skinspire_db.copies.masking import expressions, plan, types
from skinspire_db.copies.masking.masking import Masking
from skinspire_db.errors import UsageError
from skinspire_db.postgres.connections import begin
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.target import target_of

ROWS = 40


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
    """A server of its own for the project's dev database, in whose files nothing else is."""
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    try:
        address = server.start()
        location = f"{address.user}:{address.password}@127.0.0.1:{address.port}/{project.database}"
        project.env["DEV_DATABASE_URL"] = f"postgresql://{location}"
        yield server
    finally:
        server.destroy()


def written(server: EmbeddedServer, name: str) -> bytes:
    """The dump of a database; the server is stopped then, and all that it held in memory is in its files."""
    text = dump(server.start(), name, "--large-objects", "--create").encode()
    server.stop()
    return text


@pytest.mark.slow
def test_a_plain_copy_brings_every_canary(project: Project, canaries: Canaries, elsewhere: EmbeddedServer) -> None:
    """That they are found shows that the search works."""
    outcome = project.invoke("db.copy", "--source=test", "--target=dev")
    assert outcome.code == 0, outcome.err
    wanted = set(canaries.places.values()) | set(canaries.exact.values())
    assert wanted - canaries.search_text(written(elsewhere, project.database)) == set()
    inside = set().union(*canaries.search_files(elsewhere.home).values())
    assert set(canaries.places.values()) - inside == set()
    assert {f"{type_}, raw" for type_ in (*canaries.bytes, "bigint", "numeric")} - inside == set()


@pytest.mark.slow
def test_a_masked_copy_brings_none(project: Project, canaries: Canaries, elsewhere: EmbeddedServer) -> None:
    outcome = project.invoke("db.copy", "--source=test", "--target=dev", "--masked")
    assert outcome.code == 0, outcome.err
    assert canaries.search_text(written(elsewhere, project.database)) == set()
    assert canaries.search_files(elsewhere.home) == {}
    assert canaries.search(f"{outcome.out}{outcome.err}".encode()) == set()


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
def test_masks_depend_on_the_secret_and_on_the_value_alone(read: Callable[..., dict[str, list[bytes]]]) -> None:
    first, again, other = read(), read(), read("t" * 64)
    assert first == again, "the same secret gives the same bytes"
    assert {table: len(rows) for table, rows in first.items()} == {table: len(rows) for table, rows in other.items()}
    key, elsewhere = ({row.split(b"\t")[0] for row in each['"public"."computed"']} for each in (first, other))
    assert len(key) == len(elsewhere) == ROWS and not key & elsewhere, (
        "as many values as before, and none of another secret's"
    )
    child = [row.split(b"\t") for row in first['"public"."child"']]
    assert {row[0] for row in child} == {row[2] for row in child} == key, "the same value has the same mask everywhere"


@pytest.mark.slow
def test_the_canaries_find_what_a_broken_mask_lets_through(
    project: Project, canaries: Canaries, read: Callable[..., dict[str, list[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> set[str]:
        return canaries.search_text(b"\n".join(row for rows in read().values() for row in rows))

    assert found() == set()
    for kept in ("text", "citext", "jsonb", "bytea", "uuid", "xml", "inet", "int8", "numeric", "timestamp", "hstore"):
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
