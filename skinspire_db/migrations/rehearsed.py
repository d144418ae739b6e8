"""Which revisions were rehearsed, as the journal has it: a revision and the hash of its file as it was then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.migrations import running

if TYPE_CHECKING:
    from alembic.script import Script

    from skinspire_db.postgres.connections import Connection

OPERATION = "migrate.rehearse"
NOTED = "rehearsed"  # the key of the journal's step
FOUND = """
    SELECT EXISTS (SELECT FROM skinspire_tools.journal CROSS JOIN LATERAL jsonb_array_elements(steps) AS step
                   WHERE operation = %s AND step ->> %s = %s)
"""


def note(script: Script) -> dict[str, str]:
    """What the journal's step notes of a revision that is rehearsed."""
    return {NOTED: f"{script.revision} {running.digest(script)}"}


def advice(connection: Connection, script: Script) -> list[str]:
    """A sentence for a revision that was never rehearsed as its file is now; none for another one."""
    there = connection.execute("SELECT to_regclass('skinspire_tools.journal')").fetchone() != (None,)
    if there and connection.execute(FOUND, (OPERATION, NOTED, note(script)[NOTED])).fetchone() == (True,):
        return []
    return [f"{script.revision} was never rehearsed: invoke {OPERATION} shows what it locks and loses"]
