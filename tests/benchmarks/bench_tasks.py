"""What the tasks cost beside the least that could do their work."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from .bench_far import Far, FarServer
from .harness import CHECKOUT, Figure, bench, medians, processor_time, timed

LOOKS = ("db.verify", "db.prepare", "triggers.status", "db.drift")


def bench_list() -> list[Figure]:
    """`invoke --list` beside an empty tasks.py."""
    command = str(Path(sys.executable).with_name("invoke"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tasks.py").write_text("from invoke import task\n\n\n@task\ndef nothing(ctx):\n    pass\n")
        ours, empty = medians(
            lambda: timed(command, "--list", cwd=CHECKOUT, env=env),
            lambda: timed(command, "--list", cwd=Path(folder), env=env),
            rounds=21,
        )
    return [Figure("invoke --list", ours, "the same with an empty tasks.py", empty, 1.15)]


def bench_start() -> list[Figure]:
    """What a command takes until its first query reaches the server, and its processor time, over `invoke --list`."""
    with bench() as project, FarServer("127.0.0.1", project.server.start().port, delay=0) as server:
        far = Far(project, server)

        def until_first_query(command: str) -> float:
            before, started = len(server.turns), time.monotonic()
            far.invoke(command)
            queries = zip(server.turns[before:], server.moments[before:], strict=True)
            return next(moment for turn, moment in queries if turn[:1] in (b"Q", b"P")) - started

        far.invoke("db.setup")
        for look in LOOKS:  # what is kept between commands
            far.invoke(look)
        list_, *looks = medians(
            lambda: far.invoke("--list"), *(partial(until_first_query, look) for look in LOOKS), rounds=11
        )
        least, *whole = medians(
            *(partial(processor_time, partial(far.invoke, each)) for each in ("--list", *LOOKS)), rounds=11
        )
    figures = [
        Figure(f"`{look}` until its first query, over `invoke --list`", seconds - list_, "a fixed 0.12 s", 0.12, 1)
        for look, seconds in zip(LOOKS, looks, strict=True)
    ]
    return figures + [
        Figure(f"`{look}`, processor time", seconds, "`invoke --list`", least, 3)
        for look, seconds in zip(LOOKS, whole, strict=True)
    ]


def bench_setup() -> list[Figure]:
    """A warm `db.setup` beside psql replaying its end state, and beside the five steps as five commands."""
    with bench() as project:
        project.invoke("db.setup")
        script = project.root / "end_state.sql"
        # Both begin with what was there before, and both end with the same.
        script.write_text(
            "SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA skinspire_tools CASCADE;\n"
            + project.dump("skinspire_dev")
        )
        project.clone("skinspire_dev", "replayed")

        def steps() -> float:
            return sum(project.invoke(step) for step in ("db.reset", "db.create", "triggers.install", "db.seed", "db.verify"))

        ours, replay, five = medians(
            lambda: project.invoke("db.setup"),
            lambda: project.psql("replayed", "-1", "-f", str(script)),
            steps,
            rounds=11,
        )
    return [
        Figure("db.setup, server running", ours, "psql -1 -f of the same end state", replay, 5),
        Figure("db.setup, server running", ours, "its five steps as five commands", five, 0.5),
    ]
