"""The revision files: the core's and the application's, in one order."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.config import project_code
from skinspire_db.config.cache import cached
from skinspire_db.config.content import CORE_MIGRATIONS
from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationInvalid, ProjectCodeEnded, UsageError
from skinspire_db.schema import models

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

TEMPLATES = Path(__file__).parent  # of what Alembic writes
VERSIONS = "versions"


def folders(project: Project) -> list[Path]:
    """Where revision files lie: the core's where it is content, then those of the project (`migrations` in pyproject.toml).

    Raises:
        ModelsInvalid: as `models.load`.
    """
    own = project.root / str(project.config.get("migrations", "migrations")) / VERSIONS
    core = CORE_MIGRATIONS / VERSIONS
    return [core, own] if own.resolve() != core.resolve() and models.has_core(project) else [own]


def directory(project: Project) -> ScriptDirectory:
    """The files as Alembic sees them. The models are loaded first, because a revision may use them; it does not change them.

    Raises:
        MigrationInvalid: a file cannot be read, its predecessor is missing, or two files have one identifier.
        ModelsInvalid: as `models.load`.
    """
    from alembic.script import ScriptDirectory

    models.load(project)
    locations = [str(each) for each in folders(project) if each.is_dir()]
    found = ScriptDirectory(
        str(TEMPLATES), version_locations=locations, recursive_version_locations=True, messaging_opts={"quiet": True}
    )
    with refusals(), models.kept(), project_code.running(project), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        list(found.walk_revisions())
    if twice := [str(each.message) for each in warned if "present more than once" in str(each.message)]:
        raise MigrationInvalid(f"{twice[0]}: two files have one revision id", remedy="give one of them another")
    return found


def heads(project: Project) -> list[str]:
    """The newest revisions; several when two were written at the same time.

    Raises:
        SkinspireError: what directory() raises.
    """
    files = [str(path) for each in folders(project) for path in (each, *_inside(each))]
    found: list[str] = cached(project, "heads", lambda: sorted(directory(project).get_heads()), also=files)
    return found


def _inside(folder: Path) -> list[Path]:
    """The files and folders in it: a new file changes its folder, and a revision may lie in a folder of its own."""
    return sorted(
        each for each in folder.rglob("*") if each.suffix == ".py" or (each.is_dir() and each.name != "__pycache__")
    )


def one_head(project: Project) -> str | None:
    """The newest revision; None when there are no files.

    Raises:
        MigrationInvalid: there are several heads.
    """
    found = heads(project)
    if len(found) > 1:
        raise MigrationInvalid(
            f"there are {len(found)} heads: {', '.join(found)}", remedy="invoke migrate.merge, and commit what it writes"
        )
    return found[0] if found else None


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
        raise UsageError(f"there is no one revision {name}", remedy="choose one that invoke migrate.status lists")
    return found


def path(script: Script, project: Project) -> str:
    """The file's path, within the project where it lies there."""
    file = Path(script.path)
    return str(file.relative_to(project.root)) if file.is_relative_to(project.root) else str(file)


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
