"""What only a terminal shows: colours, the line of a step that runs; and that elsewhere nothing of it is seen."""

from __future__ import annotations

import contextlib
import io
import re
import time

import pytest
from conftest import Project
from test_widths import shown
from wcwidth import wcswidth

from skinspire_db.lifecycle.result import Check, StepResult, Summary
from skinspire_db.terminal import console, layout, live
from skinspire_db.terminal.rendering import folded

CODE = "\x1b["


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard output, as a terminal of 80 columns that knows colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def report(terminal: Terminal, *checks: Check) -> None:
    with contextlib.redirect_stdout(terminal):
        console.ConsoleReport(quiet=False).step(StepResult("verify", False, 1.0, Summary({"checks": 2}, checks=list(checks))))


def test_states_are_coloured_and_words_are_not(terminal: Terminal) -> None:
    report(
        terminal,
        Check("tables", "fail", "table fail is missing; it may not pass"),
        Check("rows", "unknown", "could not look"),
    )
    text = terminal.getvalue()
    assert text.count(CODE) == 4 and f"{live.RED}fail{live.PLAIN}     tables" in text
    assert f"{live.YELLOW}unknown{live.PLAIN}  rows" in text
    assert live.coloured("  a     failed: it may not pass\n  b  INSTALLED") == (
        f"  a     {live.RED}failed{live.PLAIN}: it may not pass\n  b  {live.GREEN}INSTALLED{live.PLAIN}"
    )


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    report(terminal, Check("tables", "fail", "gone"))
    assert "fail" in terminal.getvalue() and "\x1b" not in terminal.getvalue()


def test_one_thing_a_line_and_of_many_the_first(terminal: Terminal) -> None:
    report(terminal, Check("tables", "fail", "; ".join(f"table t{n} is missing" for n in range(25))))
    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in terminal.getvalue().splitlines()[1:]]
    assert lines[0] == "    fail     tables  table t0 is missing" and lines[1] == " " * 21 + "table t1 is missing"
    assert lines[-1].strip() == "and 15 more: --json has all" and len(lines) == 11


def test_spaces_within_a_line_stay() -> None:
    """What is indented or aligned already, as the lines of a diff, is broken at the width alone."""
    assert folded("  -   RETURN  NEW;", 40) == ["  -   RETURN  NEW;"]
    assert folded("  one  two three", 10) == ["  one  two", "three"] and folded("", 10) == []


def test_columns_are_aligned_whatever_the_script(terminal: Terminal) -> None:
    """Devanagari has marks of no width, and Chinese letters of two."""
    report(
        terminal,
        Check("नियुक्तियाँ", "fail", "रोगी की जानकारी " * 12),
        Check("患者", "fail", "没有表格 " * 20),
        Check("ascii", "fail", "gone"),
    )
    lines = [re.sub(r"\x1b\[\d+m", "", line) for line in terminal.getvalue().splitlines()[1:]]
    heads = [re.match(r" *(fail +\S+ +)?", line)[0] for line in lines]  # type: ignore[index]
    assert len({wcswidth(head) for head in heads}) == 1 and all(wcswidth(line) <= 80 for line in lines), lines
    for name in ("copy", "प्रतिलिपि"):
        [line] = layout.step_lines(name, "व्यक्ति 患者", 1.5)
        assert wcswidth(line) == 80 and line.endswith("1.50 s")


@pytest.mark.slow
def test_a_step_is_shown_while_it_runs_and_leaves_nothing() -> None:
    stream, deadline = Terminal(), time.monotonic() + 60
    activity = live.Activity("copy", stream)
    while stream.getvalue().count("\r") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    activity.end()
    *_, last = [part for part in stream.getvalue().split("\r") if part.strip()]
    assert re.fullmatch(r"  copy       [-|/\\] \d+ s", last) and stream.getvalue().endswith("\r" + " " * len(last) + "\r")


def test_a_failed_step_says_what_failed(project: Project) -> None:
    outcome = project.invoke("db.copy", "--source=test", "--target=dev")
    assert outcome.code == 1 and re.search(r"^  source +failed: the database test_\w+", outcome.out, re.MULTILINE), (
        outcome.out
    )


@pytest.mark.slow
def test_nothing_to_do_is_not_committed(clinic: Project) -> None:
    assert clinic.invoke("db.seed").out.splitlines()[-1].startswith("db.seed: all is right, nothing to do, ")
    assert "nothing to do, " in clinic.invoke("db.create", "--update-only").out.splitlines()[-1]
    assert clinic.invoke("db.seed", "--patients=25").out.splitlines()[-1].startswith("db.seed: committed and read back, ")


@pytest.mark.slow
def test_commands_count_the_same_tables(clinic: Project) -> None:
    """And say what they leave out: the tools' own, and what no model has."""
    listed = len(clinic.invoke("db.inspect", "--json").json["tables"])
    copied = clinic.invoke("db.copy", "--source=dev", "--target=test", "--json").json["steps"]
    dumped = clinic.invoke("backup.create", "--json").json["steps"]
    for steps, name in ((copied, "compare"), (dumped, "dump")):
        [numbers] = [step["summary"] for step in steps if step["name"] == name]
        assert (numbers["tables"], numbers["of_the_tools"]) == (listed, 4)
    said = clinic.invoke("db.verify", "--verbose").out
    assert re.search(r"\b12 tables with \d+ columns as the models say,\s+beside\s+1 table that no model\s+has", said), said
    assert listed == 13 and "left out: alembic_version" in clinic.invoke("scale.check").out
    reset = clinic.invoke("db.reset", "--env=test", "--json").json["steps"]
    assert reset[0]["summary"]["tables_dropped"] == listed


@pytest.mark.slow
def test_a_terminal_has_colours_and_a_pipe_has_none(clinic: Project) -> None:
    clinic.execute("ALTER TABLE patients DROP COLUMN title")
    on_a_terminal = shown(clinic, ["db.verify"])
    assert f"{live.RED}fail{live.PLAIN}" in on_a_terminal and "\r" not in on_a_terminal
    assert "\x1b" not in clinic.invoke("db.verify").out
    clinic.env["NO_COLOR"] = "1"
    assert "\x1b" not in shown(clinic, ["db.verify"])
