"""How rows of a database belong together: the tables' columns of hospitals, and foreign keys as conditions of joins.

A partitioned table and its partitions are one table here: the topmost one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.catalog.tenant_tables import TENANT

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

RELATIONS = f"""
    SELECT c.oid::int8, coalesce(pg_partition_root(c.oid), c.oid)::int8, n.nspname, c.relname, c.relkind = 'p'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {objects.USER_RELATION}
"""  # noqa: S608
# Each foreign key is compared as PostgreSQL does it: with its own operators, in the collation of the column referred to.
LINKS = """
    SELECT k.conname, k.conrelid::int8, k.confrelid::int8, array_agg(a.attname::text), array_agg(r.attname::text),
           string_agg(format('r.%I OPERATOR(%I.%s) t.%I%s', r.attname, n.nspname, o.oprname, a.attname,
                CASE WHEN r.attcollation <> a.attcollation THEN format(' COLLATE %I.%I', cn.nspname, l.collname) END), ' AND '),
           bool_and(a.attnotnull)
    FROM pg_constraint k CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.conpfeqop) AS each (own, other, operator)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = own JOIN pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = other
    JOIN pg_operator o ON o.oid = operator JOIN pg_namespace n ON n.oid = o.oprnamespace
    LEFT JOIN pg_collation l ON l.oid = r.attcollation LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 GROUP BY k.oid ORDER BY k.conname, k.oid
"""  # noqa: E501
# The type without its length: a value that is too long for it is no hospital's, and a cast to the length would cut it.
TENANTS = """
    SELECT c.oid::int8, a.attname, format_type(a.atttypid, -1), a.attnotnull,
           coalesce((SELECT n.nspname FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
                     WHERE o.oprname = '=' AND o.oprleft = b.oid AND o.oprright = b.oid ORDER BY o.oid DESC LIMIT 1), 'pg_catalog'),
           EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL
                   AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
    WHERE a.attname = %(name)s OR (c.oid::int8, a.attname::text) IN (SELECT * FROM unnest(%(oids)s::int8[], %(names)s::text[]))
    ORDER BY c.oid, a.attname = %(name)s
"""  # noqa: E501


@dataclass(frozen=True)
class Relation:
    """A table or a partition; `rows` is what a FROM clause says of its own rows, `root` the topmost table's oid."""

    oid: int
    root: int
    schema: str
    name: str
    rows: str


@dataclass(frozen=True)
class Link:
    """A foreign key.

    Attributes:
        name: the constraint's.
        source: the oid of the table that refers, or of its topmost one.
        target: the oid of the table referred to, or of its topmost one.
        source_rows: what a FROM clause says of the rows that refer.
        target_rows: what a FROM clause says of the rows referred to.
        condition: that a row `t` refers to a row `r`.
        columns: pairs of columns that are compared.
        required: none of the columns that refer takes NULL.
    """

    name: str
    source: int
    target: int
    source_rows: str
    target_rows: str
    condition: str
    columns: frozenset[tuple[str, str]]
    required: bool


@dataclass(frozen=True)
class Tenant:
    """The column that says whose hospital a table's rows are; `alone` is whether it alone is a key."""

    column: str
    type: str
    required: bool
    schema: str
    alone: bool

    def equals(self, row: str, literal: str) -> str:
        """The condition that a row is of a hospital.

        Args:
            row: the table's name in the query.
            literal: the hospital's id, as an SQL literal.
        """
        return (
            f"{row}.{objects.quoted_name(self.column)} OPERATOR({objects.quoted_name(self.schema)}.=) {literal}::{self.type}"
        )


def relations(connection: Connection) -> dict[int, Relation]:
    """All tables, their partitions too, by oid."""
    return {
        oid: Relation(oid, root, schema, name, f"{'' if divided else 'ONLY '}{objects.quoted_name(schema, name)}")
        for oid, root, schema, name, divided in connection.execute(RELATIONS.encode()).fetchall()
    }


def links(connection: Connection, known: dict[int, Relation]) -> list[Link]:
    """All foreign keys between these tables."""
    return [
        Link(
            name,
            known[source].root,
            known[target].root,
            known[source].rows,
            known[target].rows,
            condition,
            frozenset(zip(columns, others, strict=True)),
            required,
        )
        for name, source, target, columns, others, condition, required in connection.execute(LINKS.encode()).fetchall()
        if source in known and target in known
    ]


def tenants(connection: Connection, known: dict[int, Relation], between: list[Link]) -> dict[int, Tenant]:
    """The tables that say of their rows whose hospital they are, by oid.

    A table says so in `hospital_id`, and the one that holds the hospitals in the column that others' `hospital_id` refers to.
    """
    keys = sorted({(link.target, other) for link in between for own, other in link.columns if own == TENANT})
    values = {"name": TENANT, "oids": [oid for oid, _ in keys], "names": [name for _, name in keys]}
    found = connection.execute(TENANTS.encode(), values).fetchall()
    return {oid: Tenant(*each) for oid, *each in found if oid in known and known[oid].root == oid}
