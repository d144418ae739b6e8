"""What a revision did to a database: which objects it added, dropped, renamed and changed, and how many rows it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SHOWN = 20  # of the objects by name; there can be thousands
VERBS = ("added", "dropped", "renamed", "changed")
PLURALS = {"index": "indexes", "policy": "policies", "materialized view": "materialized views"}
SCHEMAS = """
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'skinspire_tools')
"""
# Of each object: its kind, what it is known by whatever its name, the table that it is a part of, its name in full and alone,
# its type for a reader, and whatever else makes it what it is, free of names: a renamed column changes no index.
OBJECTS = f"""
    WITH ours AS ({SCHEMAS}), relations AS (
        SELECT c.*, s.nspname FROM pg_class c JOIN ours s ON s.oid = c.relnamespace
        WHERE (s.nspname, c.relname) <> ('public', 'alembic_version')
    ), extended AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
    SELECT * FROM (
        SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type'
                              ELSE 'table' END AS kind,
               'pg_class'::regclass::oid AS class, c.oid, 0 AS part,
               CASE c.relkind WHEN 'S' THEN (SELECT refobjid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                             AND d.deptype IN ('a', 'i') LIMIT 1) END AS parent,
               format('%I.%I', c.nspname, c.relname) AS name, format('%I.%I', c.nspname, c.relname) AS alone, '' AS is,
               md5(concat_ws(' ', c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relowner, c.relacl,
                             c.reltablespace, c.relreplident, c.relpartbound, (to_jsonb(q) - 'seqrelid')::text, r.ev_action,
                             obj_description(c.oid, 'pg_class'))) AS definition
        FROM relations c LEFT JOIN pg_sequence q ON q.seqrelid = c.oid
        LEFT JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN'
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S', 'c')
        UNION ALL
        SELECT 'column', 'pg_class'::regclass::oid, c.oid, a.attnum, c.oid, format('%I.%I.%I', c.nspname, c.relname, a.attname), a.attname,
               format_type(a.atttypid, a.atttypmod),
               concat_ws(' ', a.atttypid, a.atttypmod, a.attnotnull, a.attidentity, a.attgenerated, a.attcollation, a.attstorage,
                         a.attcompression, (SELECT array_agg(o) FROM unnest(a.attoptions) AS o WHERE o !~ '^pg_attver='), a.attacl, d.adbin, col_description(c.oid, a.attnum))
        FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum) WHERE c.relkind IN ('r', 'p', 'f', 'c')
        UNION ALL
        SELECT 'constraint', 'pg_constraint'::regclass::oid, k.oid, 0, k.conrelid, format('%I on %I.%I', k.conname, c.nspname, c.relname),
               k.conname, '', concat_ws(' ', k.contype, k.condeferrable, k.condeferred, k.convalidated, k.conkey, k.confrelid, k.confkey,
               k.confupdtype, k.confdeltype, k.confmatchtype, k.conbin, k.conexclop, obj_description(k.oid, 'pg_constraint'))
        FROM pg_constraint k JOIN relations c ON c.oid = k.conrelid WHERE k.contype NOT IN ('t', 'n') AND k.conparentid = 0
        UNION ALL
        SELECT 'index', 'pg_class'::regclass::oid, i.oid, 0, x.indrelid, format('%I on %I.%I', i.relname, c.nspname, c.relname), i.relname, '',
               concat_ws(' ', x.indisunique, x.indisvalid, x.indkey, x.indclass, x.indcollation, x.indoption, x.indexprs, x.indpred,
                         i.relam, i.reloptions, obj_description(i.oid, 'pg_class'))
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN relations c ON c.oid = x.indrelid
        WHERE c.relkind <> 't' AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x'))
        UNION ALL
        SELECT 'type', 'pg_type'::regclass::oid, t.oid, 0, NULL, format('%I.%I', s.nspname, t.typname), format('%I.%I', s.nspname, t.typname),
               '', md5(concat_ws(' ', t.typbasetype, t.typtypmod, t.typnotnull, t.typdefault, t.typowner, t.typacl,
                                 (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
                                 (SELECT string_agg(pg_get_constraintdef(oid), ',' ORDER BY oid) FROM pg_constraint WHERE contypid = t.oid)))
        FROM pg_type t JOIN ours s ON s.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
        UNION ALL
        SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, 'pg_proc'::regclass::oid, p.oid, 0, NULL, p.oid::regprocedure::text,
               p.oid::regprocedure::text, '', md5(concat_ws(' ', (to_jsonb(p) - 'proname')::text, obj_description(p.oid, 'pg_proc')))
        FROM pg_proc p JOIN ours s ON s.oid = p.pronamespace
        UNION ALL
        SELECT 'trigger', 'pg_trigger'::regclass::oid, t.oid, 0, t.tgrelid, format('%I on %I.%I', t.tgname, c.nspname, c.relname), t.tgname, '',
               concat_ws(' ', t.tgfoid, t.tgtype, t.tgenabled, t.tgattr, t.tgargs, t.tgqual)
        FROM pg_trigger t JOIN relations c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
        UNION ALL
        SELECT 'policy', 'pg_policy'::regclass::oid, y.oid, 0, y.polrelid, format('%I on %I.%I', y.polname, c.nspname, c.relname), y.polname, '',
               (to_jsonb(y) - 'polname')::text
        FROM pg_policy y JOIN relations c ON c.oid = y.polrelid
        UNION ALL
        SELECT 'rule', 'pg_rewrite'::regclass::oid, r.oid, 0, r.ev_class, format('%I on %I.%I', r.rulename, c.nspname, c.relname), r.rulename, '',
               r.ev_action::text
        FROM pg_rewrite r JOIN relations c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN'
        UNION ALL
        SELECT 'schema', 'pg_namespace'::regclass::oid, n.oid, 0, NULL, quote_ident(n.nspname), quote_ident(n.nspname), '',
               concat_ws(' ', n.nspowner, n.nspacl, obj_description(n.oid, 'pg_namespace'))
        FROM pg_namespace n JOIN ours USING (oid)
        UNION ALL
        SELECT 'extension', 'pg_extension'::regclass::oid, e.oid, 0, NULL, quote_ident(e.extname), quote_ident(e.extname), e.extversion, ''
        FROM pg_extension e
    ) AS o
    WHERE NOT EXISTS (SELECT FROM extended e WHERE (e.classid, e.objid) = (o.class, o.oid))
