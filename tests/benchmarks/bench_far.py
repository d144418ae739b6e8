"""Commands whose server is far: a proxy delays each direction by 25 ms, so that a round trip takes 50."""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from skinspire_db.config import environment
from skinspire_db.lifecycle.result import Report, StepResult
from skinspire_db.operations import db
from skinspire_db.steps import Context

from .harness import CHECKOUT, Bench, Figure, bench, timed

sys.path.append(str(CHECKOUT / "tests"))
from far_server import FarServer as FarServer

ROUNDS = 5
PEER = "a fixed time"
# Each command, and its limit in seconds.
COMMANDS = (
    (("db.setup",), 4.0),
    (("db.verify",), 1.2),
    (("db.prepare",), 1.2),
    (("triggers.status",), 0.9),
    (("db.drift",), 3.5),
)
# What each part of db.setup may take.
STEPS = {"the beginning": 13, "reset": 7, "create": 14, "triggers": 20, "seed": 66, "verify": 24, "the end": 9}


@dataclass(frozen=True)
class Far:
    """A project whose dev environment is behind the proxy."""

    project: Bench
    server: FarServer

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that goes through the proxy."""
        address = self.project.server.start()
        kept = {name: value for name, value in self.project.env.items() if not name.startswith("PG")}
        url = f"postgresql://{address.user}:{address.password}@127.0.0.1:{self.server.port}/skinspire_far"
        return kept | {"DEV_DATABASE_URL": url}

    def invoke(self, *arguments: str) -> float:
        """Seconds that the command takes as a whole process."""
        command = Path(sys.executable).with_name("invoke")
        return timed(str(command), "-r", str(CHECKOUT), *arguments, cwd=self.project.root, env=self.env)

    def forget(self) -> None:
        """Drop what db.drift keeps of what the models and files make: the next one makes it anew."""
        for kept in (self.project.root / ".skinspire").glob("**/expected-*"):
            kept.unlink()

    def measured(self, *arguments: str) -> tuple[float, int]:
        """Seconds of the command, and its round trips, all connections together."""
        before = len(self.server.turns)
        return self.invoke(*arguments), len(self.server.turns) - before


class StepCounter(Report):
    """Notes how many round trips there were when each step began to be run, and when it had ended."""

    def __init__(self, server: FarServer) -> None:
        self.server = server
        self.marks: dict[str, int] = {}

    def begin(self, name: str) -> None:
        """The first step begins where the guard has ended."""
        if name != "server":
            self.marks.setdefault("the beginning", len(self.server.turns))

    def step(self, done: StepResult) -> None:
        """A step has ended."""
        self.marks[done.name] = len(self.server.turns)


def bench_far() -> list[Figure]:
    """Each command as a whole process, and how many round trips it takes."""
    figures = []
    with bench() as project:
        address = project.server.start()
        with FarServer(address.host, address.port) as server:
            far = Far(project, server)
            far.invoke("db.setup")
            for arguments, limit in COMMANDS:
                name = f"`{' '.join(arguments)}`, 50 ms away"
                rounds = []
                for _ in range(ROUNDS):
                    far.forget()
                    rounds.append(far.measured(*arguments))
                seconds, trips = [seconds for seconds, _ in rounds], [trips for _, trips in rounds]
                figures.append(Figure(name, statistics.median(seconds), PEER, limit, 1))
                if os.environ.get("SHOW_ROUND_TRIPS"):  # which statement each was spent on
                    print(name, *server.statements[-trips[-1] :], sep="\n    ", file=sys.stderr)
                figures.append(Figure(f"{name}, round trips", statistics.median(trips), PEER, limit / 0.05, 1, ""))
    return figures


def bench_far_steps() -> list[Figure]:
    """The round trips of each step of db.setup, of its beginning (connection, guard, stamp) and of its end (journal, commit and
    what a second connection reads back), counted within this process.
    """
    with bench() as project, FarServer(project.server.start().host, project.server.start().port, delay=0.005) as server:
        far = Far(project, server)
        far.invoke("db.setup")
        former, folder = dict(os.environ), Path.cwd()
        os.environ |= far.env
        os.chdir(project.root)
        try:
            before, counter = len(server.turns), StepCounter(server)
            db.setup(Context(environment.resolve("dev"), counter)).run(report=counter)
            total = len(server.turns)
        finally:
            os.environ.clear()
            os.environ |= former
            os.chdir(folder)
    marks, names = [before, *counter.marks.values(), total], [*counter.marks, "the end"]
    return [
        Figure(f"`db.setup`, round trips of {name}", end - start, "a fixed number", STEPS[name], 1, "")
        for name, start, end in zip(names, marks[:-1], marks[1:], strict=True)
    ]
