"""What looking for pending revisions and drift costs beside Alembic's own commands on the same database."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skinspire_db.config.content import CORE_MIGRATIONS

from .harness import CHECKOUT, Bench, Figure, bench, medians, timed

MODELS = """
from large_schema import build

metadata = build()
"""
ALEMBIC = """
[alembic]
script_location = {root}/alembic
version_locations = {core}/versions
path_separator = os
"""
ENV = """
from alembic import context
from sqlalchemy import MetaData, create_engine, pool

from large_app import metadata
from skinspire_db.clinic.models import Base

together = MetaData()
for each in (Base.metadata, metadata):
    for table in each.tables.values():
        table.to_metadata(together)
with create_engine({url!r}, poolclass=pool.NullPool).connect() as connection:
    context.configure(connection=connection, target_metadata=together, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()
"""


@contextmanager
def application() -> Iterator[tuple[Bench, list[str], dict[str, str]]]:
    """150 tables beside the core's, set up, and an Alembic environment for them; its command and surroundings."""
    with bench() as project:
        (project.root / "pyproject.toml").write_text(
            '[tool.skinspire_db]\nmetadata = ["skinspire_db.clinic.models:Base", "large_app:metadata"]\n'
        )
        (project.root / "large_app.py").write_text(f"import sys\n\nsys.path.append({str(CHECKOUT / 'tests')!r})\n{MODELS}")
        project.invoke("sql.new", "--view=overview")
        project.invoke("sql.bump", "--name=overview")
        project.invoke("db.setup")
        address = project.server.start()
        url = f"postgresql+psycopg://{address.user}:{address.password}@{address.host}:{address.port}/skinspire_dev"
        (project.root / "alembic").mkdir()
        (project.root / "alembic" / "env.py").write_text(ENV.format(url=url))
        (project.root / "alembic.ini").write_text(ALEMBIC.format(root=project.root, core=CORE_MIGRATIONS))
        command = str(Path(sys.executable).with_name("alembic"))
        yield project, [command, "-c", str(project.root / "alembic.ini")], project.env | {"PYTHONPATH": str(project.root)}


def bench_looking() -> list[Figure]:
    """`db.prepare` with nothing to do beside `alembic current`, and `db.drift` on 150 tables beside `alembic check`."""
    with application() as (project, alembic, env):

        def check() -> float:
            started = time.perf_counter()
            done = subprocess.run([*alembic, "check"], env=env, capture_output=True, text=True)
            # It takes some spellings of the same for differences, and then ends with an error: it has compared all the same.
            assert "upgrade operations detected" in done.stdout + done.stderr, done.stderr
            return time.perf_counter() - started

        prepare, current = medians(
            lambda: project.invoke("db.prepare"), lambda: timed(*alembic, "current", env=env), rounds=11
        )
        drift, compared = medians(lambda: project.invoke("db.drift"), check, rounds=7)
    return [
        Figure("db.prepare, nothing to do", prepare, "alembic current", current, 1.5),
        Figure("db.drift, 150 tables", drift, "alembic check", compared, 1.5),
    ]
