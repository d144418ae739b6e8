"""How far COPY has come, as PostgreSQL itself says (pg_stat_progress_copy), told from time to time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from skinspire_db import connections
from skinspire_db.connections import Target

Transfer = Callable[[int, int, int], None]  # bytes so far, about so many in all, rows so far
QUERY = """
    SELECT pid, relid::bigint, bytes_processed, tuples_processed FROM pg_stat_progress_copy WHERE datname = current_database()
"""


@contextlib.contextmanager
def watched(to: Target, total: int, transfer: Transfer, *, every: float = 0.3) -> Iterator[None]:
    """While the block runs, tell `transfer` what the COPYs on the target's database have done, of about `total` bytes.

    A look that fails tells nothing, and stops nothing.
    """
    over = threading.Event()
    seen: dict[tuple[int, int], tuple[int, int]] = {}

    def watch() -> None:
        with contextlib.closing(connections.connect(to, "progress")) as looker:
            looker.autocommit = True
            while not over.wait(every):
                seen.update({(pid, table): (size, rows) for pid, table, size, rows in looker.execute(QUERY).fetchall()})
                done = sum(size for size, _ in seen.values())
                transfer(min(done, total), total, sum(rows for _, rows in seen.values()))

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
