"""Which backups there are, and which are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from skinspire_db.config.environment import Environment
from skinspire_db.copies import backup_folder
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.operation import Job, Running

Row = dict[str, object]  # a line of a table


def listing(
    environment: Environment, folder: Path | None = None, more: Sequence[Row] = (), unusable: Sequence[str] = ()
) -> Job:
    """List the complete backups of an environment, newest first, and the folders that cannot be used.

    Args:
        environment: whose backups they are.
        folder: the folder of backups; by default backups/ in the project.
        more: lines of other backups, of another kind.
        unusable: sentences on those of them that cannot be used.

    Returns:
        The operation, to be run.
    """
    where = backup_folder.folder_of(environment.project, folder)

    def show(running: Running) -> None:
        with running.step("backups") as summary:
            complete, broken = backup_folder.complete(where, environment.name)
            broken += unusable
            summary.rows = [*(_row(each) for each in complete), *more]
            megabytes = sum(float(str(row["MB"])) for row in summary.rows)
            summary.numbers = {"complete": len(summary.rows), "MB": f"{megabytes:.1f}"}
            summary.data = {"folder": str(where), "backups": summary.rows, "unusable": broken}
            for sentence in broken:
                running.note(sentence)

    return Job("backup.list", environment, show, ("backups",), keeps=False, done=f"in {where}", needs_server=False)


def _row(backup: backup_folder.Backup) -> dict[str, object]:
    manifest = backup.manifest
    return {
        "name": backup.name,
        "why": manifest.reason or "not said",
        "taken": f"{manifest.taken:%Y-%m-%d %H:%M} UTC",
        "rows": manifest.contents.rows,
        "MB": f"{manifest.bytes / 1e6:.1f}",
        "verified": {"restored": "by a restore", "files": "its files"}.get(backup.verified, "no"),
    }


def prune(
    environment: Environment,
    folder: Path | None = None,
    *,
    daily: int | str = 7,
    weekly: int | str = 4,
    monthly: int | str = 12,
    apply: bool = False,
) -> Job:
    """Show which backups of an environment are kept, and with `apply` delete the others.

    Args:
        environment: whose backups they are.
        folder: the folder of backups; by default backups/ in the project.
        daily: of how many days the newest backup is kept; days without a backup do not count.
        weekly: of how many weeks.
        monthly: of how many months.
        apply: delete the backups that are not kept.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: one of the counts is no number.
    """
    for name, value in {"daily": daily, "weekly": weekly, "monthly": monthly}.items():
        if not str(value).isdecimal():
            raise UsageError(f"--{name}={value} is no number", remedy=f"invoke backup.prune --{name}=7")
    counts = int(daily), int(weekly), int(monthly)
    work = partial(_prune, environment, backup_folder.folder_of(environment.project, folder), apply, counts)
    done = "what was not to be kept is deleted" if apply else "nothing was deleted; --apply deletes"
    return Job("backup.prune", environment, work, ("prune",), keeps=apply, done=done, needs_server=False)


def _prune(environment: Environment, where: Path, apply: bool, counts: tuple[int, int, int], running: Running) -> None:
    with running.step("prune") as summary:
        complete, broken = backup_folder.complete(where, environment.name)
        why = backup_folder.kept(complete, *counts)
        away = [each for each in complete if each.name not in why]
        for each in away if apply else []:
            backup_folder.delete(each)
        if apply and where.is_dir():
            backup_folder.remove_given_up(where)
        verb = "deleted" if apply else "to_delete"
        summary.numbers = {"kept": len(why), verb: len(away)}
        summary.rows = [_row(each) | {"kept as": why.get(each.name, verb.replace("_", " "))} for each in complete]
        summary.data = {"kept": why, verb: [each.name for each in away]}
        for sentence in broken:
            running.note(f"not counted and not deleted: {sentence}")
