"""What was typed: commands in a row that would not go to one environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ON_A_DATABASE = ("db", "triggers", "migrate", "backup")  # collections whose --env says which database


def refuse_mixed_environments(tasks: Sequence[Any]) -> None:
    """Invoke gives a flag to the command before it only: `db.reset db.create --env=test` would reset the active one.

    Raises UsageError when some commands of a row name an environment, and others would go to another one.
    """
    from skinspire_db import environment
    from skinspire_db.errors import UsageError

    active, meant = None, []
    for task in tasks:
        given = getattr(task, "as_kwargs", {})
        if task.name == "env.switch" and given.get("env"):
            active = environment.resolve_name(given["env"])
        if "env" in given and (task.name.partition(".")[0] in ON_A_DATABASE or task.name == "env.stamp"):
            meant.append((task.name, given["env"] and environment.resolve_name(given["env"]), active))
    named = [name for _, name, _ in meant if name]
    if not named or len(named) == len(meant):
        return
    for task, name, switched in meant:
        if name is None and {switched or environment.resolve_active(None)} != set(named):
            raise UsageError(
                f"{task} has no --env, and --env={named[-1]} goes to the command before it only",
                remedy=f"give each command its own --env={named[-1]}",
            )
