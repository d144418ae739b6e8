"""The part of the report on rows that lead from one hospital to another one's rows, which no key prevents."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from skinspire_db.adoption.subject import Subject, quoted
from skinspire_db.catalog import tenant_tables
from skinspire_db.catalog.tenant_tables import TENANT, ForeignKey, TenantTable
from skinspire_db.lifecycle.result import Summary, counted


def hospitals(subject: Subject) -> Summary:
    """Rows that refer to a row of another hospital, and rows that join rows of two hospitals."""
    found = [
        {"table": table.name, "by": by, "rows": rows}
        for table, by, query in _queries(tenant_tables.read(subject.connection))
        if (rows := subject.count(query))
    ]
    lines = [f"{each['table']}: {counted(int(str(each['rows'])), 'row')} by {each['by']}" for each in found]
    lines += ["adopting changes no row; correct them before a key or a policy keeps hospitals apart"] if found else []
    numbers: dict[str, int | str] = {"rows_across_hospitals": sum(int(str(each["rows"])) for each in found)}
    return Summary(numbers if found else {}, lines, data={"across_hospitals": found})


def _queries(tables: Mapping[int, TenantTable]) -> Iterator[tuple[TenantTable, str, str]]:
    """Each table that can lead elsewhere: by which columns, and the query that counts its rows that do."""
    for table in tables.values():
        keys = [key for key in table.foreign_keys if tables[key.target].has_tenant and not key.over_tenant]
        keys = [key for key in keys if TENANT not in key.columns]
        if table.has_tenant:
            for key in keys:
                yield table, _named(key, tables), _count(table, tables, [key], f"t.{TENANT}", f"r0.{TENANT}")
        else:
            for pair in itertools.combinations(keys, 2):
                by = " and ".join(_named(key, tables) for key in pair)
                yield table, by, _count(table, tables, list(pair), f"r0.{TENANT}", f"r1.{TENANT}")


def _named(key: ForeignKey, tables: Mapping[int, TenantTable]) -> str:
    return f"{', '.join(key.columns)} to {tables[key.target].name}"


def _count(table: TenantTable, tables: Mapping[int, TenantTable], keys: list[ForeignKey], one: str, other: str) -> str:
    joins = ""
    for number, key in enumerate(keys):
        pairs = zip(key.columns, key.target_columns, strict=True)
        on = " AND ".join(f"t.{quoted(column)} = r{number}.{quoted(target)}" for column, target in pairs)
        joins += f" JOIN {tables[key.target].name} AS r{number} ON {on}"
    return f"SELECT count(*) FROM {table.name} AS t{joins} WHERE {one}::text <> {other}::text"
