"""A Python that has loaded the library, and runs each of its programs in a fork: a process of its own without a second of imports.

Its argument is code that it runs first. It reads a line of JSON for each program from stdin, and answers with its exit code on stdout. What an application's models may change is
not loaded before the fork: the clinic, which is one of the applications.
"""

import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
NOT_BEFORE = ("skinspire_db.clinic", "skinspire_db.testing")
LIBRARIES = (
    "alembic.command",
    "alembic.autogenerate",
    "invoke.main",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.orm",
)


def load() -> None:
    """Import the library and what it needs."""
    for file in sorted((CHECKOUT / "skinspire_db").rglob("*.py")):
        module = file.relative_to(CHECKOUT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        if not module.startswith(NOT_BEFORE) and not module.endswith("__main__"):
            importlib.import_module(module)
    for name in LIBRARIES:
        importlib.import_module(name)


def run(arguments: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> None:
    """Be `python -m MODULE ARGUMENTS`, or `python SCRIPT ARGUMENTS`, from here to the end of this process."""
    for descriptor, (path, mode) in enumerate(((os.devnull, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))):
        opened = os.open(path, mode)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    script = Path(arguments[0])
    first = str(script.parent) if script.is_absolute() else folder
    sys.path[:1] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = arguments
    code = 0
    try:
        if script.is_absolute():
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def main() -> None:
    """Serve until stdin ends."""
    load()
    exec(sys.argv[1], {})
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(CHECKOUT)
    main()
