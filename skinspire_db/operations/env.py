"""The operations of env.* that concern a database: its stamp, put on and taken off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.config.environment import Environment
from skinspire_db.lifecycle import stamp as stamps
from skinspire_db.lifecycle.pipeline import Adoption, Pipeline, Step
from skinspire_db.lifecycle.result import Summary

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def stamp(environment: Environment) -> Adoption:
    """Stamp the database as this environment's."""

    def write(connection: Connection) -> Summary:
        before = stamps.read(connection)
        held = 0 if before else len(objects.all_objects(connection))
        stamps.write(connection, environment.name)
        numbers: dict[str, int | str] = {"stamp": environment.name, "before": before.environment if before else "none"}
        return Summary(numbers | ({"objects_held": held} if held else {}))

    return Adoption("env.stamp", environment, (Step("stamp", write, destroys=""),))


def unstamp(environment: Environment) -> Pipeline:
    """Take this environment's stamp off its database. From then on another environment can adopt it."""

    def take_off(connection: Connection) -> Summary:
        connection.execute("DELETE FROM skinspire_tools.stamp")
        lines = [f"it is not {environment.name}'s any more: the tools leave it alone until an environment adopts it"]
        return Summary({"stamps_taken_off": 1}, lines=lines)

    gives_up = (
        f"take {environment.name}'s stamp off {{}}, and its protection: who adopts it may then copy and reset what it holds"
    )
    return Pipeline(stamps.GIVEN_UP, environment, (Step("unstamp", take_off, destroys="", confirms=gives_up),))
