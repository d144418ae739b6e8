"""Taking functions, views and policies out of the way of a change of what they read, and making them again afterwards.

PostgreSQL neither changes the type of a column that a view reads nor replaces a view by one with other columns. So the object
and all that depends on it are dropped and made again in the same transaction, with owner, grants, comments, indexes, triggers
and rules. Policies are made again by the install that follows, where they still belong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from skinspire_db.catalog.objects import quoted_name
from skinspire_db.errors import NotOurs
from skinspire_db.objects import live
from skinspire_db.objects.ledger import Entry
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Address = tuple[int, int]  # catalogue and oid of an object
# What depends on some objects, directly or not. A rule stands for its view; a view's own row type leads to the functions that
# return it.
REACHED = f"""
    WITH RECURSIVE reached (classid, objid) AS (
        SELECT * FROM unnest(%s::oid[], %s::oid[])
        UNION
        SELECT next.* FROM reached r CROSS JOIN LATERAL (
            SELECT CASE WHEN w.rulename = '_RETURN' THEN 'pg_class'::regclass::oid ELSE d.classid END,
                   CASE WHEN w.rulename = '_RETURN' THEN w.ev_class ELSE d.objid END
            FROM pg_depend d LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
            WHERE (d.refclassid, d.refobjid) = (r.classid, r.objid) AND d.deptype = 'n'
            UNION ALL
            SELECT 'pg_type'::regclass::oid, t.oid FROM pg_type t
            WHERE r.classid = 'pg_class'::regclass AND t.typrelid = r.objid OR r.classid = 'pg_type'::regclass AND t.typelem = r.objid
        ) AS next
    )
    SELECT CASE WHEN c.oid IS NOT NULL THEN {live.WORD} || ' ' || c.oid::regclass WHEN p.oid IS NOT NULL THEN p.oid::regprocedure::text
                WHEN o.oid IS NOT NULL THEN (SELECT format('policy "%%s" on %%I.%%I', replace(o.polname, '"', '""'), n.nspname, t.relname)
                    FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = o.polrelid) END,
           pg_describe_object(r.classid, r.objid, 0), r.classid, r.objid
    FROM reached r LEFT JOIN pg_policy o ON r.classid = 'pg_policy'::regclass AND o.oid = r.objid
    LEFT JOIN pg_proc p ON r.classid = 'pg_proc'::regclass AND p.oid = r.objid
    LEFT JOIN pg_class c ON r.classid = 'pg_class'::regclass AND c.oid = r.objid AND c.relkind IN ('v', 'm')
    WHERE r.classid <> 'pg_type'::regclass ORDER BY 2
