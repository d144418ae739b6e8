"""`invoke`, but it halts in the middle of one step until a line comes in on stdin.

    python halting_invoke.py STEP COUNT invoke's arguments

It halts after the COUNT-th statement of the step STEP, and says so in a line HALTED on stdout.
"""

import sys

import psycopg
from invoke.main import program

from skinspire_db import pipeline

wanted, count = sys.argv[1], int(sys.argv[2])
real_execute, real_translated = psycopg.Connection.execute, pipeline.translated
state = {"armed": False, "seen": 0}


def execute(self, *arguments, **options):
    done = real_execute(self, *arguments, **options)
    state["seen"] += state["armed"]
    if state["armed"] and state["seen"] == count:
        state["armed"] = False
        print("HALTED", flush=True)
        sys.stdin.readline()
    return done


def translated(to, operation, during, connection, **options):
    state.update(armed=during == wanted, seen=0)
    return real_translated(to, operation, during, connection, **options)


psycopg.Connection.execute = execute
pipeline.translated = translated
program.run(["invoke", *sys.argv[3:]])
