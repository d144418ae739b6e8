"""The databases of a test run: clones of the template, locked while their process lives, else dropped by a later run."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from skinspire_db.config import tenancy
from skinspire_db.config.environment import Environment
from skinspire_db.content.seeding import Options
from skinspire_db.errors import ConnectionFailed, GuardRefused, PermissionMissing, UsageError
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target, libpq_parameters, target_of
from skinspire_db.service import driver, test_override
from skinspire_db.testing import templates
from skinspire_db.testing.hosting import Host
from skinspire_db.testing.rows import Function, TemplateRows, apply

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection
    from skinspire_db.service.engines import Service

BASE = "skinspire_pytest"  # the name of the run's databases, before the ending of a scratch database
KEPT_PREFIX = "skinspire_kept_"


class Database:
    """A database of this run's own."""

    def __init__(self, host: Host, name: str) -> None:
        self.name = name
        self.environment: Environment = host.environment(name)
        self.target: Target = target_of(self.environment)
        self.ending = False  # the test has ended, and its sessions are being reset
        self._service: Service | None = None
        self._async_service: Service | None = None

    def service(self) -> Service:
        """Its engines, made when they are first asked for."""
        from sqlalchemy import event

        from skinspire_db.service import engines

        if self._service is None:
            self._service = service = engines.make(self.environment)
            if service.replica is not None:  # it is another database
                service.replica.dispose()
                service.replica = None

            @event.listens_for(service.engine, "checkout")
            def refuse_another_test(_: Any, __: Any, ___: Any) -> None:
                if not test_override.serves(service) and not self.ending:
                    raise UsageError("this engine is another test's", remedy="call get_db_engine() whenever it is needed")

        return self._service

    def async_service(self) -> Service:
        """Its engines for asyncio, made when they are first asked for."""
        from skinspire_db.service import async_engines

        if self._async_service is None:
            self._async_service = async_engines.make(self.environment)
        return self._async_service

    def close_async(self) -> None:
        """Close the connections of its engines for asyncio, whatever loop they were opened in."""
        if self._async_service is not None:
            self._async_service.close()
            self._async_service = None

    def connect(self) -> driver.Connection:
        """A connection in autocommit.

        Raises:
            GuardRefused: when the server leads to another database.
        """
        opened = driver.connect(**libpq_parameters(self.target, "skinspire-db test"), autocommit=True)
        if opened.info.dbname != self.name:
            opened.close()
            raise GuardRefused(f"the tests' server leads to {opened.info.dbname}, not {self.name}", remedy="correct its URL")
        return opened

    def close(self) -> None:
        """Close the connections of its engines."""
        self.close_async()
        if self._service is not None:
            self._service.close()
            self._service = None


class DatabaseMaker:
    """Makes the databases of one process. The advisory locks of its one connection say which of them are in use."""

    def __init__(self, host: Host, options: Options, rows: TemplateRows | None = None) -> None:
        """Find or make the template.

        Args:
            host: The server.
            options: How many people are seeded.
            rows: What adds the application's own rows to the template.

        Raises:
            SkinspireError: what connecting and db.setup raise.
        """
        self.host = host
        self.source = ""  # the database that clones are made of, in place of the template
        self.base = host.target(BASE)
        self.watch = self._reach()
        connections.autocommit(self.watch)
        try:
            self.template = templates.ensure(host, self.watch, options, rows or TemplateRows(), self._add_rows)
            scratch.sweep(self.base, "tests", self.watch)
            files = self.watch.execute("SELECT current_setting('fsync') = 'off'").fetchone() == (True,)
        except BaseException:
            self.watch.close()
            raise
        # Copying files needs two checkpoints, which cost nothing where nothing waits for the disk.
        self.strategy = "FILE_COPY" if files else "WAL_LOG"

    def _add_rows(self, name: str, function: Function) -> None:
        apply(Database(self.host, name), function)

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
        """A new database, seeded and stamped as the template is, with the rows of the run and the module."""
        return self.make(self.source or self.template.name, f"STRATEGY {self.strategy}")

    def empty(self) -> Database:
        """A new database with nothing in it."""
        return self.make("template0", "ENCODING 'UTF8'")

    def make(self, template: str, options: str) -> Database:
        """A new database.

        Args:
            template: The database that is copied.
            options: Further options of CREATE DATABASE.

        Raises:
            PermissionMissing: when the role may not create databases.
        """
        name = scratch.new_name(self.base).database
        self.watch.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
        try:
            create = sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} {options}")
            self.watch.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        except psycopg.errors.InsufficientPrivilege:
            raise PermissionMissing(
                f"role {self.base.user} may not create databases on {self.host.description}",
                remedy=f'ask the administrator for: ALTER ROLE "{self.base.user}" CREATEDB',
            ) from None
        return Database(self.host, name)

    def drop(self, database: Database) -> None:
        """Drop a database, and end the sessions that are connected to it."""
        database.close()
        self.watch.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name)))
        self._unlock(database.name)

    def keep(self, database: Database, name: str, test: str) -> None:
        """Keep a failed test's database under another name, so that the developer can look at it.

        Args:
            database: The test's.
            name: Its new name.
            test: The test's node id, which is noted on the database.
        """
        database.close()
        self.watch.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (database.name,)
        )
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        self.watch.execute(rename.format(sql.Identifier(database.name), sql.Identifier(name)))
        templates.describe(self.watch, name, project=str(self.host.project.root), test=test)
        self._unlock(database.name)

    def close(self) -> None:
        """Close the connection; the next run drops what was not dropped."""
        os.environ.pop(tenancy.ROLES_OF, None)
        with contextlib.suppress(psycopg.Error):
            self.watch.close()

    def _unlock(self, name: str) -> None:
        self.watch.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def kept_name(test: str) -> str:
    """A new name for the kept database of a failed test."""
    short_name = re.sub(r"\W+", "_", test.rpartition("::")[2]).strip("_").lower()[:30]
    return f"{KEPT_PREFIX}{short_name}_{secrets.token_hex(3)}"
