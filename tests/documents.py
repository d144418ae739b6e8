"""Reading README.md and docs/*.md, and running their examples.

A fenced block says by its language what happens to it:

- `console`: each line that begins with `$ ` is run; what follows is the output that is expected. A line `…` stands for any lines.
- `sh`: each line is run and has to succeed; its output is not looked at.
- `json`: what the command of the last block answers with `--json`: the same keys and types. Of a list the first entry is shown.
- `python`: is run in the project's folder, unless a directive makes it a file.
- `toml`, `sql`, `ini`: are files of the project; a directive names them.
- `powershell`, `text`, `mermaid`: are read by people and by GitHub only, and are checked for their form.

A directive is an HTML comment on a line of its own, which readers do not see, and holds for what follows:

- `<!-- project: clinic -->` begins a new project, whose dev database is set up; `empty`: neither dev nor test exists; `old`: an
  application with a database that the tools have not made; `embedded`: the embedded server, not yet made; `sql` beside one of these: the project changes a copy of sql/.
- `<!-- file: app/models.py -->`: the next block is this file. `<!-- run: invoke db.reset -->`, `<!-- sql: DELETE FROM staff -->`: done
  unseen. `<!-- exit: 3 -->`: the exit code of the next block's last command. `<!-- env: NAME=value -->`, or the name of another one.
- `<!-- hold: LOCK TABLE patients -->`: another session's open transaction, until `<!-- release: it -->`.
- `<!-- not run: why -->`: the next block is for another machine.

`WRITE_DOCUMENTS=1 pytest tests/test_documents.py` writes what the commands answer now into the documents.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from conftest import CHECKOUT, Outcome, Project, warm_python

from skinspire_db.service.test_override import MAY_REACH

DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
LANGUAGES = ("console", "sh", "json", "python", "toml", "sql", "ini", "powershell", "text", "mermaid")
DIRECTIVE = re.compile(r"<!-- ([a-z ]+): (.*) -->")
FENCE = re.compile(r"```(\w*)")
WIDTH, CUT = 118, 96  # columns of JSON, and characters of a text in it
# What differs from machine to machine and from run to run; counts too, which every new table and trigger changes.
SAME = [
    (r" \(embedded server\)", ""),
    (r"(127\.0\.0\.1|localhost):\d+", "HOST"),
    (r"\d{8}T\d{6}\w*(-[0-9a-f]+)?|\d{4}-\d\d-\d\d([ T-]\d\d[:-]?\d\d([:-]?\d\d(\.\d+)?)?)?([+-]\d\d(:?\d\d)?|Z)?", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"(?<![0-9A-Za-z])[0-9a-f]{6,}(?![0-9A-Za-z])", "HASH"),
    (r"~?\d+(\.\d+)? ?(s|ms|bytes|kB|MB|GB|minutes?)\b", "MUCH"),
    (r"\b\d+\.\d{2,3}\b", "SECONDS"),
    (r"\b(pid|port)(\W+)\d+", r"\1 N"),
    (r"\b\d+\b", "N"),
    (r"-{2,}|={2,}", "--"),
    (r"\s+", " "),
]


@dataclass
class Block:
    """A fenced block: its language, its lines, and where it begins."""

    language: str
    lines: list[str]
    line: int


@dataclass
class Walk:
    """Runs one document, example by example: `problems` are commands that fail, `stale` what they do not say any more."""

    begin: Callable[[str], Project]
    project: Project
    writes: bool = False
    problems: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    held: psycopg.Connection[Any] | None = None
    last: str = ""
    pending: dict[str, str] = field(default_factory=dict)

    def directive(self, name: str, text: str) -> None:
        if name == "project":
            self.project = self.begin(text)
        elif name == "run":
            self.succeed(text)
        elif name == "sql":
            self.project.execute(text)
        elif name == "hold":
            self.held = self.project.connect()
            self.held.execute(("BEGIN; " + text).encode())
        elif name == "release":
            assert self.held
            self.held.close()
        elif name == "env":
            key, _, value = text.partition("=")
            self.project.env[key] = self.project.env.get(value, self.real(value))
        elif name in ("file", "exit", "not run"):
            self.pending[name] = text
        else:
            raise AssertionError(f"there is no directive {name}")

    def block(self, block: Block) -> list[str]:
        """The block's lines as they should be."""
        asked, self.pending = self.pending, {}
        if "not run" in asked or block.language in ("powershell", "text", "mermaid"):
            return block.lines
        if "file" in asked:
            path = self.project.root / asked["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.real("\n".join(block.lines)) + "\n")
            return block.lines
        return list(getattr(self, block.language)(block, int(asked.get("exit", 0))))

    def console(self, block: Block, code: int) -> Iterator[str]:
        commands = [n for n, line in enumerate(block.lines) if line.startswith("$ ")]
        for start, end in zip(commands, [*commands[1:], len(block.lines)], strict=True):
            self.last = block.lines[start].removeprefix("$ ")
            outcome = self.run(self.last)
            expected = code if end == len(block.lines) else 0
            if outcome.code != expected:
                self.problems.append(f"{block.line}: {self.last}: exit code {outcome.code}: {outcome.out}{outcome.err}")
            told = self.shown(outcome.out + outcome.err).splitlines()
            said = block.lines[start + 1 : end]
            yield block.lines[start]
            if alike("\n".join(said), "\n".join(told)):
                yield from said if "…" in said or not self.writes else told
            else:
                self.stale.append(f"{block.line}: {self.last} says\n" + "\n".join(told))
                yield from told

    def sh(self, block: Block, code: int) -> list[str]:
        for line in "\n".join(block.lines).replace("\\\n", " ").splitlines():
            if command := re.sub(r"(^|\s+)# .*", "", line).strip():
                self.last = command
                self.succeed(command, code, block.line)
        return block.lines

    def json(self, block: Block, code: int) -> list[str]:
        outcome = self.run(f"{self.last} --json")
        try:
            answer = json.loads(self.renamed(outcome.out))
        except ValueError:
            answer = None
        if outcome.code != code or answer is None:
            self.problems.append(f"{block.line}: {self.last} --json: exit code {outcome.code}: {outcome.out}{outcome.err}")
        elif not alike_json(json.loads("\n".join(block.lines)), answer):
            self.stale.append(f"{block.line}: {self.last} --json answers {outcome.out}")
        elif not self.writes:
            return block.lines
        return list(spread(first_of_each(answer)))

    def python(self, block: Block, _: int) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", "\n" * block.line + "\n".join(block.lines)],
            cwd=self.project.root, env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if done.returncode:
            self.problems.append(f"{block.line}: exit code {done.returncode}: {done.stderr}")
        return block.lines

    def succeed(self, command: str, code: int = 0, line: int = 0) -> None:
        outcome = self.run(command)
        if outcome.code != code:
            self.problems.append(f"{line}: {command}: exit code {outcome.code}: {outcome.out}{outcome.err}")

    def run(self, command: str) -> Outcome:
        """`invoke` in this process where nothing of the project's own code is loaded; everything else as a process."""
        command = self.real(command)
        plain = not re.search(r"[|<>&;$`]", command) and command.startswith("invoke ")
        if plain and not any(self.project.root.rglob("*.py")):
            return self.project.invoke(*shlex.split(command)[1:])
        if plain and hasattr(os, "fork"):
            arguments = self.project.command(*shlex.split(command)[1:])[2:]
            return self.project.forked_by(warm_python(), *arguments, environment=self.environment)
        own = (self.project.root / "tasks.py").exists()
        root = "" if own else f"-r {shlex.quote(str(CHECKOUT))}"
        python = shlex.quote(sys.executable)
        functions = (
            f'invoke() {{ {python} -m invoke {root} "$@"; }}; python() {{ {python} "$@"; }}; pytest() {{ {python} -m pytest "$@"; }}; '
            f'skinspire-db() {{ {python} -c "from skinspire_db.tasks import main; main()" "$@"; }}; '
        )
        done = subprocess.run(
            ["bash", "-c", functions + command], cwd=self.project.root, env=self.environment, capture_output=True, text=True, timeout=300,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return self.project._outcome(done.returncode, done.stdout, done.stderr)

    @property
    def environment(self) -> dict[str, str]:
        """That of a shell which pytest knows nothing of."""
        shell = {
            name: value
            for name, value in self.project.environment.items()
            if not name.startswith("PYTEST_") and name != MAY_REACH
        }
        return {**shell, "PYTHONPATH": str(CHECKOUT)}

    @property
    def names(self) -> dict[str, str]:
        """What the documents call something -> what it is here."""
        found = {}
        for setting, value in self.project.env.items():
            if setting.endswith("_DATABASE_URL") and value:
                found["skinspire_" + setting.removesuffix("_DATABASE_URL").lower()] = value.rpartition("/")[2].partition("?")[
                    0
                ]
        return found

    def real(self, text: str) -> str:
        for name, here in self.names.items():
            text = re.sub(rf"\b{name}\b", here, text)
        if "NEWEST" in text:
            backups = sorted(
                path.name for path in (self.project.root / "backups").rglob("*") if (path / "manifest.json").exists()
            )
            text = text.replace("NEWEST", backups[-1])
        return text

    def shown(self, text: str) -> str:
        """With the documents' names for what is called otherwise here, and tables as wide as these need."""
        return "\n".join(line.rstrip() for line in aligned(text.rstrip().splitlines(), self.renamed))

    def renamed(self, text: str) -> str:
        for name, here in self.names.items():
            text = text.replace(here, name)
        if home := self.project.env.get("SKINSPIRE_PG_HOME"):
            text = text.replace(home, "/home/asha/clinic/.skinspire/server").replace(Path(home).name, "server")
        text = text.replace(str(self.project.root), "/home/asha/clinic").replace(str(CHECKOUT), "/home/asha/skinspire-db")
        text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "clinic-pc", text)
        account = getpass.getuser()
        text = re.sub(rf"(^|\b){account}(?=@|\s{{2,}}|\"|$)", "asha", text)
        return re.sub(r"(127\.0\.0\.1:)\d+", r"\g<1>46639", text)


def read(text: str) -> Iterator[str | Block]:
    """The document's lines, and its blocks as one item each."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if found := FENCE.match(line):
            inner = []
            for _, each in lines:
                if each.startswith("```"):
                    break
                inner.append(each)
            yield Block(found[1], inner, number)
        else:
            yield line


def walk(text: str, walker: Walk) -> str:
    """The document as it should be; what is not as it should be is in the walker's problems."""
    out: list[str] = []
    for item in read(text):
        if isinstance(item, Block):
            out += [f"```{item.language}", *walker.block(item), "```"]
        else:
            out.append(item)
            if found := DIRECTIVE.fullmatch(item):
                walker.directive(found[1], found[2])
    return "\n".join(out) + "\n"


def aligned(lines: list[str], renamed: Callable[[str], str]) -> Iterator[str]:
    """The lines with other names in them; columns of a table, under a rule of hyphens, get the widths of what they hold then."""
    number = 0
    while number < len(lines):
        if number + 1 == len(lines) or not re.fullmatch(r" *-+(  -+)+", lines[number + 1]):
            yield renamed(lines[number])
            number += 1
            continue
        spans = [found.span() for found in re.finditer("-+", lines[number + 1])]
        gaps = [end for _, end in spans[:-1]]
        end = number + 2
        while (
            end < len(lines)
            and re.match(r"  (?!pass |fail |unknown )", lines[end])
            and all(lines[end][gap : gap + 2].strip() == "" for gap in gaps)
        ):
            end += 1
        rows = [[line[start:stop].rstrip() if stop < spans[-1][1] else line[start:].rstrip() for start, stop in spans]
                for line in (lines[number], *lines[number + 2 : end])]  # fmt: skip
        right = [all(row[column].startswith(" ") for row in rows) and len(rows) > 1 for column in range(len(spans))]
        cells = [[renamed(cell.strip()) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(spans))]
        cells.insert(1, ["-" * width for width in widths])
        for row in cells:
            yield "  " + "  ".join(
                cell.rjust(width) if last else cell.ljust(width) for cell, width, last in zip(row, widths, right, strict=True)
            )
        number = end


def alike(said: str, told: str) -> bool:
    """Whether an example says what a command told, whatever the time, the place and the widths."""
    pattern = re.sub(r"(\\ )?…(\\ )?", ".*", re.escape(plain(said)))
    return re.fullmatch(pattern, plain(told)) is not None


def plain(text: str) -> str:
    for pattern, same in SAME:
        text = re.sub(pattern, same, text)
    return text.strip()


def alike_json(said: Any, told: Any) -> bool:
    """Whether both have the same keys and types; of lists that hold something, their first entries."""
    if isinstance(said, dict) and isinstance(told, dict):
        said, told = ({plain(key): each for key, each in one.items()} for one in (said, told))
        return said.keys() == told.keys() and all(alike_json(said[key], told[key]) for key in said)
    if isinstance(said, list) and isinstance(told, list):
        return not said or not told or alike_json(said[0], told[0])
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (said, told))
    return numbers or type(said) is type(told)


def first_of_each(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: first_of_each(each) for key, each in value.items()}
    if isinstance(value, list):
        return [first_of_each(each) for each in value[:1]]
    return f"{value[:CUT]}…" if isinstance(value, str) and len(value) > CUT else value


def spread(value: Any, indent: int = 0, before: str = "", after: str = "") -> Iterator[str]:
    """JSON, a thing to a line where it does not fit on one."""
    space = " " * indent
    whole = f"{space}{before}{json.dumps(value, ensure_ascii=False)}{after}"
    if len(whole) <= WIDTH or not isinstance(value, dict | list) or not value:
        yield whole
        return
    items = (
        [(f"{json.dumps(key)}: ", each) for key, each in value.items()]
        if isinstance(value, dict)
        else [("", each) for each in value]
    )
    yield f"{space}{before}{'{' if isinstance(value, dict) else '['}"
    for number, (name, each) in enumerate(items, 1):
        yield from spread(each, indent + 1, name, "," if number < len(items) else "")
    yield f"{space}{'}' if isinstance(value, dict) else ']'}{after}"
