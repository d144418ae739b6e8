"""Tables as applications have them: a masked copy of them holds as many rows, keeps every key and condition, and shows no value."""

from __future__ import annotations

from datetime import date

import pytest
from conftest import Project, dump
from support import database

TABLES = r"""
CREATE EXTENSION citext; CREATE EXTENSION btree_gist;
CREATE DOMAIN code AS varchar(8) CHECK (VALUE ~ '^[A-Z]{3}[0-9]{5}$'); CREATE DOMAIN kind AS text NOT NULL CHECK (VALUE IN ('inpatient', 'outpatient'));
CREATE TYPE place AS (street text, code code, tags citext[]); CREATE DOMAIN places AS place[];
CREATE TABLE people (
    "select" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "first ""name"" " text NOT NULL, "Größe %s" text DEFAULT '', short varchar(3), one char(1), code code UNIQUE,
    mail citext UNIQUE, full_text text GENERATED ALWAYS AS ("first ""name"" " || ' ' || coalesce(short, '')) STORED, place place, places places, kind kind DEFAULT 'inpatient',
    big bigint, note text, doc jsonb
);
CREATE UNIQUE INDEX ON people (lower("first ""name"" ")); CREATE INDEX ON people (((place).street)); CREATE INDEX ON people (full_text) WHERE note IS NOT NULL;
CREATE UNIQUE INDEX ON people (big) NULLS NOT DISTINCT WHERE big IS NOT NULL;
INSERT INTO people ("first ""name"" ", "Größe %s", short, one, code, mail, place, places, big, note, doc)
    SELECT 'Bhattacharya ' || n, CASE n % 3 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE 'Secretary' END, substr('abc', 1, n % 4), chr(65 + n % 26), 'ABC' || lpad(n::text, 5, '0'),
        'Asha' || n || '@Nowhere.org', ROW('Elm Street ' || n, ('XYZ' || lpad(n::text, 5, '0'))::code, ARRAY['Secretary', NULL]::citext[])::place, CASE WHEN n % 2 = 0 THEN ARRAY[ROW('Elm Street', NULL, NULL)::place, NULL] END,
        nullif(9876543210 + n, 9876543215), CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE repeat('Bhattacharya ', n) END, CASE n % 2 WHEN 0 THEN NULL ELSE '"Bhattacharya"'::jsonb END
    FROM generate_series(1, 60) AS n;
CREATE TABLE rooms (room text, stay tstzrange, person int REFERENCES people, EXCLUDE USING gist (room WITH =, stay WITH &&));
INSERT INTO rooms SELECT 'Room of Bhattacharya', tstzrange(timestamptz '2020-01-01' + n * interval '1 day', timestamptz '2020-01-02' + n * interval '1 day'), n FROM generate_series(1, 30) AS n;
CREATE TABLE visits (id bigint, at date NOT NULL, state text NOT NULL, person citext REFERENCES people (mail), PRIMARY KEY (id, at, state)) PARTITION BY RANGE (at);
CREATE TABLE "visits 2020" PARTITION OF visits FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') PARTITION BY LIST (state);
CREATE TABLE visits_open PARTITION OF "visits 2020" FOR VALUES IN ('open', 'waiting'); CREATE TABLE visits_rest PARTITION OF "visits 2020" DEFAULT;
CREATE TABLE visits_now PARTITION OF visits FOR VALUES FROM ('2021-01-01') TO (MAXVALUE);
INSERT INTO visits SELECT n, date '2020-06-03' + n * 10, CASE n % 3 WHEN 0 THEN 'open' WHEN 1 THEN 'waiting' ELSE 'closed' END, 'asha' || n || '@nowhere.org' FROM generate_series(1, 50) AS n;
CREATE TABLE bills (visit bigint, at date, state text, amount numeric(10,2) CHECK (amount >= 0), paid numeric(10,2), CHECK (paid <= amount), FOREIGN KEY (visit, at, state) REFERENCES visits);
INSERT INTO bills SELECT id, at, state, 1234.56 + id, 234.56 FROM visits;
CREATE TABLE monthly (at date, note text) PARTITION BY RANGE (at); CREATE TABLE monthly_3 PARTITION OF monthly FOR VALUES FROM ('2020-03-01') TO ('2020-04-01');
CREATE TABLE monthly_4 PARTITION OF monthly FOR VALUES FROM ('2020-04-01') TO ('2020-05-01'); INSERT INTO monthly SELECT date '2020-03-10' + n, 'Secretary ' || n FROM generate_series(1, 40) AS n;
CREATE TABLE staff (badge text) INHERITS (people); INSERT INTO staff ("select", "first ""name"" ", badge, code) VALUES (1, 'Bhattacharya', 'Secretary', 'STF00001');
CREATE TABLE tree (id uuid PRIMARY KEY, parent uuid REFERENCES tree, path text[] CHECK (array_length(path, 1) > 0)); INSERT INTO tree VALUES ('91827364-5546-4728-9110-918273645546', NULL, ARRAY['Secretary']);
INSERT INTO tree VALUES (gen_random_uuid(), '91827364-5546-4728-9110-918273645546', ARRAY['Secretary', 'Bhattacharya']);
ALTER TABLE people ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON people USING ("select" < 10); ALTER TABLE people FORCE ROW LEVEL SECURITY;
CREATE VIEW names AS SELECT "first ""name"" " AS name FROM people; CREATE MATERIALIZED VIEW gathered AS SELECT * FROM people; CREATE UNIQUE INDEX ON gathered (code);
CREATE TABLE "Weird; DROP TABLE people; --" ("a'b" text, "c\\d" text, "table" text PRIMARY KEY); INSERT INTO "Weird; DROP TABLE people; --" VALUES ('Secretary', 'Secretary', 'Bhattacharya');
CREATE TABLE documents (doc json); INSERT INTO documents VALUES ('{"a": "\ud83d\ude00 kept", "b": "Bhattacharya", "c": "\\u0000"}'), ('{"a": "Bhattacharya \u0000"}'), ('{"a": "Bhattacharya \ud83d"}'), ('["Bhattacharya"]');
CREATE TABLE extremes (at timestamptz PRIMARY KEY, day date, t time, tz timetz, iv interval, f float8, f4 float4, n numeric, n2 numeric(4,-2), n3 numeric(3,5), i int8, m int4, s int2, c money, b bit(3), v varbit, d daterange);
INSERT INTO extremes VALUES ('infinity', 'infinity', '24:00', '24:00-15', '-178000000 years', 'NaN', 'Infinity', 'NaN', 123456, 0.00123, -9223372036854775808, -2147483648, -32768, '-92233720368547758.08', '101', '', '(,)'),
    ('294276-12-31', '5874897-12-31', '00:00', '00:00+15', '178000000 years', 1.7e308, 3.4e38, 'Infinity', 99, 0.00999, 9223372036854775807, 2147483647, 32767, '92233720368547758.07', '000', '1', 'empty'),
    ('4713-01-01 BC', '4713-01-01 BC', '00:00:01', NULL, NULL, 4.9e-324, 1.4e-45, 1e-1000, 0, 0, 0, 0, 0, '0', NULL, NULL, '[2020-01-02,)'), ('-infinity', '-infinity', NULL, NULL, NULL, '-0', -1, -1e1000, NULL, NULL, 1, 1, -1, NULL, NULL, NULL, NULL);
CREATE TABLE empty_rows (); INSERT INTO empty_rows DEFAULT VALUES; CREATE TABLE all_null (a text, b int, c jsonb); INSERT INTO all_null DEFAULT VALUES;
"""


