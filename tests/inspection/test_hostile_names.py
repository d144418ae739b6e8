"""Names, comments and values that would do something: no format and no terminal lets them."""

from __future__ import annotations

import re

import pytest
import wcwidth
from conftest import Project
from inspection_support import FORMATS, harmless, inspect
from markdown_it import MarkdownIt
from psycopg import sql

from skinspire_db.terminal.rendering import printable

HOSTILE = [
    "--help", "-e", "select", 'quo"ted', "it's", "two words", " spaces around ", "Пациенты", "患者テーブル", "e\u0301clair", "क्\u200dष",
    "👩\u200d⚕️", "esc\x1b[31mred\x1b[0m", "esc\x1b]0;title\x07", "c1\x9b31m", "back\x08space\rreturn", "new\nline", "delete\x7f", "tab\there",
    "bidi\u202egnp.exe", "zero\u200bwidth", "line\u2028separator", "a|b", "a\\|b", "`code`", "``two``", "[link](http://evil.example)", "![image](x)",
    "<script>alert(1)</script>", "&amp;", "**bold**", "_emphasis_", "~~gone~~", "# heading", "- item", "www.evil.example", "me@evil.example",
    "a.b", "erDiagram", "title", "pk", "}o--||", '"]{ x }', "%%{init: {}}%%", "#quot;", "back\\slash", "$(touch pwned)", "`touch pwned`",
    "%s %(x)s {0}", "; DROP TABLE safe; --", "'; DROP TABLE safe; --", '"; DROP TABLE safe; --', "x" * 63, "é" * 31, "1st", "*",
]  # fmt: skip


# Names that would do something


@pytest.fixture
def hostile(clinic: Project) -> Project:
    """A clinic with every kind of object under every name."""
    with clinic.connect() as connection:
        connection.execute("CREATE TABLE safe (id int PRIMARY KEY)")
        for name in HOSTILE:
            n, text = sql.Identifier(name), sql.Literal(name)
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {n} ({n} int PRIMARY KEY DEFAULT 1, safe int, CONSTRAINT {k} FOREIGN KEY (safe) REFERENCES safe);"
                    "COMMENT ON TABLE {n} IS {text}; COMMENT ON COLUMN {n}.{n} IS {text}; GRANT SELECT ON {n} TO PUBLIC"
                ).format(n=n, text=text, k=sql.Identifier(name[:20] + "_k"))
            )
        name = 'it\'s "a" \x1b[31m|`b`\n<c>'
        n = sql.Identifier(name)
        connection.execute(
            sql.SQL(
                "CREATE SCHEMA {n}; CREATE TABLE {n}.{n} (a int); CREATE VIEW {n}.v AS SELECT 1 AS {n}; CREATE SEQUENCE {n}.{s};"
                "CREATE FUNCTION {n}.{n}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                "CREATE TRIGGER {n} AFTER INSERT ON {n}.{n} EXECUTE FUNCTION {n}.{n}()"
            ).format(n=n, s=sql.Identifier("s" + name))
        )  # fmt: skip
    return clinic


def test_hostile_names_on_a_terminal(hostile: Project) -> None:
    outcome = harmless(hostile.invoke("db.inspect"))
    assert outcome.code == 0, outcome.err
    section = outcome.out.partition("\ntables: ")[2].partition("\nviews: ")[0].splitlines()[3:]
    assert len(section) == len(HOSTILE) + 15, "one line each"
    for name in HOSTILE:
        assert sum(f" {printable(name)} " in line for line in section) >= 1, name
    assert len({wcwidth.wcswidth(line.rpartition("  skinspire")[0]) for line in section}) == 1, "aligned, in every script"
    for arguments in (["db.inspect", "--exact"], ["db.drift"], ["db.verify", "--verbose"], ["db.doctor"], ["db.activity"]):
        outcome = harmless(hostile.invoke(*arguments))
        assert not re.search(r"^line", outcome.out, re.MULTILINE), "a name with a new line makes none"
    assert inspect(hostile, "--table=--help")["columns"][0]["column"] == "--help"
    outcome = harmless(hostile.invoke("db.inspect", '--schema=it\'s "a" \x1b[31m|`b`\n<c>'))
    assert outcome.code == 0 and "\\x1b[31m|`b`\\n<c>" in outcome.out
    assert hostile.query("SELECT count(*) FROM safe") == [(0,)]


