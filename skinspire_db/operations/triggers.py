"""The operations of triggers.*: those of sql.* for trigger files alone, and switching triggers off and on."""

from __future__ import annotations

from functools import partial

from skinspire_db.config.environment import Environment
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.pipeline import Pipeline, Step
from skinspire_db.operations import sql

install = partial(sql.install, scope=sql.TRIGGERS)
status = partial(sql.status, scope=sql.TRIGGERS)
diff = partial(sql.diff, scope=sql.TRIGGERS)
verify = partial(sql.verify, scope=sql.TRIGGERS)


def switch(environment: Environment, name: str | None, *, enabled: bool) -> Pipeline:
    """Switch a file's triggers on or off, and record the wish.

    Args:
        environment: whose database is changed.
        name: the file.
        enabled: whether they fire from now on.
    """
    from skinspire_db.objects import attaching

    verb = "enable" if enabled else "disable"
    if name is None:
        raise UsageError(
            f"triggers.{verb} needs the name of a trigger file",
            remedy=f"choose one that invoke triggers.status --env={environment.name} lists",
        )
    danger = "" if enabled else f"switch off the triggers of {name} in {{}}"
    change, check = partial(attaching.switch, name=name, enabled=enabled), partial(attaching.refuse_uninstalled, name=name)
    return Pipeline(
        f"triggers.{verb}", environment, (Step(verb, change, check, destroys="", confirms=danger),), f" --name={name}"
    )
