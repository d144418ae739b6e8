"""A run's databases: clones of the template, locked while their process lives, swept up when it died."""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from skinspire_db.clinic.seed import Options
from skinspire_db.config.environment import Environment
from skinspire_db.errors import ConnectionFailed, GuardRefused, PermissionMissing, UsageError
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, libpq_parameters, target_of
from skinspire_db.service import driver, test_override
from skinspire_db.testing import templates
from skinspire_db.testing.hosting import Host

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection
    from skinspire_db.service.engines import Service

BASE = "skinspire_pytest"  # what the run's databases are called, with the ending of a scratch database
KEPT_PREFIX = "skinspire_kept_"


class Database:
    """A database of this run's own."""

    def __init__(self, host: Host, name: str) -> None:
        self.name = name
        self.environment: Environment = host.environment(name)
        self.target: Target = target_of(self.environment)
        self.ending = False  # the test is over, and what it used is put right
        self._service: Service | None = None

    def service(self) -> Service:
        """Its engines, made when they are first asked for."""
        from sqlalchemy import event

        from skinspire_db.service import engines

        if self._service is None:
            self._service = made = engines.make(self.environment)
            if made.replica is not None:  # it is another database
                made.replica.dispose()
                made.replica = None

            @event.listens_for(made.engine, "checkout")
            def refuse_another_test(_: Any, __: Any, ___: Any) -> None:
                if not test_override.serves(made) and not self.ending:
                    raise UsageError("this engine is another test's", remedy="call get_db_engine() whenever it is needed")

        return self._service

    def connect(self) -> driver.Connection:
        """A connection in autocommit. Raises GuardRefused when it has come out anywhere else."""
        opened = driver.connect(**libpq_parameters(self.target, "skinspire-db test"), autocommit=True)
        if opened.info.dbname != self.name:
            opened.close()
            raise GuardRefused(f"the tests' server leads to {opened.info.dbname}, not {self.name}", remedy="correct its URL")
        return opened

    def close(self) -> None:
        """Close the connections of its engines."""
        if self._service is not None:
            self._service.close()
            self._service = None


class Workshop:
    """Makes the databases of one process. Holds one connection, and by its advisory locks what belongs to us."""

    def __init__(self, host: Host, options: Options) -> None:
        """Find or make the template. Raises what connecting and db.setup raise."""
        self.host = host
        self.base = host.target(BASE)
        self.watch = self._reach()
        connections.autocommit(self.watch)
        try:
            self.template = templates.ensure(host, self.watch, options)
            scratch.sweep(self.base, "tests", self.watch)
            files = self.watch.execute("SELECT current_setting('fsync') = 'off'").fetchone() == (True,)
        except BaseException:
            self.watch.close()
            raise
        # Copying files needs two checkpoints, which cost nothing where nothing waits for the disk.
        self.strategy = "FILE_COPY" if files else "WAL_LOG"

    def _reach(self) -> Connection:
        try:
            return connections.maintenance(self.base, "tests")
        except (PermissionMissing, ConnectionFailed) as error:
            if not isinstance(error.__cause__, psycopg.Error):
                raise
            reason = connections.explain(error.__cause__, self.base)
        reason.remedy = "start that server, or correct what tells the tests where it is"
        raise reason

    def clone(self) -> Database:
        """A new database, seeded and stamped as the template is."""
        return self.make(self.template.name, f"STRATEGY {self.strategy}")

    def empty(self) -> Database:
        """A new database with nothing in it."""
        return self.make("template0", "ENCODING 'UTF8'")

    def make(self, template: str, options: str) -> Database:
        """A copy of a template. Raises PermissionMissing when the role may not create databases."""
        name = scratch.new_name(self.base).database
        self.watch.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        try:
            create = sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} {options}")
            self.watch.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        except psycopg.errors.InsufficientPrivilege:
            raise PermissionMissing(
                f"role {self.base.user} may not create databases on {self.host.words}",
                remedy=f'ask the administrator for: ALTER ROLE "{self.base.user}" CREATEDB',
            ) from None
        return Database(self.host, name)

    def drop(self, database: Database) -> None:
        """Drop it, whoever is connected to it."""
        database.close()
        self.watch.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name)))
        self._unlock(database.name)

    def keep(self, database: Database, name: str, test: str) -> None:
        """Take it out of the run under another name, for somebody to look at."""
        database.close()
        self.watch.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (database.name,)
        )
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        self.watch.execute(rename.format(sql.Identifier(database.name), sql.Identifier(name)))
        templates.describe(self.watch, name, project=str(self.host.project.root), test=test)
        self._unlock(database.name)

    def close(self) -> None:
        """Let go of everything; what was not dropped the next run sweeps up."""
        with contextlib.suppress(psycopg.Error):
            self.watch.close()

    def _unlock(self, name: str) -> None:
        self.watch.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def kept_name(test: str) -> str:
    """What the kept database of a failed test is called."""
    word = re.sub(r"\W+", "_", test.rpartition("::")[2]).strip("_").lower()[:30]
    return f"{KEPT_PREFIX}{word}_{secrets.token_hex(3)}"
