"""Tables of a hospital's rows whose keys do not keep hospitals apart, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from skinspire_db.catalog.tenant_tables import TENANT, ForeignKey, TenantTable

SETS = "nd"  # ON DELETE SET NULL and SET DEFAULT


def gaps(tables: dict[int, TenantTable]) -> dict[str, list[str]]:
    """What is missing in the tables that have hospital_id, so that no row can refer to another hospital's row.

    Args:
        tables: As `tenant_tables.read` gives them.

    Returns:
        A phrase for each thing, by the table's name; tables that lack nothing are left out.
    """
    found = {table.name: list(_gaps(table, tables)) for table in tables.values() if _of_tenant(table)}
    return {name: phrases for name, phrases in found.items() if phrases}


def count(tables: dict[int, TenantTable]) -> int:
    """How many tables hold rows of hospitals.

    Args:
        tables: As `tenant_tables.read` gives them.
    """
    return sum(map(_of_tenant, tables.values()))


def _of_tenant(table: TenantTable) -> bool:
    return table.has_tenant and not table.of_hospitals and table.kind != "f"


def _gaps(table: TenantTable, tables: dict[int, TenantTable]) -> Iterator[str]:
    primary = table.primary
    if primary and TENANT not in primary.columns and not table.within_tenant(primary):
        yield f"no unique key ({', '.join((TENANT, *primary.columns))})"
    for key in table.foreign_keys:
        target = tables[key.target]
        if key.over_tenant and key.on_delete in SETS:
            yield f"{key.name} takes {TENANT} from a row ON DELETE"
        elif _of_tenant(target) and target.required and not key.over_tenant and not _held_by_another(table, key):
            yield f"{key.name} may lead to another hospital's row of {target.name}"


def _held_by_another(table: TenantTable, key: ForeignKey) -> bool:
    """Whether another foreign key over hospital_id has the same columns, so that this one cannot lead elsewhere."""
    return any(
        other.over_tenant and other.target == key.target and set(key.columns) <= set(other.columns)
        for other in table.foreign_keys
    )
