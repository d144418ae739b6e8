"""What the tasks cost beside the least that could do their work."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from .harness import CHECKOUT, Figure, bench, medians, timed


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
