"""Restoring: into a scratch database, stopping at the first error, compared with the manifest, swapped in."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote

from skinspire_db.catalog import fingerprint, row_hash
from skinspire_db.config import environment
from skinspire_db.config.environment import Environment
from skinspire_db.config.project import expanded
from skinspire_db.copies import archive_restore, backup_folder, dump_files, empty_dump, own_roles, plain_dump
from skinspire_db.copies.absent_roles import MAPPED
from skinspire_db.copies.backup_folder import Backup, Manifest
from skinspire_db.copies.copy import number_of_jobs
from skinspire_db.copies.dump_roles import restorer
from skinspire_db.copies.streaming import with_options
from skinspire_db.copies.template import need_room
from skinspire_db.errors import BackupInvalid, ConnectionFailed, GuardRefused, SkinspireError, StepFailed
from skinspire_db.lifecycle import stamp
from skinspire_db.lifecycle.operation import Running
from skinspire_db.lifecycle.replacement import Replacement
from skinspire_db.postgres import connections, database_settings
from skinspire_db.postgres.client_programs import ClientTools, client_tools
from skinspire_db.postgres.index_builds import quick
from skinspire_db.postgres.progress import watched
from skinspire_db.postgres.target import Target

# A backup that is made now holds what is to be replaced.
WITHOUT = "invoke db.undo --env={env}, if a copy or restore replaced what is wanted; else invoke db.setup --env={env}"
REPLACES = "replace what {} holds"


@dataclass(frozen=True)
class Source:
    """What is restored: an archive, and the manifest if it is a backup of ours."""

    archive: dump_files.Archive
    manifest: Manifest | None = None

    @classmethod
    def of(cls, backup: Backup) -> Source:
        """The source that a backup of ours is."""
        return cls(
            dump_files.Archive(backup.path / backup_folder.DATA, "archive", backup.manifest.server_version), backup.manifest
        )


def restore(
    target: Environment, folder: Path | None = None, *, file: str | None = None, jobs: str | int = 2, empty: bool = False
) -> Replacement:
    """Replace an environment's database with what a backup or a dump holds.

    Args:
        target: the environment.
        folder: the folder of backups; by default backups/ in the project.
        file: a backup's name or folder, or a dump by pg_dump (a directory, a custom format file, or plain SQL); by default
            the newest backup of the environment.
        jobs: how many processes restore at once.
        empty: a dump without any row may replace a database that has some.

    Returns:
        The operation, to be run.

    Raises:
        UsageError: there is no such backup, or `jobs` is no number.
        BackupInvalid: the file is no dump, or is cut short.
    """
    where = backup_folder.folder_of(target.project, folder)
    if file and (given := expanded(file)).exists() and not (given / backup_folder.MANIFEST).exists():
        source = Source(dump_files.recognise(given))
        backup = None
    else:
        backup = backup_folder.pick(where, target.name, file, WITHOUT)
        source = Source.of(backup)
    work = partial(own_roles.settled, target, partial(_build, source, backup, number_of_jobs(jobs), empty))
    arguments = (f" --file={quote(file)}" if file else "") + (" --empty" if empty else "")
    steps, look = ("check", "restore", "compare"), partial(_look, source, backup, empty)
    return Replacement("backup.restore", target, work, steps, danger=REPLACES, arguments=arguments, look=look)


def _look(source: Source, backup: Backup | None, empty: bool, running: Running) -> None:
    """All that is refused before anything is restored."""
    _check(source, backup, running)
    _admitted(source, empty, running)


def _admitted(source: Source, empty: bool, running: Running) -> tuple[ClientTools, Source]:
    """What `_known` returns, for an archive that may be restored. Raises what the two checks of its contents raise."""
    tools, source = _known(source, running)
    refuse_by_contents(tools, source, running)
    empty_dump.refuse(tools, source.archive, source.manifest, running, meant=empty)
    return tools, source


def _check(source: Source, backup: Backup | None, running: Running) -> None:
    with running.step("check") as summary:
        if backup:
            refuse_elsewhere(backup.manifest.environment, running.target)
            if wrong := backup_folder.damages(backup):
                more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
                says = f"{backup.name} is not what was written: {wrong[0]}{more}"
                raise BackupInvalid(says, remedy="invoke backup.list --env={env} shows others")
        need_room(running.target, backup.manifest.size if backup else source.archive.size)
        summary.numbers = {"files": len(backup.manifest.files) if backup else 1}
        summary.lines.append(str(backup.path if backup else source.archive.path))


def _build(source: Source, backup: Backup | None, jobs: int, empty: bool, running: Running) -> Target:
    _check(source, backup, running)
    with running.step("restore") as summary:
        tools, source = _admitted(source, empty, running)
        aside = scratch(tools, source, running)
        stamped = fill(source, aside, jobs, running)
        if stamped:  # a dump by others says in it whose it is, if it was a database of ours
            refuse_elsewhere(stamped.environment, running.target)
        summary.numbers = {"jobs": jobs}
    with running.step("compare") as summary:
        kind = source.manifest.contents.row_hash if source.manifest else row_hash.CURRENT
        after = fingerprint.take(aside, running.operation, jobs=jobs, kind=kind)
        summary.numbers = after.numbers | {"definitions": len(after.definitions)}
        if source.manifest is None:
            running.note("the dump has no manifest: that all rows are there is what the program that restored it says")
            return aside
        before = source.manifest.contents
        if before.major != after.major:
            running.note(
                "the backup is of another major version of PostgreSQL: rows were counted, their contents not compared"
            )
        if found := list(fingerprint.differences(before, after, of=compared(running))):
            more = f", and {len(found) - 1} more" if found[1:] else ""
            raise StepFailed(
                f"what was restored is not what was backed up: {found[0]}{more}",
                remedy="invoke backup.list --env={env} shows others",
            )
    return aside


def scratch(tools: ClientTools, source: Source, running: Running) -> Target:
    """A scratch database with the encoding and locale of the one that was dumped, if the server has them."""
    if locale := dump_files.locale(tools, source.archive, running.target):
        try:
            return running.scratch(locale=locale)
        except ConnectionFailed as error:
            running.note(f"the dump's {locale} cannot be had here, the server's own is used: {error.message}")
    return running.scratch()


def _known(source: Source, running: Running) -> tuple[ClientTools, Source]:
    """Programs that can read the archive, and the archive with the version that it says it is of.

    Raises:
        BackupInvalid: it is of a newer PostgreSQL than the server.
    """
    server = running.target.pin.version  # of the connection that has looked whether it may be replaced
    if not server:
        with contextlib.closing(connections.maintenance(running.target, running.operation)) as connection:
            server = connection.info.server_version
    _refuse_newer(source.archive, server)  # programs of the dump's version would be asked for in vain
    tools = client_tools(server)
    source = replace(source, archive=dump_files.with_version(tools, source.archive, running.target))
    _refuse_newer(source.archive, server)
    return tools, source


def _refuse_newer(archive: dump_files.Archive, server_version: int) -> None:
    of_dump, of_server = archive.server_version // 10_000, server_version // 10_000
    if of_dump > of_server:
        raise BackupInvalid(
            f"the dump is of PostgreSQL {of_dump}, newer than the server's {of_server}",
            remedy="restore it to a server of that version or newer",
        )


def refuse_by_contents(tools: ClientTools, source: Source, running: Running) -> None:
    """Refuse an archive by its stamp or by the last entry of its journal; nothing is restored yet.

    A dump by others that has no stamp needs a confirmation.

    Raises:
        GuardRefused: it is of a protected environment, or a confirmation is missing.
    """
    stamp, journal = dump_files.whose(tools, source.archive, running.target)
    for name in (stamp, journal):
        if name is not None:
            refuse_elsewhere(name, running.target)
    if stamp is None and not source.manifest and running.confirm != running.target.database:
        raise GuardRefused(
            f"{source.archive.path} has no stamp: nothing says whose data it is",
            remedy=f"if it may be in {running.target.environment}: invoke backup.restore --env={running.target.environment}"
            f" --file={quote(str(source.archive.path))} --confirm={quote(running.target.database)}",
        )


def compared(running: Running) -> tuple[str, ...]:
    """The parts of a fingerprint that a restore must reproduce: where roles were mapped, owners and grants differ."""
    mapped = any(note.startswith(MAPPED) for note in running.result.notes)
    return ("tables", "sequences", "unowned") if mapped else ("tables", "sequences", "definitions")


def fill(source: Source, aside: Target, jobs: int, running: Running) -> stamp.Stamp | None:
    """Restore into an empty database; notes say what was mapped or left out.

    Args:
        source: what is restored.
        aside: the empty database.
        jobs: how many processes restore at once.
        running: the operation, for its notes and its progress.

    Returns:
        The stamp of what was restored.

    Raises:
        BackupInvalid: the dump is of a newer PostgreSQL, or is refused.
        StepFailed: pg_restore or psql failed.
    """
    patient = with_options(aside, "-c idle_session_timeout=0")
    with contextlib.closing(connections.connect(patient, running.operation)) as connection:
        server = connection.info.server_version
        _refuse_newer(source.archive, server)
        size = source.manifest.size if source.manifest else source.archive.size
        present = {role for (role,) in connection.execute("SELECT rolname FROM pg_roles; COMMIT").fetchall()}
        tools = client_tools(max(server, source.archive.server_version))
        with watched(aside, size, running.report.transfer):
            at_once = jobs if source.archive.kind == "archive" else 1
            notes = _restore(tools, source, with_options(aside, quick(aside, at_once)), present, jobs, running)
        connections.settle(connection)  # nothing waited for the disk, and a crash by now would have taken what was restored
        for note in notes:
            running.note(note)
        connections.begin(connection, aside.policy, brief=True)
        stamped = stamp.read(connection)
        if source.manifest:
            connections.autocommit(connection)
            for left in database_settings.write(connection, aside.database, source.manifest.properties):
                running.note(f"left out: {left}")
    return stamped


def _restore(tools: ClientTools, source: Source, aside: Target, present: set[str], jobs: int, running: Running) -> list[str]:
    """A backup of ours as it is; a dump of others by a role that can do nothing but fill the new database."""
    if source.manifest:
        return archive_restore.restore(tools, source.archive, aside, present, jobs)
    with contextlib.closing(connections.connect(aside, running.operation)) as connection:
        connections.begin(connection, aside.policy, brief=True)
        judge = plain_dump.judge(connection)
    with restorer(aside, running.note) as lent:
        if source.archive.kind == "sql":
            notes = plain_dump.restore(tools, source.archive, aside, lent, present, judge)
        else:
            notes = archive_restore.restore(tools, source.archive, aside, present, jobs, lent=lent, judge=judge)
    return [*notes, *plain_dump.refuse_what_would_run(aside, source.archive.path)]


def refuse_elsewhere(name: str, target: Target) -> None:
    """Refuse to restore a protected environment's backup to another environment.

    An environment that is not declared in this project counts as protected.

    Args:
        name: the environment of the backup.
        target: where it is to be restored.

    Raises:
        GuardRefused: the two differ, and the first is protected.
    """
    if name == target.environment:
        return
    remedy = f"invoke backup.list --env={target.environment} shows those of {target.environment}"
    if name == environment.MASKED:
        if target.policy.protected:
            raise GuardRefused(
                f"it is a masked backup, and {target.environment} is protected: it is not restored over real rows",
                remedy=remedy,
            )
        return
    try:
        protected = environment.resolve(name).policy.protected
    except SkinspireError:
        protected = True
    if protected:
        raise GuardRefused(
            f"it is a backup of {name}, which is protected: patients' data, and never restored to another environment",
            remedy=remedy,
        )
