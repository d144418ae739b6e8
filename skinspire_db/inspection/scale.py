"""What becomes of each table when a schema is distributed by hospital_id on Citus (row-based): a cluster's rules.

The rules are those of create_distributed_table and create_reference_table of Citus 13. A table of one hospital's rows is
distributed. A table whose hospital_id may be NULL, or that has none, is a reference table, which every node has as a whole.
What can be neither stays local, on the coordinator, where no distributed table refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from skinspire_db.catalog.tenant_tables import TENANT, ForeignKey, Key, TenantTable

Verdict = Literal["distributed", "reference", "local", "NOT POSSIBLE"]
NO_ACTION, SETS = "ar", "nd"
WORDS = {"n": "SET NULL", "d": "SET DEFAULT", "c": "CASCADE"}
TRIGGERS = "SET citus.enable_unsafe_triggers TO on;"


@dataclass(frozen=True)
class Judgement:
    """What becomes of a table on a cluster.

    Attributes:
        table: Its name, quoted where PostgreSQL quotes it.
        verdict: What it becomes.
        reasons: Why it is not possible, or why it is not distributed.
        remedies: What to do about each reason; empty where nothing is to be done.
        statements: What makes it so on the coordinator, in this order; empty for a local table and for what is not possible.
    """

    table: str
    verdict: Verdict
    reasons: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The judgement as `--json` shows it."""
        return {
            "table": self.table, "verdict": self.verdict, "reason": "; ".join(self.reasons) or None,
            "remedy": "; ".join(self.remedies) or None, "statements": self.statements,
        }  # fmt: skip


def judge(tables: dict[int, TenantTable]) -> list[Judgement]:
    """What becomes of each table.

    Args:
        tables: As `tenant_tables.read` gives them.

    Returns:
        A judgement for each, in the order of their names.
    """
    wanted = {oid: _wanted(table) for oid, table in tables.items()}
    while everywhere := _hospitals_everywhere(tables, wanted):
        wanted |= dict.fromkeys(everywhere, "reference")
    return [_judged(table, tables, wanted) for table in tables.values()]


def _wanted(table: TenantTable) -> Verdict:
    """What the table becomes where nothing is in the way."""
    if table.has_tenant and table.required:
        return "distributed"
    return "local" if any(_never_reference(table)) else "reference"


def _hospitals_everywhere(tables: dict[int, TenantTable], wanted: dict[int, Verdict]) -> list[int]:
    """The tables with a row for each hospital that every node needs: other keys, or what has no hospital refers to them."""
    referring = {key.target for oid, table in tables.items() for key in table.foreign_keys if wanted[oid] != "distributed"}
    return [
        oid
        for oid, table in tables.items()
        if wanted[oid] == "distributed" and table.of_hospitals
        and (oid in referring or any(each for key in table.keys for each in _of_key(table, key)))
    ]  # fmt: skip


def _never_reference(table: TenantTable) -> Iterator[str]:
    """What keeps a table without a required hospital_id on the coordinator."""
    if table.kind == "f":
        yield "a foreign table"
    if table.kind == "p":
        yield "a partitioned table cannot be a reference table"
    if table.inherits:
        yield "a table with inheritance"


def _judged(table: TenantTable, tables: dict[int, TenantTable], wanted: dict[int, Verdict]) -> Judgement:
    verdict = wanted[table.oid]
    wrong = [*_of_any(table, verdict)]
    if verdict == "distributed":
        wrong += _of_column(table)
        wrong += (each for key in table.keys for each in _of_key(table, key))
    wrong += (each for key in table.foreign_keys for each in _of_foreign_key(table, key, tables, wanted))
    if wrong:
        reasons, remedies = zip(*wrong, strict=True)
        return Judgement(table.name, "NOT POSSIBLE", list(reasons), list(dict.fromkeys(remedies)))
    return Judgement(table.name, verdict, list(_why(table, verdict)), [], _statements(table, verdict))


def _why(table: TenantTable, verdict: Verdict) -> Iterator[str]:
    if verdict == "local":
        yield from _never_reference(table)
    elif verdict == "reference":
        if table.of_hospitals:
            yield "a row for each hospital"
        else:
            yield f"{TENANT} may be NULL" if table.has_tenant else f"no {TENANT}"


def _statements(table: TenantTable, verdict: Verdict) -> list[str]:
    if verdict == "local":
        return []
    literal = "'" + table.name.replace("'", "''") + "'"
    found = [TRIGGERS] if table.triggers else []
    if verdict == "reference":
        return [*found, f"SELECT create_reference_table({literal});"]
    primary = table.primary
    if primary and TENANT not in primary.columns:
        columns = ", ".join(map(_quoted, (TENANT, *primary.columns)))
        drop = f"DROP CONSTRAINT {_quoted(primary.constraint)}"
        found.append(
            f"ALTER TABLE {table.name} {drop}, ADD CONSTRAINT {_quoted(primary.constraint)} PRIMARY KEY ({columns});"
        )
    return [*found, f"SELECT create_distributed_table({literal}, '{TENANT}');"]


