"""Commands whose server is far: a proxy delays each direction by 25 ms, so that a round trip takes 50."""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

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

    def measured(self, *arguments: str) -> tuple[float, int]:
        """Seconds of the command, and its round trips, all connections together."""
        before = len(self.server.turns)
        return self.invoke(*arguments), len(self.server.turns) - before


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
                rounds = [far.measured(*arguments) for _ in range(ROUNDS)]
                seconds, trips = [seconds for seconds, _ in rounds], [trips for _, trips in rounds]
                figures.append(Figure(name, statistics.median(seconds), PEER, limit, 1))
                if os.environ.get("SHOW_ROUND_TRIPS"):  # which statement each was spent on
                    print(name, *server.statements[-trips[-1] :], sep="\n    ", file=sys.stderr)
                figures.append(Figure(f"{name}, round trips", statistics.median(trips), PEER, limit / 0.05, 1, ""))
    return figures
