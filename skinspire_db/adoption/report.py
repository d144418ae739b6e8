"""The report on a database that may be adopted: what is there, in what it differs, what adopting does, what stays to do."""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote
from typing import TYPE_CHECKING

from skinspire_db.adoption import conditions, history, hospitals, inventory, references
from skinspire_db.adoption.subject import Section, Subject
from skinspire_db.catalog import objects
from skinspire_db.config.project import Project
from skinspire_db.errors import GuardRefused
from skinspire_db.lifecycle import stamp as stamps
from skinspire_db.lifecycle.pipeline import Step
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SECTIONS: dict[str, Section] = {
    "server": inventory.server,
    "tables": inventory.tables,
    "drift": inventory.differences,
    "triggers": inventory.triggers,
    "columns": conditions.columns,
    "rows": conditions.rows_in_the_way,
    "keys": conditions.keys,
    "sequences": references.sequences,
    "references": references.soft_references,
    "hospitals": hospitals.hospitals,
    "passwords": references.passwords,
}


def steps(subject_of: Callable[[Connection], Subject]) -> tuple[Step, ...]:
    """The sections of the report as steps of a look; the last one says that the database is not adopted yet.

    Args:
        subject_of: gives the subject for the connection of the look.
    """
    made: list[Subject] = []

    def bound(section: Section) -> Callable[[Connection], Summary]:
        def run(connection: Connection) -> Summary:
            if not made:
                made.append(subject_of(connection))
                refuse(connection, made[0].target, made[0].project)
            return section(made[0])

        return run

    def conclude(connection: Connection) -> Summary:
        target = made[0].target
        plan = history.beginning(connection, made[0].project)
        summary = Summary({"confirmation_needed": 1}, [f"adopting {each}" for each in (*plan.says, *WHAT)])
        summary.drift = f"{target} is not adopted: this is what adopting it would find"
        summary.remedy = f"invoke db.adopt --env={target.environment} --confirm={quote(target.database)}"
        return summary

    return (*(Step(name, bound(section)) for name, section in SECTIONS.items()), Step("adoption", conclude))


WHAT = (
    "takes a backup first and proves it by a restore",
    "writes the stamp, the journal and the ledger into the schema skinspire_tools, in one transaction",
    "changes no row, no object and no trigger of the owner's",
)


def refuse(connection: Connection, target: Target, project: Project) -> None:
    """Refuse a database with nothing to adopt, or one that is adopted.

    Args:
        connection: the database.
        target: where it is.
        project: whose revision files.

    Raises:
        GuardRefused: it is empty, another environment's, or this environment's and at a revision.
    """
    stamp = stamps.read(connection)
    stamps.refuse_foreign(stamp, target)
    if not objects.all_objects(connection):
        raise GuardRefused(
            f"{target} holds nothing: there is nothing to adopt", remedy=f"invoke db.setup --env={target.environment}"
        )
    if stamp and history.is_known(connection, project):
        raise GuardRefused(
            f"{target} is {target.environment}'s and at a revision: it is adopted", remedy="invoke db.drift --env={env}"
        )
