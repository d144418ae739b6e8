"""The project's own command after each backup, which takes it off site."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from skinspire_db.config.environment import Environment
from skinspire_db.copies import backup_folder
from skinspire_db.errors import InvalidSetting, StepFailed
from skinspire_db.lifecycle.operation import Job, Running

SETTING = "after_backup"


def followed(job: Job, environment: Environment, given: Path | None) -> Job:
    """The backup, and after it the command of `after_backup`, if the project has one.

    Args:
        job: makes a backup, and says so in its answer's `path`.
        environment: whose backup it is.
        given: the folder of backups.

    Raises:
        InvalidSetting: `after_backup` is no list of arguments.
    """
    command: Any = environment.project.config.get(SETTING)
    if command is None:
        return job
    if not isinstance(command, list) or not command or not all(isinstance(each, str) for each in command):
        raise InvalidSetting(
            f"{SETTING} in pyproject.toml is no list of arguments",
            remedy=f'write {SETTING} = ["rclone", "copy", "{{folder}}", "remote:backups/{{name}}"]',
        )
    backups = backup_folder.folder_of(environment.project, given)

    def work(running: Running) -> None:
        job.work(running)
        path = next(Path(step.summary.data["path"]) for step in running.result.steps if "path" in step.summary.data)
        with running.step("after_backup") as summary:
            _run(environment, command, path, backups)
            summary.numbers = {"command": command[0]}

    return dataclasses.replace(job, work=work, steps=(*job.steps, "after_backup"))


def _run(environment: Environment, command: list[str], path: Path, backups: Path) -> None:
    """Run it, without a shell; its arguments are not repeated, as they can hold what is secret."""
    values = {"{folder}": str(path), "{name}": path.name, "{backups}": str(backups)}
    arguments = []
    for argument in command:
        for word, value in values.items():
            argument = argument.replace(word, value)
        arguments.append(argument)
    stands = f"the backup {path.name} is complete, and {SETTING} failed"
    try:
        done = subprocess.run(
            arguments, cwd=environment.project.root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        says = f"{stands}: {command[0]} cannot be run: {error.strerror}"
        raise StepFailed(says, remedy=f"correct {SETTING} in pyproject.toml") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        says = f": {lines[-1].strip()}" if lines else ""
        raise StepFailed(f"{stands}: {command[0]} ended with {done.returncode}{says}", remedy=f"run it by hand for {path}")
