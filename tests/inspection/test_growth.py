"""What commands cost does not grow faster than the tables: counted in statements and calls, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Project

pytestmark = pytest.mark.slow
SIZES = (30, 80, 130)
MODELS = """
from sqlalchemy import Column, ForeignKey, Identity, Integer, MetaData, Table, Text
metadata = MetaData()
for n in range({tables}):
    former = [Column("former", ForeignKey("many_0000.id"), index=True)] if n else []
    Table(f"many_{{n:04}}", metadata, Column("id", Integer, Identity(), primary_key=True), Column("what", Text), *former)
"""
ALIKE = ("db.prepare", "triggers.status", "migrate.upgrade")  # as many statements, however many tables there are


def counts(project: Project, command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many statements and calls a command takes when all is kept that is kept between commands."""
    assert project.invoke(command).code == 0
    statements = calls = 0
    execute = psycopg.Cursor.execute

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal statements
        statements += 1
        return execute(self, *arguments, **options)

    def called(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counted)
        sys.setprofile(called)
        try:
            outcome = project.invoke(command)
        finally:
            sys.setprofile(None)
    assert outcome.code == 0, outcome.err
    return statements, calls


def test_nothing_grows_faster_than_the_tables(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, list[tuple[int, int]]] = {command: [] for command in (*ALIKE, "db.verify")}
    for size in SIZES:
        project = make_project('metadata = ["skinspire_db.clinic.models:Base", "many:metadata"]\n')
        (project.root / "many.py").write_text(MODELS.format(tables=size))
        assert project.invoke("db.setup").code == 0
        for command, curve in found.items():
            curve.append(counts(project, command, monkeypatch))
    for command, curve in found.items():
        statements, calls = zip(*curve, strict=True)
        allowed = 0 if command in ALIKE else 0.2 * (SIZES[-1] - SIZES[0])
        assert statements[-1] - statements[0] <= allowed, (command, statements)
        # The second fifty tables may cost little more than the first: what is quadratic costs half as much again.
        assert calls[2] - calls[1] <= 1.15 * (calls[1] - calls[0]) + 500, (command, calls)
