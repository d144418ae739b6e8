"""From the settings to an open connection."""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import replace
from pathlib import Path

from skinspire_db.config import environment
from skinspire_db.config.environment import url_setting
from skinspire_db.config.urls import LOCAL_HOSTS
from skinspire_db.doctor.link import Broken, Case
from skinspire_db.errors import DatabaseMissing
from skinspire_db.postgres import connections, error_text
from skinspire_db.postgres.connections import explain
from skinspire_db.postgres.target import libpq_parameters, target_of

SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # the first message of a client that would like TLS; a byte comes back
# Where libpq looks when no host is named.
SOCKET_FOLDERS = ("localhost",) if sys.platform == "win32" else ("/var/run/postgresql", "/tmp")  # noqa: S108
ATTEMPT_OF = "skinspire-db db.doctor"


def settings(case: Case) -> str:
    """Whether the settings name a database.

    Returns:
        What was found, for a reader.

    Raises:
        SkinspireError: they do not.
    """
    case.environment = environment.resolve(case.name)
    case.target = target_of(case.environment, start=False)
    return f"{case.target}"


def embedded_server(case: Case) -> str:
    """Whether the embedded server runs. It is not started, which would hide what is wrong.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it was never made, or is stopped.
    """
    server = case.to.server
    assert server
    if not server.exists:
        raise Broken("the embedded server was never made", f"invoke db.setup --env={case.name}")
    status = server.status()
    if status.pid is None:
        raise Broken("the embedded server is stopped", f"invoke server.start --env={case.name}")
    return f"PostgreSQL {status.version}, pid {status.pid}, port {status.port}"


def host_name(case: Case) -> str:
    """Whether the host's name has an address.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it has none.
    """
    found = []
    for host, port in _hosts(case):
        if host.startswith("/"):
            case.addresses.append((host, port))
            found.append(f"the socket in {host}")
            continue
        try:
            answers = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        case.addresses += [(address, port) for address in addresses]
        found.append(host if addresses == [host] else f"{host} is {', '.join(addresses)}")
    if not found:
        raise Broken(
            f"no address is known for {case.to.host}", f"correct the host in {_setting(case)}, or ask for the name server"
        )
    return "; ".join(found)


def port(case: Case) -> str:
    """Whether a program listens at one of the addresses.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: none does.
    """
    reasons = []
    for address in case.addresses:
        try:
            with _reach(case, address):
                case.address = address
                return f"{_shown(address)} is open"
        except TimeoutError:
            reasons.append(f"{_shown(address)} does not answer within {case.to.policy.connect_timeout} s")
        except OSError as error:
            reasons.append(f"nothing listens on {_shown(address)} ({error.strerror or error})")
    raise Broken("; ".join(reasons), f"start that server, or correct host and port in {_setting(case)}")


def postgresql(case: Case) -> str:
    """Whether what listens answers as PostgreSQL does.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it does not.
    """
    assert case.address
    try:
        with _reach(case, case.address) as opened:
            opened.sendall(SSL_REQUEST)
            answer = opened.recv(1)
    except OSError:
        answer = b""
    if answer not in (b"S", b"N", b"E"):
        said = "says something else" if answer else "says nothing"
        raise Broken(
            f"what listens on {_shown(case.address)} is not PostgreSQL, or hangs: asked as one asks PostgreSQL, it {said}",
            f"look into {case.to.server.log}" if case.to.server else f"correct host and port in {_setting(case)}",
        )
    return "it answers as PostgreSQL does"


def tls(case: Case) -> str:
    """Whether the connection is encrypted as the settings ask. One attempt to connect decides this link and those after it.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: the server and the settings ask for different things.
    """
    _attempt(case)
    mode = case.to.parameters.get("sslmode", "prefer")
    if case.refusal and _link(case) == "TLS":
        raise Broken(
            f"sslmode={mode}: {error_text.reason(case.refusal)}",
            f"correct the server's certificate or ssl = on, or sslmode and sslrootcert in {_setting(case)}",
        )
    if case.refusal and _is_let_in_encrypted(case):
        raise Broken(
            f"sslmode={mode}, and the server lets role {case.to.user} in only over an encrypted connection",
            f"write sslmode=require into {_setting(case)}",
        )
    if case.connection and case.connection.pgconn.ssl_in_use:
        return f"encrypted (sslmode={mode})"
    return f"not asked for (sslmode={mode})"


