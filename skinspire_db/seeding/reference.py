"""Reference data: apply what changed in reference.toml since it was last applied, and nothing else."""

from __future__ import annotations

import json
import secrets
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db import bookkeeping
from skinspire_db.environment import Policy
from skinspire_db.errors import InvalidSetting
from skinspire_db.summary import SignIn, Summary

if TYPE_CHECKING:
    from skinspire_db.connections import Connection

FILE = Path(__file__).with_name("reference.toml")
TEST_PASSWORD = "SkinSpire@2024"  # noqa: S105  # documented, for invented people in dev and test only
TEST_PASSWORD_COST = 4  # bcrypt's lowest: a password that the README names is not made safer by a slow hash
RIGHTS = {"v": "can_view", "a": "can_add", "e": "can_edit", "d": "can_delete", "x": "can_export"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A row that should be: `key` tells which one it is, `values` are its other columns."""

    table: str
    key: Row
    values: Row


def load(path: Path = FILE) -> Row:
    """The file as data. Raises InvalidSetting with the line when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"{path} is not valid TOML: {error}", remedy=f"correct {path.name}") from None


def apply(connection: Connection, policy: Policy, data: Row | None = None) -> Summary:
    """Bring the reference rows up to date, in the caller's transaction.

    A column is written when the file says something else than at the last time, or when its row is missing; what people
    edited since stays. Rows that the file no longer has stay too. Administrators are made for a role that nobody has:
    with the documented password under a policy that allows test data, else with a generated one, which is in the
    summary's `sign_in` and nowhere else.
    """
    data = data or load()
    bookkeeping.ensure(connection)
    counts = {"added": 0, "updated": 0, "unchanged": 0}
    ids: dict[str, dict[str, int]] = {"modules": {}, "roles": {}}
    applied = _applied(connection)
    for entry in _fixed(data):
        counts[_apply(connection, entry, applied)] += 1
    for entry in _modules(data, ids["modules"]):
        counts[_apply(connection, entry, applied)] += 1
        ids["modules"][entry.key["module_name"]] = _id(connection, "module_master", "module_id", entry.key)
    for entry in _roles(data):
        counts[_apply(connection, entry, applied)] += 1
        ids["roles"][entry.key["role_name"]] = _id(connection, "role_master", "role_id", entry.key)
    for entry in _access(data, ids["roles"], ids["modules"]):
        counts[_apply(connection, entry, applied)] += 1
    made = [
        sign_in
        for administrator in data["administrators"]
        if (sign_in := _administrator(connection, data, administrator, ids["roles"], policy))
    ]
    numbers: dict[str, int | str] = {f"reference_{name}": count for name, count in counts.items()}
    return Summary(numbers | {"administrators": len(made)}, sign_in=made)


def expected(data: Row | None = None) -> dict[str, list[str]]:
    """What must be there, by table: parameter codes, module names, role names, the hospital's and the branch's key."""
    data = data or load()
    return {
        "hospitals": [data["hospital"]["hospital_id"]],
        "branches": [data["branch"]["branch_id"]],
        "parameter_settings": [row["param_code"] for row in data["parameters"]],
        "module_master": [name for name, _, _ in _flat(data)],
        "role_master": [role["name"] for role in data["roles"]],
    }


def password_hash(connection: Connection, password: str, cost: int) -> str:
    """bcrypt by pgcrypto, with the given work factor (4 to 31)."""
    row = connection.execute("SELECT crypt(%s, gen_salt('bf', %s))", (password, cost)).fetchone()
    assert row
    return str(row[0])


def _fixed(data: Row) -> Iterator[Entry]:
    hospital, branch = dict(data["hospital"]), dict(data["branch"])
    key = {"hospital_id": hospital.pop("hospital_id")}
    yield Entry("hospitals", key, hospital)
    yield Entry("branches", {"branch_id": branch.pop("branch_id")}, branch | key)
    for parameter in data["parameters"]:
        values = dict(parameter)
        yield Entry("parameter_settings", {"param_code": values.pop("param_code")}, values)


def _flat(data: Row) -> Iterator[tuple[str, Row, str | None]]:
    """name, module, parent's name: parents first"""
    for module in data["modules"]:
        yield module["name"], module, None
        for part in module.get("parts", []):
            yield part["name"], part, module["name"]


def _modules(data: Row, ids: dict[str, int]) -> Iterator[Entry]:
    for sequence, (name, module, parent) in enumerate(_flat(data), start=1):
        values = {"icon": module["icon"], "route": module["route"], "sequence": sequence, "description": module.get("description", name)}
        yield Entry(
            "module_master", {"hospital_id": None, "module_name": name}, values | {"parent_module": parent and ids[parent]}
        )


