"""What importing database_service loads, and what it does not depend on."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

from conftest import CHECKOUT, Project
from service_app import app, service  # noqa: F401

from skinspire_db.service import engines


def test_importing_costs_nothing() -> None:
    code = (
        "import sys; import skinspire_db; from skinspire_db import database_service;"
        "from skinspire_db.database_service import get_db_session; database_service.close_db_connections();"
        "print([m for m in ('sqlalchemy', 'psycopg', 'decouple', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_here_depends_on_flask() -> None:
    for path in (CHECKOUT / "skinspire_db").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) flask", path.read_text(), re.MULTILINE), path


def test_logging_is_ours(app: Project) -> None:
    assert engines.log is logging.getLogger("skinspire_db")
