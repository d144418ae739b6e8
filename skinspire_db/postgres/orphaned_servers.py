"""The embedded servers whose checkouts are gone: which they are, and deleting them."""

from __future__ import annotations

from skinspire_db.errors import GuardRefused
from skinspire_db.postgres.data_folders import Abandoned, abandoned, forget
from skinspire_db.postgres.embedded_server import EmbeddedServer


def orphans(confirm: str | None) -> list[Abandoned]:
    """The servers whose checkouts are gone, to be deleted; changes nothing.

    Args:
        confirm: the names of their folders, with commas between; of some of them for these only.

    Raises:
        GuardRefused: there are none, `confirm` does not name them, or one of them is in use.
    """
    gone = {server.home.name: server for server in abandoned() if server.state == "gone"}
    if not gone:
        raise GuardRefused("there is no server whose checkout is gone", remedy="invoke server.status")
    named = [name.strip() for name in (confirm or "").split(",") if name.strip()]
    if others := sorted(set(named) - gone.keys()):
        raise GuardRefused(f"{others[0]} is no server whose checkout is gone", remedy="invoke server.status")
    if not named:
        listed = ", ".join(f"{server.home} (of {server.checkout})" for server in gone.values())
        remedy = f"invoke server.destroy --orphans --confirm={','.join(gone)}"
        raise GuardRefused(f"this deletes every database in {listed}", remedy=remedy)
    chosen = [gone[name] for name in dict.fromkeys(named)]
    for server in chosen:
        if users := EmbeddedServer(server.home).users():
            raise GuardRefused(f"the server in {server.home} is in use: {users}", remedy="end that, and run it again")
    return chosen


def destroy(confirm: str | None) -> list[Abandoned]:
    """Delete what orphans() gives, with all databases.

    Returns:
        What was deleted.

    Raises:
        ServerFailed: something cannot be deleted.
        SkinspireError: what orphans() raises.
    """
    chosen = orphans(confirm)
    for server in chosen:
        EmbeddedServer(server.home).destroy()
    forget()
    return chosen
