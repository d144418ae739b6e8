"""What a database holds, as PostgreSQL writes it: one catalogue query for each kind of object."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import fields, objects
from skinspire_db.catalog.fields import Snapshot
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

RELATION = f"{objects.RELATION} AND {objects.NOT_ALEMBICS} AND NOT c.relispartition"  # a partition is what its table holds
FUNCTION = f"{objects.FUNCTION} AND NOT {objects.depends('p.oid', 'pg_proc', 'i')}"  # not a range type's own
TYPE = objects.application("t.oid", "pg_type")
SCHEMA = objects.application("n.oid", "pg_namespace")
TABLE = "format('%I.%I', n.nspname, c.relname)"
# An owner is shown only where it is not the owner of most tables, whichever role asks.
OWNER = """
    CASE WHEN {owner} <> (SELECT mode() WITHIN GROUP (ORDER BY relowner) FROM pg_class
                          WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace)
         THEN quote_ident(pg_get_userbyid({owner})) END
"""


def _columns(*values: str) -> str:
    """SQL of the values, in the order of the definition's fields."""
    return ", ".join(values)


def _lines(*parts: str) -> str:
    """SQL that puts the parts on lines of their own, without those that are NULL; NULL where all are."""
    return f"nullif(concat_ws(chr(10), {', '.join(parts)}), '')"


def _owner(column: str) -> str:
    return f"'owner ' || {OWNER.format(owner=column)}"


def _comment(oid: str, catalogue: str) -> str:
    return f"quote_literal(obj_description({oid}, '{catalogue}'))"


