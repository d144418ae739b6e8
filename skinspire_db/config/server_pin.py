"""The one server that an operation is on: where its first connection led, which every further one must prove."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.errors import ConnectionFailed

if TYPE_CHECKING:
    import psycopg

# Every name is qualified: the search path of the role or the database may lead to functions of others.
IDENTITY = """
    BEGIN; SET LOCAL statement_timeout = 0;
    SELECT {system}, pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()),
           pg_catalog.inet_server_addr(), pg_catalog.inet_server_port(),
           oid, datname, pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()
    FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
    COMMIT; BEGIN;
"""
# What prove() does, for psql: a name says what follows, and a rounded start is near enough.
PROOF = """
DO $proof$
DECLARE
    system pg_catalog.int8;
    near pg_catalog.bool;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    BEGIN
        system := (SELECT system_identifier FROM pg_control_system());
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    near := abs(date_part('epoch', pg_postmaster_start_time()) - {started}) < 0.001 OR coalesce(system = {system}, false)
        AND ({moves} OR (inet_server_addr(), inet_server_port()) IS NOT DISTINCT FROM ({address}::inet, {port}::int));
    IF system <> {system} OR NOT near THEN
        RAISE EXCEPTION '% {elsewhere}', current_database();
    ELSIF {oid} <> (SELECT oid FROM pg_database WHERE datname = current_database()) THEN
        RAISE EXCEPTION 'another database is called % now than when this operation began', current_database();
    END IF;
END
$proof$"""
ELSEWHERE = "was reached on another server than the one that this operation began on"
REMEDY = "run it again; if that repeats, name one server's own address in the URL"
SYSTEM = "(SELECT system_identifier FROM pg_catalog.pg_control_system())"


@dataclass(frozen=True)
class Server:
    """What tells one server from all others. `system` is None where the role may not ask for it."""

    system: int | None
    started: float
    address: tuple[Any, int | None]

    def is_the_same(self, other: Server) -> bool:
        """A standby and a restored copy have the primary's system identifier; a restarted server has another start."""
        if self.system is not None and other.system is not None and self.system != other.system:
            return False
        return self.started == other.started or (self.address == other.address and self.system == other.system is not None)


@dataclass
class Pin:
    """One server, shared by all targets of an environment; empty until the first connection.

    Args:
        address: libpq's host, hostaddr and port of the server, which every further connection and program is given.
        server: What proves it.
        databases: The oid of each database that was connected to, by its name.
        pooled: Whether a pooler is in between: PostgreSQL's process is not the one that the connection was told of.
        standby: Whether the server only replays what a primary does.
        version: The server's, as libpq has it; 0 before the first connection.
    """

    address: dict[str, str] = field(default_factory=dict)
    server: Server | None = None
    databases: dict[str, int] = field(default_factory=dict)
    pooled: bool = False
    standby: bool = False
    version: int = 0
    depth: int = 0

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """All connections in the block are to one server. A block inside another one belongs to that."""
        if self.depth == 0:
            self.address, self.server, self.databases, self.pooled, self.standby = {}, None, {}, False, False
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def prove(self, connection: psycopg.Connection[Any], *, moves: bool, then: str) -> None:
        """Take the server of the first connection, and compare every further one with it.

        Args:
            connection: An open one in autocommit, outside a transaction; it is in one afterwards, and not in autocommit.
            then: The statements that the transaction begins with.
            moves: The embedded server may get another port when it is restarted: its address proves nothing.

        Raises:
            ConnectionFailed: It is another server, or another database has that name now.
        """
        found, oid, database, pid, standby = _identity(connection, then)
        if self.server is None:
            info = connection.info
            self.server, self.standby, self.version = found, standby, info.server_version
            if not moves:
                self.address = {"host": info.host, "hostaddr": info.hostaddr, "port": str(info.port)}
        elif not (found.is_the_same(self.server) or (moves and found.system == self.server.system)):
            raise ConnectionFailed(
                f"{database} {ELSEWHERE}",
                remedy=REMEDY,
            )
        self.pooled = self.pooled or pid != connection.info.backend_pid
        if self.databases.setdefault(database, oid) != oid:
            raise ConnectionFailed(
                f"another database is called {database} now than when this operation began",
                remedy="look who replaced it, and run it again",
            )

    def proof(self, database: str, *, moves: bool) -> str:
        """As prove(), for psql: a statement that fails where it is run elsewhere; empty before the first connection.

        pg_dump proves it by the snapshot that it is given, and pg_restore by its database's name, both of which this
        operation has made, and no other server has.
        """
        from psycopg import sql

        if self.server is None:
            return ""
        address, port = self.server.address
        values = {
            "started": self.server.started, "system": self.server.system, "oid": self.databases.get(database),
            "address": str(address) if address else None, "port": port, "moves": moves,
        }  # fmt: skip
        return PROOF.format(elsewhere=ELSEWHERE, **{name: sql.Literal(value).as_string() for name, value in values.items()})


def _identity(connection: psycopg.Connection[Any], then: str) -> tuple[Server, int, str, int, bool]:
    import psycopg

    try:
        cursor = connection.execute(f"{IDENTITY.format(system=SYSTEM)}{then}".encode())
    except psycopg.errors.InsufficientPrivilege:
        cursor = connection.execute(f"ROLLBACK; {IDENTITY.format(system='NULL')}{then}".encode())
    connection._autocommit = False  # the property refuses it in a transaction, whose BEGIN came with the question
    while cursor.description is None:
        cursor.nextset()
    row = cursor.fetchone()
    assert row
    system, started, address, port, oid, database, pid, standby = row
    return Server(system, started, (address, port)), oid, database, pid, standby
