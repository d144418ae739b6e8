"""Every type that PostgreSQL and its extensions have: masked by name, or refused by name before the copy."""

from __future__ import annotations

import re

import pytest
from conftest import Project, dump
from support import database

# A value of each type that has a form in text, unlike any that a mask makes.
SAMPLES = {
    "bool": "true", "bytea": "\\x5365637265747361", "char": "q", "name": "Secretary", "int8": "918273645546", "int2": "31234", "int4": "1918273645",
    "text": "Secretary", "oid": "3918273645", "tid": "(91827,36)", "xid": "3918273645", "cid": "3918273645", "json": '{"Secretary": ["Bhattacharya"]}',
    "xml": "<a>Secretary</a>", "point": "(91827.5,36455.25)", "lseg": "[(91827.5,3),(4,5)]", "path": "((91827.5,3),(4,5))", "box": "(91827.5,6),(4,5)",
    "polygon": "((91827.5,3),(4,5),(7,8))", "line": "{91827.5,3,4}", "circle": "<(91827.5,3),4>", "float4": "91827.36", "float8": "918273.64554637",
    "money": "$918,273.64", "macaddr": "91:82:73:64:55:46", "inet": "10.91.82.73", "cidr": "10.91.82.0/24", "macaddr8": "91:82:73:64:55:46:37:28",
    "bpchar": "Secretary", "varchar": "Secretary", "date": "1918-07-03", "time": "19:18:27.364554", "timestamp": "1918-07-03 19:18:27.364554",
    "timestamptz": "1918-07-03 19:18:27.364554+00", "interval": "918 days 02:07:36.4554", "timetz": "19:18:27.364554+05", "bit": "1", "varbit": "100111010101110001",
    "numeric": "918273645546.37", "refcursor": "Secretary", "uuid": "91827364-5546-4728-9110-918273645546", "pg_lsn": "91827364/55463728",
    "tsvector": "'secretary'", "tsquery": "'secretary'", "jsonb": '{"Secretary": ["Bhattacharya"]}', "jsonpath": '$."Secretary"', "txid_snapshot": "9182736:9182799:9182741",
    "pg_snapshot": "9182736:9182799:9182741", "xid8": "918273645546", "int4range": "[918273,918299)", "numrange": "[918273.64,918299)",
    "tsrange": '["1918-07-03 19:18:27","1919-07-03 19:18:27")', "tstzrange": '["1918-07-03 19:18:27+00","1919-07-03 19:18:27+00")',
    "daterange": "[1918-07-03,1919-07-03)", "int8range": "[918273645546,918273645599)", "int4multirange": "{[918273,918299)}", "nummultirange": "{[918273.64,918299)}",
    "tsmultirange": '{["1918-07-03 19:18:27","1919-07-03 19:18:27")}', "tstzmultirange": '{["1918-07-03 19:18:27+00","1919-07-03 19:18:27+00")}',
    "datemultirange": "{[1918-07-03,1919-07-03)}", "int8multirange": "{[918273645546,918273645599)}", "int2vector": "3123 31234", "oidvector": "391827 3918273645",
    "regclass": "pg_class", "regtype": "integer", "regrole": "pg_monitor", "regnamespace": "pg_catalog", "regproc": "sha256", "aclitem": "pg_monitor=r/pg_monitor",
    "citext": "Secretary", "hstore": '"Secretary"=>"Bhattacharya"', "ltree": "Secretary.Bhattacharya", "lquery": "Secretary.*", "ltxtquery": "Secretary",
    "cube": "(91827, 36455)", "seg": "91827 .. 91999", "isbn": "978-0-393-04002-9", "ean13": "978-0-393-04002-9",
    "tint": "918273645", "secret": "Secretary", "triple": '(918273645,Secretary,"{Bhattacharya}")', "doubled": "Secretary", "mood": "happy", "span": "[Secretary,Zz)", "span_multirange": "{[Secretary,Zz)}",
    "isbn13": "978-0-393-04002-9", "issn": "1436-4522", "issn13": "977-1436-452-00-8", "ismn": "M-060-11561-5", "ismn13": "979-0-060-11561-5", "upc": "220-356-483-481",
    "regcollation": "\"C\"", "regconfig": "english", "regdictionary": "english_stem", "regoper": "||/", "regoperator": "+(integer,integer)", "regprocedure": "sha256(bytea)",
}  # fmt: skip
OWN = """
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION seg; CREATE EXTENSION isn;
CREATE DOMAIN secret AS text CHECK (VALUE <> ''); CREATE DOMAIN doubled AS secret CHECK (length(VALUE) > 2); CREATE TYPE mood AS ENUM ('sad', 'happy', 'so');
CREATE TYPE triple AS (a int, b doubled, c citext[]); CREATE TYPE span AS RANGE (subtype = text, collation = "C");
CREATE TYPE tint; CREATE FUNCTION tint_in(cstring) RETURNS tint IMMUTABLE STRICT LANGUAGE internal AS 'int4in';
CREATE FUNCTION tint_out(tint) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'int4out';
CREATE TYPE tint (INPUT = tint_in, OUTPUT = tint_out, INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4);
"""
TYPES = """
    SELECT t.typname, format('%I.%I', n.nspname, t.typname), t.typarray <> 0 FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typtype IN ('b', 'r', 'm', 'd', 'e', 'c') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
        AND t.typnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace) AND coalesce(c.relkind = 'c', true) ORDER BY 1
"""


