"""The application's own rows in the tests' databases: in the template once for each hash, or for a run or a module."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config import project_code
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting, SkinspireError, UsageError
from skinspire_db.service import test_override

if TYPE_CHECKING:
    from skinspire_db.testing.databases import Database, DatabaseMaker

Function = Callable[[Any], Any]  # is given a Session, which is committed afterwards
REMEDY = 'write db_template = "module:function"'


@dataclass(frozen=True)
class TemplateRows:
    """What adds rows to the template.

    Attributes:
        name: the setting db_template; empty where there is none.
        files: what the rows are read from, by the setting db_template_files: patterns below `root`.
        root: the folder of pytest's settings.
    """

    name: str = ""
    files: Sequence[str] = ()
    root: Path = Path()

    def function(self, project: Project) -> Function | None:
        """The function that is named; None where none is.

        Raises:
            InvalidSetting: it cannot be loaded, or is no function.
        """
        if not self.name:
            return None
        found = project_code.attribute(project, self.name, REMEDY)
        if not callable(found):
            raise InvalidSetting(f"db_template = {self.name} is no function", remedy=REMEDY)
        return found  # type: ignore[no-any-return]

    def state(self, project: Project) -> str:
        """What changes when the rows may have changed: a hash of the function's file and of the files that it reads."""
        function = self.function(project)
        source = inspect.getsourcefile(function) if function else None
        paths = [Path(source)] if source else []
        paths += sorted({path for pattern in self.files for path in self.root.glob(pattern) if path.is_file()})
        hashes = [sha256(path.read_bytes()).hexdigest() for path in paths]
        return json.dumps([self.name, hashes]) if self.name or hashes else ""


def apply(database: Database, function: Function) -> Any:
    """Call a function with a session on the database, which serves get_db_session() meanwhile, and commit.

    Returns:
        What the function returns.

    Raises:
        UsageError: it has failed; nothing of it is kept.
    """
    former = test_override.served
    test_override.serve(database)
    try:
        service = database.service()
        with service.options.session(bind=service.engine, expire_on_commit=False) as session:
            added = function(session)
            session.commit()
            session.expunge_all()
        return added
    except SkinspireError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        own = next((each for each in reversed(where) if each.filename == inspect.getsourcefile(function)), where[-1])
        said = " ".join(str(error).partition("\n")[0].split())
        raise UsageError(
            f"the rows of {getattr(function, '__name__', function)} could not be added: {type(error).__name__}: {said}"
            f" ({own.filename}, line {own.lineno})",
            remedy="correct that line",
        ) from None
    finally:
        test_override.serve(former)
        database.close()


class Layers:
    """Databases with the rows of a run or a module over those of the template; each is made from the one below it."""

    def __init__(self, maker: DatabaseMaker) -> None:
        self.maker = maker
        self.made: list[tuple[Function, Database]] = []

    def add(self, function: Function) -> Any:
        """Add a layer on top.

        Returns:
            What the function returns.

        Raises:
            UsageError: the function fails.
        """
        database = self.maker.clone()
        try:
            added = apply(database, function)
        except BaseException:
            self.maker.drop(database)
            raise
        self.made.append((function, database))
        self.maker.source = database.name
        return added

    def remove(self, function: Function) -> None:
        """Remove a function's layer; those over it, of a run whose rows were asked for later, are made anew."""
        at = next((index for index, (each, _) in enumerate(self.made) if each is function), None)
        if at is None:
            return
        removed, self.made = self.made[at:], self.made[:at]
        self.maker.source = self.made[-1][1].name if self.made else ""
        for _, database in removed:
            self.maker.drop(database)
        for above, _ in removed[1:]:
            self.add(above)
