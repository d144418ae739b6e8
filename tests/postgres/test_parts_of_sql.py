"""Where comments, strings, quoted names and function bodies begin and end."""

from __future__ import annotations

import pytest

from skinspire_db.postgres import sql_text

QUOTED = [
    "'it''s; -- no comment'",
    r"E'\'; --'",
    '"a ""; -- b"',
    "$$ ; ' /* $$",
    "$größe$ $$ ; $größe$",
    "'/*'",
]
COMMENTS = ["-- it's; (", "/* one /* two; */ ' $$ */"]


@pytest.mark.parametrize("quoted", QUOTED)
def test_what_is_quoted(quoted: str) -> None:
    assert list(sql_text.parts(f"SELECT ({quoted}, 1);")) == [("code", "SELECT ("), ("quoted", quoted), ("code", ", 1);")]
    assert sql_text.split(f"{quoted}; {quoted}", ";") == [quoted, f" {quoted}"]


@pytest.mark.parametrize("comment", COMMENTS)
def test_comments(comment: str) -> None:
    sql = f"SELECT 1 {comment}\n; SELECT 2"
    assert [part for part, _ in sql_text.parts(sql)] == ["code", "comment", "code"]
    assert sql_text.without_comments(sql) == "SELECT 1  \n; SELECT 2"
    assert len(sql_text.statements_only(sql)) == len(sql), "positions stay"


@pytest.mark.parametrize("code", ["a$b$c; d$b$", "é$$ = $1", r"\connect"])
def test_what_only_looks_quoted_is_code(code: str) -> None:
    assert {part for part, _ in sql_text.parts(code)} == {"code"}


def test_commas_in_parentheses_do_not_cut() -> None:
    assert sql_text.split("ADD a numeric(1, 2), DROP b", ",") == ["ADD a numeric(1, 2)", " DROP b"]


def test_bytes_that_are_no_utf_8_come_back() -> None:
    sql = b"SELECT 'Z\xfcrich' -- B\xfclach\n".decode(errors="surrogateescape")
    assert "".join(text for _, text in sql_text.parts(sql)) == sql
