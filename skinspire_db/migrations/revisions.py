"""The revision files: the core's and the application's, in one order."""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skinspire_db.config import project_code
from skinspire_db.config.cache import cached
from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationInvalid, ProjectCodeEnded, UsageError
from skinspire_db.migrations.locations import INI, VERSIONS, own_folders
from skinspire_db.migrations.locations import folders as folders
from skinspire_db.schema import models

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

TEMPLATES = Path(__file__).parent  # of what Alembic writes


def directory(project: Project) -> ScriptDirectory:
    """The files as Alembic sees them. What they say of their order is kept between commands; a file is run when its code is
    asked for.

    Raises:
        MigrationInvalid: a file cannot be read, its predecessor is missing, or two files have one identifier.
        ModelsInvalid: as `models.load`.
    """
    from alembic.script.revision import RevisionMap

    from skinspire_db.migrations.known_script import KnownScript, facts

    def said() -> list[dict[str, Any]]:
        scripts: Any = _read(project).revision_map._revision_map.values()  # in the order of the files
        return [facts(script) for script in dict.fromkeys(scripts) if script]

    load = functools.partial(_module, project)
    scripts = [KnownScript(load, **each) for each in cached(project, "revisions", said, also=_files(project))]
    found = _alembics(project)
    found.revision_map = RevisionMap(lambda: scripts)
    return found


def _alembics(project: Project) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    locations = [str(each) for each in folders(project) if each.is_dir()]
    return ScriptDirectory(
        str(TEMPLATES), version_locations=locations, recursive_version_locations=True, messaging_opts={"quiet": True}
    )


def _read(project: Project) -> ScriptDirectory:
    """Run all files. The models are loaded first, because a revision may use them; it does not change them."""
    models.load(project)
    found = _alembics(project)
    with refusals(), models.kept(), project_code.running(project), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        list(found.walk_revisions())
    if twice := [str(each.message) for each in warned if "present more than once" in str(each.message)]:
        raise MigrationInvalid(f"{twice[0]}: two files have one revision id", remedy="give one of them another")
    return found


def _module(project: Project, path: str) -> ModuleType:
    """Run one file, as _read() runs all."""
    from alembic.util import load_python_file

    models.load(project)
    with refusals(), models.kept(), project_code.running(project):
        return load_python_file(Path(path).parent, Path(path).name)


def identifiers(files: ScriptDirectory) -> set[str]:
    """The identifiers of all revisions."""
    return {script.revision for script in files.revision_map._revision_map.values() if script}


def heads(project: Project) -> list[str]:
    """The newest revisions; several for several lines of revisions, or when two were written at the same time.

    Raises:
        SkinspireError: what directory() raises.
    """
    return [line.head for line in lines(project) if line.is_noted]


@dataclass(frozen=True)
class Line:
    """The end of a line of revisions.

    Attributes:
        head: its newest revision.
        known_by: what tells it from other lines: its labels, else the revisions that it begins with.
        file: the newest revision's.
        is_noted: whether a database notes it; not where another head depends on it, as Alembic has it.
    """

    head: str
    known_by: list[str]
    file: str
    is_noted: bool


def lines(project: Project) -> list[Line]:
    """The lines of revisions, in the order of their heads.

    Raises:
        SkinspireError: what directory() raises.
    """

    def found() -> list[dict[str, Any]]:
        files = directory(project)
        noted = set(files.revision_map._real_heads)
        scripts = [named(files, name) for name in sorted(files.get_heads())]
        return [
            vars(Line(each.revision, sorted(each.branch_labels) or _bases(files, each), each.path, each.revision in noted))
            for each in scripts
        ]

    return [Line(**each) for each in cached(project, "heads", found, also=_files(project))]


def _files(project: Project) -> list[str]:
    """What the order of the revisions depends on: the files, their folders, and the settings that name these."""
    lie_in = [str(path) for each in folders(project) for path in (each, *_inside(each))]
    return lie_in + [str(each) for each in (project.root / INI, *(folder.parent / INI for folder in own_folders(project)))]


