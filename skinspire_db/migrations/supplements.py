"""What Alembic's comparison does not see or says wrongly: checks, enums, predicates of indexes, and changed identities.

Both sides are in PostgreSQL's own words, so the statements are too, and the way back is the same with the sides swapped.
"""

from __future__ import annotations

import contextlib
import graphlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.catalogue import Snapshot

IDENTITY = "as identity"


@dataclass
class Supplements:
    """SQL that is run `before` and `after` Alembic's own operations; `indexes` are made anew unless Alembic does it."""

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    indexes: dict[str, list[str]] = field(default_factory=dict)


def find(live: Snapshot, wanted: Snapshot) -> tuple[Supplements, Supplements]:
    """What leads from the live database to the wanted one, and back."""
    return _lead(live, wanted), _lead(wanted, live)


def add(script: Any, found: tuple[Supplements, Supplements], alembics: set[str], live: Snapshot) -> None:
    """Put the supplements around the operations of Alembic's revision script; `alembics` are the indexes it makes itself."""
    from alembic.operations.ops import ExecuteSQLOp
    from sqlalchemy import Identity

    for operation in _alterations(script.upgrade_ops.ops):
        # It would add an identity to a column that has one.
        if isinstance(operation.modify_server_default, Identity) and isinstance(operation.existing_server_default, Identity):
            operation.modify_server_default = False
    _foreign_keys_first(script)
    _referring_tables_first(script, live)
    script.upgrade_ops.reverse_into(script.downgrade_ops)
    for supplement, operations in zip(found, (script.upgrade_ops.ops, script.downgrade_ops.ops), strict=True):
        for name, statements in supplement.indexes.items():
            if name not in alembics:
                supplement.after += statements
        operations[:0] = [ExecuteSQLOp(each) for each in supplement.before]
        operations += [ExecuteSQLOp(each) for each in supplement.after]


def _alterations(operations: list[Any]) -> Iterator[Any]:
    for operation in operations:
        if type(operation).__name__ == "AlterColumnOp":
            yield operation
        yield from _alterations(getattr(operation, "ops", []))


def _foreign_keys_first(script: Any) -> None:
    """Alembic drops tables before the foreign keys of those that stay; the way back is the reverse of the way there."""
    operations = script.upgrade_ops.ops
    dropped = []
    for group in operations:
        for operation in list(getattr(group, "ops", [])):
            if type(operation).__name__ == "DropConstraintOp" and operation.constraint_type == "foreignkey":
                group.ops.remove(operation)
                dropped.append(operation)
    script.upgrade_ops.ops[:] = [*dropped, *(each for each in operations if getattr(each, "ops", True))]


def _referring_tables_first(script: Any, live: Snapshot) -> None:
    """Alembic drops tables in no order; the way back makes them in the reverse of this one."""
    operations = script.upgrade_ops.ops
    drops = {
        f"{each.schema or 'public'}.{each.table_name}": each for each in operations if type(each).__name__ == "DropTableOp"
    }
    referring: dict[str, set[str]] = {table: set() for table in drops}
    for key, definition in live.items():
        table = key.rpartition(" on ")[2]
        if key.startswith("constraint ") and table in drops and (found := re.search(r" REFERENCES ([^(]+)\(", definition)):
            referenced = found[1] if "." in found[1] else f"public.{found[1]}"
            if referenced in drops and referenced != table:
                referring[referenced].add(table)
    with contextlib.suppress(graphlib.CycleError):  # tables that refer to each other: the revision needs a hand
        ordered = [drops[table] for table in graphlib.TopologicalSorter(referring).static_order()]
        operations[:] = [each for each in operations if each not in ordered] + ordered


