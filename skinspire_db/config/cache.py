"""Values that take long to compute from files that seldom change, kept in .skinspire/ between commands."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from typing import Any

import skinspire_db
from skinspire_db.config.project import Project, make_folder, write_atomically

# What differs between commands and means nothing.
VOLATILE = {
    "PWD", "OLDPWD", "_", "SHLVL", "COLUMNS", "LINES", "PYTEST_VERSION", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID",
}  # fmt: skip


def cached(project: Project, name: str, build: Callable[[], Any], also: Iterable[str] = (), of: str = "") -> Any:
    """What `build()` returns, which must be JSON, from the last time if nothing that it can depend on has changed since.

    That is: every module outside the standard library that was loaded when it was built, the folders they lie in (a new
    module shows there), the files `also` named, what it is made `of`, the settings, the process environment, the versions of
    Python and of this package. A cache that cannot be read or written is no error; the value is then built.
    """
    path = project.state / f"{name}.json"
    key = _key(project, of)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key and kept["sum"] == _sum(kept["value"]) and all(map(_unchanged, kept["files"].items())):
            return kept["value"]
    value = build()
    with contextlib.suppress(OSError):
        make_folder(project.state)  # before the root is looked at, where models can lie: this changes it
    files = {file: _mark(file) for file in (*_loaded(), *also)}
    with contextlib.suppress(OSError):
        write_atomically(path, json.dumps({"key": key, "sum": _sum(value), "files": files, "value": value}))
    return json.loads(json.dumps(value))  # the same types as from the file


def _key(project: Project, of: str) -> str:
    surroundings = {name: value for name, value in os.environ.items() if name not in VOLATILE}
    settings = [_mark(f"{project.root}/{file}") for file in ("pyproject.toml", ".env")]
    facts = [sys.version, skinspire_db.__version__, sorted(surroundings.items()), settings, str(project.root), of]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()  # a hash: the environment can hold secrets


def _sum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _unchanged(file: tuple[str, Any]) -> bool:
    return bool(_mark(file[0]) == file[1])


def _loaded() -> list[str]:
    standard, site = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")
    files: set[str] = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and (not file.startswith(standard) or file.startswith(site)):
            files |= {file, os.path.dirname(file)}  # noqa: PTH120  # hundreds of them, and pathlib is slow
    return sorted(files)


def _mark(file: str) -> list[int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116  # hundreds of them, and pathlib is slow
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size]
