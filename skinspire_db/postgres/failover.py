"""Several hosts in a URL: which of them are primaries now, and which was one before a standby was promoted."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from skinspire_db.config.server_pin import SYSTEM, Pin
from skinspire_db.errors import ConnectionFailed
from skinspire_db.postgres.target import Target, libpq_parameters

if TYPE_CHECKING:
    import psycopg

Address = dict[str, str]  # libpq's host, hostaddr and port of one server
PARTS = ("host", "hostaddr", "port")
LOOKED = 5.0  # seconds for which a look at all hosts is not repeated in this process
# The first eight digits of a WAL file's name are the timeline, which every promotion makes higher; a standby has none to ask.
TIMELINE = """
    SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
                THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END
"""
IDENTITY = "SELECT identity::pg_catalog.text FROM skinspire_tools.stamp"


@dataclass(frozen=True)
class Primary:
    """A server that takes writes. `system` is its system identifier; `identity`, the database's stamp, stands in where the
    role may not ask for it.
    """

    address: Address
    timeline: int
    system: int | None
    identity: str

    @property
    def shown(self) -> str:
        """The server as a person writes it."""
        return f"{self.address['host'] or self.address['hostaddr']}:{self.address['port'] or 5432}"

    def is_the_database_of(self, other: Primary) -> bool:
        """Whether both were one database once: where neither mark can be compared, they count as one."""
        if self.system is not None and other.system is not None:
            return self.system == other.system
        return not (self.identity and other.identity) or self.identity == other.identity


_seen: dict[str, tuple[float, list[Primary]]] = {}


def servers(target: Target) -> list[Address]:
    """The servers that the target's URL names."""
    parts = {key: str(target.parameters.get(key) or "").split(",") for key in PARTS}
    count = max(map(len, parts.values()))
    return [{key: values[number if len(values) > 1 else 0] for key, values in parts.items()} for number in range(count)]


def former(target: Target) -> list[Primary]:
    """The servers of the URL that take writes although another one was promoted in their place, oldest first.

    Args:
        target: the database; with one host, nothing is asked.

    Raises:
        ConnectionFailed: two of its servers are primaries of different databases.
    """
    every = servers(target)
    if len(every) < 2:
        return []
    key = f"{target.parameters.get('host')} {target.parameters.get('port')} {target.database} {target.user}"
    looked, there = _seen.get(key, (0.0, []))
    if not looked or time.monotonic() - looked > LOOKED:
        there = sorted((each for address in every if (each := _asked(target, address))), key=lambda each: each.timeline)
        _seen[key] = time.monotonic(), there
    for each in there:
        if not each.is_the_database_of(there[-1]):
            raise ConnectionFailed(
                f"{target.setting} names {each.shown} and {there[-1].shown}, which are not servers of one database",
                remedy=f"take the wrong one out of {target.setting}",
            )
    return [each for each in there if each.timeline < there[-1].timeline]


def refusal(target: Target, old: Primary) -> ConnectionFailed:
    """The error of a connection that came out on a former primary."""
    newest = _seen[next(key for key, (_, there) in _seen.items() if old in there)][1][-1]
    return ConnectionFailed(
        f"{old.shown} is a former primary of {target.database}: {newest.shown} was promoted in its place"
        f" (timeline {newest.timeline}, not {old.timeline}), and what is written to {old.shown} is lost",
        remedy=f"take {old.shown} out of {target.setting}, or make it a standby of {newest.shown} with pg_rewind",
    )


def require_newest(target: Target, info: psycopg.ConnectionInfo) -> None:
    """Refuse a connection that came out on a former primary.

    Args:
        target: the database.
        info: psycopg's, of the connection.

    Raises:
        ConnectionFailed: it did; with its name.
    """
    for old in former(target):
        if old.address["port"] in ("", str(info.port)) and info.host in (old.address["host"], old.address["hostaddr"]):
            raise refusal(target, old)


def without(target: Target, old: list[Primary]) -> Target:
    """The target without those servers."""
    kept = [each for each in servers(target) if each not in [former.address for former in old]]
    parts = {key: ",".join(each[key] for each in kept) for key in PARTS}
    found = {key: value for key, value in parts.items() if value.strip(",")}
    parameters = {key: value for key, value in target.parameters.items() if key not in PARTS}
    return replace(target, parameters=parameters | found) if old else target


def _asked(target: Target, address: Address) -> Primary | None:
    """The server, if it answers and takes writes."""
    import psycopg

    everywhere: dict[str, Any] = libpq_parameters(replace(target, pin=Pin()), "skinspire-db lookup")
    alone = {"connect_timeout": 2, "target_session_attrs": "any"}
    try:
        with psycopg.connect(**everywhere | address | alone, autocommit=True) as connection:
            row = connection.execute(TIMELINE.encode()).fetchone()
            if row is None or row[0] is None:
                return None
            system, identity = _mark(connection, f"SELECT {SYSTEM}"), _mark(connection, IDENTITY)
            return Primary(address, int(row[0], 16), system, identity or "")
    except psycopg.Error:
        return None


def _mark(connection: psycopg.Connection[Any], query: str) -> Any:
    import psycopg

    try:
        row = connection.execute(query.encode()).fetchone()
    except psycopg.Error:  # the role may not ask, or there is none
        return None
    return row[0] if row else None
