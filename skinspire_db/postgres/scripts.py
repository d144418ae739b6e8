"""Running SQL scripts with psql: from a file, and to their last line or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from skinspire_db.errors import StepFailed
from skinspire_db.postgres.client_programs import ClientTools
from skinspire_db.postgres.target import Target

QUIET = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
FOLDER, LOCK = (
    "skinspire-db-private-",
    "in-use",
)  # how a temporary folder's name begins, and what in it says that its process lives
# Whatever the role's and the server's own are. Of those that this server has: PostgreSQL 17 has brought the last one.
PATIENT = (
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) ANY"
    " ('{statement_timeout,idle_in_transaction_session_timeout,transaction_timeout}');\n"
)
AGE = 3  # seconds: of a younger one, the lock may not be taken yet


@dataclass
class Script:
    """A script that is being written; `run` runs it once. Its last line prints a word that nothing else in it knows."""

    tools: ClientTools
    file: IO[bytes]
    path: Path
    transaction: bool
    word: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def write(self, text: bytes | str) -> None:
        """Add to the script.

        Raises:
            StepFailed: a NUL byte is in it: psql passes over the rest of such a line in silence.
        """
        text = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        if b"\0" in text:
            raise StepFailed("the script holds a NUL byte: it is no SQL", remedy="use another file")
        self.file.write(text)

    def begin(self) -> None:
        """Write what comes first. psql then carries out no command of its own, whatever was overlooked."""
        self.write(f"\\restrict {self.word}\n" if self.tools.restricts else "")
        self.write(PATIENT)
        self.write("BEGIN;\n" if self.transaction else "")

    def run(self, target: Target) -> None:
        """Run the script.

        Raises:
            StepFailed: it failed, with what psql said, or psql did not come to the last line; where it is one transaction,
                nothing of it is kept then.
        """
        self.write("\nCOMMIT;\n" if self.transaction else "\n")
        self.write(f"\\unrestrict {self.word}\n" if self.tools.restricts else "")
        self.write(f"\\echo {self.word}\n")
        self.file.close()  # on Windows no other program can read it before
        printed = self.tools.run("psql", target, *QUIET, f"--output={os.devnull}", f"--file={self.path}")
        if printed.split() != [self.word]:
            raise StepFailed("psql ended before the script's last line", remedy="run it again with another psql")


@contextlib.contextmanager
def script(tools: ClientTools, *, transaction: bool = True) -> Iterator[Script]:
    """A script to write and run, by default as one transaction. Its file is gone at the end.

    psql is given a name and not its standard input, which on Windows it reads as text: to the first 0x1A byte.
    """
    with private_folder() as folder:
        path = folder / "script.sql"
        with path.open("wb") as file:
            running = Script(tools, file, path, transaction)
            running.begin()
            yield running


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder for its owner's eyes only, gone at the end; what killed processes left is removed first."""
    from filelock import FileLock

    _sweep()
    with tempfile.TemporaryDirectory(prefix=FOLDER) as name, FileLock(Path(name) / LOCK):
        yield Path(name)


def _sweep() -> None:
    from filelock import FileLock, Timeout

    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError, Timeout):
            found = path.lstat()
            mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            old = stat.S_ISDIR(found.st_mode) and found.st_mtime < time.time() - AGE
            if mine and old and (path / LOCK).is_file():  # without it, the folder is none of these
                with FileLock(path / LOCK, timeout=0):
                    pass
                shutil.rmtree(path)
