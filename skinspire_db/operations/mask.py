"""The operations of mask.*: the rules of masked copies, against a live schema."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.copies.masking import catalogue, draft, masking, plan, rules
from skinspire_db.copies.masking.catalogue import Column
from skinspire_db.copies.masking.plan import Plan
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle.pipeline import Look, Step
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.objects import versions, writing
from skinspire_db.objects.kinds import MASK
from skinspire_db.postgres.target import target_of

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

PREVIEWED = 10  # rows
LISTED = 500  # columns that a table shows: of thousands, first those that need a rule


def check(environment: Environment) -> Look:
    """Every column with its rule, or with the default that would serve; exit code 3 while a column has no rule.

    Args:
        environment: whose database is looked at.
    """

    def look(connection: Connection) -> Summary:
        made = _plan(connection, environment)
        columns = _of_the_application(made)
        bare = [column for column in columns if not made.masks[column.place].origin]
        shown: list[dict[str, object]] = [
            {
                "column": column.full,
                "type": column.declared,
                "mask": made.masks[column.place].name,
                "rule": made.masks[column.place].origin or "none",
            }
            for column in columns
        ]
        listed = shown if len(shown) <= LISTED else [each for each in shown if each["rule"] == "none"][:LISTED]
        summary = Summary(
            {"columns": len(columns), "without_a_rule": len(bare), "tables_dropped": len(made.rules.drop_rows)}, rows=listed
        )
        summary.data = {"columns": shown, "refusals": made.refusals}
        hidden = len(shown) - len(listed)
        summary.lines = made.refusals + [f"{counted(hidden, 'column')} more, which --json shows"] * bool(hidden)
        if made.refusals:
            summary.drift, summary.remedy = made.refusals[0], "correct the rules in sql/masks"
        elif bare:
            summary.drift = f"{counted(len(bare), 'column', 'have', 'has')} no rule: {bare[0].full}"
            summary.remedy = "invoke mask.new --env={env} writes rules for them, to be loosened"
        return summary

    return Look("mask.check", environment, (Step("rules", look),))


def preview(environment: Environment, table: str | None) -> Look:
    """Ten rows of a table, masked with a secret that is thrown away.

    Args:
        environment: whose database is looked at.
        table: the table's name, with its schema unless that is public.

    Raises:
        UsageError: no table is named.
    """
    if not table:
        raise UsageError(
            "mask.preview needs a table", remedy=f"invoke mask.preview --env={environment.name} --table=patients"
        )

    def look(connection: Connection) -> Summary:
        mask = masking.Masking(environment.project)
        made = mask.plan(connection, target_of(environment))
        rows = masking.preview(mask, target_of(environment), made, table.removeprefix("public."), PREVIEWED)
        return Summary(
            {"rows": len(rows)}, rows=rows, data={"rows": [{name: str(value) for name, value in row.items()} for row in rows]}
        )

    return Look("mask.preview", environment, (Step("rows", look),))


def new(environment: Environment, name: str | None) -> Look:
    """Write a first file of rules for the columns that have none, everything masked.

    Args:
        environment: whose database is looked at.
        name: the file's name in sql/masks; by default "rules", and rules_2 and so on where that is there.

    Raises:
        UsageError: the name is none for a file, or there is one of it.
    """
    project = environment.project
    there = versions.paths(project, (MASK,))
    free = next(
        each for number in itertools.count(1) if MASK.name_of(each := f"rules_{number}".removesuffix("_1")) not in there
    )
    file = writing.new_file(project, MASK, name or free)

    def look(connection: Connection) -> Summary:
        made = _plan(connection, environment)
        columns = [column for column in _of_the_application(made) if not made.masks[column.place].origin]
        if columns:
            versions.write_unlocked(
                file, draft.text(made, columns, f"what a masked copy of {environment.name} makes of each column")
            )
            lines = [str(file.path), f"loosen what is safe to keep, then: invoke {MASK.collection}.bump --name={file.name}"]
        else:
            lines = ["every column has a rule, and no file is written"]
        return Summary({"columns": len(columns)}, lines=lines, data={"file": str(file.path) if columns else None})

    return Look("mask.new", environment, (Step("rules", look),), writes=True)


def _plan(connection: Connection, environment: Environment) -> Plan:
    return plan.make(catalogue.read(connection), rules.read(environment.project))


def _of_the_application(made: Plan) -> list[Column]:
    """The columns that rules are for: not the tools' own, nor those of tables whose rows stay away."""
    return [
        column for column in made.catalogue.columns.values() if not column.tools and column.table_name not in made.dropped
    ]