def test_hostile_names_in_every_other_format(hostile: Project) -> None:
    in_json(hostile)
    in_markdown(hostile)
    in_mermaid(hostile)


def in_json(hostile: Project) -> None:
    answer = inspect(hostile, "--exact")
    assert {row["table"] for row in answer["tables"]} >= set(HOSTILE)
    assert {row["comment"] for row in answer["tables"]} >= set(HOSTILE)
    assert all(row["rows"] == 0 for row in answer["tables"] if row["table"] in HOSTILE)
    assert hostile.invoke("db.inspect", "--json").out.isascii()


def in_markdown(hostile: Project) -> None:
    """As a reader of Markdown sees it: each name as it is, and nothing else that a name could have made."""
    outcome = harmless(hostile.invoke("db.inspect", "--format=markdown"))
    assert outcome.code == 0, outcome.err
    parser = MarkdownIt("gfm-like", {"linkify": False})
    tokens = parser.parse(outcome.out)
    cells = []
    for index, token in enumerate(tokens):
        if token.type == "inline":
            made = {child.type for child in token.children or []} - {"text", "text_special"}
            assert not made, f"{token.content} made {made}"
            if tokens[index - 1].type == "td_open":
                cells.append("".join(child.content for child in token.children or []))
    for name in HOSTILE:
        assert printable(name).strip() in cells, name
    assert not {token.type for token in tokens} & {"html_block", "fence", "code_block"}
    assert not re.search(r"(?<!\\)@|https?://|(?<![\\\w])www\.", outcome.out), "GitHub links those without being asked"


def in_mermaid(hostile: Project) -> None:
    """What Mermaid's grammar takes for one entity, one attribute, one line between two entities, and nothing else."""
    outcome = harmless(hostile.invoke("db.inspect", "--format=mermaid"))
    assert outcome.code == 0, outcome.err
    name = r'"(?:[\w .,()-]|#\d+;)+"'
    entity = re.compile(rf"    {name} \{{")
    attribute = re.compile(rf"        [A-Za-z_][\w()\[\]]* [A-Za-z_]\w*(?: [PF]K(?:, FK)?)?(?: {name})?")
    line = re.compile(rf"    {name} [|o]{{2}}--[|o]{{1,2}}\{{? {name} : {name}")
    first, *lines = outcome.out.splitlines()
    assert first == "erDiagram"
    for each in lines:
        assert each == "    }" or any(kind.fullmatch(each) for kind in (entity, attribute, line)), each
    assert len([each for each in lines if entity.fullmatch(each)]) == len(HOSTILE) + 15
    decoded = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), outcome.out)
    for each in HOSTILE:
        assert f'"{printable(each)}"' in decoded or f'public.{printable(each)}"' in decoded, each


@pytest.mark.slow
def test_each_hostile_name_asked_for(hostile: Project) -> None:
    for name in HOSTILE:
        for how in FORMATS:
            # Invoke takes `--table=-e` for `--table -e`, the flag; with its schema any name can be said.
            table = f"public.{name}" if name == "-e" else name
            outcome = harmless(hostile.invoke("db.inspect", f"--table={table}", f"--format={how}"))
            assert outcome.code == 0, (name, how, outcome.err)
        assert inspect(hostile, f"--table=public.{name}")["columns"][0]["column"] == name
        outcome = harmless(hostile.invoke("db.inspect", f"--table={name}?"))
        assert outcome.code == 2 and outcome.err.count("\n") == 1
        for option in ("schema", "section", "format", "env") if name != "-e" else ():
            outcome = harmless(hostile.invoke("db.inspect", f"--{option}={name}"))
            assert outcome.code == 2 and outcome.err.count("\n") == 1, (option, name, outcome.err)
    assert hostile.query("SELECT count(*) FROM safe") == [(0,)]
