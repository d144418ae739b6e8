"""Opening connections for the tools: to exactly the database that the environment names, under its policy."""

from __future__ import annotations

import contextlib
import getpass
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db import refusals, search_path, urls
from skinspire_db.environment import (
    Environment,
    Policy,
    admin_setting,
    embedded_database,
    replica_setting,
    url_setting,
)
from skinspire_db.errors import (
    ConnectionFailed,
    DatabaseMissing,
    GuardRefused,
    InvalidSetting,
    PermissionMissing,
    SkinspireError,
)
from skinspire_db.pinning import Pin
from skinspire_db.server import LOCKS, ROLE, EmbeddedServer, project_server

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

PAUSES = (0.05, 0.2, 0.5)  # seconds between tries to connect to a database that is there
MAINTENANCE_DATABASES = ("postgres", "template1")  # where one asks whether a database exists, and makes it
# Whatever the role's or the server's own setting: what is called committed stays so when the server dies the next moment.
DURABLE = "SET LOCAL synchronous_commit = on"
CLOSED = "skinspire-db closed this database to drop it"  # the comment on one, until it is dropped or open again
CLOSING = "SELECT pg_try_advisory_lock(hashtextextended(%s, 1))"  # one process at a time does either
SETTINGS_OF_LONG_TRANSACTIONS = """
DO $$
BEGIN
    -- So that a server notices within a second that our process was killed. Not every platform can.
    SET LOCAL client_connection_check_interval = '1s';
EXCEPTION WHEN invalid_parameter_value THEN
    NULL;
END
$$
"""


@dataclass(frozen=True)
class Target:
    """A database on a server. `parameters` is what libpq needs to get there, the password included; it stays secret.

    `parameters` may name several hosts; `pin` is the one that the operation's first connection reached. `setting` is the name
    of the one that holds the URL.
    """

    environment: str
    policy: Policy
    parameters: dict[str, Any] = field(repr=False)
    server: EmbeddedServer | None = field(repr=False, default=None)
    pin: Pin = field(repr=False, compare=False, default_factory=Pin)
    setting: str = ""

    @property
    def route(self) -> dict[str, Any]:
        """The parameters that lead to the server: all that the URL names, or the one that was reached."""
        return self.parameters | self.pin.address

    @property
    def host(self) -> str:
        return str(self.route.get("hostaddr" if self.parameters.get("hostaddr") else "host", ""))

    @property
    def port(self) -> str:
        return str(self.route.get("port", ""))

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """Host and port of each server that is meant; the port is empty where libpq's default holds."""
        hosts, ports = self.host.split(","), self.port.split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        return list(zip(hosts, ports, strict=False))

    @property
    def where(self) -> str:
        """The server, or all that the URL names, as a person writes it."""
        shown = [(f"[{host}]" if ":" in host else host or "the local socket", port) for host, port in self.addresses]
        return ",".join(f"{host}:{port}" if port else host for host, port in shown)

    @property
    def database(self) -> str:
        return str(self.parameters["dbname"])

    @property
    def user(self) -> str:
        return str(self.parameters.get("user", ""))

    def __str__(self) -> str:
        return f"{self.database} on {self.where}{' (embedded server)' if self.server else ''}"


def target(environment: Environment, *, start: bool = True, application: bool = False) -> Target:
    """Where the environment's database is; with `start`, an embedded server that was never started is started.

    The tools' way there, by the admin URL where there is one; with `application`, the application's, whose every connection
    may go to another one of several hosts.

    Raises InvalidSetting for a URL that cannot be used, ServerFailed when the embedded server cannot be started.
    """
    pin = Pin() if application else environment.pin
    if not environment.embedded:
        url = environment.url if application else environment.admin or environment.url
        return Target(
            environment.name, environment.policy, urls.parameters(url, environment.policy.sslmode), pin=pin, setting=url.name
        )
    server = project_server(environment.project)
    address = server.address() or (server.start() if start else None)
    parameters = address.parameters if address else {"host": "127.0.0.1", "user": ROLE}
    database = {"dbname": embedded_database(environment.name)}
    return Target(environment.name, environment.policy, parameters | database, server, pin, environment.url.name)


