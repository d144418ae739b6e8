"""A role that may make functions, operators and casts in public runs nothing of its own with the rights of the role that runs the tools."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT, Project

# Types that argument types are exchanged for: a call with a varchar, a name or a smaller integer then fits better.
NEAR = 'text,varchar,name,"char",int4,int8,oid,bool,jsonb,uuid'
# A superuser that runs it leaves a file, also in a transaction that only reads, and one that is rolled back.
HOSTILE = """
SET search_path = pg_catalog, pg_temp;
CREATE FUNCTION pg_temp.body(what text) RETURNS text LANGUAGE sql AS $made$
    SELECT format($body$
BEGIN
    IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user) THEN
        EXECUTE pg_catalog.format('COPY (SELECT 1) TO %%L', %L);
    END IF;
    RETURN NULL;
END $body$, '{folder}/' || translate(what, ' /"', '_|'))
$made$;
DO $do$
DECLARE
    name text; one record; other text; types text[]; near text[] := string_to_array('{near}', ',');
    pairs text[]; l text; r text; n integer := 0;
BEGIN
    -- Functions: each argument exchanged alone, and all of one type at once.
    FOR one IN SELECT p.proname, p.proargtypes::regtype[]::text[] AS args, p.prorettype::regtype::text AS ret, p.oid
               FROM pg_proc p WHERE p.proname = ANY ('{{{names}}}') AND p.prokind = 'f' AND NOT p.proretset
                 AND p.pronargs BETWEEN 1 AND 4 AND p.provariadic = 0 LOOP
        FOREACH other IN ARRAY near LOOP
            FOR i IN 0 .. array_length(one.args, 1) LOOP
                types := one.args;
                FOR j IN 0 .. array_length(types, 1) - 1 LOOP
                    IF i = j + 1 OR i = 0 AND types[j] = types[0] OR types[j] IN ('anyelement', 'anynonarray', '"any"', 'anycompatible') THEN
                        types[j] := other;
                    END IF;
                END LOOP;
                BEGIN
                    EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', one.proname, array_to_string(types, ','),
                        CASE WHEN one.ret LIKE '%any%' THEN other ELSE one.ret END,
                        pg_temp.body(one.proname || '(' || array_to_string(types, ',') || ')'));
                    n := n + 1;
                EXCEPTION WHEN OTHERS THEN
                END;
            END LOOP;
        END LOOP;
    END LOOP;
    -- Operators, on all pairs of these types and on the rows of a table.
    FOREACH name IN ARRAY ARRAY['=', '<>', '||', '~', '!~', '->>', '->', '-', '*=', '<=', '<', '>', '>=', '+', '~~'] LOOP
        FOREACH l IN ARRAY near || ARRAY['public.hospitals', 'public.users'] LOOP
            FOREACH r IN ARRAY near || ARRAY['public.hospitals', 'public.users'] LOOP
                CONTINUE WHEN l LIKE 'public%' AND l <> r OR to_regoperator(format('pg_catalog.%s(%s,%s)', name, l, r)) IS NOT NULL;
                BEGIN
                    EXECUTE format('CREATE FUNCTION public.%I(%s,%s) RETURNS %s LANGUAGE plpgsql AS %L', 'operator ' || name, l, r,
                        CASE name WHEN '||' THEN 'text' WHEN '->>' THEN 'text' WHEN '->' THEN 'jsonb' WHEN '-' THEN 'text' WHEN '+' THEN 'text' ELSE 'bool' END,
                        pg_temp.body(name || '(' || l || ',' || r || ')'));
                    EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.%I)', name, l, r, 'operator ' || name);
                    n := n + 1;
                EXCEPTION WHEN OTHERS THEN
                END;
            END LOOP;
        END LOOP;
    END LOOP;
    ASSERT n > 1000, format('only %s', n);
END $do$;
-- A table of its own, whose rows the tools read, and casts of them.
CREATE TABLE public.mallory (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, j json, e text);
INSERT INTO public.mallory (j) VALUES ('{{}}'), (NULL);
DO $do$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['text', 'json', 'jsonb', 'varchar'] LOOP
        EXECUTE format('CREATE FUNCTION public.cast_to(public.mallory, %1$s) RETURNS %1$s LANGUAGE plpgsql AS %2$L', target, pg_temp.body('row_to_' || target));
        EXECUTE format('CREATE FUNCTION public.cast_to_%1$s(public.mallory) RETURNS %1$s LANGUAGE plpgsql AS %2$L', target, pg_temp.body('row to ' || target));
        EXECUTE format('CREATE CAST (public.mallory AS %1$s) WITH FUNCTION public.cast_to_%1$s(public.mallory) AS IMPLICIT', target);
    END LOOP;
END $do$;
"""


def called_names() -> set[str]:
    """Whatever in our sources is written like the call of a function."""
    sources = [*(CHECKOUT / "skinspire_db").rglob("*.py"), *(CHECKOUT / "sql").rglob("*.sql")]
    return {name for path in sources for name in re.findall(r"\b([a-z_][a-z0-9_]*)\(", path.read_text())}


@pytest.fixture
def trap(clinic: Project, tmp_path: Path) -> Iterator[Path]:
    """A folder where code of the hostile role leaves a file when a superuser runs it."""
    role, folder = f"mallory_{secrets.token_hex(4)}", Path(f"/tmp/trap-{secrets.token_hex(4)}")
    folder.mkdir()
    folder.chmod(0o777)
    clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO {role}")
    try:
        with clinic.connect() as connection:
            connection.execute(f"SET SESSION AUTHORIZATION {role}")
            names = ",".join(sorted(called_names()))
            connection.execute(HOSTILE.format(folder=folder, near=NEAR, names=names).encode())
        yield folder
    finally:
        copies = clinic.query(
            f"SELECT datname FROM pg_database WHERE datname ~ '{clinic.database.partition('_')[2]}'", "postgres"
        )
        for (database,) in copies:
            clinic.execute(f"DROP DATABASE {database} WITH (FORCE)", "postgres")
        clinic.execute(f"DROP ROLE {role}", "postgres")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.mark.slow
def test_nothing_that_a_low_role_made_runs_with_our_rights(clinic: Project, trap: Path) -> None:
    commands = [
        ("env.stamp",), ("env.status",), ("db.verify",), ("db.inspect",), ("db.inspect", "--table=users"), ("db.activity",), ("db.doctor",),
        ("db.history",), ("db.drift",), ("triggers.status",), ("triggers.diff",), ("triggers.verify",), ("triggers.disable", "--name=timestamps"),
        ("triggers.enable", "--name=timestamps"), ("triggers.install",), ("migrate.status",), ("migrate.check",), ("db.seed", "--patients=30"),
        ("db.create", "--update-only"), ("backup.create",), ("backup.list",), ("backup.verify", "--full"),
        ("db.copy", "--source=dev", "--target=test"), ("db.copy", "--source=dev", "--target=test", "--method=stream"), ("db.undo", "--env=test"),
        ("backup.restore", "--env=dev"), ("db.setup",), ("db.reset",),
    ]  # fmt: skip
    hits: dict[str, list[str]] = {}
    said = {}
    for command in commands:
        outcome = clinic.invoke(*command)
        said[command] = (outcome.code, outcome.err)
        if found := sorted(path.name for path in trap.iterdir()):
            hits[" ".join(command)] = found
            for path in trap.iterdir():
                path.unlink()
    print(*said.items(), sep="\n")
    assert not hits, "\n".join(f"{command}: {found}" for command, found in hits.items())
