"""The stamp: the row in a database that says which environment it is, and its identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.config import environment as environments
from skinspire_db.errors import GuardRefused
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import counted
from skinspire_db.postgres import side_by_side
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


GIVEN_UP = "env.unstamp"  # the operation by which an environment takes its own stamp off


@dataclass(frozen=True)
class Stamp:
    """Which environment a database says it is; `masked` says of a masked copy of which one, when made, and by which rules."""

    environment: str
    identity: str
    masked: str = ""


def read(connection: Connection) -> Stamp | None:
    """The database's stamp, None when it has none."""
    rows = tool_schema.read(connection, "SELECT * FROM skinspire_tools.stamp", ("stamp",))
    if not rows:
        return None
    [row] = rows  # the layout may be an earlier version's, without the columns about masking
    masked = f"{row['masked_from']}, made {row['masked_at'][:16]} by {row['masked_rules']}" if row.get("masked_from") else ""
    return Stamp(row["environment"], row["identity"], masked)


def write(connection: Connection, environment: str, *, renew: bool = False) -> None:
    """Stamp the database, with a new identity when it was another environment's, or with `renew`, when it is a copy.

    Raises:
        GuardRefused: for another, protected environment's stamp: it is never taken off here.
    """
    if stamp := read(connection):
        refuse_protected(stamp.environment, environment, "this database")
    tool_schema.ensure(connection)
    masked = None
    if renew:  # a copy of a masked database is masked, too
        masked = connection.execute(
            "DELETE FROM skinspire_tools.stamp RETURNING masked_from, masked_at, masked_rules"
        ).fetchone()
    connection.execute(
        """
        INSERT INTO skinspire_tools.stamp (environment, masked_from, masked_at, masked_rules) VALUES (%s, %s, %s, %s)
        ON CONFLICT (only_row) DO UPDATE SET (environment, identity, stamped_at, stamped_by)
            = (EXCLUDED.environment, EXCLUDED.identity, EXCLUDED.stamped_at, EXCLUDED.stamped_by)
        WHERE stamp.environment <> EXCLUDED.environment
        """,
        (environment, *(masked or (None, None, None))),
    )


def mark_masked(connection: Connection, environment: str, source: str, rules: dict[str, int]) -> None:
    """Stamp a masked copy, which has no stamp yet.

    Args:
        connection: to the copy.
        environment: whose the copy will be.
        source: the environment that it was copied from.
        rules: the files of rules and their versions.
    """
    tool_schema.ensure(connection)
    names = ", ".join(f"{name} {version}" for name, version in sorted(rules.items())) or "the defaults alone"
    connection.execute(
        "INSERT INTO skinspire_tools.stamp (environment, masked_from, masked_at, masked_rules) VALUES (%s, %s, now(), %s)",
        (environment, source, names),
    )


def identify(connection: Connection, target: Target) -> bool:
    """Make sure that this database is the environment's.

    Returns:
        Whether it holds tables, in a protected one anything at all.

    Raises:
        GuardRefused: for another environment's stamp, and for a database that has objects but no stamp.
    """
    asked: tuple[Callable[[Connection], Any], ...] = (read, partial(_is_filled, target))
    stamp, filled = side_by_side.run(connection, *asked)
    if stamp is None and (count := len(objects.all_objects(connection))):
        raise GuardRefused(
            f"{target} holds {counted(count, 'object')} and no stamp: it may belong to another environment",
            remedy=f"if it is {target.environment}'s: invoke env.stamp --env={target.environment}"
            f" --confirm={quote(target.database)}",
        )
    refuse_foreign(stamp, target)
    return bool(filled)


def _is_filled(target: Target, connection: Connection) -> bool:
    return bool(objects.all_objects(connection)) if target.policy.protected else objects.count_tables(connection) > 0


def refuse_foreign(stamp: Stamp | None, target: Target) -> None:
    """Look whether the stamp is the environment's.

    Raises:
        GuardRefused: it is another environment's.
    """
    if stamp and stamp.environment != target.environment:
        raise GuardRefused(
            f"{target} is stamped {stamp.environment}, not {target.environment}",
            remedy=f"correct the URL of {target.environment}, or use --env={stamp.environment}",
        )


def refuse_protected(former: str, wanted: str, database: str) -> None:
    """Look whether the database belongs to another environment that is protected.

    The remedy does not say how that environment gives it up: then the refusal would be the way to its patients' data.

    Raises:
        GuardRefused: it does.
    """
    if former != wanted and environments.is_protected(former):
        raise GuardRefused(
            f"{database} is {former}'s, which is protected: it is not made {wanted}'s",
            remedy=f"correct the URL of {wanted}, or use --env={former}",
        )


def last_owner(connection: Connection) -> str | None:
    """The environment of the last operation on a database without a stamp, None where it gave the database up itself."""
    if connection.execute("SELECT pg_catalog.to_regclass('skinspire_tools.journal')").fetchone() == (None,):
        return None
    row = connection.execute(
        "SELECT environment, operation FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1"
    ).fetchone()
    return row[0] if row and row[1] != GIVEN_UP else None