def replica(environment: Environment) -> Target | None:
    """Where the environment's read replica is, None when it has none. Raises InvalidSetting for an unusable URL."""
    url = environment.project.setting(replica_setting(environment.name))
    if url.value is None:
        return None
    return Target(environment.name, environment.policy, urls.parameters(url, environment.policy.sslmode), setting=url.name)


def connect(to: Target, operation: str, *, database: str | None = None) -> Connection:
    """Open a connection for `operation`, which is the application_name that others see. Not in autocommit.

    An embedded server that does not answer is started. Raises DatabaseMissing, ConnectionFailed, or InvalidSetting for a
    URL with unknown options; none of their texts holds the password.
    """
    import psycopg

    started = False
    for pause in (*PAUSES, None):
        try:
            return open_once(to, operation, database)
        except psycopg.Error as error:
            failure = error
        if to.server and not started:
            started = True
            to.parameters.update(to.server.start().parameters)  # its port may be another one now
            continue
        refusal = _refusal(failure, to)
        exists = None if refusal else _exists(to, database or to.database)
        if not exists or pause is None:
            raise refusal or _absence(failure, to, database or to.database, exists)
        _reopen(to, operation, database or to.database)
        time.sleep(pause)  # it was not there a moment ago: another operation has made it, or decides whether to drop it
    raise AssertionError


def require_direct(to: Target, operation: str, *, writes: bool = True) -> None:
    """Refuse an operation that cannot be done where its first connection came out; nothing has been done yet.

    A pooler in transaction mode hands each transaction another session: locks, snapshots and what pg_dump sets would be
    lost, or left to the application. One in session mode does not know the databases that are made aside.

    Raises:
        InvalidSetting: A pooler is in between.
        GuardRefused: The operation `writes`, and the server is a standby.
    """
    if to.pin.pooled:
        admin = admin_setting(to.environment)
        raise InvalidSetting(
            f"{to.setting} leads through a pooler, and {operation} needs PostgreSQL itself",
            remedy=f"set {admin}=postgresql://user:password@host:5432/{to.database}, with PostgreSQL's own host and port",
        )
    if writes and to.pin.standby:
        raise GuardRefused(
            f"{to} is a standby, which only reads: {operation} needs the primary",
            remedy=f"name the primary in {to.setting}; target_session_attrs=read-write finds it among several hosts",
        )


def begin(
    connection: Connection,
    policy: Policy,
    *,
    brief: bool = False,
    isolation: str = "READ COMMITTED",
    snapshot: str | None = None,
) -> None:
    """Start a transaction under the policy's time-outs, whatever the database's or the role's own settings are.

    Everything is set for this transaction only, so that nothing sticks to a connection that a pooler hands on. A `brief`
    one only looks something up. The `isolation` is as SET TRANSACTION calls it; `snapshot` is one that another session has
    exported.
    """
    from psycopg import sql

    connection.execute(
        sql.SQL(
            # A snapshot older than the operation lock would not see what its last holder committed.
            "SET TRANSACTION ISOLATION LEVEL {isolation}; {snapshot} SET LOCAL quote_all_identifiers = off;"
            "SET LOCAL TimeZone = 'UTC'; {pin}; SET LOCAL statement_timeout = 0;"
            "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = {milliseconds}{forever}; {durable}"
        ).format(
            pin=sql.SQL(search_path.PIN),
            durable=sql.SQL(DURABLE),  # no query may be among these: it would take the snapshot
            isolation=sql.SQL(isolation),
            forever=sql.SQL("; SET LOCAL transaction_timeout = 0" if connection.info.server_version >= 170_000 else ""),
            snapshot=sql.SQL("SET TRANSACTION SNAPSHOT {};").format(snapshot) if snapshot else sql.SQL(""),
            milliseconds=sql.Literal(round(policy.lock_timeout * 1000)),
        )
    )
    if not brief:
        connection.execute(SETTINGS_OF_LONG_TRANSACTIONS)


