"""How the functions that a trigger file makes are found: the database's functions are read once for each file."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from skinspire_db.errors import NotOurs
from skinspire_db.objects import files, install, live
from skinspire_db.objects.making import Making


def trigger_file(folder: Path, name: str, function: str) -> files.SqlFile:
    path = folder / f"{name}.sql"
    path.write_text(f"/*\nversion = 1\nsummary = 'x'\norder = 1\n*/\nCREATE OR REPLACE {function}")
    return files.read_file(path)


F = "FUNCTION public.{}() RETURNS int LANGUAGE sql AS 'SELECT {}'"


def test_functions_are_read_once_for_each_file(
    connection: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = live.rows_of

    def counted(found: Any) -> live.Rows:
        reads.append(1)
        return read(found)

    monkeypatch.setattr(live, "rows_of", counted)
    written = [trigger_file(tmp_path, name, F.format(name, 1)) for name in ("f", "g", "h")]
    assert install.install(connection, written, others=False).numbers["functions"] == 3
    assert len(reads) == 4  # once before the first


def test_a_file_is_not_taken_for_the_maker_of_what_came_before_it(
    connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Taking a function over from its owner writes its row anew, after the file has been run."""
    connection.execute(
        "CREATE ROLE former_owner NOLOGIN; GRANT CREATE ON SCHEMA public TO former_owner; SET ROLE former_owner"
    )
    connection.execute(f"CREATE {F.format('f', 1)}".encode())
    connection.execute("RESET ROLE")
    theirs = Making(connection, {})
    with pytest.raises(NotOurs, match=r"function f\(\) exists already"):
        theirs.make([trigger_file(tmp_path, "f", F.format("f", 2))])
    making = Making(connection, {})
    making.make([trigger_file(tmp_path, "f", F.format("f", 1)), trigger_file(tmp_path, "g", F.format("g", 1))])
    assert {name: list(made) for name, made in making.made.items()} == {"f": ["f()"], "g": ["g()"]}
    owners = connection.execute("SELECT proowner::regrole::text FROM pg_proc WHERE proname = 'f'").fetchall()
    assert owners != [("former_owner",)]
