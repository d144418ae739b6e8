"""`invoke`, but it halts in the middle of one step until a line comes in on stdin.

    python halting_invoke.py STEP COUNT invoke's arguments

It halts after the COUNT-th statement of the step STEP, at its very beginning for 0 and at its very end for -1, and says so in
a line HALTED on stdout.
"""

import contextlib
import sys

import psycopg
from invoke.main import program

from skinspire_db.lifecycle import operation, pipeline

wanted, count = sys.argv[1], int(sys.argv[2])
real_execute, real_translated, real_step = psycopg.Connection.execute, pipeline.translated, operation.Running.step
state = {"armed": False, "seen": 0}


def halt():
    state["armed"] = False
    print("HALTED", flush=True)
    sys.stdin.readline()


def execute(self, *arguments, **options):
    done = real_execute(self, *arguments, **options)
    state["seen"] += state["armed"]
    if state["armed"] and state["seen"] == count:
        halt()
    return done


def translated(to, operation, during, connection, **options):
    state.update(armed=during == wanted, seen=0)
    return real_translated(to, operation, during, connection, **options)


@contextlib.contextmanager
def step(self, name):
    with real_step(self, name) as summary:
        state.update(armed=name == wanted, seen=0)
        if name == wanted and count == 0:
            halt()
        yield summary
        if name == wanted and count == -1:
            halt()


psycopg.Connection.execute = execute
pipeline.translated = translated
operation.Running.step = step
program.run(["invoke", *sys.argv[3:]])
