"""What another project gets: the wheel, and the source distribution, each in an environment with nothing else of ours."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from conftest import CHECKOUT
from environments import new_environment

TASKS = "from skinspire_db.tasks import collections\n\nns = collections(globals())\n"
MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Visit(Base):
    __tablename__ = "visits"
    visit_id: Mapped[int] = mapped_column(primary_key=True)
"""
PYPROJECT = '[tool.skinspire_db]\nmetadata = ["skinspire_db.clinic.models:Base", "app_models:Base"]\n'


def build(kind: str, folder: Path) -> Path:
    """A distribution, built by hatchling itself, in this environment, without asking any index."""
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder if kind == "wheel" else SdistBuilder
    [built] = builder(str(CHECKOUT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_what_the_wheel_holds(tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(build("wheel", tmp_path)).namelist())
    assert {
        "skinspire_db/sql/bookkeeping.sql", "skinspire_db/sql/triggers/timestamps.sql", "skinspire_db/sql/sql.lock",
        "skinspire_db/clinic/reference.toml", "skinspire_db/py.typed", "skinspire_db/migrations/script.py.mako",
        "skinspire_db/tasks/__init__.py", "skinspire_db/tasks/db.py", "skinspire_db/tasks/_executor.py",
        "skinspire_db/tasks/invoke.yaml",
    } <= names  # fmt: skip
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"skinspire_db"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_application_in_a_clean_environment(kind: str, tmp_path: Path) -> None:
    """Setup, prepare, a revision, a backup and a copy from the application's folder; all of its own is there."""
    built = build(kind, tmp_path)
    home, app = tmp_path / "venv", tmp_path / "my app"
    scripts = new_environment(home, f"{built}[embedded]")
    app.mkdir()
    (app / "pyproject.toml").write_text(PYPROJECT)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SKINSPIRE", "PYTEST", "PG", "DEV_", "TEST_"))
    }

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [scripts / program, *arguments], cwd=app, env=clean, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout

    (app / "app_models.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase\n\n\nclass Base(DeclarativeBase):\n    pass\n"
    )
    try:
        assert "skinspire-db server.stop" not in run("skinspire-db", "db.setup")  # there is no tasks.py yet
        (app / "tasks.py").write_text(TASKS)
        assert "nothing to do" in run("invoke", "db.prepare")
        (app / "app_models.py").write_text(MODELS)
        written = json.loads(run("invoke", "migrate.new", "-m", "visits", "--json"))
        assert (app / written["file"]).is_relative_to(app / "migrations")
        assert "1 table" in run("invoke", "migrate.upgrade")
        run("invoke", "backup.create")
        assert list((app / "backups").iterdir()) and (app / ".skinspire").is_dir()
        run("invoke", "db.copy", "--source=dev", "--target=test")
        for environment in ("dev", "test"):
            run("invoke", "db.verify", f"--env={environment}")
            run("invoke", "db.drift", f"--env={environment}")
        assert "invoke" in (scripts / "invoke").name and "db.setup" in run("skinspire-db", "--list")
    finally:
        name = json.loads(run("invoke", "server.status", "--json"))["home"]
        run("invoke", "server.destroy", f"--confirm={Path(name).name}")