def _of_any(table: TenantTable, verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What a cluster refuses of any table that it manages."""
    if verdict == "local":
        return
    if table.kind == "f":
        yield "a foreign table cannot be distributed", f"move the rows of {table.name} into a table of this database"
    if table.inherits:
        yield (
            "a table with inheritance cannot be distributed",
            f"ALTER TABLE ... NO INHERIT ..., or make {table.name} a partitioned table",
        )
    if table.extension_trigger:
        trigger = _quoted(table.extension_trigger)
        yield (
            f"trigger {table.extension_trigger} depends on an extension",
            f"ALTER TRIGGER {trigger} ON {table.name} NO DEPENDS ON EXTENSION ...",
        )
    if table.subquery_policy:
        yield (
            f"policy {table.subquery_policy} has a subquery",
            f"write policy {table.subquery_policy} on {table.name} without a SELECT, such as with current_setting()",
        )


def _of_column(table: TenantTable) -> Iterator[tuple[str, str]]:
    """What a cluster refuses of the column that rows are distributed by, and of the partitions."""
    plain = f"make {TENANT} of {table.name} a plain column of type uuid"
    if table.generated:
        yield f"{TENANT} is a generated column", plain
    if not table.hashed:
        yield f"{TENANT} is of type {table.type}, which has no hash function", plain
    if not table.deterministic:
        yield f"{TENANT} has a collation that is not deterministic", plain
    if table.nested_partitions:
        yield "its partitions are partitioned", f"keep one level of partitions in {table.name}"


def _of_key(table: TenantTable, key: Key) -> Iterator[tuple[str, str]]:
    """A unique key holds within a shard, and so must have hospital_id; a primary key can be exchanged for one that has it."""
    if TENANT in key.columns or (key.primary and table.within_tenant(key)):
        return
    columns = ", ".join(_quoted(each) or "..." for each in (TENANT, *key.columns))
    if key.exclusion:
        remedy = f"add {TENANT} WITH = to {key.name} of {table.name}"
        yield f"exclusion constraint {key.name} does not compare {TENANT} for equality", remedy
    elif key.primary:
        remedy = f"ALTER TABLE {table.name} ADD UNIQUE ({columns})"
        yield f"the primary key has no {TENANT}, and no unique key ({columns}) can replace it", remedy
    else:
        drop = (
            f"ALTER TABLE {table.name} DROP CONSTRAINT {_quoted(key.constraint)}"
            if key.constraint
            else f"DROP INDEX {key.name}"
        )
        remedy = f"{drop}; a unique key over ({columns}) in its place"
        yield f"unique {'constraint' if key.constraint else 'index'} {key.name} has no {TENANT}", remedy


def _of_foreign_key(
    table: TenantTable, key: ForeignKey, tables: dict[int, TenantTable], wanted: dict[int, Verdict]
) -> Iterator[tuple[str, str]]:
    own, other, target = wanted[table.oid], wanted[key.target], tables[key.target]
    drop = f"ALTER TABLE {table.name} DROP CONSTRAINT {_quoted(key.name)}"
    if own == "local" and other == "local":
        return
    if key.resets_sequence:
        yield f"foreign key {key.name} has SET DEFAULT to a sequence", f"{drop}, and add it without SET DEFAULT"
    if own != "distributed":
        if other == "distributed":
            yield f"foreign key {key.name} leads to the distributed table {target.name}", _give_tenant(table, drop)
        elif own == "reference" and other == "local" and not set(key.on_delete + key.on_update) <= set(NO_ACTION):
            remedy = f"{drop}, and add it without {_actions(key)}"
            yield f"foreign key {key.name} leads with {_actions(key)} to the local table {target.name}", remedy
        return
    if other == "local":
        yield (
            f"foreign key {key.name} leads to {target.name}, which stays local",
            f"{drop}, or make {target.name} a plain table",
        )
    if TENANT in key.columns and (key.on_delete in SETS or key.on_update in SETS + "c"):
        yield f"foreign key {key.name} over {TENANT} has {_actions(key)}", f"{drop}, and add it without {_actions(key)}"
    if other == "distributed":
        if not key.over_tenant:
            columns = ", ".join(map(_quoted, (TENANT, *(each for each in key.columns if each != TENANT))))
            targets = ", ".join(map(_quoted, (TENANT, *(each for each in key.target_columns if each != TENANT))))
            remedy = f"{drop}, ADD FOREIGN KEY ({columns}) REFERENCES {target.name} ({targets})"
            yield f"foreign key {key.name} to {target.name} does not compare {TENANT} with {TENANT}", remedy
        elif table.type != target.type:
            remedy = f"ALTER TABLE {table.name} ALTER COLUMN {TENANT} TYPE {target.type}"
            yield f"{TENANT} is of type {table.type}, and of type {target.type} in {target.name}", remedy


def _give_tenant(table: TenantTable, drop: str) -> str:
    if table.has_tenant:
        return f"ALTER TABLE {table.name} ALTER COLUMN {TENANT} SET NOT NULL, or {drop}"
    return f"add {TENANT} NOT NULL to {table.name} and to its keys, or {drop}"


def _actions(key: ForeignKey) -> str:
    said = [f"ON DELETE {WORDS[key.on_delete]}"] if key.on_delete in WORDS else []
    return " ".join([*said, *([f"ON UPDATE {WORDS[key.on_update]}"] if key.on_update in WORDS else [])])


def _quoted(name: str) -> str:
    from psycopg import sql

    return name if not name or (name.isidentifier() and name == name.lower()) else sql.Identifier(name).as_string()