def autocommit(connection: Connection) -> None:
    """End the connection's transaction, and let each statement from now on be one of its own, however long it takes: a
    role's own time-out would end CREATE and DROP DATABASE.
    """
    connection.rollback()
    connection.autocommit = True
    connection.execute("SET statement_timeout = 0")
    connection.execute(f"SET search_path = {search_path.TOOLS}".encode())


def settle(connection: Connection) -> None:
    """Wait until all that has been committed on the server is on its disk. Raises psycopg's OperationalError when the server
    died since the connection was opened, and may have lost some of it.
    """
    # A transaction that writes no WAL waits for none, even if it has an id.
    connection.execute(
        f"{search_path.PIN}; {DURABLE}; SELECT pg_catalog.pg_logical_emit_message(true, 'skinspire-db', ''::text)".encode()
    )
    connection.commit()


def open_database(to: Target, operation: str, *, create: bool) -> tuple[Connection, bool]:
    """Open a connection; with `create`, a database that does not exist is made first. Returns it, and whether it was made.

    Raises what connect() raises, and PermissionMissing when the role may not create databases, with what to ask the
    administrator for.
    """
    created = False
    for pause in (*PAUSES, None):
        try:
            return connect(to, operation), created
        except DatabaseMissing:
            if not create or pause is None:
                raise
        # Another first operation may be faster, and drop what it made when it fails.
        created = create_database(to, operation)
    raise AssertionError


def drop_unless_used(to: Target, operation: str, own_pid: int) -> None:
    """Drop the database, which nobody but session `own_pid` may be using. Never raises a psycopg error.

    Nobody can come in between the look and the DROP, which would otherwise wait for them and then take what they made. A
    comment says who has closed it: when this process is killed, the next operation opens it again.
    """
    import psycopg
    from psycopg import sql

    try:
        with maintenance(to, operation) as connection:
            autocommit(connection)
            if connection.execute(CLOSING.encode(), (to.database,)).fetchone() != (True,):
                return
            _allow_connections(connection, to.database, False)
            others = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> %s", (to.database, own_pid)
            ).fetchone()
            if others == (0,):
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (own_pid,))
                connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(to.database)))
            else:
                _allow_connections(connection, to.database, True)
    except (psycopg.Error, SkinspireError):
        pass  # an empty database stays behind; the next operation takes it for new


def _allow_connections(connection: Connection, database: str, allowed: bool) -> None:
    from psycopg import sql

    change = sql.SQL("ALTER DATABASE {0} ALLOW_CONNECTIONS {1}; COMMENT ON DATABASE {0} IS {2}")
    with connection.transaction():
        connection.execute(change.format(sql.Identifier(database), sql.SQL(str(allowed)), None if allowed else CLOSED))


def _reopen(to: Target, operation: str, database: str) -> None:
    """Let connections to the database be made again when drop_unless_used() was killed before it came to that."""
    import psycopg

    closed = (
        "SELECT 1 FROM pg_database WHERE datname = %s AND NOT datallowconn AND shobj_description(oid, 'pg_database') = %s"
    )
    with contextlib.suppress(psycopg.Error, SkinspireError), maintenance(to, operation) as connection:
        autocommit(connection)
        mine = connection.execute(CLOSING.encode(), (database,)).fetchone() == (True,)
        if mine and connection.execute(closed, (database, CLOSED)).fetchone():
            _allow_connections(connection, database, True)


def drop_database(to: Target, operation: str, over: Connection | None = None) -> None:
    """Drop the database, whoever is connected to it, if it exists. Never raises a psycopg error. `over` is a connection to
    another database of the server, whose transaction ends: the role may no longer be let in.
    """
    import psycopg
    from psycopg import sql

    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(to.database))
    with contextlib.suppress(psycopg.Error):
        if over is not None:
            autocommit(over)
            over.execute(drop)
            return
    try:
        with maintenance(to, operation) as connection:
            autocommit(connection)
            connection.execute(drop)
    except (psycopg.Error, SkinspireError):
        pass  # a server that is gone; the next operation sweeps it up


