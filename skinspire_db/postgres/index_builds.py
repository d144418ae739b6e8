"""Settings of sessions that fill a new database, and how their index builds share the server's processors."""

from __future__ import annotations

import os

from skinspire_db.config.urls import LOCAL_HOSTS
from skinspire_db.postgres.target import Target

# A scratch database that a crash takes along is no loss, so nothing waits for its WAL.
QUICK = "-c synchronous_commit=off -c maintenance_work_mem=256MB"
USUAL = 2  # PostgreSQL's own max_parallel_maintenance_workers


def quick(target: Target, jobs: int) -> str:
    """Options of libpq for sessions that fill a new database; what they commit is to be settled when they have ended.

    The workers of an index build are for processors that the jobs leave idle: two workers for each of two indexes, on two
    processors, took a tenth more processor time. The processors of another machine are not known, and its settings hold.

    Args:
        target: the database.
        jobs: how many sessions are at work at once.
    """
    local = all(host in LOCAL_HOSTS or host.startswith("/") for host, _ in target.addresses)
    workers = (os.cpu_count() or 1) // jobs
    return f"{QUICK} -c max_parallel_maintenance_workers={workers}" if local and workers < USUAL else QUICK