RULES = """version = 1
summary = "dates and states of visits tell nothing"
[tables.visits]
at = "keep"
state = "keep"
[tables.documents]
doc = { mask = "json", paths = { a = "keep", b = "text" } }
"""
COUNTS = """
    SELECT (SELECT count(*) FROM people), (SELECT count(DISTINCT mail) FROM people), (SELECT count(DISTINCT code) FROM people), (SELECT count("Größe %s") FROM people),
        (SELECT count(places) FROM people), (SELECT count(big) FROM people), (SELECT count(doc) FROM people), (SELECT count(*) FROM people WHERE short = ''), (SELECT count(*) FROM ONLY people),
        (SELECT array_agg(n ORDER BY n) FROM (SELECT count(*) AS n FROM people GROUP BY "Größe %s") AS s), (SELECT sum(length(note)) FROM people), (SELECT count(*) FROM staff),
        (SELECT count(*) FROM visits v JOIN people p ON p.mail = v.person JOIN bills USING (at, state) WHERE visit = v.id), (SELECT count(*) FROM rooms JOIN people ON person = "select"),
        (SELECT count(*) FROM tree t JOIN tree u ON t.parent = u.id), (SELECT count(*) FROM visits_open), (SELECT count(*) FROM monthly_3), (SELECT count(*) FROM gathered),
        (SELECT bool_and(full_text = "first ""name"" " || ' ' || coalesce(short, '')) FROM people), (SELECT count(*) FROM all_null WHERE a IS NULL AND b IS NULL AND c IS NULL)
"""


@pytest.mark.slow
def test_each_key_condition_and_reference_holds_in_a_masked_copy(project: Project) -> None:
    (project.root / "shop.py").write_text("from sqlalchemy import MetaData\n\nmetadata = MetaData()\n")
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:metadata"]\n')
    test, copy = database(project, "TEST"), ("db.copy", "--source=test", "--target=dev", "--masked")
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    project.execute(TABLES, test)
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    # By what bounds allow, the partition's own dates are masked; but here another table's rows refer to them.
    refused = project.invoke(*copy)
    assert (
        refused.code == 2
        and "masked rows of visits_open would break the bounds of the partition, on at, state" in refused.err
    )
    rules = project.root / "sql" / "masks" / "own.toml"
    rules.parent.mkdir(parents=True)
    rules.write_text(RULES)
    assert project.invoke("sql.bump", "--name=masks/own").code == 0
    done = project.invoke(*copy)
    assert done.code == 0, done.err
    assert project.query(COUNTS) == project.query(COUNTS, test)
    text = dump(project.address, project.database)
    assert not [
        word
        for word in ("Bhatta", "ecretar", "sha1", "owhere", "Elm", "Street", "98765", "9182736", "2020-04-1")
        if word in text
    ]
    assert project.query("SELECT DISTINCT kind::text FROM people") == [("outpatient",)]
    assert project.query("SELECT DISTINCT at FROM monthly ORDER BY 1") == [(date(2020, month, 1),) for month in (3, 4)]
    assert project.query("SELECT bool_and((place).code ~ '^[A-Z]{3}[0-9]{5}$') FROM people") == [(True,)]
    documents = [row[0] for row in project.query("SELECT doc FROM documents")]
    assert [each for each in documents if each] == [{"a": "😀 kept", "b": documents[0]["b"]}], (
        "what jsonb cannot hold is left out"
    )
    assert project.query(
        "SELECT count(DISTINCT at), count(DISTINCT i), count(DISTINCT m), count(DISTINCT s) FROM extremes"
    ) == [(4, 4, 4, 4)]
    for command in ("db.verify", "db.inspect", "db.history", "backup.create"):
        assert project.invoke(command, "--env=dev").code == 0, command
    project.execute('INSERT INTO people ("first ""name"" ", code) VALUES (\'New\', \'NEW00001\')')
