"""What importing database_service loads, and what it does not depend on."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest
from conftest import CHECKOUT, Project
from service_app import app, service  # noqa: F401

from skinspire_db.database_service import get_async_engine, get_async_session
from skinspire_db.errors import InvalidSetting
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


def test_asyncio_without_greenlet_is_said_in_one_line(app: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    for asked in (get_async_engine, get_async_session):
        with pytest.raises(InvalidSetting, match=r"greenlet, which is not installed -> pip install 'sqlalchemy\[asyncio\]'"):
            asked()