def password(case: Case) -> str:
    """Whether the role is let in.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: its password or its address is refused.
    """
    if case.refusal and _link(case) == "password":
        error = explain(case.refusal, case.to)
        reason = error.message if "password" in error.message else error_text.reason(case.refusal)
        raise Broken(reason, f"correct user and password in {_setting(case)}; write special characters as %XX")
    if case.refusal and _link(case) == "host":
        kind = "hostssl" if case.to.parameters.get("sslmode") == "require" else "host"
        line = f"{kind} {case.to.database} {case.to.user} ADDRESS scram-sha-256"
        raise Broken(error_text.reason(case.refusal), f"ask the administrator for a line in pg_hba.conf: {line}")
    return f"role {case.to.user} is let in"


def connections_left(case: Case) -> str:
    """Whether there is room for this connection.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: there is none.
    """
    if case.refusal and _link(case) == "limit":
        raise Broken(
            f"the server lets no more sessions in: {error_text.reason(case.refusal)}",
            error_text.more_connections(case.refusal),
        )
    return "there is room for a connection"


def database(case: Case) -> str:
    """Whether the database exists and the role may connect to it.

    Returns:
        What was found, for a reader.

    Raises:
        Broken: it does not exist, or the role may not connect.
    """
    if case.refusal:
        error = explain(case.refusal, case.to)
        if isinstance(error, DatabaseMissing):
            raise Broken(error.message, error.remedy or "")
        if "permission denied for database" in str(case.refusal):
            grant = f'GRANT CONNECT ON DATABASE "{case.to.database}" TO "{case.to.user}"'
            raise Broken(f"role {case.to.user} may not connect to {case.to.database}", f"ask the administrator for: {grant}")
        raise Broken(error_text.reason(case.refusal), f"correct {_setting(case)}")
    return f"{case.to.database} exists"


LINKS = {
    "host name": host_name, "port": port, "PostgreSQL": postgresql, "TLS": tls, "password": password,
    "connection": connections_left, "database": database,
}  # fmt: skip


def is_local(case: Case) -> bool:
    """Whether the server is on this machine."""
    return all(host in LOCAL_HOSTS or host.startswith("/") for host, _ in _hosts(case))


def _setting(case: Case) -> str:
    return case.to.setting or url_setting(case.name)


def _hosts(case: Case) -> list[tuple[str, str]]:
    """Where each server that the URL names would be, the local sockets for one without a name."""
    found = []
    for host, given in case.to.addresses:
        port = given or "5432"
        sockets = [folder for folder in SOCKET_FOLDERS if (Path(folder) / f".s.PGSQL.{port}").exists()] or [SOCKET_FOLDERS[0]]
        found += [(each, port) for each in ([host] if host else sockets)]
    return found


def _reach(case: Case, address: tuple[str, str]) -> socket.socket:
    host, port = address
    timeout = float(case.to.policy.connect_timeout)
    if not host.startswith("/"):
        return socket.create_connection((host, int(port)), timeout=timeout)
    if sys.platform == "win32":  # Python has no local sockets there
        raise OSError(f"there are no local sockets on Windows, and {host} is one")
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(timeout)
    try:
        opened.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        opened.close()
        raise
    return opened


def _shown(address: tuple[str, str]) -> str:
    host, port = address
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _attempt(case: Case) -> None:
    import psycopg

    try:
        case.connection = connections.open_once(case.to, "db.doctor")
    except psycopg.Error as error:
        case.refusal = error


def _link(case: Case) -> error_text.Kind:
    """Which link the refusal breaks."""
    assert case.refusal
    return error_text.kind(case.refusal)


def _is_let_in_encrypted(case: Case) -> bool:
    """Whether what pg_hba.conf has no entry for is the connection without encryption: another attempt, with it, tells."""
    import psycopg

    if _link(case) != "host" or "no encryption" not in str(case.refusal):
        return False
    encrypted = replace(case.to, parameters=case.to.parameters | {"sslmode": "require"})
    try:
        psycopg.connect(**libpq_parameters(encrypted, ATTEMPT_OF)).close()
    except psycopg.Error as error:
        return error_text.kind(error) not in ("host", "TLS")  # then it is refused for another reason: TLS it would have taken
    return True
