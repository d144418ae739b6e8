"""Which base backups are kept, with all that they need, and the WAL from the oldest of them on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import replace as rename
from skinspire_db.copies import backup_folder
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.recovery import base
from skinspire_db.recovery.archive import Archive
from skinspire_db.recovery.base import Base
from skinspire_db.recovery.wal import Wal


def with_base_backups(job: Job, environment: Environment, given: Path | None, counts: tuple[int, ...], *, apply: bool) -> Job:
    """backup.prune, which then also looks at base backups and WAL.

    Args:
        job: prunes the logical backups.
        environment: whose backups they are.
        given: the folder of backups.
        counts: of how many days, weeks and months one is kept.
        apply: delete what is not kept.

    Returns:
        The operation; the same where there are no continuous backups.
    """
    archive = Archive.of(environment, given)
    if not archive.folder.exists():
        return job

    def work(running: Running) -> None:
        job.work(running)
        _prune(archive, counts, apply, running)

    return replace(job, work=work, steps=(*job.steps, "base"))


def _prune(archive: Archive, counts: tuple[int, ...], apply: bool, running: Running) -> None:
    with running.step("base") as summary:
        complete, broken = base.complete(archive)
        why = kept(archive, complete, counts)
        away = [each for each in complete if each.name not in why]
        verb = "deleted" if apply else "to delete"
        summary.rows = [each.row | {"kept as": why.get(each.name, verb)} for each in complete]
        # An incremental one goes before what it needs: killed in between, nothing is left without its parent.
        for each in away if apply else []:
            _delete(each)
        files = _older(archive, [each for each in complete if each.name in why])
        for path in files if apply else []:
            path.unlink(missing_ok=True)
        if apply and why:
            _forget_marks(archive, [each for each in complete if each.name in why])
            backup_folder.remove_given_up(base.folder(archive))
        word = verb.replace(" ", "_")
        summary.numbers = {"kept": len(why), word: len(away), f"WAL_files_{word}": len(files)}
        summary.data = {"base_backups": {"kept": why, word: [each.name for each in away], f"wal_files_{word}": len(files)}}
        for sentence in broken:
            running.note(f"not counted and not deleted: {sentence}")


def kept(archive: Archive, complete: list[Base], counts: tuple[int, ...]) -> dict[str, str]:
    """Which are kept, name -> why: as of logical backups, and all that these need.

    Raises:
        BackupInvalid: one that is kept cannot be recovered, as one that it needs is not there; nothing is deleted then.
    """
    why = backup_folder.kept(complete, *counts)
    for each in complete:
        if each.name in why:
            for needed in base.chain(archive, each)[:-1]:
                why.setdefault(needed.name, f"{each.name} needs it")
    return why


def _older(archive: Archive, stay: list[Base]) -> list[Path]:
    """The files of WAL that no base backup that stays needs; none where none stays."""
    if not stay:
        return []
    wal = Wal.of(archive)
    first = min(each.end for each in stay) // wal.size
    return [each.path for each in wal.segments if each.number < first]


def _forget_marks(archive: Archive, stay: list[Base]) -> None:
    """A running receiver may add one at the same moment, which the next run of it does again."""
    oldest = min(each.finished for each in stay)
    archive.rewrite([mark for mark in archive.marks if mark.at >= oldest])


def _delete(each: Base) -> None:
    """Killed in between, what is left does not count as a backup."""
    aside = each.path.with_name(f".{each.name}.partial")
    rename(each.path, aside)
    shutil.rmtree(aside, ignore_errors=True)
