"""Checks before a backup that a restore could compute what it has to: expressions that call users' functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.catalog import fingerprint
from skinspire_db.errors import StepFailed
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection

ROWS = 1000  # of each table and view, on which its expressions are tried
PATIENCE = "30s"  # for each trial; what takes longer is left to `backup.verify --full`
SUPERUSER = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
MISSING = ("42883", "42P01", "42704", "3F000")  # no such function, table, type, schema
# What is computed while rows are loaded, or right after, and calls a function without a search_path of its own, by name, by
# an operator or by an aggregate: what it is, a SELECT that computes it, the functions. Nothing computes defaults, policies,
# the expressions of statistics, and constraints that are NOT VALID.
EXPRESSIONS = """
    WITH RECURSIVE functions AS (
        SELECT p.oid, p.oid::regprocedure::text AS name, n.nspname, l.lanname, r.rolsuper AS trusted
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
        JOIN pg_roles r ON r.oid = p.proowner
        WHERE p.oid >= 16384 AND p.prokind = 'f' AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s ~ '^search_path=')
    ), calls AS (
        SELECT d.classid, d.objid, d.objsubid, f.name, f.nspname, f.lanname, f.trusted
        FROM pg_depend d LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
        LEFT JOIN pg_aggregate a ON d.refclassid = 'pg_proc'::regclass AND a.aggfnoid = d.refobjid
        JOIN functions f ON f.oid IN (o.oprcode, a.aggtransfn, a.aggfinalfn)
            OR d.refclassid = 'pg_proc'::regclass AND f.oid = d.refobjid
    ), checked (type, domain, conid) AS (
        SELECT k.contypid, k.contypid, k.oid FROM pg_constraint k
        WHERE k.contypid <> 0 AND k.convalidated AND k.oid IN (SELECT objid FROM calls WHERE classid = 'pg_constraint'::regclass)
        UNION SELECT t.oid, h.domain, h.conid FROM checked h JOIN pg_type t ON h.type IN (t.typelem, t.typbasetype) OR EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = h.type AND NOT a.attisdropped)
    ), reads (view, rule) AS (
        SELECT c.oid, r.oid FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid WHERE c.relkind = 'm' AND c.relispopulated
        UNION SELECT h.view, r.oid FROM reads h JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = h.rule
            AND d.refclassid = 'pg_class'::regclass
        JOIN pg_class v ON v.oid = d.refobjid AND v.relkind = 'v' JOIN pg_rewrite r ON r.ev_class = v.oid AND r.rulename = '_RETURN'
    ), used (what, relid, expression, classid, objid, objsubid) AS (
        SELECT 'the generated column ' || quote_ident(a.attname), a.attrelid, pg_get_expr(d.adbin, d.adrelid), each.*
        FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum, LATERAL (VALUES
            ('pg_class'::regclass, a.attrelid, a.attnum::int), ('pg_attrdef'::regclass, d.oid, 0)) AS each
        WHERE a.attgenerated = 's'
        UNION ALL
        SELECT 'the constraint ' || quote_ident(conname), conrelid, pg_get_expr(conbin, conrelid),
               'pg_constraint'::regclass, oid, 0
        FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 AND convalidated
        UNION ALL
        SELECT 'the index ' || indexrelid::regclass, indrelid, concat_ws(', ', pg_get_expr(indexprs, indrelid),
               pg_get_expr(indpred, indrelid)), 'pg_class'::regclass, indexrelid, NULL
        FROM pg_index WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
        UNION ALL
        SELECT 'the partition key', partrelid, pg_get_expr(partexprs, partrelid), 'pg_class'::regclass, partrelid, 0
        FROM pg_partitioned_table WHERE partexprs IS NOT NULL
        UNION ALL
        SELECT format('the domain %s in the column %I', h.domain::regtype, a.attname), a.attrelid,
               format('%I::text::%s', a.attname, format_type(a.atttypid, a.atttypmod)), 'pg_constraint'::regclass, h.conid, 0
        FROM checked h JOIN pg_attribute a ON a.atttypid = h.type AND a.attnum > 0 AND NOT a.attisdropped
    )
    SELECT u.what || ' of ' || u.relid::regclass,
           format('SELECT ROW(%s) AS x FROM %s %s', u.expression, CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY' END, u.relid::regclass),
           array_agg(DISTINCT f.name), min(f.nspname), c.relowner::regrole::text, r.rolsuper, bool_and(f.trusted)
    FROM used u JOIN pg_class c ON c.oid = u.relid JOIN pg_roles r ON r.oid = c.relowner
    JOIN calls f ON f.classid = u.classid AND f.objid = u.objid AND (u.objsubid IS NULL OR f.objsubid = u.objsubid)
    WHERE c.relkind IN ('r', 'm') OR c.relkind = 'p' AND u.what = 'the partition key'
    GROUP BY 1, 2, 5, 6
    UNION ALL
    SELECT 'the materialized view ' || h.view::regclass,
           format('SELECT ROW(v.*) AS x FROM (%s) AS v', rtrim(pg_get_viewdef(h.view), ';')), array_agg(DISTINCT f.name), min(f.nspname),
           c.relowner::regrole::text, r.rolsuper, bool_and(f.trusted)
    FROM reads h JOIN calls f ON f.classid = 'pg_rewrite'::regclass AND f.objid = h.rule
    JOIN pg_class c ON c.oid = h.view JOIN pg_roles r ON r.oid = c.relowner
    WHERE f.lanname NOT IN ('c', 'internal')
    GROUP BY h.view, 5, 6 ORDER BY 1
"""  # noqa: E501


# Within a SECURITY DEFINER function PostgreSQL refuses to change the role. SET ROLE alone would be no limit: a function that
# the trial calls could take it back with RESET ROLE.
AS_THE_OWNER = """
    SET LOCAL check_function_bodies = off;
    CREATE FUNCTION pg_temp.skinspire_trial() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = '' AS {body};
    ALTER FUNCTION pg_temp.skinspire_trial() OWNER TO {owner};
    SET LOCAL transaction_read_only = on
"""


@dataclass(frozen=True)
class Trial:
    """Something that a restore computes: a SELECT that computes it, the functions that it calls, and their schema.

    Attributes:
        owner: the role that owns the table or view, quoted; `privileged` when it is a superuser.
        trusted: all functions belong to superusers.
    """

    what: str
    select: str
    functions: list[str]
    schema: str
    owner: str
    privileged: bool
    trusted: bool

    @property
    def query(self) -> str:
        """The query that computes it on some rows."""
        return f"SELECT pg_catalog.count(s.x) FROM ({self.select} LIMIT {ROWS}) AS s"  # noqa: S608

    def wrong(self, error: psycopg.Error) -> StepFailed:
        """The error for a trial in which something was not found."""
        return StepFailed(
            f"{self.what} could not be restored: {', '.join(self.functions)} calls something by its bare name"
            f" ({error.diag.message_primary}), and a restore has no search_path",
            remedy=f"in invoke db.shell: ALTER FUNCTION {self.functions[0]} SET search_path = {self.schema}, pg_temp",
        )


def check(target: Target, watched: fingerprint.Sessions | None = None) -> list[str]:
    """Compute on some rows what a restore computes, as a restore does: without a search_path.

    No function of another role runs with a superuser's rights: it runs with those of the owner of the table or view.

    Args:
        target: the database that is to be backed up; nothing in it is changed.
        watched: holds the connection while it is at work; see `fingerprint.meanwhile`.

    Returns:
        A sentence when something could not be tried.

    Raises:
        StepFailed: something would not be found in a restore; the error names the function, and what mends it.
    """
    with contextlib.closing(connections.connect(target, "backup.create")) as connection:
        sessions = set() if watched is None else watched
        sessions.add(connection)
        connection.prepare_threshold = None  # a function could prepare a statement under the name that psycopg would use
        with _settings(connection, target):
            found = connection.execute(f"{SUPERUSER}; {EXPRESSIONS}".encode())
            superuser = found.fetchone() == (True,)
            found.nextset()
            trials = [Trial(*row) for row in found.fetchall()]
        unknown = [trial.what for trial in trials if not _passes(connection, target, trial, superuser)]
        sessions.discard(connection)
    if not unknown:
        return []
    more = f", and {len(unknown) - 1} more" if unknown[1:] else ""
    return [
        f"unknown whether it can be restored: {unknown[0]}{more}; it calls functions of other roles, and these do not run"
        " with a superuser's rights"
    ]


def _passes(connection: Connection, target: Target, trial: Trial, superuser: bool) -> bool:
    """Run a trial. Returns False when it could not be run with less than a superuser's rights. Raises StepFailed."""
    import psycopg
    from psycopg import sql

    lesser = superuser and not (trial.privileged and trial.trusted)
    if lesser and trial.privileged:
        return False
    try:
        with _settings(connection, target):
            query = trial.query
            if lesser:
                try:
                    body, owner = sql.Literal(query), sql.SQL(trial.owner)
                    connection.execute(sql.SQL(AS_THE_OWNER).format(body=body, owner=owner))
                except psycopg.Error:  # a standby, or an event trigger that refuses it
                    return False
                query = "SELECT pg_temp.skinspire_trial()"
            else:
                connection.execute("SET LOCAL transaction_read_only = on")
            connection.execute(query.encode())
    except psycopg.Error as error:
        if error.sqlstate in MISSING:
            raise trial.wrong(error) from None
        if connection.closed:
            raise
    return True


@contextlib.contextmanager
def _settings(connection: Connection, target: Target) -> Iterator[None]:
    """A transaction that is rolled back at the end, with a restore's settings."""
    connections.begin(connection, target.policy, brief=True)
    connection.execute(f"SET LOCAL search_path = ''; SET LOCAL statement_timeout = '{PATIENCE}'".encode())
    try:
        yield
    finally:
        if not connection.closed:
            connection.rollback()