"""  # noqa: S608
ROWS = """
    SELECT sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint, sum(n_tup_del)::bigint FROM pg_stat_xact_user_tables
    WHERE schemaname <> 'skinspire_tools' AND (schemaname, relname) <> ('public', 'alembic_version')
"""


class Known(NamedTuple):
    """What an object is known by, whatever its name: catalogue, oid, and column number or 0."""

    catalogue: int
    oid: int
    part: int


@dataclass(frozen=True)
class Found:
    """An object; `parent` is the oid of the table that it is a part of."""

    kind: str
    parent: int | None
    name: str
    alone: str
    kind_of_values: str
    definition: str


@dataclass(frozen=True)
class State:
    """A database's objects, and how many rows this transaction has inserted, updated and deleted so far."""

    objects: dict[Known, Found]
    rows: tuple[int, int, int]


def state(connection: Connection) -> State:
    """The state that two of which are compared."""
    objects = {
        Known(int(row[1]), int(row[2]), int(row[3])): Found(row[0], row[4], *row[5:])
        for row in search_path.rows(connection, OBJECTS)
    }
    counted = connection.execute(ROWS.encode()).fetchone() or (0, 0, 0)
    return State(objects, (int(counted[0] or 0), int(counted[1] or 0), int(counted[2] or 0)))


def between(before: State, after: State) -> tuple[dict[str, int], list[str]]:
    """What happened from one to the other: in numbers by kind, and object by object for a reader.

    Parts of a table that came or went are not counted beside it.
    """
    lines: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    for verb, former, latter in _changes(before.objects, after.objects):
        found = latter or former
        assert found
        counts[found.kind, verb] += 1
        lines.append(f"{found.kind} {former.name if former else found.name} {verb}{_how(former, latter)}")
    numbers = {
        f"{PLURALS.get(kind, f'{kind}s')}_{verb}".replace(" ", "_"): counts[kind, verb]
        for kind, verb in sorted(counts, key=lambda each: (VERBS.index(each[1]), each[0] != "table", each[0]))
    }
    for verb, now, then in zip(("inserted", "updated", "deleted"), after.rows, before.rows, strict=True):
        if now > then:
            numbers[f"rows_{verb}"] = now - then
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return numbers, lines[:SHOWN] + more


def _changes(before: dict[Known, Found], after: dict[Known, Found]) -> Iterator[tuple[str, Found | None, Found | None]]:
    """PostgreSQL makes a constraint or index anew when its column gets another type: one of the same name is the same."""
    added = {(each.kind, each.name): key for key, each in after.items() if key not in before}
    pairs = [(each, after.get(key) or after.get(added.pop((each.kind, each.name), key))) for key, each in before.items()]
    whole = {key.oid for key in before.keys() ^ after.keys() if not key.part}
    for former, latter in pairs:
        if latter is None:
            if former.parent not in whole:
                yield "dropped", former, None
        elif former.alone != latter.alone:
            yield "renamed", former, latter
        elif (former.kind_of_values, former.definition) != (latter.kind_of_values, latter.definition):
            yield "changed", former, latter
    for key in added.values():
        if after[key].parent not in whole:
            yield "added", None, after[key]


def _how(former: Found | None, latter: Found | None) -> str:
    if former is None or latter is None:
        return ""
    if former.alone != latter.alone:
        return f" to {latter.alone}"
    types = former.kind_of_values, latter.kind_of_values
    return f": {types[0]}, now {types[1]}" if types[0] != types[1] else ""
