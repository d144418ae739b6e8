"""Flask-SQLAlchemy, pytest-flask, SQLModel, FastAPI and asyncio on the service's engines, with SQLAlchemy 2.0."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT, url
from environments import new_environment

from skinspire_db.postgres.cluster import Address
from skinspire_db.service import test_override

PYPROJECT = """
[tool.skinspire_db]
metadata = ["{metadata}"]
reference = []
{more}
[tool.skinspire_db.unused]
word = "{word}"
[tool.pytest.ini_options]
addopts = ["-p", "no:cacheprovider"]
"""
PACKAGES = ("sqlalchemy<2.1", "flask-sqlalchemy", "sqlmodel", "pytest-flask", "fastapi", "httpx")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scripts = new_environment(tmp_path_factory.mktemp("bindings") / "venv", "-e", f"{CHECKOUT}[testing]", *PACKAGES)
    return scripts / ("python.exe" if sys.platform == "win32" else "python")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "metadata", "more", "passed"),
    [
        ("flask_shop", "shop:db.Model", "", 5),
        ("flask_shop", "shop:db", "", 5),
        ("async_shop", "shop:Base", "", 21),
        ("async_hospitals", "shop:Base", "tenancy = true", 3),
        ("client_shop", "shop:db", "", 8),
        ("sqlmodel_shop", "shop:SQLModel", '[tool.skinspire_db.service]\nsession_class = "sqlmodel:Session"', 4),
    ],
)
def test_a_suite_of_an_application_with(
    python: Path, server: Address, tmp_path: Path, sample: str, metadata: str, more: str, passed: int
) -> None:
    shutil.copytree(CHECKOUT / "tests/samples" / sample, tmp_path, dirs_exist_ok=True)
    settings = PYPROJECT.format(metadata=metadata, more=more, word=secrets.token_hex(4))
    (tmp_path / "pyproject.toml").write_text(settings)
    hidden = ("SKINSPIRE", "PYTEST", test_override.MAY_REACH)
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    env["TEST_DATABASE_URL"] = url(server, "nobody_made_this")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-W", "ignore"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and f"{passed} passed" in done.stdout, done.stdout + done.stderr
