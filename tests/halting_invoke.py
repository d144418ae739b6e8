"""`invoke`, but it halts in the middle of one step until a line comes in on stdin.

    python halting_invoke.py STEP COUNT invoke's arguments

It halts after the COUNT-th statement of the step STEP, at its very beginning for 0 and at its very end for -1, and says so in
a line HALTED on stdout.
"""

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from invoke.main import program

from skinspire_db.lifecycle import failures, operation, pipeline
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres.target import Target

wanted, count = sys.argv[1], int(sys.argv[2])
real_execute, real_translated, real_step = psycopg.Connection.execute, failures.translated, operation.Running.step
state = {"armed": False, "seen": 0}


def halt() -> None:
    state["armed"] = False
    print("HALTED", flush=True)
    sys.stdin.readline()


def execute(self: psycopg.Connection[Any], *arguments: Any, **options: Any) -> Any:
    done = real_execute(self, *arguments, **options)
    state["seen"] += state["armed"]
    if state["armed"] and state["seen"] == count:
        halt()
    return done


def translated(target: Target, operation: str, during: str, *arguments: Any, **options: Any) -> AbstractContextManager[None]:
    state.update(armed=during == wanted, seen=0)
    return real_translated(target, operation, during, *arguments, **options)


@contextlib.contextmanager
def step(self: operation.Running, name: str) -> Iterator[Summary]:
    with real_step(self, name) as summary:
        state.update(armed=name == wanted, seen=0)
        if name == wanted and count == 0:
            halt()
        yield summary
        if name == wanted and count == -1:
            halt()


for place, name, halting in (
    (psycopg.Connection, "execute", execute),
    (pipeline, "translated", translated),
    (operation.Running, "step", step),
):
    setattr(place, name, halting)
program.run(["invoke", *sys.argv[3:]])
