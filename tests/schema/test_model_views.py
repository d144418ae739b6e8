"""Views that models make themselves, in the spellings of SQLAlchemy 2.1 and sqlalchemy-utils, and DDL events at --update-only."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import sqlalchemy
from conftest import Project

MODELS = """
from sqlalchemy import Column, DDL, ForeignKey, Integer, String, event, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import declarative_base
from sqlalchemy.schema import DDLElement

Base = declarative_base()


class Visit(Base):
    __tablename__ = "visits"
    id = Column(Integer, primary_key=True)
    state = Column(String(10))


"""
# As sqlalchemy-utils' create_view has it.
OF_UTILS = """
class CreateUtilsView(DDLElement):
    def __init__(self, name, selectable):
        self.name, self.selectable = name, selectable


@compiles(CreateUtilsView)
def compile_view(element, compiler, **options):
    text = compiler.sql_compiler.process(element.selectable, literal_binds=True)
    return f"CREATE OR REPLACE VIEW {compiler.dialect.identifier_preparer.quote(element.name)} AS {text}"


event.listen(Base.metadata, "after_create", CreateUtilsView("held", select(Visit.id).where(Visit.state == "held")))


@event.listens_for(Base.metadata, "after_create")
def create_indexes(target, connection, **options):
    pass
"""
OF_2_1 = """
from sqlalchemy.schema import CreateView

CreateView(select(Visit.id, Visit.state).where(Visit.state == "open"), "open_visits", metadata=Base.metadata)
"""
LATER = """
class Bill(Base):
    __tablename__ = "bills"
    id = Column(Integer, primary_key=True)
    visit = Column(ForeignKey("visits.id"))


event.listen(Bill.__table__, "after_create", DDL("COMMENT ON TABLE bills IS 'by DDL'"))


@event.listens_for(Bill.__table__, "after_create")
def fill(target, connection, **options):
    connection.execute(target.insert(), [{"id": 7}])
"""
VIEWS = "SELECT viewname::text FROM pg_views WHERE schemaname = 'public' ORDER BY 1"


@pytest.mark.slow
def test_views_that_models_make(make_project: Callable[..., Project]) -> None:
    module = f"views_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["{module}:Base"]\n')
    spelled = [OF_UTILS, *([OF_2_1] if hasattr(sqlalchemy.schema, "CreateView") else [])]
    views = [("held",), ("open_visits",)][: len(spelled)]
    models = MODELS + "".join(spelled)
    (project.root / f"{module}.py").write_text(models)
    made = project.forked("db.setup")
    assert made.code == 0 and project.query(VIEWS) == views, made.err
    for task in ("db.drift", "db.verify", "migrate.check"):
        outcome = project.forked(*task.split())
        assert outcome.code == 0, (task, outcome.out, outcome.err)
    (project.root / f"{module}.py").write_text(models + LATER)
    added = project.forked("db.create", "--update-only")
    assert added.code == 0 and project.query(VIEWS) == views, added.err
    assert project.query("SELECT id, obj_description('bills'::regclass) FROM bills") == [(7, "by DDL")]
    again = project.forked("db.create", "--update-only")
    assert again.code == 0 and project.query("SELECT count(*) FROM bills") == [(1,)], "events come with a new table alone"
    assert project.forked("db.drift").code == 0
    for (view,) in views:
        project.execute(f"DROP VIEW {view}")
        assert f"view public.{view} is missing" in project.forked("db.drift").out
    restored = project.forked("db.create", "--update-only")
    assert restored.code == 0 and project.query(VIEWS) == views, restored.err
    assert project.forked("db.drift").code == 0