def _lead(source: Snapshot, target: Snapshot) -> Supplements:
    found = Supplements()
    tables = {key.removeprefix("table ") for key in source.keys() & target.keys() if key.startswith("table ")}
    for key in sorted(source.keys() | target.keys()):
        before, after = source.get(key, ""), target.get(key, "")
        if before == after:
            continue
        kind, _, name = key.partition(" ")
        table = name.rpartition(" on ")[2]
        if kind == "column" and IDENTITY in before and IDENTITY in after:
            _identity(found, target, name, after)
        elif kind == "sequence" and before and after and (owner := _owner(before)) and owner == _owner(after):
            column = target.get(f"column {owner}", "")
            if IDENTITY in column and IDENTITY in source.get(f"column {owner}", ""):
                _identity(found, target, owner, column)
        elif kind == "type" and (before or after).startswith("enum "):
            _enum(found, source, target, name, before, after)
        elif kind == "constraint" and (before or after).startswith("CHECK ") and table in tables:
            _check(found, name.rpartition(" on ")[0], table, before, after)
        elif kind == "index" and before and after and table in tables:
            index = name.rpartition(" on ")[0]
            schema = table.rpartition(".")[0]
            found.indexes[index.strip('"')] = [f"DROP INDEX {schema}.{index}", after]
    return found


def _check(found: Supplements, name: str, table: str, before: str, after: str) -> None:
    # What goes, goes first: a column that is dropped takes its checks along, and then there is nothing to drop.
    if before:
        found.before.append(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    if after:
        found.after.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {after}")


def _owner(sequence: str) -> str:
    """The column that owns a sequence, with its table's schema."""
    column = sequence.partition(" owned by ")[2]
    return column if column.count(".") > 1 else f"public.{column}" if column else ""


def _identity(found: Supplements, target: Snapshot, name: str, column: str) -> None:
    table, _, short = name.rpartition(".")
    kind = "ALWAYS" if f"generated always {IDENTITY}" in column else "BY DEFAULT"
    numbers = next((each for key, each in target.items() if key.startswith("sequence ") and _owner(each) == name), "")
    if options := re.search(r"from (-?\d+) by (-?\d+) between (-?\d+) and (-?\d+)", numbers):
        start, step, least, most = options.groups()
        statement = (
            f"ALTER TABLE {table} ALTER {short} SET GENERATED {kind} SET START {start} SET INCREMENT {step}"
            f" SET MINVALUE {least} SET MAXVALUE {most}"
        )
        if statement not in found.after:
            found.after.append(statement)


def _enum(found: Supplements, source: Snapshot, target: Snapshot, name: str, before: str, after: str) -> None:
    labels = after.removeprefix("enum ")
    if not before:
        found.before.append(f"CREATE TYPE {name} AS ENUM ({labels})")
    elif not after:
        found.after.append(f"DROP TYPE {name}")
    else:  # by way of a new type: a label can be added in place, but neither removed nor moved
        schema, _, short = name.rpartition(".")
        aside = f"{short.strip(chr(34))}_before"
        found.before += [f'ALTER TYPE {name} RENAME TO "{aside}"', f"CREATE TYPE {name} AS ENUM ({labels})"]
        for table, column, default in _columns(source, target, name):
            if default:
                found.before.append(f"ALTER TABLE {table} ALTER {column} DROP DEFAULT")
            found.before.append(f"ALTER TABLE {table} ALTER {column} TYPE {name} USING {column}::text::{name}")
            if default:
                found.before.append(f"ALTER TABLE {table} ALTER {column} SET DEFAULT {default}")
        found.after.append(f'DROP TYPE {schema}."{aside}"')


def _columns(source: Snapshot, target: Snapshot, name: str) -> list[tuple[str, str, str]]:
    """Table, column and default of the columns that have the type on both sides."""
    short = name.removeprefix("public.")
    found = []
    for key, definition in source.items():
        if key.startswith("column ") and re.match(rf"{re.escape(short)}( |$)", definition) and key in target:
            table, _, column = key.removeprefix("column ").rpartition(".")
            default = re.search(r" default (.+?)(?: comment '.*)?$", f" {definition.partition(' ')[2]}")
            found.append((table, column, default[1] if default else ""))
    return sorted(found)
