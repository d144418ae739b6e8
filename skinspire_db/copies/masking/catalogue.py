"""What the catalogue says of the columns that a masked copy reads: their types, keys and conditions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.catalog.objects import TOOLS_SCHEMA, USER_RELATION

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# A condition: the constraint k calls functions of the database's owner, which would run with our rights.
OWN_CODE = """EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
        AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
        AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'))"""
# The name of a type of PostgreSQL's own, or of an extension's, has a meaning; another one of that name has none.
# Of composite types and arrays, those of columns and of other types: each table has one of both.
TYPES = f"""
    WITH used (oid) AS (SELECT atttypid FROM pg_attribute UNION SELECT typbasetype FROM pg_type UNION SELECT rngsubtype FROM pg_range)
    SELECT t.oid, t.typtype::text, t.typbasetype, t.typelem, EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid AND e.oid = t.typelem), format_type(t.oid, -1),
           CASE WHEN n.nspname = 'pg_catalog' OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass
                     AND d.objid = t.oid AND d.deptype = 'e') THEN t.typname::text ELSE '' END,
           CASE t.typtype WHEN 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) END,
           CASE WHEN t.typtype = 'c' THEN ARRAY(SELECT jsonb_build_array(a.attname, a.atttypid::int8, a.atttypmod) FROM pg_attribute a
                     WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) END,
           t.typtypmod, t.typnotnull,
           (SELECT string_agg(pg_get_expr(k.conbin, 0), ' ') FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c' AND NOT {OWN_CODE})
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype <> 'c' AND t.typcategory <> 'A' OR t.oid IN (SELECT oid FROM used) OR t.typarray IN (SELECT oid FROM used)
"""
COLUMNS = f"""
    SELECT c.oid, n.nspname, c.relname, a.attnum, a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND {USER_RELATION}
    ORDER BY 2, 3, 4
"""
# Unique keys and exclusions; columns of an expression or a predicate are in `reads`.
KEYS = f"""
    SELECT c.oid, x.indexrelid::regclass::text,
           ARRAY(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])),
           ARRAY(SELECT pg_get_indexdef(x.indexrelid, k, true) FROM generate_series(1, x.indnkeyatts) AS k),
           pg_get_expr(x.indpred, c.oid), x.indexprs IS NOT NULL,
           ARRAY(SELECT d.refobjsubid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid AND d.refobjid = c.oid),
           coalesce((to_jsonb(x) ->> 'indnullsnotdistinct')::boolean, false), x.indisexclusion
    FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (x.indisunique OR x.indisexclusion) AND c.relkind = 'r' AND {USER_RELATION}
"""
BOUNDS = "the bounds of the partition"
# Without the bounds of partitions by hash, whose rows go to where they belong.
CHECKS = f"""
    SELECT c.oid, k.conname, k.conkey::int2[], pg_get_expr(k.conbin, c.oid)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'c' AND c.relkind = 'r' AND k.conkey IS NOT NULL AND {USER_RELATION} AND NOT {OWN_CODE}
    UNION ALL
    SELECT c.oid, '{BOUNDS}', ARRAY(SELECT a.attnum FROM pg_attribute a JOIN pg_attribute u ON u.attname = a.attname
               JOIN pg_partitioned_table p ON p.partrelid = u.attrelid AND u.attnum = ANY (p.partattrs::int2[])
               WHERE a.attrelid = c.oid AND p.partrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid))),
           pg_get_partition_constraintdef(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relispartition AND {USER_RELATION}
        AND NOT EXISTS (SELECT FROM pg_partition_ancestors(c.oid) AS up JOIN pg_partitioned_table p ON p.partrelid = up.relid AND p.partstrat = 'h')
"""
REFERENCES = """
    SELECT k.conname, k.conrelid, k.conkey::int2[], k.confrelid, k.confkey::int2[] FROM pg_constraint k WHERE k.contype = 'f'
"""
# A partition's columns, and a child table's, are the columns of their parent.
PARENTS = """
    SELECT a.attrelid, a.attnum, b.attrelid, b.attnum FROM pg_inherits i JOIN pg_attribute a ON a.attrelid = i.inhrelid
    JOIN pg_attribute b ON b.attrelid = i.inhparent AND b.attname = a.attname
    WHERE a.attnum > 0 AND NOT a.attisdropped
"""
PARTS = """
    SELECT rn.nspname, r.relname, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL pg_partition_ancestors(c.oid) AS up (oid) JOIN pg_class r ON r.oid = up.oid AND r.relkind = 'p'
    JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE c.relkind = 'r' AND c.relispartition ORDER BY c.oid
"""

Place = tuple[int, int]  # a table's oid and a column's number


