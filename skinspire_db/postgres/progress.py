"""How far COPY has come, as PostgreSQL itself says (pg_stat_progress_copy), or CREATE DATABASE, told from time to time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Transfer = Callable[[int, int, int], None]  # bytes so far, about so many in all, rows so far
QUERY = """
    SELECT pid, relid::bigint, bytes_processed, tuples_processed FROM pg_stat_progress_copy WHERE datname = current_database()
"""
# A database that is being made is not in pg_database yet. Only a superuser may look.
FILES = r"""
    SELECT 0, 0, coalesce(sum((pg_stat_file(concat_ws('/', 'base', folder, file), true)).size), 0)::bigint, 0
    FROM pg_ls_dir('base') AS folder, pg_ls_dir('base/' || folder, true, false) AS file
    WHERE folder ~ '^\d+$' AND NOT EXISTS (SELECT FROM pg_database WHERE oid::text = folder)
"""

BASE_BACKUPS = "SELECT pid, 0, coalesce(backup_streamed, 0), 0 FROM pg_stat_progress_basebackup"


def watched(target: Target, total: int, transfer: Transfer) -> contextlib.AbstractContextManager[None]:
    """While the block runs, tell `transfer` what the COPYs on the target's database have done, of about `total` bytes.

    A look that fails tells nothing, and stops nothing.
    """
    return _watched(lambda: connections.connect(target, "progress"), QUERY, total, transfer)


def made(target: Target, total: int, transfer: Transfer) -> contextlib.AbstractContextManager[None]:
    """The same of the files of a database that is being made on the target's server."""
    return _watched(lambda: connections.maintenance(target, "progress"), FILES, total, transfer)


def sent(target: Target, total: int, transfer: Transfer) -> contextlib.AbstractContextManager[None]:
    """The same of the base backup that the server sends."""
    return _watched(lambda: connections.connect(target, "progress"), BASE_BACKUPS, total, transfer)


@contextlib.contextmanager
def _watched(
    connect: Callable[[], Connection], query: str, total: int, transfer: Transfer, every: float = 0.3
) -> Iterator[None]:
    over = threading.Event()
    seen: dict[tuple[int, int], tuple[int, int]] = {}

    def watch() -> None:
        with contextlib.closing(connect()) as looker:
            connections.autocommit(looker)
            while not over.is_set():
                seen.update(
                    {(pid, table): (size, rows) for pid, table, size, rows in looker.execute(query.encode()).fetchall()}
                )
                done = sum(size for size, _ in seen.values())
                transfer(min(done, total), total, sum(rows for _, rows in seen.values()))
                over.wait(every)

    def quietly() -> None:
        with contextlib.suppress(Exception):
            watch()

    watcher = threading.Thread(target=quietly, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(timeout=5)
