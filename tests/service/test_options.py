"""The application's own session class, expire_on_commit and engine options."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from conftest import Project
from service_app import add, app, names, service  # noqa: F401
from sqlalchemy import text
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import DetachedInstanceError

from skinspire_db.clinic.models import Hospital
from skinspire_db.database_service import configure_service, get_db_engine, get_db_session
from skinspire_db.errors import InvalidSetting

MODULE = """
import json
from sqlalchemy.orm import Session

class ClinicSession(Session):
    flushed = 0
    commits = []

    def flush(self, objects=None):
        self.flushed += 1
        super().flush(objects)

    def commit(self):
        self.commits.append(self.flushed)
        super().commit()

def dumps(value):
    return json.dumps({"dumped": value})
"""
SETTINGS = """
[tool.skinspire_db.service]
session_class = "own_sessions:ClinicSession"
expire_on_commit = true
[tool.skinspire_db.service.engine]
json_serializer = "own_sessions:dumps"
isolation_level = "REPEATABLE READ"
connect_args = { keepalives_idle = 41, options = "-c work_mem=5MB" }
"""


@pytest.fixture
def configured() -> Iterator[Callable[..., None]]:
    yield configure_service
    configure_service()


def test_what_pyproject_says(clinic: Project, service: Callable[[Project], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    (clinic.root / "own_sessions.py").write_text(MODULE)
    (clinic.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{SETTINGS}")
    monkeypatch.syspath_prepend(clinic.root)
    service(clinic)
    with get_db_session() as session:
        own: Any = type(session).__mro__[2]
        assert own.__name__ == "ClinicSession"
        add(session, "a")
        hospital = session.query(Hospital).filter_by(name="t:a").one()
        shown = "SELECT current_setting('transaction_isolation'), current_setting('work_mem')"
        assert session.execute(text(shown)).one() == ("repeatable read", "5MB")
        typed = sqlalchemy.bindparam("v", {"a": 1}, sqlalchemy.dialects.postgresql.JSONB)
        assert session.execute(sqlalchemy.select(typed)).scalar_one() == {"dumped": {"a": 1}}
        driver: Any = session.connection().connection.dbapi_connection
        assert driver.info.get_parameters()["keepalives_idle"] == "41"
        with get_db_session() as inner:
            add(inner, "inner")
    assert own.commits and names(clinic) == ["t:a", "t:inner"], "its commit() runs, once for the unit of work"
    assert len(own.commits) == 1
    with pytest.raises(DetachedInstanceError):
        hospital.name  # noqa: B018
    with pytest.raises(RuntimeError), get_db_session() as session:
        add(session, "lost")
        raise RuntimeError
    assert names(clinic) == ["t:a", "t:inner"]


def test_arguments_go_before_the_settings(app: Project, configured: Callable[..., None]) -> None:
    class Own(Session):
        pass

    before = get_db_engine()
    configured(
        session_class=Own, expire_on_commit=True, engine={"json_deserializer": lambda value: ["read", json.loads(value)]}
    )
    assert get_db_engine() is not before
    with get_db_session() as session:
        assert isinstance(session, Own) and session.expire_on_commit
        assert session.scalar(text("""SELECT '{"a": 1}'::jsonb""")) == ["read", {"a": 1}]
    configured()
    with get_db_session() as session:
        assert not isinstance(session, Own) and not session.expire_on_commit


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("service = 1", "is no table"),
        ("[tool.skinspire_db.service]\nsessions = 1", "sessions is no option"),
        ('[tool.skinspire_db.service]\nsession_class = "json:JSONDecoder"', "no subclass of"),
        ('[tool.skinspire_db.service]\nsession_class = "no_module:Own"', "cannot be loaded"),
        ('[tool.skinspire_db.service]\nexpire_on_commit = "yes"', "neither true nor false"),
        ("[tool.skinspire_db.service.engine]\npool_size = 3", "decided by pool_size of the environment"),
        ("[tool.skinspire_db.service.engine]\nhide_parameters = false", "patients' data"),
        ('[tool.skinspire_db.service.engine]\nconnect_args = { dbname = "other" }', "the environment's URL"),
        ('[tool.skinspire_db.service.engine]\nisolation_level = "autocommit"', "is a transaction"),
    ],
)
def test_options_that_cannot_be(app: Project, service: Callable[[Project], Project], settings: str, says: str) -> None:
    (app.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{settings}\n")
    service(app)
    with pytest.raises(InvalidSetting, match=says):
        get_db_engine()
