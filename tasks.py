"""The root of the Invoke tasks: one collection a module, each in the folder tasks/ beside this file."""

import gc
import os
import sys
from pathlib import Path

__path__ = [str(Path(__file__).with_suffix(""))]  # Invoke finds this file first; this makes it the package tasks/ too.
# Invoke turns bytecode off, and an editable install would be compiled anew at every command.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
# Imports make objects that all live on; with the default of 700 Python keeps searching them for garbage.
gc.set_threshold(50_000)

from invoke import Collection, Program  # noqa: E402

from tasks import _usage, backup, db, dev, env, migrate, server, triggers  # noqa: E402

ns = Collection(backup, db, dev, env, migrate, server, triggers)
Program.parse_tasks = _usage.parse_tasks
