"""The operation of scale.*: would this schema distribute over several servers by hospital."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.catalog import objects, tenant_tables
from skinspire_db.config.environment import Environment
from skinspire_db.inspection import scale
from skinspire_db.lifecycle.pipeline import Look, Step
from skinspire_db.lifecycle.result import Summary, counted

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

NUMBERS = {"distributed": "distributed", "reference": "reference", "local": "local", "NOT POSSIBLE": "not_possible"}


def check(environment: Environment) -> Look:
    """What becomes of each table on Citus, distributed by hospital_id; exit code 3 while one is not possible.

    Args:
        environment: whose database is looked at.
    """

    def look(connection: Connection) -> Summary:
        found = scale.judge(tenant_tables.read(connection))
        wrong = [each for each in found if each.verdict == "NOT POSSIBLE"]
        summary = Summary(
            {name: sum(each.verdict == verdict for each in found) for verdict, name in NUMBERS.items()},
            rows=[{"table": each.table, "becomes": each.verdict, "why": "; ".join(each.reasons)} for each in found],
            data={"tables": [each.as_dict() for each in found]},
        )
        if left_out := [name for _, name in objects.version_tables(connection)]:
            summary.lines = [f"left out: {', '.join(left_out)}, the table of revisions"]
        if wrong:
            summary.lines += [f"{each.table}: {remedy}" for each in wrong for remedy in each.remedies]
            first = wrong[0]
            summary.drift = f"{counted(len(wrong), 'table')} cannot be distributed: {first.table}: {first.reasons[0]}"
            summary.remedy = first.remedies[0]
        return summary

    return Look("scale.check", environment, (Step("scale", look),))