"""  # noqa: S608, E501
# The statements that make what belongs to an object beside its definition: kind, what it is about, and the statement.
PARTS = f"""
    SELECT 'owner', '', format('ALTER %%s %%s OWNER TO %%I', upper({live.WORD}), c.oid::regclass, pg_get_userbyid(c.relowner))
    FROM pg_class c WHERE c.oid = %(oid)s
    UNION ALL SELECT 'grant', '', format('GRANT %%s ON %%s TO %%s%%s', a.privilege_type, c.oid::regclass,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid = %(oid)s
    UNION ALL SELECT 'grant', '', format('GRANT %%s (%%I) ON %%s TO %%s%%s', a.privilege_type, t.attname, t.attrelid::regclass,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = %(oid)s AND t.attacl IS NOT NULL
    UNION ALL SELECT 'comment', '', format('COMMENT ON %%s %%s IS %%L', upper({live.WORD}), c.oid::regclass, d.description)
    FROM pg_class c JOIN pg_description d ON (d.objoid, d.classoid, d.objsubid) = (c.oid, 'pg_class'::regclass, 0) WHERE c.oid = %(oid)s
    UNION ALL SELECT 'comment', t.attname, format('COMMENT ON COLUMN %%s.%%I IS %%L', t.attrelid::regclass, t.attname, d.description)
    FROM pg_attribute t JOIN pg_description d ON (d.objoid, d.classoid, d.objsubid) = (t.attrelid, 'pg_class'::regclass, t.attnum)
    WHERE t.attrelid = %(oid)s
    UNION ALL SELECT 'default', t.attname, format('ALTER VIEW %%s ALTER COLUMN %%I SET DEFAULT %%s', t.attrelid::regclass, t.attname,
        pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attrdef d JOIN pg_attribute t ON (t.attrelid, t.attnum) = (d.adrelid, d.adnum) WHERE d.adrelid = %(oid)s
    UNION ALL SELECT 'index', 'index ' || x.indexrelid::regclass, pg_get_indexdef(x.indexrelid) FROM pg_index x WHERE x.indrelid = %(oid)s
    UNION ALL SELECT 'comment', 'index ' || x.indexrelid::regclass, format('COMMENT ON INDEX %%s IS %%L', x.indexrelid::regclass, d.description)
    FROM pg_index x JOIN pg_description d ON (d.objoid, d.classoid) = (x.indexrelid, 'pg_class'::regclass) WHERE x.indrelid = %(oid)s
    UNION ALL SELECT 'rule', r.rulename, pg_get_ruledef(r.oid) FROM pg_rewrite r WHERE r.ev_class = %(oid)s AND r.rulename <> '_RETURN'
    UNION ALL SELECT 'trigger', t.tgname, pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'D'
        THEN format('; ALTER TABLE %%s DISABLE TRIGGER %%I', t.tgrelid::regclass, t.tgname) ELSE '' END
    FROM pg_trigger t WHERE t.tgrelid = %(oid)s AND NOT t.tgisinternal
"""  # noqa: S608, E501
FUNCTION_PARTS = """
    SELECT 'owner', '', format('ALTER ROUTINE %%s OWNER TO %%I', p.oid::regprocedure, pg_get_userbyid(p.proowner))
    FROM pg_proc p WHERE p.oid = %(oid)s
    UNION ALL SELECT 'grant', '', format('GRANT %%s ON ROUTINE %%s TO %%s%%s', a.privilege_type, p.oid::regprocedure,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE p.oid = %(oid)s
    UNION ALL SELECT 'comment', '', format('COMMENT ON ROUTINE %%s IS %%L', p.oid::regprocedure, d.description)
    FROM pg_proc p JOIN pg_description d ON (d.objoid, d.classoid) = (p.oid, 'pg_proc'::regclass) WHERE p.oid = %(oid)s
"""
RELATION = f"""
    SELECT c.oid, format('CREATE %%s %%s%%s AS %%s%%s', upper({live.WORD}), c.oid::regclass,
        ' WITH (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), ';'),
        CASE WHEN c.relispopulated THEN '' ELSE ' WITH NO DATA' END)
    FROM pg_class c WHERE c.oid = to_regclass(%(name)s) AND c.relkind IN ('v', 'm')
"""  # noqa: S608
FUNCTION = """
    SELECT p.oid, CASE p.prokind WHEN 'a' THEN '' ELSE pg_get_functiondef(p.oid) END FROM pg_proc p
    WHERE p.oid = to_regprocedure(%(name)s)
"""
ORDER = ("index", "default", "rule", "trigger", "grant", "comment")


class Part(NamedTuple):
    """Something that belongs to a view or function, such as an index; `about` is what of the object it is about."""

    kind: str
    about: str
    statement: str


@dataclass(frozen=True)
class Saved:
    """An object that was dropped: what the ledger calls it, where it was, the statement that makes it, and its parts."""

    key: str
    address: Address
    statement: str
    parts: tuple[Part, ...]


class Reached(NamedTuple):
    """An object: what the ledger calls a view, function or policy; as PostgreSQL describes it; where it is."""

    key: str | None
    described: str
    address: Address


def take_down(connection: Connection, start: Collection[Address], ours: Collection[str] | None, because: str) -> list[Saved]:
    """Drop views, functions and policies, and all of these that depend on them.

    Args:
        connection: Where; in the caller's transaction.
        start: The objects to begin with.
        ours: What the ledger knows, and nothing else is dropped; None for a trial that is rolled back.
        because: What they are in the way of, for the error.

    Returns:
        What was dropped, in the order in which it can be made again.

    Raises:
        NotOurs: Something that no SQL file made would have to go, too; all of it is named, and nothing was dropped.
    """
    saved = {each.key: each for each in planned(connection, start, ours, because)}
    policies = [key for key in saved if is_policy(key)]
    for key in policies:
        _execute(connection, f"DROP {live.word(key)} {live.split(key)[1]}")
    return [saved[key] for key in [*reversed(live.drop(connection, saved.keys() - policies)), *policies]]


def planned(
    connection: Connection, start: Collection[Address], ours: Collection[str] | None, because: str, gone: Collection[str] = ()
) -> list[Saved]:
    """What `take_down` would drop, in the order in which it can be made again; nothing is changed.

    Args:
        connection: Where.
        start: As for `take_down`.
        ours: As for `take_down`.
        because: As for `take_down`.
        gone: What will not be there any more, as PostgreSQL describes it.

    Raises:
        NotOurs: As `take_down`.
    """
    if others := [each for each in unknown(connection, start, ours) if each not in gone]:
        raise refusal(connection, start, ours, because, others)
    found = [each for each in reached(connection, start) if each.key and each.described not in gone]
    policies = [Saved(each.key, each.address, "", ()) for each in found if each.key and is_policy(each.key)]
    keys = [each.key for each in found if each.key and not is_policy(each.key)]
    # An object depends on fewer than what it is built on.
    depth = {key: len(reached(connection, addresses(connection, [key]))) for key in keys}
    return [_saved(connection, key) for key in sorted(keys, key=lambda key: -depth[key])] + policies


def refusal(
    connection: Connection, start: Collection[Address], ours: Collection[str] | None, because: str, others: Collection[str]
) -> NotOurs:
    """The error for objects, described in `others`, that stand in the way and that no SQL file made."""
    key = next((each.key for each in reached(connection, start) if each.key and each.described in others), None)
    return NotOurs(f"{because}: no SQL file made {', '.join(others)}", remedy=_file_of(key))


def unknown(connection: Connection, start: Collection[Address], ours: Collection[str] | None) -> list[str]:
    """Which of these objects, and of what depends on them, no SQL file made, described."""
    return [
        each.described
        for each in reached(connection, start)
        if not each.key or ((ours is not None or is_policy(each.key)) and each.key not in (ours or ()))
    ]


def reached(connection: Connection, start: Collection[Address]) -> list[Reached]:
    """The objects and all that depends on them."""
    places = list(start)
    given = [catalogue for catalogue, _ in places], [oid for _, oid in places]
    rows = search_path.rows(connection, REACHED, given) if places else []
    return [Reached(key, described, (catalogue, oid)) for key, described, catalogue, oid in rows]


def is_policy(key: str) -> bool:
    """Whether a name of `Reached` is that of a policy."""
    return live.split(key)[0] == "policy"


def of_entries(entries: Iterable[Entry]) -> set[str]:
    """What the ledger's files have made, as `Reached` names it.

    Args:
        entries: the rows of the ledger.
    """
    found: set[str] = set()
    for entry in entries:
        found |= entry.functions.keys()
        found |= {f"policy {quoted_name(made.name)} on {made.table}" for made in entry.triggers.values() if made.of_policy}
    return found


def _file_of(key: str | None) -> str:
    """What to do about an object without a file."""
    kind, name = live.split(key) if key else ("", "")
    if not name or kind == "policy":
        return "drop that first, and make it again afterwards"
    flag = "function" if kind == "function" else "view"
    return f"invoke sql.new --env={{env}} --{flag}={name.partition('(')[0]} --from-database makes an SQL file of it"


def addresses(connection: Connection, keys: Iterable[str]) -> list[Address]:
    """Where the catalogue has the objects that exist."""
    wanted = set(keys)
    return [address for address, row in live.rows(connection).items() if row.key in wanted]


def named(connection: Connection, name: str) -> list[Address]:
    """Where the catalogue has the table or view with this name, as the application's statements have it."""
    query = "SELECT 'pg_class'::regclass::oid, oid FROM pg_class WHERE oid = to_regclass(%s)"
    with search_path.application(connection):
        return [(catalogue, oid) for catalogue, oid in connection.execute(query, (name,)).fetchall()]


def readers(
    connection: Connection, table: str, columns: Sequence[str] | None = None, constraints: Sequence[str] = ()
) -> list[Address]:
    """The views, functions and policies that read a table or its partitions.

    Args:
        connection: Where.
        table: The table's name, as the application's statements have it.
        columns: Only those that read one of these columns; None for all but the table's own policies, which go with it.
        constraints: And those that need one of these constraints of the table.
    """
    query = f"""
        WITH RECURSIVE parts (oid) AS (
            SELECT to_regclass(%(table)s)::oid UNION SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = parts.oid
        )
        SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass THEN 'pg_class'::regclass::oid ELSE d.classid END,
                        coalesce(w.ev_class, d.objid)
        FROM pg_depend d LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
        WHERE (w.rulename = '_RETURN' OR d.classid = 'pg_proc'::regclass OR d.classid = 'pg_policy'::regclass AND (
                  {columns is not None} OR (SELECT polrelid FROM pg_policy WHERE oid = d.objid) <> d.refobjid))
          AND d.deptype = 'n' AND (
              d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM parts) AND ({columns is None} OR EXISTS (
                  SELECT FROM pg_attribute a
                  WHERE (a.attrelid, a.attnum) = (d.refobjid, d.refobjsubid) AND a.attname = ANY (%(columns)s)))
           OR d.refclassid = 'pg_constraint'::regclass AND d.refobjid IN (
                  SELECT oid FROM pg_constraint WHERE conrelid = to_regclass(%(table)s) AND conname = ANY (%(constraints)s)))
    """  # noqa: S608
    given = {"table": table, "columns": list(columns or ()), "constraints": list(constraints)}
    return [(catalogue, oid) for catalogue, oid in search_path.rows(connection, query, given)]


def put_back(connection: Connection, saved: Iterable[Saved], but: Collection[str] = ()) -> None:
    """Make again what was dropped and no file has made since, and give each object its owner, grants, comments and the rest.

    Args:
        connection: Where; in the caller's transaction.
        saved: What `take_down` has dropped.
        but: Indexes, as the ledger calls them, that are not wanted any more.
    """
    saved = [each for each in saved if not is_policy(each.key)]
    for each in saved:
        if _address(connection, each.key) is None and each.statement:
            _execute(connection, each.statement)
    for each in saved:
        if _address(connection, each.key) is not None:
            _put_back_parts(connection, each, but)


def _put_back_parts(connection: Connection, saved: Saved, but: Collection[str]) -> None:
    import psycopg

    now = parts(connection, saved.key)
    for part in saved.parts:
        if part.kind == "owner" and part not in now:
            _execute(connection, part.statement)
    now = parts(connection, saved.key)
    for part in now:
        if part.kind == "grant" and part not in saved.parts:
            revoked = part.statement.removesuffix(" WITH GRANT OPTION").replace("GRANT", "REVOKE", 1)
            _execute(connection, " FROM ".join(revoked.rsplit(" TO ", 1)))
    present = {(part.kind, part.about) for part in now if part.kind != "grant"}
    for part in sorted((each for each in saved.parts if each.kind in ORDER), key=lambda each: ORDER.index(each.kind)):
        if part in now or (part.kind, part.about) in present or part.about in but:
            continue
        try:
            with connection.transaction():  # a savepoint
                _execute(connection, part.statement)
        except psycopg.errors.UndefinedColumn:
            if part.kind not in ("grant", "comment"):  # these go with their column
                raise


def _saved(connection: Connection, key: str) -> Saved:
    [address] = addresses(connection, [key])
    return Saved(key, address, statement(connection, key), tuple(parts(connection, key)))


def _address(connection: Connection, key: str) -> tuple[int, str] | None:
    """The object's oid, and the statement that makes it."""
    query = FUNCTION if live.is_function(key) else RELATION
    found = search_path.rows(connection, query, {"name": live.split(key)[1]})
    return found[0] if found else None


def statement(connection: Connection, key: str) -> str:
    """The statement that makes an object that exists; empty for an aggregate, which PostgreSQL does not print."""
    found = _address(connection, key)
    assert found
    return found[1]


def parts(connection: Connection, key: str) -> list[Part]:
    """What belongs to an object that exists beside its definition."""
    found = _address(connection, key)
    assert found
    query = FUNCTION_PARTS if live.is_function(key) else PARTS
    return [Part(*row) for row in search_path.rows(connection, query, {"oid": found[0]})]


def _execute(connection: Connection, statement: str) -> None:
    with search_path.application(connection):
        connection.execute(statement.encode())
