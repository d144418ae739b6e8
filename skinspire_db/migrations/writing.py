"""Writing revisions: from the difference between models and database, and merges of two heads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.catalog import definitions, spelling
from skinspire_db.catalog.fields import Definition, Snapshot
from skinspire_db.catalog.spelling import Expected
from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationFailed, MigrationInvalid, NotOurs, UsageError
from skinspire_db.migrations import drift, lines, locations, losses, online, phases, position, revisions, running, statements
from skinspire_db.migrations.online import Part
from skinspire_db.migrations.phases import Statement
from skinspire_db.objects import dependents
from skinspire_db.objects.dependents import Saved
from skinspire_db.postgres import search_path
from skinspire_db.schema import blueprint, fills, models

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from skinspire_db.postgres.connections import Connection


@dataclass(frozen=True)
class Written:
    """A revision file that was written.

    Attributes:
        revision: its identifier.
        file: its path.
        changes: how many statements its upgrade has, with those of the ones before it.
        warnings: what it loses or locks and what to do instead, and what it leaves out.
        before: the revisions and files that were written before it, in their order.
    """

    revision: str
    file: str
    changes: int
    warnings: list[str] = field(default_factory=list)
    before: list[tuple[str, str]] = field(default_factory=list)

    @property
    def every(self) -> list[tuple[str, str]]:
        """All that were written: revisions and files, in their order."""
        return [*self.before, (self.revision, self.file)]


def new(
    connection: Connection,
    project: Project,
    message: str | None,
    expected: Snapshot,
    *,
    attempt: bool,
    keep: bool = False,
    head: str | None = None,
    online_above: int | None = None,
) -> Written | None:
    """Write a revision that makes the database what the models say, or several where it is to be done online.

    Args:
        connection: a database at the head.
        project: the project, whose folder gets the file.
        message: what the revision is for.
        expected: the snapshot of a database that the models make.
        attempt: apply the revision and take it back, to see that both work; the database is then as it was.
        keep: keep the file of a revision whose attempt failed.
        head: a label or a revision of the line that it goes on; None for the only line, or the one that makes its tables.
        online_above: the rows above which a table's changes are divided into revisions that stop no session; 0 for those of
            every table, None for none.

    Returns:
        The revision, of several the last, or None when the database is as expected.

    Raises:
        UsageError: there is no message, or no such line.
        MigrationInvalid: the database is behind or ahead of the files, or which of several lines is changed cannot be told.
        MigrationFailed: the attempt failed.
    """
    if not message or not message.strip():
        raise UsageError("migrate.new needs a message", remedy='invoke migrate.new -m "add appointments"')
    revisions.refuse_forks(project)
    _folder(project)  # Alembic writes into none that it has not seen
    files = revisions.directory(project)
    refuse_behind(connection, project, files)
    live = spelling.settled(definitions.snapshot(connection), expected)
    parts = _parts(connection, project, live, expected, online_above)
    if not parts:
        return None
    up, down = [each for part in parts for each in part.up], [each for part in parts for each in part.down]
    lost = [loss for each in up for loss in losses.of(connection, each.sql)]
    place = lines.following(project, files, head, _changed_tables(live, expected))
    made: list[tuple[Path, str]] = []
    for part in parts:
        titled = f"{message.strip()}: {part.title}" if part.title else message.strip()
        made.append(_write(files, titled, place, part))
        place = made[-1][1], place[1]
    careful = [*phases.risks(up), *lost]
    if attempt:
        try:
            careful += _attempt(connection, project, [revision for _, revision in made], expected, down)
        except (MigrationFailed, NotOurs) as error:
            if not keep:
                for path, _ in made:
                    path.unlink()
                raise _not_kept(error) from None
            careful.append(f"it fails on this database: {error.message}")
    *before, (revision, file) = [(name, revisions.path(revisions.named(files, name), project)) for _, name in made]
    return Written(revision, file, len(up), careful, before)


def _parts(connection: Connection, project: Project, live: Snapshot, expected: Snapshot, above: int | None) -> list[Part]:
    """The statements of what is to be written, in one part, or in several for large tables."""

    def lead(source: Snapshot, target: Snapshot, *, back: bool = False) -> list[Statement]:
        filled = {} if back else fills.fills(project)
        return statements.lead(source, target, lambda old, new: _casts(connection, old, new), back=back, fills=filled)

    is_large = online.large(connection, above)
    labelled = online.labels_first(live, expected, is_large)
    parts = []
    if labelled is not None:
        parts.append(Part("new labels", up=lead(live, labelled), down=lead(labelled, live, back=True)))
        live = labelled
    up, down = lead(live, expected), lead(expected, live, back=True)
    return parts + (online.divide(up, down, is_large, lambda index: online.table_of(connection, index)) if up else [])


def _changed_tables(live: Snapshot, expected: Snapshot) -> set[str]:
    """The names, without schemas, of the tables that differ, or whose columns, constraints or indexes do."""
    found = set()
    for key in live.keys() | expected.keys():
        if live.get(key) != expected.get(key):
            kind, _, name = key.partition(" ")
            table = definitions.split(name)[0] if kind == "column" else name.rpartition(" on ")[2]
            found.add(definitions.plain(definitions.split(table)[1]))
    return found


def refuse_behind(connection: Connection, project: Project, files: ScriptDirectory) -> None:
    """Refuse a database that is behind: a new revision would repeat what a pending one does.

    Raises:
        MigrationInvalid: a revision is pending, or the database is ahead of the code.
    """
    if pending := position.next_up(connection, project, files, None):
        raise MigrationInvalid(
            f"the database is behind: {pending.revision} is pending", remedy="invoke migrate.upgrade --env={env}, then again"
        )


def _casts(connection: Connection, old: str, new: str) -> bool:
    """Whether PostgreSQL makes one type of the other where a value is assigned: by a cast of its own, or into any string."""
    found = search_path.rows(
        connection,
        """
        SELECT n.typcategory = 'S' OR EXISTS (
            SELECT FROM pg_cast WHERE castcontext IN ('a', 'i')
            AND (castsource, casttarget) = (coalesce(oe.oid, o.oid), coalesce(ne.oid, n.oid)))
        FROM pg_type o JOIN pg_type n ON n.oid = to_regtype(%s)
        LEFT JOIN pg_type oe ON oe.oid = o.typelem AND o.typcategory = 'A'
        LEFT JOIN pg_type ne ON ne.oid = n.typelem AND n.typcategory = 'A'
        WHERE o.oid = to_regtype(%s)
        """,
        (new, old),
    )
    return found == [(True,)]


def _write(files: ScriptDirectory, message: str, place: tuple[str, Path], part: Part) -> tuple[Path, str]:
    """The file, and its revision's name."""
    from alembic.util import rev_id

    after, folder = place
    with revisions.refusals():
        made = files.generate_revision(
            rev_id(), message, head=after, version_path=str(folder), imports="",
            upgrades="\n    ".join(map(_call, part.up)), downgrades="\n    ".join(map(_call, part.down)),
            concurrently=part.concurrent,
        )  # fmt: skip
    assert made
    return Path(made.path), made.revision