def _roles(data: Row) -> Iterator[Entry]:
    for role in data["roles"]:
        yield Entry(
            "role_master", {"hospital_id": None, "role_name": role["name"]},
            {"description": role["description"], "is_system_role": True},
        )  # fmt: skip


def _access(data: Row, roles: dict[str, int], modules: dict[str, int]) -> Iterator[Entry]:
    for role in data["roles"]:
        access = role["access"]
        for name, _, parent in _flat(data):
            letters = access.get(name, access.get(parent, access.get("*")))
            if letters:
                yield Entry(
                    "role_module_access", {"role_id": roles[role["name"]], "module_id": modules[name]},
                    {column: letter in letters for letter, column in RIGHTS.items()},
                )  # fmt: skip


def _applied(connection: Connection) -> dict[tuple[str, str], Row]:
    rows = connection.execute("SELECT table_name, row_key, applied FROM skinspire.reference").fetchall()
    return {(table, key): values for table, key, values in rows}


def _apply(connection: Connection, entry: Entry, applied: dict[tuple[str, str], Row]) -> str:
    from psycopg import sql

    name = json.dumps(entry.key, sort_keys=True)
    before = applied.get((entry.table, name))
    table, where, found = sql.Identifier(entry.table), _where(entry.key), list(entry.key.values())
    there = connection.execute(sql.SQL("SELECT 1 FROM {} WHERE {}").format(table, where), found).fetchone()
    if there and before == entry.values:
        return "unchanged"
    if there:
        # Without a memory of it, a row that is there is taken as it is.
        change = {c: v for c, v in entry.values.items() if before is not None and (c not in before or before[c] != v)}
        if change:
            pairs = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in change)
            connection.execute(
                sql.SQL("UPDATE {} SET {} WHERE {}").format(table, pairs, where), [*map(_bind, change.values()), *found]
            )
    else:
        _insert(connection, entry.table, entry.key | entry.values)
    connection.execute(
        "INSERT INTO skinspire.reference VALUES (%s, %s, %s)"
        " ON CONFLICT (table_name, row_key) DO UPDATE SET applied = EXCLUDED.applied",
        (entry.table, name, json.dumps(entry.values)),
    )
    return "updated" if there and change else "unchanged" if there else "added"


def _administrator(
    connection: Connection, data: Row, administrator: Row, roles: dict[str, int], policy: Policy
) -> SignIn | None:
    role = roles[administrator["role"]]
    if connection.execute("SELECT 1 FROM user_role_mapping WHERE role_id = %s LIMIT 1", (role,)).fetchone():
        return None
    hospital = data["hospital"]["hospital_id"]
    _insert(connection, "staff", {
        "staff_id": administrator["staff_id"], "hospital_id": hospital, "branch_id": data["branch"]["branch_id"],
        "staff_type": "admin", "first_name": administrator["first_name"], "last_name": administrator["last_name"],
        "personal_info": {}, "contact_info": {"email": administrator["email"], "phone": administrator["user_id"]},
    })  # fmt: skip
    password = TEST_PASSWORD if policy.test_data else secrets.token_urlsafe(12)
    cost = TEST_PASSWORD_COST if policy.test_data else policy.password_cost
    _insert(connection, "users", {
        "user_id": administrator["user_id"], "entity_type": "staff", "entity_id": administrator["staff_id"],
        "hospital_id": hospital if administrator.get("of_hospital") else None,
        "password_hash": password_hash(connection, password, cost),
    })  # fmt: skip
    _insert(connection, "user_role_mapping", {"user_id": administrator["user_id"], "role_id": role})
    return SignIn(administrator["role"], administrator["user_id"], password)


def _insert(connection: Connection, table: str, row: Row) -> None:
    from psycopg import sql

    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join([sql.Placeholder()] * len(row)),
        ),
        [_bind(value) for value in row.values()],
    )


def _id(connection: Connection, table: str, column: str, key: Row) -> int:
    from psycopg import sql

    row = connection.execute(
        sql.SQL("SELECT {} FROM {} WHERE {}").format(sql.Identifier(column), sql.Identifier(table), _where(key)),
        list(key.values()),
    ).fetchone()
    assert row
    return int(row[0])


def _where(key: Row) -> Any:
    from psycopg import sql

    return sql.SQL(" AND ").join(sql.SQL("{} IS NOT DISTINCT FROM %s").format(sql.Identifier(column)) for column in key)


def _bind(value: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(value) if isinstance(value, dict | list) else value
