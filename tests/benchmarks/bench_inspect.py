"""`db.inspect` and `db.advise` of a database of 2,000 tables, the first beside psql asking for the same facts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .harness import CHECKOUT, Bench, Figure, bench, medians

TABLES = 2000
# One query a kind for the facts that db.inspect shows, or psql's own command where that is one; the last four are what the
# triggers' state is told from: what was installed, the live definitions, and the columns that say where a trigger belongs.
QUERIES = (
    r"\l+", r"\dv+", r"\df+", r"\ds", r"\dx", r"\du", r"\dp", "SELECT * FROM skinspire_tools.stamp", "SELECT * FROM alembic_version",
    """SELECT n.nspname, c.relname, c.relkind, c.reltuples, pg_size_pretty(pg_total_relation_size(c.oid)), pg_get_userbyid(relowner),
       (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
       (SELECT count(*) FROM pg_index WHERE indrelid = c.oid),
       (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f'),
       (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal), obj_description(c.oid, 'pg_class')
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE relkind IN ('r', 'p', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1, 2""",
    "SELECT * FROM skinspire_tools.ledger",
    "SELECT p.oid::regprocedure, md5(pg_get_functiondef(p.oid)) FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'",
    "SELECT tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    """SELECT c.oid::regclass, array_agg(attname ORDER BY attnum), array_agg(format_type(atttypid, NULL) ORDER BY attnum)
       FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
       WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace GROUP BY 1""",
)  # fmt: skip


def bench_inspect() -> list[Figure]:
    """The whole process of each, printing everything it found."""
    with bench() as project:
        fill(project)
        arguments = [part for query in QUERIES for part in ("-c", query)]
        ours, queries = medians(
            lambda: project.invoke("db.inspect"), lambda: project.psql("skinspire_dev", *arguments), rounds=9
        )
        drawn, described = medians(
            lambda: project.invoke("db.inspect", "--format=mermaid"),
            lambda: project.psql("skinspire_dev", "-c", r"\d+ public.*"),
            rounds=5,
        )
        advised, fixed = medians(lambda: project.invoke("db.advise"), lambda: 2.0, rounds=5)
        memory = _peak(project, "db.inspect")
    name = f"`db.inspect` of {TABLES:,} tables"
    return [
        Figure(name, ours, "psql, a catalogue query a kind", queries, 3),
        Figure(f"{name}, all columns and keys drawn", drawn, "psql `\\d+ public.*`", described, 3),
        Figure(f"`db.advise` of {TABLES:,} tables", advised, "a fixed two seconds", fixed, 1),
        Figure(f"{name}, memory", memory, "a fixed 200 MB", 200, 1, "MB"),
    ]


def fill(project: Bench) -> None:
    """A clinic, and tables enough: each with a key, an index, a foreign key, the audit columns and their triggers."""
    project.invoke("db.setup")
    with project.connect("skinspire_dev") as connection:
        for number in range(TABLES - 13):
            connection.execute(
                f"CREATE TABLE extra_{number} (id int PRIMARY KEY, hospital_id uuid REFERENCES hospitals, name text, amount numeric,"
                f" created_at timestamptz, updated_at timestamptz, created_by varchar(50), updated_by varchar(50));"
                f" CREATE INDEX ON extra_{number} (hospital_id)".encode()
            )
    project.invoke("triggers.install")
    with project.connect("skinspire_dev") as connection:
        connection.execute("VACUUM ANALYZE")


def _peak(project: Bench, task: str) -> float:
    """The highest resident set of the process, in MB."""
    command = [str(Path(sys.executable).with_name("invoke")), "-r", str(CHECKOUT), task]
    env = {name: value for name, value in project.env.items() if not name.startswith("PG")}
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=project.root, env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return int(done.stdout) / unit