def sentence(error: psycopg.Error) -> str:
    """What PostgreSQL said, in one line, without DETAIL, which can hold patients' data."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    setting = short_of_locks(error.diag.message_hint or "")
    return " ".join(text.split()) + (f" ({setting} is too small for so many tables)" if setting else "")


def is_lost(error: psycopg.Error) -> bool:
    """Whether it says that the connection or the server is gone."""
    import psycopg

    state = error.sqlstate or ""
    return state.startswith(("57P", "08")) or (not state and isinstance(error, psycopg.OperationalError))


def short_of_locks(hint: str) -> str | None:
    """The setting that PostgreSQL's hint names when a transaction needs more locks than the server has room for."""
    found = re.search(r"\bmax_(?:pred_)?locks_per_transaction\b", hint)
    return found[0] if found else None


def more_locks(setting: str, server: EmbeddedServer | None = None) -> str:
    """What gives a server room for more locks. An embedded one gets ours at its next start."""
    if server:
        where = server.data / "postgresql.conf"
        return f"invoke server.stop, and run it again; if that is not enough, raise {setting} in {where} before"
    return f"ask the administrator for: ALTER SYSTEM SET {setting} = {LOCKS}, and a restart of the server"


def libpq_parameters(to: Target, application_name: str) -> dict[str, Any]:
    """Everything that decides where a connection goes, so that nothing is taken from the process environment."""
    # What is given here, be it empty, libpq does not take from PGHOST, PGHOSTADDR, PGPORT or PGOPTIONS.
    defaults: dict[str, Any] = dict.fromkeys(("host", "hostaddr", "port", "options"), "")
    defaults |= {"connect_timeout": to.policy.connect_timeout}
    if "user" not in to.route:
        defaults["user"] = _own_name(to)
    return defaults | to.route | {"application_name": application_name, "client_encoding": "UTF8"}


