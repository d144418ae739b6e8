"""The application's own sessions and engines: what [tool.skinspire_db.service] and configure_service() say of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from skinspire_db.config import project_code
from skinspire_db.config.project import Project
from skinspire_db.errors import InvalidSetting

TABLE = "[tool.skinspire_db.service]"
KEYS = ("session_class", "expire_on_commit", "engine")
CALLABLES = ("json_serializer", "json_deserializer")
# What others decide: the environment's policy, its URL, the unit of work; and patients' data stays out of error texts.
ELSEWHERE = {
    "pool_size": "pool_size of the environment", "max_overflow": "pool_overflow of the environment",
    "pool_timeout": "pool_timeout of the environment", "pool_recycle": "pool_recycle of the environment",
    "poolclass": "the environment's policy", "pool": "the environment's policy", "creator": "the environment's URL",
    "hide_parameters": "nothing: parameters are patients' data", "autocommit": "nothing: a block is a transaction",
    "cursor_factory": "nothing: the cursor counts transactions", "row_factory": "nothing: SQLAlchemy reads tuples",
    **dict.fromkeys(("host", "hostaddr", "port", "dbname", "user", "password", "conninfo"), "the environment's URL"),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What the application wants otherwise than it is by default.

    Attributes:
        session_class: the class of the sessions, a subclass of SQLAlchemy's.
        expire_on_commit: as SQLAlchemy's.
        engine: arguments of create_engine(); its `connect_args` go to psycopg.
    """

    session_class: type[Session] = Session
    expire_on_commit: bool = False
    engine: dict[str, Any] = field(default_factory=dict)

    def session(self, **arguments: Any) -> Session:
        """A session of this class, which no unit of work owns."""
        return self.session_class(**{"expire_on_commit": self.expire_on_commit} | arguments)


_given: dict[str, Any] = {}  # by configure_service()


def of(project: Project) -> Options:
    """The options of a project: those of configure_service(), then those of pyproject.toml.

    Raises:
        InvalidSetting: an option is unknown, decided elsewhere, or cannot be loaded.
    """
    declared = project.config.get("service", {})
    if not isinstance(declared, dict):
        raise InvalidSetting("service in pyproject.toml is no table", remedy=f"write it as {TABLE}")
    named = dict(declared)
    if isinstance(text := named.get("session_class"), str):
        named["session_class"] = project_code.attribute(project, text)
    if isinstance(engine := named.get("engine", {}), dict):
        callables = {
            key: project_code.attribute(project, engine[key]) for key in CALLABLES if isinstance(engine.get(key), str)
        }
        named["engine"] = engine | callables
    return _checked(named | _given)


def configure(**given: Any) -> None:
    """Set options for this process, which go before those of pyproject.toml; None takes one back.

    Raises:
        InvalidSetting: as `of`.
    """
    _checked({key: value for key, value in given.items() if value is not None})
    for key, value in given.items():
        _given.pop(key, None)
        if value is not None:
            _given[key] = value


def _checked(named: dict[str, Any]) -> Options:
    if unknown := sorted(named.keys() - set(KEYS)):
        raise InvalidSetting(f"{unknown[0]} is no option of the service", remedy=f"one of {', '.join(KEYS)}")
    options = Options(**named)
    if not (isinstance(options.session_class, type) and issubclass(options.session_class, Session)):
        raise InvalidSetting("session_class is no subclass of sqlalchemy.orm.Session", remedy='write "module:Class"')
    if not isinstance(options.expire_on_commit, bool):
        raise InvalidSetting("expire_on_commit is neither true nor false", remedy="write one of them")
    if not isinstance(options.engine, dict) or not isinstance(options.engine.get("connect_args", {}), dict):
        raise InvalidSetting("the engine's options are no table", remedy="write [tool.skinspire_db.service.engine]")
    for key in (*options.engine, *options.engine.get("connect_args", {})):
        if key in ELSEWHERE:
            raise InvalidSetting(
                f"{key} is no option of the service's engines: it is decided by {ELSEWHERE[key]}", remedy="take it out"
            )
    if str(options.engine.get("isolation_level", "")).upper() == "AUTOCOMMIT":
        raise InvalidSetting("isolation_level AUTOCOMMIT: a get_db_session block is a transaction", remedy="take it out")
    return options
