"""A verified backup before an operation that could lose what a protected environment holds."""

from __future__ import annotations

from pathlib import Path

from skinspire_db.environment import Environment
from skinspire_db.pipeline import Report


def take(environment: Environment, operation: str, report: Report, folder: Path | None) -> str:
    """Take a backup and verify it by a full restore; returns a sentence with its name. Raises what those raise."""
    raise NotImplementedError