def _call(statement: Statement) -> str:
    """A statement as a revision says it."""
    lines = [repr(line) for line in _escaped(statement.sql).splitlines(keepends=True)]
    return f"op.execute({lines[0]})" if len(lines) == 1 else "\n        ".join(["op.execute(", *lines]) + "\n    )"


def _escaped(sql: str) -> str:
    """To SQLAlchemy, :word would be a parameter, and a backslash before it only hides that: it gets one of its own."""
    sql = re.sub(r"\\(?=:[\w$]*(?![:\w$]))", r"\\\\", sql)
    return re.sub(r"(?<![:\w\\]):(?=\w+(?!:))", r"\:", sql)


def _attempt(
    connection: Connection, project: Project, names: list[str], expected: Snapshot, down: list[Statement]
) -> Iterator[str]:
    """Apply the revisions, compare the database with what is expected, and take them back.

    Raises MigrationFailed; the transaction can go on then.
    """
    import psycopg

    files = revisions.directory(project)
    scripts, before = [revisions.named(files, name) for name in names], definitions.snapshot(connection)
    saved: list[Saved] = []
    connection.execute("SAVEPOINT attempt")
    try:
        for script in scripts:
            running.apply(connection, project, files, script, saved=saved)
            dependents.put_back(connection, saved)
            saved.clear()
        for each in remaining(connection, project, expected):
            yield f"not in this revision, add it by hand: {each}"
        for script in reversed(scripts):
            running.apply(connection, project, files, script, down=True, saved=saved)
            dependents.put_back(connection, saved)
            saved.clear()
        for each in remaining(connection, project, _before(connection, expected, before, down)):
            if not each.startswith("extension "):  # those that a revision needs stay
                yield f"not in its downgrade, add it by hand: {each}"
    except psycopg.errors.LockNotAvailable:
        yield "it was not tried: its tables are in use"
    except MigrationFailed as error:
        if not isinstance(getattr(error.__context__, "orig", None), psycopg.errors.UnsafeNewEnumValueUsage):
            raise
        yield "it was not tried: a new label can be used only after the commit of its revision"
    finally:
        connection.execute("ROLLBACK TO attempt")


