"""Scratch databases: made aside on the target's server, dropped again, and swept up after an operation that died."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from skinspire_db import connections
from skinspire_db.connections import Target
from skinspire_db.errors import PermissionMissing

if TYPE_CHECKING:
    from skinspire_db.connections import Connection

LONGEST = 63  # bytes of a name; PostgreSQL cuts what is longer, and two names could become one


@contextlib.contextmanager
def database(to: Target, operation: str) -> Iterator[Target]:
    """An empty database beside the target's, which is dropped at the end if it still has its name.

    As long as this process lives, an advisory lock says so; those of processes that died are dropped first. Raises
    PermissionMissing when the role may not create databases.
    """
    aside = dataclasses.replace(to, parameters=to.parameters | {"dbname": f"{_prefix(to)}{secrets.token_hex(4)}"})
    with contextlib.closing(connections.maintenance(to, operation)) as watch:
        connections.begin(watch, to.policy, brief=True)
        sweep(to, operation, watch)
        watch.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (aside.database,))
        try:
            connections.create_database(aside, operation)
        except PermissionMissing as error:
            error.remedy = f'ask the administrator for: ALTER ROLE "{to.user}" CREATEDB'
            raise
        try:
            yield aside
        finally:
            connections.drop_database(aside, operation)


def sweep(to: Target, operation: str, watch: Connection) -> list[str]:
    """Drop the scratch databases of this target whose operations died. Returns their names."""
    found = watch.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (_prefix(to),)).fetchall()
    swept = []
    for (name,) in found:
        if re.fullmatch(r"[0-9a-f]{8}", name.removeprefix(_prefix(to))) and _is_dead(watch, name):
            connections.drop_database(dataclasses.replace(to, parameters=to.parameters | {"dbname": name}), operation)
            swept.append(name)
    return swept


def _is_dead(watch: Connection, name: str) -> bool:
    return watch.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (name,)).fetchone() == (True,)


def _prefix(to: Target) -> str:
    return to.database.encode()[: LONGEST - 20].decode(errors="ignore") + "_scratch_"