def _own_name(to: Target) -> str:
    """The account's name, which libpq takes where a URL names no role. Raises InvalidSetting where it has none, as in a
    container that runs as a number.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        setting = to.setting or url_setting(to.environment)
        raise InvalidSetting(
            f"{setting} names no role, and the account that runs this has no name",
            remedy=f"write {setting}=postgresql://user:password@host:5432/database",
        ) from None


def open_once(to: Target, operation: str, database: str | None = None) -> Connection:
    """One attempt to connect, to the server that the operation is on.

    Raises psycopg's errors, and ConnectionFailed when it led to another server.
    """
    import psycopg

    other = {"dbname": database} if database else {}
    connection = psycopg.connect(**(libpq_parameters(to, f"skinspire-db {operation}") | other))
    try:
        to.pin.prove(connection, moves=to.server is not None)
        connection.execute(search_path.PIN)  # for this transaction; begin() says it for those that follow
    except BaseException:
        connection.close()
        raise
    return connection


def create_database(to: Target, operation: str, *, template: str | None = None, locale: str = "ENCODING 'UTF8'") -> bool:
    """CREATE DATABASE, empty with that locale or as a copy of `template`; returns False when somebody else was faster.

    A template that does not fit into the server's shared buffers is copied as files (STRATEGY FILE_COPY), a smaller one by
    way of the buffers and the WAL, which spares the two checkpoints (PostgreSQL manual, CREATE DATABASE).

    Raises PermissionMissing, ConnectionFailed, and psycopg's ObjectInUse for a template that others are connected to.
    """
    import psycopg
    from psycopg import sql

    with maintenance(to, operation) as connection:
        require_direct(to, operation)
        autocommit(connection)
        make = f"CREATE DATABASE {{}} TEMPLATE {{}} {locale.replace('{', '{{').replace('}', '}}')}"
        if template:
            large = connection.execute(
                "SELECT pg_database_size(%s) > pg_size_bytes(current_setting('shared_buffers'))", (template,)
            ).fetchone()
            make = f"CREATE DATABASE {{}} TEMPLATE {{}} STRATEGY {'FILE_COPY' if large == (True,) else 'WAL_LOG'}"
        try:
            connection.execute(sql.SQL(make).format(sql.Identifier(to.database), sql.Identifier(template or "template0")))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # the latter in the same instant
            return False
        except psycopg.errors.InsufficientPrivilege:
            raise PermissionMissing(
                f"role {to.user} may not create the database {to.database}",
                remedy=f'ask the administrator for: CREATE DATABASE "{to.database}" OWNER "{to.user}"',
            ) from None
        except psycopg.errors.ObjectInUse:
            raise
        except psycopg.Error as error:
            raise ConnectionFailed(f"cannot create the database {to.database}: {sentence(error)}") from None
    return True


def maintenance(to: Target, operation: str) -> Connection:
    """A connection to a database that every server has, on the target's server.

    Raises PermissionMissing when the role may not connect to it, ConnectionFailed when a limit or the server keeps it out.
    """
    import psycopg

    for database in MAINTENANCE_DATABASES:
        try:
            return open_once(to, operation, database)
        except psycopg.Error as error:
            failure = error
    said = f"role {to.user} reaches neither {' nor '.join(MAINTENANCE_DATABASES)} on {to.where}: {refusals.reason(failure)}"
    kind = refusals.kind(failure)
    if kind == "limit":
        raise ConnectionFailed(said, remedy=refusals.more_connections(failure)) from failure
    if kind == "host" or "permission denied" in str(failure):
        grant = f'GRANT CONNECT ON DATABASE {MAINTENANCE_DATABASES[0]} TO "{to.user}"'
        raise PermissionMissing(said, remedy=f"ask the administrator for: {grant}") from failure
    raise ConnectionFailed(said, remedy=f"invoke db.doctor --env={to.environment}") from failure


def _exists(to: Target, database: str) -> bool | None:
    """Whether the database exists; None when nobody could be asked."""
    import psycopg

    try:
        with maintenance(to, "lookup") as connection:
            return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone() is not None
    except (psycopg.Error, SkinspireError):
        return None


def explain(error: psycopg.Error, to: Target, database: str | None = None) -> SkinspireError:
    """What psycopg said when no connection could be had, in our words, with a remedy, and without the password."""
    database = database or to.database
    return _refusal(error, to) or _absence(error, to, database, _exists(to, database))


def _refusal(error: psycopg.Error, to: Target) -> SkinspireError | None:
    """What the text alone tells, whatever databases there are."""
    # The server gives no SQLSTATE to a client that could not log in: there is only its text, in its own language.
    text = str(error)
    setting = to.setting or url_setting(to.environment)
    kind = refusals.kind(error)
    if kind == "option":
        return InvalidSetting(
            f"{setting} has an option that cannot be used: {text.splitlines()[0]}",
            remedy=f"correct {setting}=postgresql://user:password@host:5432/database?OPTION=VALUE",
        )
    if kind == "pooler":
        return InvalidSetting(
            f"{setting} leads through a pooler that does not take all of its options: {text.splitlines()[0]}",
            remedy=f"take them out of {setting}, and give the tools PostgreSQL itself in {admin_setting(to.environment)}",
        )
    if kind == "limit":
        return ConnectionFailed(
            f"{to.where} lets nobody else in: {refusals.reason(error)}", remedy=refusals.more_connections(error)
        )
    if "password" in text and ("authentication failed" in text or "no password supplied" in text):
        return ConnectionFailed(
            f"{to.where} refuses the password of role {to.user}"
            if "authentication failed" in text
            else f"role {to.user} needs a password at {to.where}",
            remedy=f"correct the password in {setting}; write special characters as %XX",
        )
    return None


def _absence(error: psycopg.Error, to: Target, database: str, exists: bool | None) -> SkinspireError:
    if exists is False:
        return DatabaseMissing(f"the database {database} does not exist", remedy=f"invoke db.setup --env={to.environment}")
    setting = to.setting or url_setting(to.environment)
    check = "invoke server.status" if to.server else f"invoke db.doctor --env={to.environment}, and check {setting}"
    return ConnectionFailed(f"cannot connect to {to}: {refusals.reason(error)}", remedy=check)