# Minor releases of 2026 keep a number of their own among a column's options, which differs between two databases.
ATTRIBUTE_OPTIONS = "(SELECT string_agg(o, ', ') FROM unnest(a.attoptions) AS o WHERE o !~ '^pg_attver=')"
SEQUENCE = """
    format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s%s CYCLE', format_type(s.seqtypid, NULL),
           s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache, CASE WHEN NOT s.seqcycle THEN ' NO' END)
"""
SEQUENCE_OWNER = """(
    SELECT format('%I.%I.%I', on_.nspname, ot.relname, a.attname)
    FROM pg_depend o JOIN pg_attribute a ON (a.attrelid, a.attnum) = (o.refobjid, o.refobjsubid)
    JOIN pg_class ot ON ot.oid = o.refobjid JOIN pg_namespace on_ ON on_.oid = ot.relnamespace
    WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype = '{kind}')
"""
TYPE_TEXT = """
    CASE t.typtype
    WHEN 'e' THEN 'enum ' || coalesce((SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum
         WHERE enumtypid = t.oid), '')
    WHEN 'd' THEN 'domain ' || format_type(t.typbasetype, t.typtypmod)
    WHEN 'c' THEN (SELECT 'composite ' || coalesce(string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum), '')
         FROM pg_attribute WHERE attrelid = t.typrelid AND NOT attisdropped)
    ELSE (SELECT 'range of ' || format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid) END
"""
OTHERS = (  # seldom met: that they are there is all that is said
    "pg_cast", "pg_collation", "pg_conversion", "pg_foreign_data_wrapper", "pg_foreign_server", "pg_language", "pg_opclass",
    "pg_operator", "pg_opfamily", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template",
)  # fmt: skip
QUERIES = {
    "schema": f"""
        SELECT quote_ident(n.nspname), {_columns("'schema'", _owner("n.nspowner"), _comment("n.oid", "pg_namespace"))} FROM pg_namespace n
        WHERE n.nspname <> 'public' AND {SCHEMA} AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = n.oid)
          AND (SELECT bool_and({objects.ALEMBICS}) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind <> 'i') IS NOT TRUE
    """,
    "extension": "SELECT quote_ident(extname), 'extension ' || extversion FROM pg_extension WHERE extname <> 'plpgsql'",
    "table": f"""
        SELECT {TABLE}, {_columns(
            "CASE c.relpersistence WHEN 'u' THEN 'unlogged ' ELSE '' END || CASE c.relkind WHEN 'f' THEN 'foreign ' ELSE '' END || 'table'",
            "pg_get_partkeydef(c.oid)",
            "(SELECT string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid)",
            "pg_get_expr(c.relpartbound, c.oid)",
            "array_to_string(c.reloptions, ', ')",
            "c.relrowsecurity",
            "c.relforcerowsecurity",
            "nullif(c.relreplident::text, CASE c.relkind WHEN 'f' THEN 'n' ELSE 'd' END)",
            OWNER.format(owner="c.relowner"),
            _comment("c.oid", "pg_class"),
        )}
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') AND {RELATION}
    """,
    "column": f"""
        SELECT {TABLE} || '.' || quote_ident(a.attname), {_columns(
            "format_type(a.atttypid, a.atttypmod)",
            "CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END",
            "a.attnotnull",
            "CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END",
            "CASE WHEN a.attgenerated <> '' THEN btrim(pg_get_expr(d.adbin, d.adrelid), ' ' || chr(10)) END",
            "CASE WHEN a.attgenerated = '' THEN btrim(pg_get_expr(d.adbin, d.adrelid), ' ' || chr(10)) END",
            "CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END",
            "nullif(a.attstattarget, -1)::text",
            ATTRIBUTE_OPTIONS,
            "nullif(a.attcompression::text, '')",
            "quote_literal(col_description(c.oid, a.attnum))",
        )}
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        WHERE c.relkind IN ('r', 'p', 'f') AND {RELATION} ORDER BY c.oid, a.attnum
    """,
    "constraint": f"""
        SELECT quote_ident(k.conname) || ' on ' || {TABLE}, {_columns(
            "pg_get_constraintdef(k.oid)",
            _lines(
                "CASE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgconstraint = k.oid AND tgisinternal AND tgenabled <> 'O') THEN 'disabled' END",
                "CASE WHEN EXISTS (SELECT FROM pg_index WHERE indexrelid = k.conindid AND NOT (indisvalid AND indisready)) AND k.contype <> 'f'"
                " THEN 'index not valid' END",
            ),
            _comment("k.oid", "pg_constraint"),
        )}
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype NOT IN ('t', 'n') AND k.conparentid = 0 AND {RELATION}
    """,
    "index": f"""
        SELECT quote_ident(i.relname) || ' on ' || {TABLE}, {_columns(
            "pg_get_indexdef(x.indexrelid)",
            _lines(
                "CASE WHEN NOT (x.indisvalid AND x.indisready) THEN 'not valid' END",
                "CASE WHEN x.indisreplident THEN 'replica identity' END",
                "CASE WHEN x.indisclustered THEN 'clustered' END",
            ),
            _comment("i.oid", "pg_class"),
        )}
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u', 'x')) AND {RELATION}
    """,
    "sequence": f"""
        SELECT {TABLE}, {_columns(
            SEQUENCE,
            SEQUENCE_OWNER.replace("{kind}", "i"),
            SEQUENCE_OWNER.replace("{kind}", "a"),
            "c.relpersistence = 'u'",
            _comment("c.oid", "pg_class"),
        )}
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {RELATION}
    """,
    "type": f"""
        SELECT format('%I.%I', n.nspname, t.typname), {_columns(
            TYPE_TEXT,
            "CASE WHEN t.typtype = 'd' AND t.typcollation <> b.typcollation THEN t.typcollation::regcollation::text END",
            "CASE WHEN t.typtype = 'd' THEN t.typdefault END",
            "t.typtype = 'd' AND t.typnotnull",
            "ARRAY(SELECT ARRAY[quote_ident(conname), pg_get_constraintdef(oid)] FROM pg_constraint"
            " WHERE contypid = t.oid AND contype = 'c' ORDER BY conname)",
            "ARRAY(SELECT quote_literal(enumlabel) FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)",
        )}
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type b ON b.oid = t.typbasetype
        WHERE (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND EXISTS (
               SELECT FROM pg_class WHERE oid = t.typrelid AND relkind = 'c')) AND {TYPE}
    """,
    "view": f"""
        SELECT {TABLE}, {_columns(
            "CASE c.relkind WHEN 'm' THEN 'materialized ' ELSE '' END || 'view' || pg_get_viewdef(c.oid)",
            _lines(
                "CASE WHEN NOT c.relispopulated THEN 'not populated' END",
                "'with ' || array_to_string(c.reloptions, ', ')",
                _owner("c.relowner"),
            ),
            _comment("c.oid", "pg_class"),
        )}
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {RELATION}
    """,
    "function": f"""
        SELECT p.oid::regprocedure::text, {_columns(
            "CASE WHEN p.prokind = 'a' THEN 'aggregate of ' || (SELECT aggtransfn::text FROM pg_aggregate WHERE aggfnoid = p.oid)"
            " ELSE pg_get_functiondef(p.oid) END",
            _owner("p.proowner"),
            _comment("p.oid", "pg_proc"),
        )}
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {FUNCTION}
    """,
    "trigger": f"""
        SELECT quote_ident(t.tgname) || ' on ' || {TABLE}, {_columns(
            "pg_get_triggerdef(t.oid)",
            _lines(
                "CASE t.tgenabled WHEN 'D' THEN 'disabled' WHEN 'A' THEN 'always' WHEN 'R' THEN 'on replicas' END",
            ),
            _comment("t.oid", "pg_trigger"),
        )}
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {objects.RELATION} AND NOT c.relispartition
    """,
    "policy": f"""
        SELECT quote_ident(p.polname) || ' on ' || {TABLE}, concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
               'for ' || p.polcmd::text, 'to ' || (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ' ORDER BY r)
                                             FROM unnest(p.polroles) r),
               'using ' || pg_get_expr(p.polqual, p.polrelid), 'with check ' || pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {RELATION}
    """,
    "rule": f"""
        SELECT quote_ident(r.rulename) || ' on ' || {TABLE}, concat_ws(' ', pg_get_ruledef(r.oid), nullif(r.ev_enabled::text, 'O'))
        FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.rulename <> '_RETURN' AND {RELATION}
    """,
    "statistics": f"""
        SELECT quote_ident(s.stxname) || ' on ' || {TABLE}, pg_get_statisticsobjdef(s.oid)
        FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {RELATION}
    """,
    "object": f"""
        SELECT i.type || ' ' || i.identity, i.type FROM (
            {" UNION ALL ".join(f"SELECT '{each}'::regclass AS classid, oid FROM {each} WHERE oid >= 16384" for each in OTHERS)}
            UNION ALL SELECT 'pg_subscription'::regclass, s.oid FROM pg_subscription s  -- the catalogue is every database's
            JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()
        ) AS o, pg_identify_object(o.classid, o.oid, 0) AS i
        WHERE i.schema IS DISTINCT FROM '{objects.TOOLS_SCHEMA}'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.oid AND d.deptype IN ('e', 'i'))
    """,
    "event trigger": f"""
        SELECT quote_ident(e.evtname), concat_ws(' ', e.evtevent, array_to_string(e.evttags, ', '), e.evtfoid::regprocedure::text,
               nullif(e.evtenabled::text, 'O'))
        FROM pg_event_trigger e
        WHERE {objects.no_extensions("e.oid", "pg_event_trigger")}
    """,
    "publication": """
        SELECT quote_ident(pubname), concat_ws(' ', CASE WHEN puballtables THEN 'of all tables' END,
               (SELECT 'of ' || string_agg(prrelid::regclass::text, ', ' ORDER BY prrelid::regclass::text) FROM pg_publication_rel WHERE prpubid = p.oid))
        FROM pg_publication p
    """,
    # What is granted to other roles than the owner; the default grants are only those to PUBLIC.
    "grant": f"""
        SELECT format('%s to %s', g.on_what, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END),
               string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END, ', '
                          ORDER BY a.privilege_type, a.is_grantable)
        FROM (
            SELECT {TABLE} AS on_what, c.relowner AS owner,
                   coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)) AS acl
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {RELATION}
            UNION ALL SELECT {TABLE} || '.' || quote_ident(a.attname), c.relowner, a.attacl
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE a.attacl IS NOT NULL AND {RELATION}
            UNION ALL SELECT p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {FUNCTION}
            UNION ALL SELECT 'schema ' || quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
            FROM pg_namespace n WHERE {SCHEMA}
            UNION ALL SELECT format('type %I.%I', n.nspname, t.typname), t.typowner, t.typacl
            FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typacl IS NOT NULL AND {TYPE}
            UNION ALL SELECT format('what %I will make in %s (%s)', pg_get_userbyid(d.defaclrole),
                                    CASE d.defaclnamespace WHEN 0 THEN 'any schema' ELSE d.defaclnamespace::regnamespace::text END,
                                    d.defaclobjtype), d.defaclrole, d.defaclacl
            FROM pg_default_acl d
        ) AS g, aclexplode(g.acl) AS a WHERE a.grantee <> g.owner GROUP BY 1
    """,
}  # fmt: skip


def plain(name: str) -> str:
    """A name as models have it, without PostgreSQL's quotes."""
    return name.replace('""', "\0").replace('"', "").replace("\0", '"')


def split(name: str) -> tuple[str, str]:
    """A quoted, qualified name without its last part, and that."""
    parts = re.fullmatch(r'(.+)\.("(?:[^"]|"")+"|[^".]+)', name)
    return (parts[1], parts[2]) if parts else ("", name)


def snapshot(connection: Connection, *, comments: bool = True) -> Snapshot:
    """Everything of the application in a database, as PostgreSQL writes it, by one query for each kind of object.

    Args:
        connection: an open connection to the database.
        comments: take the comments with it.
    """
    found = search_path.several(connection, QUERIES)
    rows = ((f"{kind} {name}", values) for kind, listed in found.items() for name, *values in listed)
    described = {key: fields.definition(key, values) for key, values in rows}
    if comments:
        return described
    without: dict[str, Any] = {"comment": None}
    return {key: replace(value, **without) if hasattr(value, "comment") else value for key, value in described.items()}
