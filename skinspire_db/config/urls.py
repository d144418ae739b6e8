"""Database URLs, by the rules of SQLAlchemy and libpq, never by hand."""

from __future__ import annotations

import re
from typing import Any

from skinspire_db.config.project import Setting
from skinspire_db.errors import InvalidSetting
from skinspire_db.patterns import lazy_regex

SERVERS_OWN = ("postgres", "template1", "template0")  # databases that no environment may be in
LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
WORD = r"(?:[\w.~!$*+=;-]|%[2-7][0-9A-Fa-f])+"
PLAIN = lazy_regex(  # a URL that SQLAlchemy and libpq read alike
    rf"postgres(?:ql)?(?:\+psycopg)?(://(?:{WORD}(?::{WORD})?@)?[\w.-]+(?::[1-9]\d{{0,4}})?/[\w.-]+"
    r"(?:\?(?:sslmode|sslrootcert|connect_timeout|target_session_attrs)=[\w./-]+)?)",
    re.ASCII,
)
SEVERAL = "several.hosts.invalid"  # stands for a list of hosts in a URL that SQLAlchemy is to parse


def split_hosts(url: str) -> tuple[str, str]:
    """A URL with one host in place of a list of them, which SQLAlchemy cannot parse, and that list; empty for one host.

    The list is what libpq documents, `host1:5432,host2:5433`. Where it begins SQLAlchemy's rule decides: after the first @.
    """
    found = re.fullmatch(r"([\w+]+://(?:[^:/]*(?::[^@]*)?@)?)([^/?@]*,[^/?@]*)((?:[/?].*)?)", url, re.DOTALL)
    return (f"{found[1]}{SEVERAL}{found[3]}", found[2]) if found else (url, "")


def parameters(given: Setting, sslmode: str | None) -> dict[str, Any]:
    """What libpq needs to get where the setting's URL leads; `sslmode` holds where the URL has none and leads elsewhere than
    to this machine.

    Raises:
        InvalidSetting: for a URL that cannot be used, whose text stays secret.
    """
    setting = given.name
    where = ".env" if given.source == ".env" else "the environment or .env"
    remedy = f"write {setting}=postgresql://user:password@host:5432/database in {where}"
    found = _plain(str(given.value)) or _by_sqlalchemy(str(given.value), setting, remedy)
    if not found.get("dbname"):
        raise InvalidSetting(f"{setting} names no database", remedy=remedy)
    if found["dbname"] in SERVERS_OWN:
        raise InvalidSetting(f"{setting} names {found['dbname']}, which is the server's own", remedy=remedy)
    if "service" in found:
        raise InvalidSetting(f"{setting} names a service: which database that is, its file decides", remedy=remedy)
    if sslmode and "sslmode" not in found and not _is_local(found):
        found["sslmode"] = sslmode
    _check(found, setting, remedy)
    return found


def _plain(url: str) -> dict[str, Any]:
    """A plain URL's parameters, as libpq takes it apart: loading SQLAlchemy takes longer than `db.verify` until its first
    query. Empty for every other URL.
    """
    from psycopg.conninfo import conninfo_to_dict

    plain = PLAIN.fullmatch(url)
    found: dict[str, Any] = conninfo_to_dict(f"postgresql{plain[1]}") if plain else {}
    return found | ({"port": int(found["port"])} if "port" in found else {})


def _by_sqlalchemy(given: str, setting: str, remedy: str) -> dict[str, Any]:
    import psycopg
    from sqlalchemy import exc, make_url
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    try:
        text, hosts = split_hosts(given)
        url = make_url(text)
        backend, _, driver = url.drivername.partition("+")
        if backend not in ("postgresql", "postgres") or driver not in ("", "psycopg"):
            raise InvalidSetting(f"{setting} is a URL for {url.drivername}, not for PostgreSQL", remedy=remedy)
        dialect: Any = PGDialect_psycopg
        found: dict[str, Any] = dialect().create_connect_args(url.set(drivername="postgresql+psycopg"))[1]
        found |= _named(hosts)
    except (exc.ArgumentError, ValueError, psycopg.ProgrammingError):  # their texts can hold the URL, and it the password
        raise InvalidSetting(f"{setting} is not a database URL", remedy=remedy) from None
    if "@" in f"{url.host}{url.database}":
        raise InvalidSetting(f"{setting} has an @ or / that is not written as %40 or %2F", remedy=remedy)
    return found


def _named(hosts: str) -> dict[str, Any]:
    """A list of hosts as libpq takes it apart; empty when there is none. Raises ValueError for a port that is no number."""
    from psycopg.conninfo import conninfo_to_dict

    named = conninfo_to_dict(f"postgresql://{hosts}/") if hosts else {}
    for each in str(named.get("port", "")).split(","):
        int(each or "0")
    return {key: named[key] for key in ("host", "port") if key in named}


def _check(parameters: dict[str, Any], setting: str, remedy: str) -> None:
    import psycopg
    from psycopg.conninfo import make_conninfo

    try:
        make_conninfo(**parameters)
    except psycopg.ProgrammingError as error:
        raise InvalidSetting(
            f"{setting} has an option that PostgreSQL does not know: {str(error).strip()}", remedy=remedy
        ) from None


def _is_local(parameters: dict[str, Any]) -> bool:
    hosts = str(parameters.get("hostaddr") or parameters.get("host", "")).split(",")
    return all(host in LOCAL_HOSTS or host.startswith("/") for host in hosts)
