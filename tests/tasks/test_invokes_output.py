"""What Invoke prints of itself: its list, each task's help, and what is no command."""

from __future__ import annotations

import copy
import importlib
import shlex
import subprocess
import sys

import pytest
from conftest import CHECKOUT, Project
from invoke.program import Program

from skinspire_db import tasks

_program = importlib.import_module("skinspire_db.tasks._program")

UNKNOWN = {
    "db.verfy": "there is no command db.verfy -> invoke db.verify",
    "verify": "there are backup.verify, db.verify, sql.verify, triggers.verify -> invoke db.verify",
    "--help nosuch": "there is no command nosuch -> invoke --list",
    "--help db.verfy": "there is no command db.verfy -> invoke --help db.verify",
    "--list dbx": "there is no collection dbx -> invoke --list db",
    "db": "db is a collection of commands -> invoke --list db",
    "--foo db.verify": "invoke has no flag --foo -> invoke --help",
    "db.verify --verbos": "db.verify has no flag --verbos, but --verbose -> invoke --help db.verify",
    "db.advise --failon=info": "db.advise has no flag --failon, but --fail-on -> invoke --help db.advise",
}


@pytest.mark.parametrize("typed", UNKNOWN)
def test_the_nearest_command_or_flag_is_suggested(project: Project, typed: str) -> None:
    outcome = project.invoke(*typed.split())
    assert outcome.code == 2 and UNKNOWN[typed] in outcome.err, outcome.err
    assert outcome.out == "" and outcome.err.count("\n") <= 1


def test_the_list_begins_with_five_commands(project: Project) -> None:
    lines = project.invoke("--list").out.splitlines()
    assert lines[0] == "For a start:" and [line.split()[1] for line in lines[2:7]] == list(_program.FIRST)
    assert len(_program.FIRST) == 5 and all(len(line) <= 80 for line in lines)
    assert project.invoke("--list", "db").out.startswith("Available 'db' tasks")
    assert project.invoke("--list", "--list-format=json").out.startswith("{")


def test_each_help_ends_with_an_example_that_can_be_parsed(project: Project) -> None:
    program = Program(namespace=tasks.collections())
    program.create_config()
    program.parse_core(["invoke"])
    program.parse_collection()
    program.parser = program._make_parser()
    names = program.collection.task_names
    assert set(_program.EXAMPLES) <= set(names)
    for name in names:
        first, *rest = shlex.split(_program.example_of(program, name))
        [parsed] = [each for each in program._make_parser().parse_argv(rest) if each.name]
        assert first == "invoke" and parsed.name == name
    assert project.invoke("--help", "db.advise").out.endswith("Example:\n  invoke db.advise --env=prod --fail-on=warning\n")


def test_a_reader_of_the_list_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "invoke", "-r", str(CHECKOUT), "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0


def test_commands_of_a_row_share_no_flags(project: Project) -> None:
    """The parser copies the flags of the command that it comes to, and not before that those of all commands."""
    typed = ["env.status", "--env=dev", "env.status", "--env=test", "env.status"]
    assert [line.split()[1] for line in project.invoke(*typed).out.splitlines() if line.split()[:1] == ["environment"]] == [
        "dev", "test", "dev",
    ]  # fmt: skip
    program = Program(namespace=tasks.collections())
    program.create_config()
    program.parse_core(["invoke"])
    program.parse_collection()
    contexts = program._make_parser().contexts
    assert copy.deepcopy(contexts) is contexts and "db.verify" in contexts and "__class__" not in contexts