def _before(connection: Connection, expected: Snapshot, before: Snapshot, down: list[Statement]) -> Expected:
    """The snapshot from before the attempt, with the spellings that PostgreSQL has for it after the downgrade."""
    before, after = spelling.settled(before, expected), definitions.snapshot(connection)
    of_both = expected.spellings if isinstance(expected, Expected) else {}
    spellings = {key: words for key, words in of_both.items() if before.get(key) == expected[key]}
    for key, definition in before.items():
        if (now := after.get(key, definition)) != definition and _is_said_again(definition, now, down):
            spellings[key] = [*spellings.get(key, []), now]
    return Expected(before, spellings)


def _is_said_again(before: Definition, after: Definition, down: list[Statement]) -> bool:
    """Whether a statement of the downgrade has the words of before, and the rest of the two definitions is the same."""
    first = fields(before)[0].name
    name = next((each for each in ("generated", "default") if getattr(before, each, None)), first)
    same = replace(after, **{name: getattr(before, name)}) == before
    return same and any(getattr(before, name) in each.sql.replace("INDEX CONCURRENTLY ", "INDEX ", 1) for each in down)


def _not_kept(error: MigrationFailed | NotOurs) -> MigrationFailed | NotOurs:
    says = error.message.replace("; this revision left no trace", "")
    if isinstance(error, NotOurs):
        return NotOurs(f"what was written fails on this database, and is not kept: {says}", remedy=error.remedy)
    return MigrationFailed(
        f"what was written fails on this database, and is not kept: {says}",
        remedy="correct models or rows; or keep and mend the file: invoke migrate.new --env={env} --keep --message=changes",
    )


def remaining(connection: Connection, project: Project, wanted: Snapshot) -> list[str]:
    """What still differs, but for what trigger files make: they are installed after every revision."""
    views = {blueprint.name_of(table) for table in models.metadata(project).tables.values() if models.is_view(table)}
    found = drift.compare(definitions.snapshot(connection), wanted, views)
    left = [each for each in found if each.kind not in ("trigger", "function", "grant")]
    # A view that is wanted is one that an SQL file makes, after every revision.
    return [f"{each.kind} {each.name} {each.state}" for each in left if each.kind != "view" or each.state == "extra"]


def refuse_one_head(files: ScriptDirectory) -> None:
    """Refuse to merge fewer than two heads.

    Raises:
        UsageError: there are fewer than two heads.
    """
    heads = files.get_heads()
    if len(heads) < 2:
        raise UsageError(
            f"there is one head, {heads[0] if heads else 'none'}: nothing to merge", remedy="invoke migrate.status"
        )


def merge(project: Project, files: ScriptDirectory, message: str | None) -> Written:
    """Write a revision that joins all heads, of which there must be two or more."""
    from alembic.util import rev_id

    heads = files.get_heads()
    with revisions.refusals():
        made = files.generate_revision(
            rev_id(), message or f"merge {' and '.join(heads)}", head=heads, version_path=_folder(project), imports=""
        )
    assert made
    return Written(made.revision, revisions.path(made, project), 0)


def _folder(project: Project) -> str:
    folder = locations.own_folders(project)[0]
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
