"""The Invoke collections, for the tasks.py of this checkout and for that of an application:

    from skinspire_db.tasks import collections

    ns = collections(globals())

The collections are the modules of the folder tasks/: beside the package in a checkout, inside it in a wheel.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Any

# Invoke turns bytecode off, and an editable install would be compiled anew at every command.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
# Imports make objects that all live on; with the default of 700 Python keeps searching them for garbage. db.verify makes
# 90,000 until it ends, and the two searches of 50,000 were a tenth of its processor time.
gc.set_threshold(150_000)

from invoke.collection import Collection  # noqa: E402
from invoke.util import yaml  # type: ignore[attr-defined]  # noqa: E402

CHECKOUT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).parent if (Path(__file__).parent / "db.py").exists() else CHECKOUT / "tasks"
DEFAULTS = HERE / "invoke.yaml" if HERE.parent != CHECKOUT else CHECKOUT / "invoke.yaml"
if str(HERE) not in __path__:
    __path__.append(str(HERE))
NAMES = ("backup", "db", "dev", "env", "mask", "migrate", "scale", "server", "snapshot", "sql", "triggers")


def collections(module: dict[str, Any] | None = None) -> Collection:
    """Every collection, beside the tasks of one's own.

    Args:
        module: The globals() of the tasks.py that this is for. Its own tasks are found wherever they stand in the file, and
            those that run a pipeline answer `--json`.

    Returns:
        The namespace that Invoke looks for under the name `ns`. The defaults of the tasks are those of this project's
        invoke.yaml; an invoke.yaml of the application, and Invoke's other layers, come over them.
    """
    hooks = importlib.import_module("skinspire_db.tasks._usage")
    namespace = Collection(*(importlib.import_module(f"skinspire_db.tasks.{name}") for name in NAMES))
    namespace.configure(yaml.safe_load(DEFAULTS.read_text(encoding="utf-8")))  # type: ignore[no-untyped-call]
    hooks.install(module or {})
    return namespace


def main() -> None:
    """The command `skinspire-db`: the same tasks, for a machine without any tasks.py."""
    from invoke.program import Program

    import skinspire_db
    from skinspire_db.lifecycle import remedies

    remedies.PROGRAM = "skinspire-db"
    Program(version=skinspire_db.__version__, namespace=collections(), name="skinspire-db", binary="skinspire-db").run()
