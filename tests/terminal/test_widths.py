"""What a terminal of 80 columns shows stays within them, however long the names are."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project
from wcwidth import wcswidth

from skinspire_db.terminal.rendering import tabular

WIDTH = 80
LONG = {
    kind: f"{kind}_of_the_longest_name_that_postgresql_takes_".ljust(63, "x") for kind in ("s", "t", "c", "i", "k", "v", "r")
}
COMMANDS = [
    ["db.inspect"],
    ["db.inspect", "--exact"],
    ["db.inspect", f"--table={LONG['s']}.{LONG['t']}"],
    ["db.inspect", "--table=patients"],
    ["db.activity"],
    ["db.history"],
    ["db.drift"],
    ["db.verify", "--verbose"],
    ["db.doctor"],
    ["backup.list"],
    ["triggers.status"],
    ["env.status"],
    ["server.status"],
    ["migrate.status"],
]


def shown(project: Project, arguments: list[str], columns: int = WIDTH) -> str:
    """What a terminal of so many columns shows of the command; notes and errors, which are lines of their own, are left out."""
    import fcntl
    import pty
    import termios

    controller, device = pty.openpty()
    fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in project.environment.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(project.command(*arguments), cwd=project.root, env=environment, stdin=subprocess.DEVNULL,
                               stdout=device, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    os.close(device)
    text = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while part := os.read(controller, 4096):
            text += part
    os.close(controller)
    with process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode in (0, 1, 3), said.decode()
    return text.decode().replace("\r\n", "\n")


@pytest.fixture
def long_named(clinic: Project, tmp_path: Path) -> Project:
    """A database with names of 63 characters, its own among them, and with backups and a journal."""
    former, name = clinic.database, f"dev_{clinic.database}_".ljust(63, "x")
    clinic.execute(f'ALTER DATABASE "{former}" RENAME TO "{name}"', "postgres")
    clinic.env["DEV_DATABASE_URL"] = clinic.url(name)
    s, t, c, i, k, v = (f'"{LONG[kind]}"' for kind in "stcikv")
    clinic.execute(
        f"CREATE SCHEMA {s}; CREATE TABLE {s}.{t} ({c} integer CONSTRAINT {k} REFERENCES public.role_master, b numeric(12, 4)"
        f" DEFAULT 12.5, CONSTRAINT positive CHECK ({c} > 0)); CREATE INDEX {i} ON {s}.{t} ({c}, b);"
        f" CREATE VIEW {s}.{v} AS SELECT * FROM {s}.{t}; INSERT INTO {s}.{t} SELECT role_id FROM role_master;"
        f" COMMENT ON TABLE {s}.{t} IS 'A comment of several words, as long as a sentence that explains a table';"
        f" COMMENT ON COLUMN {s}.{t}.{c} IS 'Another comment of several words, which is just as long as the first one was'"
    )
    assert clinic.invoke("backup.create").code == 0
    clinic.invoke("triggers.install", "--name=nothing_of_that_name")
    clinic.execute(
        "DROP TRIGGER _110_user_tracking ON users; ALTER TABLE patients DROP COLUMN title, ALTER COLUMN first_name TYPE text"
    )
    return clinic


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_no_line_is_wider_than_the_terminal(long_named: Project) -> None:
    wide = {}
    for arguments in COMMANDS:
        text = shown(long_named, arguments)
        assert text
        # A word that is longer than a line stays whole outside of tables: it is copied.
        lines = [line for line in text.split("\n") if wcswidth(line) > WIDTH and " " in line.strip()]
        if lines:
            wide[" ".join(arguments)] = lines
    assert wide == {}, "\n".join(line for lines in wide.values() for line in lines)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_wider_terminal_and_a_pipe_are_not_cut(long_named: Project) -> None:
    found = shown(long_named, COMMANDS[2], 400)
    assert LONG["c"] in found and any(len(line) > WIDTH for line in found.split("\n"))
    assert LONG["c"] in long_named.invoke(*COMMANDS[2]).out


def test_cells_are_wrapped_and_words_stay_whole_as_long_as_they_fit() -> None:
    rows = [
        ["patients", 12, "the people who come here, with what is known of them"],
        ["a" * 63, 12345, "日本語の 長い 説明文です " * 3],
    ]
    lines = tabular(rows, ["table", "rows", "what"], width=76).split("\n")
    assert max(map(wcswidth, lines)) <= 76
    assert any(line.startswith("a" * 53) for line in lines), "of the words, only the one that is too long is broken"
    assert all(word in " ".join(" ".join(lines).split()) for word in ("people", "known", "説明文です"))
    assert "   12  " in lines[2], "numbers to the right"
    assert tabular(rows, ["table", "rows", "what"]).split("\n")[3].startswith("a" * 63), "no width, no limit"
    for width in (20, 40, 60, 80):
        assert max(map(wcswidth, tabular(rows, ["table", "rows", "what"], width=width).split("\n"))) <= width
