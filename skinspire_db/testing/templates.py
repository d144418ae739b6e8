"""Template databases, each made once by db.setup, under a name with the fingerprint of all that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

import skinspire_db
from skinspire_db.catalog import objects
from skinspire_db.config import tenancy
from skinspire_db.content.seeding import Options
from skinspire_db.errors import GuardRefused
from skinspire_db.lifecycle import stamp, tool_schema
from skinspire_db.lifecycle.result import counted
from skinspire_db.migrations import locations
from skinspire_db.objects import versions
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import connections
from skinspire_db.schema.blueprint import Blueprint
from skinspire_db.testing import hosting
from skinspire_db.testing.hosting import Host
from skinspire_db.testing.rows import Function, TemplateRows

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

PREFIX = "skinspire_template_"
NAME = lazy_regex(PREFIX + "[0-9a-f]{12}")
KEPT = timedelta(days=7)  # how long an unused template stays: a switch to another branch and back costs nothing
KEPT_AT_MOST = 5  # of one checkout: work on the models makes a new one every few minutes
MADE_BY = "skinspire-db tests"


@dataclass(frozen=True)
class Template:
    """A database that clones are made of, and that accepts no connections. `how` is made, waited for, or reused."""

    name: str
    how: str


def ensure(
    host: Host,
    watch: Connection,
    options: Options,
    rows: TemplateRows = TemplateRows(),  # noqa: B008  # it never changes
    add: Callable[[str, Function], None] | None = None,
) -> Template:
    """The template for what the project's files say now, made when there is none.

    A process that finds another one making it waits. A half-made template never counts.

    Args:
        host: The server.
        watch: To the maintenance database, in autocommit; while it is open, no other run drops the template.
        options: How many people are seeded.
        rows: What adds the application's own rows.
        add: Calls that function with a session on the database of this name.

    Raises:
        SkinspireError: what db.setup raises, and UsageError when the application's rows cannot be added.
    """
    name = PREFIX + fingerprint(host, watch.info.server_version, options, rows.state(host.project))
    if tenancy.is_on(host.project):
        os.environ[tenancy.ROLES_OF] = name
    watch.execute("SET lock_timeout = 0")  # making it may take long; the lock of a process that dies is released
    watch.execute("SELECT pg_advisory_lock_shared(hashtextextended(%s, 0))", (name,))
    how = "reused"
    if not _usable(watch, name):
        how = "waited for"
        with _alone(watch, f"{name} is made"):
            if not _usable(watch, name):  # the process that this one waited for has failed
                function = rows.function(host.project)
                _make(host, watch, name, options, (lambda: add(name, function)) if function and add else lambda: None)
                how = "made"
    describe(watch, name)
    _clean(watch, host, name)
    return Template(name, how)


def fingerprint(host: Host, server_version: int, options: Options, rows: str = "") -> str:
    """Twelve hexadecimal digits of everything that shapes the template: models, revisions, trigger files, seeds, versions."""
    project = host.project
    folders = (Path(skinspire_db.__file__).parent, tool_schema.sql_folder(), *locations.folders(project))
    files = {  # by their names below these folders: another checkout of the same files has the same template
        (str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".py", ".toml", ".sql", ".lock")
    }
    wanted = Blueprint.of_project(project)
    facts: list[Any] = [
        vars(wanted) | {"statements": sorted(wanted.statements), "notes": []},  # in which order is no difference
        [(file.name, file.sha256) for file in versions.current(project)],
        sorted(files), project.config, vars(options), server_version, *([rows] if rows else []),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()[:12]


def describe(watch: Connection, name: str, **facts: str) -> None:
    """Note in the database's comment that it was made for tests, when it was used last, and the given facts.

    Args:
        watch: A connection to the server.
        name: The database.
        facts: What else is noted; without any, the note is written at most once an hour.
    """
    known = notes(watch).get(name, {})
    now = datetime.now(UTC)
    if facts or not known or now - datetime.fromisoformat(known["used"]) > timedelta(hours=1):
        note = json.dumps({**known, "made by": MADE_BY, "used": now.isoformat(timespec="seconds"), **facts})
        watch.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(note)))


def notes(watch: Connection) -> dict[str, dict[str, str]]:
    """The databases of this server whose comment says that they were made for tests: name -> note."""
    notes_by_name = {}
    rows = watch.execute(
        "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname LIKE 'skinspire\\_%'"
    ).fetchall()
    for name, text in rows:
        with contextlib.suppress(ValueError, TypeError):
            note = json.loads(text or "")
            if note.get("made by") == MADE_BY and datetime.fromisoformat(note["used"]):
                notes_by_name[name] = note
    return notes_by_name


def drop(watch: Connection, name: str) -> None:
    """Drop a database that was made for tests, and end the sessions that are connected to it."""
    database = sql.Identifier(name)
    if watch.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", (name,)).fetchone() == (True,):
        watch.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(database))
    watch.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
    for role in (tenancy.application_role(name), tenancy.system_role(name)):
        with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):  # in a kept clone
            watch.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


@contextlib.contextmanager
def _alone(watch: Connection, lock_name: str) -> Iterator[None]:
    """Be the only one of all runs and workers that holds the lock of this name."""
    watch.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (lock_name,))
    try:
        yield
    finally:
        watch.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (lock_name,))


def _usable(watch: Connection, name: str) -> bool:
    query = "SELECT datistemplate AND NOT datallowconn FROM pg_database WHERE datname = %s"
    return watch.execute(query, (name,)).fetchone() == (True,)


def _make(host: Host, watch: Connection, name: str, options: Options, add_rows: Callable[[], None]) -> None:
    from skinspire_db import steps
    from skinspire_db.operations import db
    from skinspire_db.steps import Context

    _remove_half_made(host, watch, name)
    environment = host.environment(name)
    db.setup(Context(environment, defaults=vars(options)), steps.seed).run()
    describe(watch, name, project=str(host.project.root))
    try:
        add_rows()
        # The last statement: a template whose making stopped before it is not usable.
        watch.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
    except Exception:
        drop(watch, name)
        raise


def _remove_half_made(host: Host, watch: Connection, name: str) -> None:
    """Drop what a run that died has left under this name, after a check that it holds nothing else.

    Raises:
        GuardRefused: for a database with a real environment's stamp, or with objects and no stamp.
    """
    if watch.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
        return
    target = host.target(name)
    hosting.refuse_real(target)
    with connections.connect(target, "tests") as connection:
        foreign = stamp.read(connection) is None and objects.all_objects(connection)
    if foreign:
        raise GuardRefused(
            f"{target} holds {counted(len(foreign), 'object')} and no stamp: it may be in use for something else",
            remedy=f'if it is not needed: DROP DATABASE "{name}"',
        )
    drop(watch, name)


def _clean(watch: Connection, host: Host, current: str) -> None:
    """Drop templates and kept databases that were not used for a week, and all but the newest few templates of this checkout.

    The current template stays, and one that another run uses.
    """
    noted = sorted(notes(watch).items(), key=lambda item: item[1]["used"], reverse=True)
    ours = [name for name, note in noted if NAME.fullmatch(name) and note.get("project") == str(host.project.root)]
    oldest = datetime.now(UTC) - KEPT
    for name, note in noted:
        late = datetime.fromisoformat(note["used"]) < oldest or name in ours[KEPT_AT_MOST:]
        if late and name != current:  # this connection holds the current one's lock, and would get it again
            lock = watch.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)).fetchone()
            if lock == (True,):
                drop(watch, name)
                watch.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))