@dataclass(frozen=True)
class Type:
    """A type: `known` is the name of one of PostgreSQL's own or an extension's, "" for others; `kind` is pg_type.typtype."""

    oid: int
    kind: str
    base: int
    element: int
    is_array: bool
    name: str
    known: str
    labels: list[str] | None
    fields: list[tuple[str, int, int]] | None
    modifier: int
    not_null: bool
    conditions: str | None


@dataclass(frozen=True)
class Column:
    """A column that holds values of its own; `declared` is its type as SQL writes it, `tools`: the table is the tools' own, or
    Alembic's.
    """

    place: Place
    schema: str
    table: str
    name: str
    type: int
    modifier: int
    declared: str
    not_null: bool
    tools: bool = False

    @property
    def full(self) -> str:
        """The name as rules and messages write it."""
        return f"{self.table_name}.{self.name}"

    @cached_property
    def table_name(self) -> str:
        """The table's name, with its schema unless that is public."""
        return table_name(self.schema, self.table)

    @property
    def quoted(self) -> str:
        """The column as a copy's expressions write it."""
        return 't."' + self.name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Key:
    """A unique index or an exclusion: its plain columns, its items as SQL, its predicate, and all columns that it reads."""

    name: str
    columns: tuple[int, ...]
    items: tuple[str, ...]
    predicate: str | None
    has_expressions: bool
    reads: frozenset[int]
    nulls_equal: bool
    excludes: bool


@dataclass(frozen=True)
class Check:
    """A condition on the rows of a table, and the columns that it reads; `names` is SQL with values that it may allow."""

    name: str
    columns: tuple[int, ...]
    condition: str
    names: str = ""


@dataclass
class Catalogue:
    """The columns of all tables, and what holds for them."""

    types: dict[int, Type]
    columns: dict[Place, Column]
    keys: dict[int, list[Key]] = field(default_factory=dict)
    checks: dict[int, list[Check]] = field(default_factory=dict)
    references: list[tuple[str, list[tuple[Place, Place]]]] = field(default_factory=list)
    parents: list[tuple[Place, Place]] = field(default_factory=list)
    by_name: dict[tuple[str, str], list[Column]] = field(default_factory=dict, repr=False)
    parts: dict[str, list[str]] = field(default_factory=dict)

    def named(self, schema: str, table: str) -> list[Column]:
        """The columns of a table."""
        if not self.by_name:
            for column in self.columns.values():
                self.by_name.setdefault((column.schema, column.table), []).append(column)
        return self.by_name.get((schema, table), [])

    def tables(self) -> dict[int, list[Column]]:
        """The columns of each table, by the table's oid."""
        found: dict[int, list[Column]] = defaultdict(list)
        for column in self.columns.values():
            found[column.place[0]].append(column)
        return found


def table_name(schema: str, table: str) -> str:
    """A table's name, with its schema unless that is public."""
    return table if schema == "public" else f"{schema}.{table}"


def read(connection: Connection) -> Catalogue:
    """Read the catalogue of a database.

    Args:
        connection: a connection in a transaction whose search_path is pinned, so that types are written with their schema.
    """

    def rows(query: str) -> list[Any]:
        return connection.execute(query.encode()).fetchall()

    types = {}
    for row in rows(TYPES):
        oid, kind, base, element, is_array, name, known, labels, fields, *rest = row
        parts = fields and [tuple(each) for each in fields]
        types[oid] = Type(oid, kind, base, element, is_array, name, known, labels, parts, *rest)
    columns, versions = {}, objects.version_tables(connection)
    for oid, schema, table, number, name, type_, modifier, declared, not_null in rows(COLUMNS):
        tools = schema == TOOLS_SCHEMA or (schema, table) in versions
        column = Column((oid, number), schema, table, name, type_, modifier, declared, not_null, tools)
        step = types[column.type]
        while not column.not_null and step.kind == "d":
            column, step = replace(column, not_null=step.not_null), types[step.base]
        columns[oid, number] = column
    found = Catalogue(types, columns)
    keys, checks = defaultdict(list), defaultdict(list)
    for oid, name, plain, items, predicate, expressions, reads, equal, excludes in rows(KEYS):
        keys[oid].append(
            Key(name, tuple(plain), tuple(items), predicate, expressions, frozenset(reads) - {0}, equal, excludes)
        )
    for oid, name, numbers, condition in rows(CHECKS):
        if condition:
            checks[oid].append(Check(name, tuple(numbers), condition))
    found.keys, found.checks = dict(keys), dict(checks)
    for name, oid, numbers, other, others in rows(REFERENCES):
        pairs = zip(((oid, n) for n in numbers), ((other, n) for n in others), strict=True)
        found.references.append((name, list(pairs)))
    found.parents = [((a, b), (c, d)) for a, b, c, d in rows(PARENTS)]
    for *root, schema, name in rows(PARTS):
        found.parts.setdefault(table_name(*root), []).append(table_name(schema, name))
    return found
