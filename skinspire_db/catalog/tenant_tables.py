"""The tables of a database with what decides whether hospitals can be kept apart in them: columns, keys and foreign keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

TENANT = "hospital_id"
# A default operator class of hash for the type itself, for the type that it is stored as, or for a whole family of types.
HASHED = """
    (b.typtype IN ('e', 'r', 'm', 'c') OR b.typcategory = 'A' OR EXISTS (
        SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'hash'
        WHERE o.opcdefault AND (o.opcintype = b.oid OR EXISTS (
            SELECT FROM pg_cast k WHERE k.castsource = b.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b'
            AND k.castcontext = 'i'))))
"""
TABLES = f"""
    SELECT c.oid::int8, c.oid::regclass::text, c.relkind::text,
           c.relkind <> 'p' AND EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)),
           EXISTS (SELECT FROM pg_partition_tree(c.oid) p WHERE p.level > 0 AND NOT p.isleaf),
           EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
           (SELECT min(t.tgname) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.oid = ANY (ARRAY(
                SELECT d.objid FROM pg_depend d WHERE d.classid = 'pg_trigger'::regclass AND d.deptype = 'x'))),
           (SELECT min(p.polname) FROM pg_policy p WHERE p.polrelid = c.oid
            AND concat(p.polqual::text, p.polwithcheck::text) LIKE '%{{SUBLINK%'),
           h.attname IS NOT NULL, coalesce(h.attnotnull, false), coalesce(format_type(h.atttypid, h.atttypmod), ''),
           coalesce(h.attgenerated <> '', false),
           h.attname IS NULL OR {HASHED}, coalesce(l.collisdeterministic, true)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute h ON h.attrelid = c.oid AND h.attname = '{TENANT}' AND h.attnum > 0 AND NOT h.attisdropped
    LEFT JOIN pg_type t ON t.oid = h.atttypid LEFT JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
    LEFT JOIN pg_collation l ON l.oid = h.attcollation
    WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND {objects.RELATION} AND {objects.NOT_ALEMBICS}
    ORDER BY 2
"""  # noqa: S608
KEYS = """
    SELECT i.indrelid::int8, x.relname::text, coalesce(k.conname::text, ''), i.indisprimary,
           i.indpred IS NULL AND i.indexprs IS NULL AND NOT i.indisexclusion AND i.indisvalid,
           ARRAY(SELECT coalesce(a.attname::text, '') FROM generate_series(0, i.indnkeyatts - 1) AS at
                 LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[at]
                 WHERE NOT i.indisexclusion OR (SELECT o.oprname = '=' FROM pg_operator o WHERE o.oid = k.conexclop[at + 1])
                 ORDER BY at),
           i.indisexclusion
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')
    WHERE i.indisunique OR i.indisexclusion ORDER BY 1, 2
"""
FOREIGN_KEYS = """
    SELECT k.conname::text, k.conrelid::int8, k.confrelid::int8, k.confdeltype::text, k.confupdtype::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, position)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.position),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, position)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.position),
           EXISTS (SELECT FROM unnest(CASE 'd' WHEN k.confupdtype THEN k.conkey
                                           WHEN k.confdeltype THEN coalesce(k.confdelsetcols, k.conkey) END) AS set (number)
                   JOIN pg_attrdef d ON d.adrelid = k.conrelid AND d.adnum = set.number
                   WHERE pg_get_expr(d.adbin, d.adrelid) LIKE '%nextval(%'),
           pg_get_constraintdef(k.oid)
    FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.conname
"""


@dataclass(frozen=True)
class Key:
    """A unique index or an exclusion constraint.

    Attributes:
        name: The index.
        constraint: The constraint that owns it, or empty.
        primary: It is the primary key.
        whole: It is unique over plain columns of all rows.
        columns: What it compares for equality; an expression is an empty name.
        exclusion: It is an exclusion constraint.
    """

    name: str
    constraint: str
    primary: bool
    whole: bool
    columns: list[str]
    exclusion: bool


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key; `source` and `target` are the tables' oids, the actions PostgreSQL's letters (a, r, c, n, d)."""

    name: str
    source: int
    target: int
    on_delete: str
    on_update: str
    columns: list[str]
    target_columns: list[str]
    resets_sequence: bool
    definition: str

    @property
    def over_tenant(self) -> bool:
        """Whether it compares the hospitals of both rows."""
        return (TENANT, TENANT) in zip(self.columns, self.target_columns, strict=True)


@dataclass(frozen=True)
class TenantTable:
    """A table that is no partition; the attributes from `has_tenant` on are about its column hospital_id."""

    oid: int
    name: str
    kind: str
    inherits: bool
    nested_partitions: bool
    triggers: bool
    extension_trigger: str | None
    subquery_policy: str | None
    has_tenant: bool
    required: bool
    type: str
    generated: bool
    hashed: bool
    deterministic: bool
    keys: list[Key] = field(default_factory=list)
    foreign_keys: list[ForeignKey] = field(default_factory=list)

    @property
    def of_hospitals(self) -> bool:
        """Whether hospital_id alone is its key: it has a row for each hospital, and is no table of a hospital's rows."""
        return any(key.whole and key.columns == [TENANT] for key in self.keys)

    @property
    def primary(self) -> Key | None:
        """The primary key."""
        return next((key for key in self.keys if key.primary), None)

    def within_tenant(self, key: Key) -> Key | None:
        """The unique key over hospital_id and the columns of this key.

        Args:
            key: A unique key of this table without hospital_id.
        """
        wanted = {TENANT, *key.columns}
        return next(
            (each for each in self.keys if each.whole and TENANT in each.columns and set(each.columns) == wanted), None
        )


def read(connection: Connection) -> dict[int, TenantTable]:
    """The application's tables, by oid, in the order of their names.

    Args:
        connection: The database.
    """
    found = {row[0]: TenantTable(*row) for row in search_path.rows(connection, TABLES)}
    for oid, *key in search_path.rows(connection, KEYS):
        if oid in found:
            found[oid].keys.append(Key(*key))
    for row in search_path.rows(connection, FOREIGN_KEYS):
        each = ForeignKey(*row)
        if each.source in found and each.target in found:
            found[each.source].foreign_keys.append(each)
    return found