@pytest.mark.slow
def test_every_type_is_masked_or_refused_by_name(project: Project) -> None:
    (project.root / "shop.py").write_text("from sqlalchemy import MetaData\n\nmetadata = MetaData()\n")
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nmetadata = ["shop:metadata"]\n')
    test = database(project, "TEST")
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    project.execute(OWN, test)
    types = project.query(TYPES, test)
    types_of = {name: type_ for name, type_, _ in types}
    columns = [(f"c_{name}", type_) for name, type_, _ in types]
    columns += [(f"a_{name}", f"{type_}[]") for name, type_, has_array in types if has_array]
    project.execute(f"CREATE TABLE every ({', '.join(f'{quoted(name)} {type_}' for name, type_ in columns)})", test)
    for name, sample in SAMPLES.items():
        assert name in types_of, name
        literal = "'" + sample.replace("'", "''") + "'"
        project.execute(
            f"INSERT INTO every ({quoted('c_' + name)}, {quoted('a_' + name)}) VALUES ({literal}, ARRAY[{literal}::{types_of[name]}])",
            test,
        )
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    checked = project.invoke("mask.check", "--env=test", "--json")
    masks = {each["column"].partition(".")[2]: each["mask"] for each in checked.json["columns"]}
    assert checked.code == 3 and masks.keys() == {name for name, _ in columns}
    done = project.invoke("db.copy", "--source=test", "--target=dev", "--masked")
    assert done.code == 0, done.err
    rows = re.findall(r"\nCOPY public.every .*?\n(.*?)\n\\\.\n", dump(project.address, project.database), re.DOTALL)[0]
    assert rows.count("\n") == len(SAMPLES) - 1
    assert {name for name, sample in SAMPLES.items() if sample.strip("'") in rows} <= {"bool", "char", "bit"}
    assert not [word for word in ("ecreta", "ecretar", "Bhatta", "918273", "5365637265") if word in rows]
    # All commands work on the copy: it differs from the models by the same as its source does.
    assert project.invoke("db.verify", "--env=dev").code == 0
    differences = [project.invoke("db.drift", f"--env={each}", "--json").json["drift"] for each in ("test", "dev")]
    assert differences[0] == differences[1]
    # Where NULL is the only mask, and not allowed, the copy is refused before it begins, with the column.
    only_null = [name for name, mask in masks.items() if mask == "null"]
    changes = ", ".join(f"ALTER {quoted(name)} SET NOT NULL" for name in only_null)
    project.execute(f"DELETE FROM every; ALTER TABLE every {changes}", test)
    refusals = project.invoke("mask.check", "--env=test", "--json").json["refusals"]
    assert sorted(each.partition(" ")[0] for each in refusals) == sorted(f"every.{name}" for name in only_null)
    refused = project.invoke("db.copy", "--source=test", "--target=dev", "--masked")
    assert refused.code == 2 and refusals[0] in refused.err


def quoted(name: str) -> str:
    return f'"{name}"'