def _bases(files: ScriptDirectory, script: Script) -> list[str]:
    """The revisions that a line of revisions begins with."""
    return sorted(each.revision for each in history(files, script.revision) if not each._versioned_down_revisions)


def history(files: ScriptDirectory, revision: str) -> list[Script]:
    """A revision and all that came before it in its line, without those that it only depends on."""
    found: dict[str, Script] = {}
    todo = [revision]
    while todo:
        if (name := todo.pop()) not in found:
            found[name] = named(files, name)
            todo += found[name]._versioned_down_revisions
    return list(found.values())


def _inside(folder: Path) -> list[Path]:
    """The files and folders in it: a new file changes its folder, and a revision may lie in a folder of its own."""
    return sorted(
        each for each in folder.rglob("*") if each.suffix == ".py" or (each.is_dir() and each.name != "__pycache__")
    )


def refuse_forks(project: Project) -> list[str]:
    """Refuse two heads of one line of revisions; lines that begin apart, or have labels, each have a head of their own.

    Returns:
        The heads.

    Raises:
        MigrationInvalid: a line has several heads.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for line in lines(project):
        alike.setdefault(tuple(line.known_by), []).append(line.head)
    if fork := next((found for found in alike.values() if len(found) > 1), None):
        raise MigrationInvalid(
            f"there are {len(fork)} heads: {', '.join(fork)}", remedy="invoke migrate.merge, and commit what it writes"
        )
    return heads(project)


def named(files: ScriptDirectory, name: str) -> Script:
    """The revision with this identifier, of which the first letters are enough.

    Raises:
        UsageError: no revision or several have it.
    """
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError

    try:
        found = files.get_revision(name) if name else None
    except (RevisionError, CommandError):
        found = None
    if found is None:
        raise UsageError(
            f"no revision, or more than one, is called {name}", remedy="choose one that invoke migrate.status lists"
        )
    return found


def path(script: Script, project: Project) -> str:
    """The file's path, within the project where it lies there."""
    file = Path(script.path)
    return str(file.relative_to(project.root)) if file.is_relative_to(project.root) else str(file)


def to_its_end(migration: Callable[..., Any], project: Project) -> Callable[..., Any]:
    """A revision's upgrade() or downgrade(), whose return says that all of it was run.

    Raises:
        MigrationInvalid: called, it is async or has a yield.
    """

    @functools.wraps(migration)
    def run(*arguments: Any, **options: Any) -> None:
        with models.kept(), project_code.running(project):
            left = migration(*arguments, **options)
        if inspect.isawaitable(left) or inspect.isgenerator(left) or inspect.isasyncgen(left):
            if inspect.iscoroutine(left):
                left.close()
            raise MigrationInvalid(f"{migration.__name__}() is async or has a yield: nothing of it was run")

    return run


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Give what Alembic and the files' own code raise a sentence and a remedy.

    Raises:
        MigrationInvalid: the block failed.
    """
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError

    remedy = "restore the file from version control, or correct its down_revision"
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns before it raises
            yield
    except KeyError as error:
        raise MigrationInvalid(f"the revision {error.args[0]} is missing from the folder", remedy=remedy) from None
    except (RevisionError, CommandError) as error:
        raise MigrationInvalid(f"the revision files cannot be used: {error}", remedy=remedy) from None
    except Exception as error:  # a fault in the file's own code
        at = (error.__cause__ or error).__traceback__  # a StopIteration comes wrapped
        frames = [each for each in traceback.extract_tb(at) if VERSIONS in Path(each.filename).parts]
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
        if isinstance(error, ProjectCodeEnded):
            message = f"the revision files cannot be used: {where}{error.message}"
            raise ProjectCodeEnded(message, remedy=error.remedy) from None
        what = f"{type(error).__name__}: {error}"
        raise MigrationInvalid(f"the revision files cannot be used: {where}{what}", remedy="correct the file") from None
