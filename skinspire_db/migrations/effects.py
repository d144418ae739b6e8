"""What a revision did to a database: which objects it added, dropped, renamed and changed, and how many rows it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from skinspire_db.catalog import objects
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SHOWN = 20  # of the objects by name; there can be thousands
VERBS = ("added", "dropped", "renamed", "changed")
PLURALS = {
    "index": "indexes",
    "policy": "policies",
    "operator class": "operator classes",
    "operator family": "operator families",
    "text search dictionary": "text search dictionaries",
    "default privileges": "default privileges",
}
NOTHING = "it ran to its end; no object of the database and no row was seen to change"
# Of each object: its kind, what identifies it across renames, the table that it is a part of, its name in full and alone, its
# type for a reader, and its other properties without names, so that a renamed column changes no index.
# Roles are the server's and not the database's.
OBJECTS = f"""
    WITH ours AS (SELECT n.oid, n.nspname FROM pg_namespace n WHERE {objects.APPLICATION_SCHEMA}), relations AS (
        SELECT c.*, n.nspname FROM pg_class c JOIN ours n ON n.oid = c.relnamespace WHERE {objects.NOT_ALEMBICS}
    ), extended AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
    SELECT o.kind, o.class, o.oid, o.part, o.parent, o.name, o.alone, o.is, concat_ws(' ', o.definition, d.description,
        (SELECT array_agg(l.label ORDER BY l.provider) FROM pg_seclabel l WHERE (l.objoid, l.classoid, l.objsubid) = (o.oid, o.class, o.part)))
    FROM (
        SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type'
                              ELSE 'table' END AS kind,
               'pg_class'::regclass::oid AS class, c.oid, 0 AS part,
               CASE c.relkind WHEN 'S' THEN (SELECT refobjid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                             AND d.deptype IN ('a', 'i') LIMIT 1) END AS parent,
               format('%I.%I', c.nspname, c.relname) AS name, format('%I.%I', c.nspname, c.relname) AS alone, '' AS is,
               md5(concat_ws(' ', c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relowner, c.relacl,
                             c.reltablespace, c.relreplident, c.relpartbound, (to_jsonb(q) - 'seqrelid')::text, r.ev_action,
                             c.relam, c.reloftype, c.relispopulated, f.ftserver, f.ftoptions, obj_description(c.reltype, 'pg_type'),
                             (SELECT array_agg(inhparent ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid),
                             CASE WHEN c.relkind IN ('v', 'm') THEN (
                                 SELECT string_agg(concat_ws(' ', a.attacl, d.adbin, col_description(c.oid, a.attnum)), ',' ORDER BY a.attnum)
                                 FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
                                 WHERE a.attrelid = c.oid) END)) AS definition
        FROM relations c LEFT JOIN pg_sequence q ON q.seqrelid = c.oid LEFT JOIN pg_foreign_table f ON f.ftrelid = c.oid
        LEFT JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN'
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S', 'c')
        UNION ALL
        SELECT 'column', 'pg_class'::regclass::oid, c.oid, a.attnum, c.oid, format('%I.%I.%I', c.nspname, c.relname, a.attname), a.attname,
               format_type(a.atttypid, a.atttypmod),
               concat_ws(' ', a.atttypid, a.atttypmod, a.attnotnull, a.attidentity, a.attgenerated, a.attcollation, a.attstorage,
                         a.attcompression, (SELECT array_agg(o) FROM unnest(a.attoptions) AS o WHERE o !~ '^pg_attver='), a.attacl,
                         a.attfdwoptions, a.attstattarget, d.adbin)
        FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum) WHERE c.relkind IN ('r', 'p', 'f', 'c')
        UNION ALL
        SELECT 'constraint', 'pg_constraint'::regclass::oid, k.oid, 0, k.conrelid, format('%I on %I.%I', k.conname, c.nspname, c.relname),
               k.conname, '', concat_ws(' ', k.contype, k.condeferrable, k.condeferred, k.convalidated, k.conkey, k.confrelid, k.confkey,
               k.confupdtype, k.confdeltype, k.confmatchtype, k.conbin, k.conexclop, k.connoinherit)
        FROM pg_constraint k JOIN relations c ON c.oid = k.conrelid WHERE k.contype NOT IN ('t', 'n') AND k.conparentid = 0
        UNION ALL
        SELECT 'index', 'pg_class'::regclass::oid, i.oid, 0, x.indrelid, format('%I on %I.%I', i.relname, c.nspname, c.relname), i.relname, '',
               concat_ws(' ', x.indisunique, x.indisvalid, x.indkey, x.indclass, x.indcollation, x.indoption, x.indexprs, x.indpred,
                         x.indisclustered, x.indisreplident, i.relam, i.reloptions, i.reltablespace)
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN relations c ON c.oid = x.indrelid
        WHERE c.relkind <> 't' AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x'))
        UNION ALL
        SELECT 'type', 'pg_type'::regclass::oid, t.oid, 0, NULL, format('%I.%I', s.nspname, t.typname), format('%I.%I', s.nspname, t.typname),
               '', md5(concat_ws(' ', t.typbasetype, t.typtypmod, t.typnotnull, t.typdefault, t.typowner, t.typacl,
                                 (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
                                 (SELECT string_agg(pg_get_constraintdef(oid), ',' ORDER BY oid) FROM pg_constraint WHERE contypid = t.oid)))
        FROM pg_type t JOIN ours s ON s.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r') OR t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
        UNION ALL
        SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, 'pg_proc'::regclass::oid, p.oid, 0, NULL, p.oid::regprocedure::text,
               p.oid::regprocedure::text, '', md5((to_jsonb(p) - 'proname')::text)
        FROM pg_proc p JOIN ours s ON s.oid = p.pronamespace
        UNION ALL
        SELECT 'trigger', 'pg_trigger'::regclass::oid, t.oid, 0, t.tgrelid, format('%I on %I.%I', t.tgname, c.nspname, c.relname), t.tgname, '',
               concat_ws(' ', t.tgfoid, t.tgtype, t.tgenabled, t.tgattr, t.tgargs, t.tgqual, t.tgdeferrable,
               t.tginitdeferred)
        FROM pg_trigger t JOIN relations c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
        UNION ALL
        SELECT 'policy', 'pg_policy'::regclass::oid, y.oid, 0, y.polrelid, format('%I on %I.%I', y.polname, c.nspname, c.relname), y.polname, '',
               (to_jsonb(y) - 'polname')::text
        FROM pg_policy y JOIN relations c ON c.oid = y.polrelid
        UNION ALL
        SELECT 'rule', 'pg_rewrite'::regclass::oid, r.oid, 0, r.ev_class, format('%I on %I.%I', r.rulename, c.nspname, c.relname), r.rulename, '',
               concat_ws(' ', r.ev_type, r.ev_enabled, r.is_instead, r.ev_qual, r.ev_action)
        FROM pg_rewrite r JOIN relations c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN'
        UNION ALL
        SELECT 'schema', 'pg_namespace'::regclass::oid, n.oid, 0, NULL, quote_ident(n.nspname), quote_ident(n.nspname), '',
               concat_ws(' ', n.nspowner, n.nspacl)
        FROM pg_namespace n JOIN ours USING (oid)
        UNION ALL
        SELECT 'extension', 'pg_extension'::regclass::oid, e.oid, 0, NULL, quote_ident(e.extname), quote_ident(e.extname), e.extversion, ''
        FROM pg_extension e
        UNION ALL
        SELECT 'statistics object', 'pg_statistic_ext'::regclass::oid, x.oid, 0, x.stxrelid, format('%I.%I', s.nspname, x.stxname),
               format('%I.%I', s.nspname, x.stxname), '', concat_ws(' ', x.stxkind, x.stxkeys, x.stxexprs, x.stxowner,
               to_jsonb(x) ->> 'stxstattarget')
        FROM pg_statistic_ext x JOIN ours s ON s.oid = x.stxnamespace
        UNION ALL
        SELECT 'publication', 'pg_publication'::regclass::oid, p.oid, 0, NULL, quote_ident(p.pubname), quote_ident(p.pubname), '',
               concat_ws(' ', to_jsonb(p) - 'pubname', (SELECT jsonb_agg(to_jsonb(r) - 'oid' ORDER BY r.prrelid)
               FROM pg_publication_rel r WHERE r.prpubid = p.oid), (SELECT array_agg(n.pnnspid ORDER BY n.pnnspid)
               FROM pg_publication_namespace n WHERE n.pnpubid = p.oid))
        FROM pg_publication p
        UNION ALL
        SELECT 'subscription', 'pg_subscription'::regclass::oid, s.oid, 0, NULL, quote_ident(s.subname), quote_ident(s.subname), '',
               concat_ws(' ', s.subowner, s.subenabled, s.subslotname, s.subpublications)
        FROM pg_subscription s WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION ALL
        SELECT 'event trigger', 'pg_event_trigger'::regclass::oid, e.oid, 0, NULL, quote_ident(e.evtname), quote_ident(e.evtname), '',
               (to_jsonb(e) - 'evtname')::text
        FROM pg_event_trigger e
        UNION ALL
        SELECT 'collation', 'pg_collation'::regclass::oid, c.oid, 0, NULL, format('%I.%I', s.nspname, c.collname),
               format('%I.%I', s.nspname, c.collname), '', (to_jsonb(c) - 'collname')::text
        FROM pg_collation c JOIN ours s ON s.oid = c.collnamespace
        UNION ALL
        SELECT 'conversion', 'pg_conversion'::regclass::oid, c.oid, 0, NULL, format('%I.%I', s.nspname, c.conname),
               format('%I.%I', s.nspname, c.conname), '', (to_jsonb(c) - 'conname')::text
        FROM pg_conversion c JOIN ours s ON s.oid = c.connamespace
        UNION ALL
        SELECT 'operator', 'pg_operator'::regclass::oid, o.oid, 0, NULL, o.oid::regoperator::text, o.oid::regoperator::text, '',
               to_jsonb(o)::text
        FROM pg_operator o JOIN ours s ON s.oid = o.oprnamespace WHERE o.oprcode <> 0
        UNION ALL
        SELECT 'operator class', 'pg_opclass'::regclass::oid, c.oid, 0, NULL, format('%I.%I', s.nspname, c.opcname),
               format('%I.%I', s.nspname, c.opcname), '', (to_jsonb(c) - 'opcname')::text
        FROM pg_opclass c JOIN ours s ON s.oid = c.opcnamespace
        UNION ALL
        SELECT 'operator family', 'pg_opfamily'::regclass::oid, f.oid, 0, NULL, format('%I.%I', s.nspname, f.opfname),
               format('%I.%I', s.nspname, f.opfname), '', concat_ws(' ', f.opfowner,
               (SELECT array_agg(a.oid ORDER BY a.oid) FROM pg_amop a WHERE a.amopfamily = f.oid),
               (SELECT array_agg(a.oid ORDER BY a.oid) FROM pg_amproc a WHERE a.amprocfamily = f.oid))
        FROM pg_opfamily f JOIN ours s ON s.oid = f.opfnamespace
        UNION ALL
        SELECT 'cast', 'pg_cast'::regclass::oid, c.oid, 0, NULL, format('(%s AS %s)', c.castsource::regtype, c.casttarget::regtype),
               'cast', '', concat_ws(' ', c.castfunc, c.castcontext, c.castmethod)
        FROM pg_cast c WHERE c.oid >= 16384
        UNION ALL
        SELECT 'text search configuration', 'pg_ts_config'::regclass::oid, t.oid, 0, NULL, format('%I.%I', s.nspname, t.cfgname),
               format('%I.%I', s.nspname, t.cfgname), '', concat_ws(' ', t.cfgowner, t.cfgparser, (SELECT jsonb_agg(to_jsonb(m)
               ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = t.oid))
        FROM pg_ts_config t JOIN ours s ON s.oid = t.cfgnamespace
        UNION ALL
        SELECT 'text search dictionary', 'pg_ts_dict'::regclass::oid, t.oid, 0, NULL, format('%I.%I', s.nspname, t.dictname),
               format('%I.%I', s.nspname, t.dictname), '', (to_jsonb(t) - 'dictname')::text
        FROM pg_ts_dict t JOIN ours s ON s.oid = t.dictnamespace
        UNION ALL
        SELECT 'text search parser', 'pg_ts_parser'::regclass::oid, t.oid, 0, NULL, format('%I.%I', s.nspname, t.prsname),
               format('%I.%I', s.nspname, t.prsname), '', ''
        FROM pg_ts_parser t JOIN ours s ON s.oid = t.prsnamespace
        UNION ALL
        SELECT 'text search template', 'pg_ts_template'::regclass::oid, t.oid, 0, NULL, format('%I.%I', s.nspname, t.tmplname),
               format('%I.%I', s.nspname, t.tmplname), '', ''
        FROM pg_ts_template t JOIN ours s ON s.oid = t.tmplnamespace
        UNION ALL
        SELECT 'default privileges', 'pg_default_acl'::regclass::oid, a.oid, 0, NULL, format('of %I%s, for kind %s',
               pg_get_userbyid(a.defaclrole), ' in ' || a.defaclnamespace::regnamespace, a.defaclobjtype), 'default', '', a.defaclacl::text
        FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
        UNION ALL
        SELECT 'language', 'pg_language'::regclass::oid, l.oid, 0, NULL, quote_ident(l.lanname), quote_ident(l.lanname), '',
               (to_jsonb(l) - 'lanname')::text
        FROM pg_language l
        UNION ALL
        SELECT 'transform', 'pg_transform'::regclass::oid, t.oid, 0, NULL, format('for %s in %I', t.trftype::regtype, l.lanname), 'transform',
               '', to_jsonb(t)::text
        FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang
        UNION ALL
        SELECT 'access method', 'pg_am'::regclass::oid, a.oid, 0, NULL, quote_ident(a.amname), quote_ident(a.amname), '', ''
        FROM pg_am a
        UNION ALL
        SELECT 'foreign data wrapper', 'pg_foreign_data_wrapper'::regclass::oid, w.oid, 0, NULL, quote_ident(w.fdwname), quote_ident(w.fdwname),
               '', (to_jsonb(w) - 'fdwname')::text
        FROM pg_foreign_data_wrapper w
        UNION ALL
        SELECT 'server', 'pg_foreign_server'::regclass::oid, v.oid, 0, NULL, quote_ident(v.srvname), quote_ident(v.srvname), '',
               (to_jsonb(v) - 'srvname')::text
        FROM pg_foreign_server v
        UNION ALL
        SELECT 'user mapping', 'pg_user_mapping'::regclass::oid, m.umid, 0, NULL, format('for %I on %I', m.usename, m.srvname), 'mapping', '',
               md5(m.umoptions::text)
        FROM pg_user_mappings m
        UNION ALL
        SELECT 'database', 'pg_database'::regclass::oid, d.oid, 0, NULL, quote_ident(d.datname), quote_ident(d.datname), '',
               concat_ws(' ', d.datdba, d.datacl, d.datconnlimit, shobj_description(d.oid, 'pg_database'),
               (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.setrole) FROM pg_db_role_setting r WHERE r.setdatabase = d.oid))
        FROM pg_database d WHERE d.datname = current_database()
    ) AS o LEFT JOIN pg_description d ON (d.objoid, d.classoid, d.objsubid) = (o.oid, o.class, o.part)
    WHERE NOT EXISTS (SELECT FROM extended e WHERE (e.classid, e.objid) = (o.class, o.oid))
"""  # noqa: S608
ROWS = f"""
    SELECT sum(n_tup_ins)::bigint, sum(n_tup_upd)::bigint, sum(n_tup_del)::bigint FROM pg_stat_xact_user_tables s
    JOIN pg_class c ON c.oid = s.relid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE s.schemaname <> '{objects.TOOLS_SCHEMA}' AND {objects.NOT_ALEMBICS}
"""  # noqa: S608


class Known(NamedTuple):
    """What identifies an object across renames: its catalogue, its oid, and a column's number or 0."""

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


def without(state: State, dropped: Collection[tuple[int, int]]) -> State:
    """The state without some objects, given by catalogue and oid, and their parts."""
    oids = {oid for _, oid in dropped}
    kept = {
        key: found
        for key, found in state.objects.items()
        if (key.catalogue, key.oid) not in dropped and found.parent not in oids
    }
    return State(kept, state.rows)


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
    lines += [] if numbers else [NOTHING]
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
