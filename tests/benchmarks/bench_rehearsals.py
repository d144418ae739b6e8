"""What a rehearsal predicts beside the real run on the same rows, and what it costs beside a copy and the migrations themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .harness import CHECKOUT, Bench, Figure, bench

ROWS = 2_000_000
REVISION = """
from alembic import op
revision = {name!r}
down_revision = {after!r}
def upgrade():
    op.execute({up!r})
def downgrade():
    op.execute({down!r})
"""
UP = """
ALTER TABLE visits ALTER person TYPE bigint; ALTER TABLE visits ALTER note SET NOT NULL;
CREATE INDEX ix_visits_person ON visits (person); ALTER TABLE visits ADD CHECK (person > 0);
UPDATE visits SET note = 'x' WHERE id % 10 = 0
"""
DOWN = """
DROP INDEX ix_visits_person; ALTER TABLE visits DROP CONSTRAINT visits_person_check, ALTER note DROP NOT NULL;
ALTER TABLE visits ALTER person TYPE int
"""


def told(project: Bench, *arguments: str) -> tuple[dict[str, Any], float]:
    """What a command answers with --json, whatever its exit code, and its seconds."""
    command = [str(Path(sys.executable).with_name("invoke")), "-r", str(CHECKOUT), *arguments, "--json"]
    env = {name: value for name, value in project.env.items() if not name.startswith("PG")}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer, seconds


def bench_two_million_rows() -> list[Figure]:
    """A revision with two rewrites, an index and an update on a table of two million rows."""
    with bench() as project:
        (project.root / "pyproject.toml").write_text(
            '[tool.skinspire_db]\nmetadata = ["shop:metadata"]\nmigrations = "migrations"\nreference = []\nsql = []\n'
        )
        (project.root / "shop.py").write_text("from sqlalchemy import MetaData\nmetadata = MetaData()\n")
        versions = project.root / "migrations" / "versions"
        versions.mkdir(parents=True)
        with project.connect("postgres") as connection:
            connection.execute("CREATE DATABASE skinspire_dev")
        table = "CREATE TABLE visits (id int PRIMARY KEY, person int, note text);"
        rows = f" INSERT INTO visits SELECT n, n % 1000 + 1, repeat('y', 60) FROM generate_series(1, {ROWS}) AS n"
        first = REVISION.format(name="first", after=None, up=table + rows, down="DROP TABLE visits")
        (versions / "first.py").write_text(first)
        project.invoke("migrate.upgrade")
        (versions / "second.py").write_text(REVISION.format(name="second", after="first", up=UP, down=DOWN))
        answer, whole = told(project, "migrate.rehearse", "--from=copy", "--longest-lock=1000")
        predicted = answer["rehearsal"]["revisions"][0]["seconds"]
        _, copied = told(project, "db.copy", "--source=dev", "--target=test")
        upgraded, up = told(project, "migrate.upgrade")
        _, down = told(project, "migrate.downgrade")
        _, again = told(project, "migrate.upgrade")
    real = sum(step["seconds"] for step in upgraded["steps"])
    return [
        Figure(
            "migrate.rehearse: the seconds of a revision", max(predicted, real), "migrate.upgrade", min(predicted, real), 1.3
        ),
        Figure("migrate.rehearse", whole, "db.copy, upgrade, downgrade, upgrade", copied + up + down + again, 1.2),
    ]
