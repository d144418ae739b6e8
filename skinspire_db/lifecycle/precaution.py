"""The backup that is taken, and proved, before an operation that could lose something in a protected environment."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from skinspire_db.config.environment import Environment
from skinspire_db.lifecycle.result import Report

PROVIDER = "skinspire_db.copies.prove"  # by name: the copies are made of operations themselves


def take(environment: Environment, backups: Path | None, report: Report, operation: str) -> str:
    """Take a backup and prove it by a restore.

    Returns:
        A sentence with its folder.

    Raises:
        SkinspireError: It could not be made, or not be proved; nothing may be lost then.
    """
    return str(_provider().precaution(environment, backups, report, operation))


def folder(environment: Environment, backups: Path | None) -> str:
    """Where that backup would be."""
    return str(_provider().folder_of(environment.project, backups))


def _provider() -> Any:
    return importlib.import_module(PROVIDER)
