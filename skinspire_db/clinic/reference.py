"""Reference data: apply what changed in reference.toml since it was last applied, and nothing else."""

from __future__ import annotations

import hashlib
import json
import secrets
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config.policy import Policy
from skinspire_db.errors import InvalidSetting
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import SignIn, Summary
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

FILE = Path(__file__).with_name("reference.toml")
TEST_PASSWORD = "SkinSpire@2024"  # noqa: S105  # documented, for invented people in dev and test only
TEST_PASSWORD_COST = 4  # bcrypt's lowest: a password that the README names is not made safer by a slow hash
RIGHTS = {"v": "can_view", "a": "can_add", "e": "can_edit", "d": "can_delete", "x": "can_export"}

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A row that should be: `key` tells which one it is, `values` are its other columns."""

    key: Row
    values: Row

    @classmethod
    def of(cls, row: Row, key: str) -> Entry:
        return cls({key: row[key]}, {column: value for column, value in row.items() if column != key})

    @property
    def name(self) -> str:
        return json.dumps(self.key, sort_keys=True)


@cache
def load(path: Path = FILE) -> Row:
    """The file as data, not to be changed. Raises InvalidSetting with the line when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"{path} is not valid TOML: {error}", remedy=f"correct {path.name}") from None


def apply(connection: Connection, policy: Policy, data: Row | None = None, test_hash: str | None = None) -> Summary:
    """Bring the reference rows up to date, in the caller's transaction.

    A column is written when the file says something else than at the last time, or when its row is missing; what people
    edited since stays. Rows that the file no longer has stay too. Administrators are made for a role that nobody has:
    with the documented password under a policy that allows test data, else with a generated one, which is in the
    summary's `sign_in` and nowhere else. `test_hash` is the documented password's hash, where the caller has it already.
    """
    data = data or load()
    tool_schema.ensure(connection)
    with connection.pipeline():  # what needs no answer is sent without waiting for one
        rows = _Rows(connection)
        rows.apply("hospitals", _hospital(data))
        rows.apply("branches", _branch(data))
        rows.apply("parameter_settings", _parameters(data, policy))
        rows.apply("module_master", _modules(data, {}, parts=False))
        modules = rows.ids("module_master", "module_name", "module_id")
        rows.apply("module_master", _modules(data, modules, parts=True))
        rows.apply("role_master", _roles(data))
        roles = rows.ids("role_master", "role_name", "role_id")
        modules = rows.ids("module_master", "module_name", "module_id")
        rows.apply("role_module_access", _access(data, roles, modules), restore=False)  # a right that was revoked stays so
        made = [
            sign_in
            for administrator in data["administrators"]
            if (sign_in := _administrator(rows, data, administrator, roles[administrator["role"]], policy, test_hash))
        ]
    numbers: dict[str, int | str] = {f"reference_rows_{name}": count for name, count in rows.counts.items()}
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
    place = pgcrypto(connection)
    # Cast, so that no function in that schema matches the arguments better than pgcrypto's own.
    query = f"SELECT {place}.crypt(%s::text, {place}.gen_salt('bf'::text, %s::integer))"
    row = connection.execute(query.encode(), (password, cost)).fetchone()
    assert row
    return str(row[0])


def pgcrypto(connection: Connection) -> str:
    """The schema of pgcrypto's functions, quoted."""
    from psycopg import sql

    found = connection.execute(search_path.SCHEMA_OF_PGCRYPTO).fetchone()
    return sql.Identifier(found[0] if found else "public").as_string()


def scrypt_hash(password: str) -> str:
    """A hash in Werkzeug's format, made here: a password that is sent to the server can end up in the server's log."""
    salt = secrets.token_hex(8)
    key = hashlib.scrypt(password.encode(), salt=salt.encode(), n=32768, r=8, p=1, maxmem=64 * 1024 * 1024)
    return f"scrypt:32768:8:1${salt}${key.hex()}"


def hash_of_test_password(connection: Connection) -> str:
    """The documented password's hash, a new one at every call."""
    return password_hash(connection, TEST_PASSWORD, TEST_PASSWORD_COST)


class _Rows:
    """Applies entries, a table at a time, and counts what came of them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.counts = {"added": 0, "updated": 0}
        found = connection.execute("SELECT table_name, row_key, applied FROM skinspire_tools.reference").fetchall()
        self._applied: dict[tuple[str, str], Row] = {(table, key): values for table, key, values in found}

    def apply(self, table: str, entries: list[Entry], *, restore: bool = True) -> None:
        """Add the rows that are missing; in those that are there, write the columns where the file changed.

        With `restore` False a row that was there once, and that people have deleted, stays deleted.
        """
        present = self._present(table, list(entries[0].key))
        missing = [
            entry for entry in entries if entry.name not in present and (restore or (table, entry.name) not in self._applied)
        ]
        self.insert(table, [entry.key | entry.values for entry in missing])
        self.counts["added"] += len(missing)
        for entry in entries:
            before = self._applied.get((table, entry.name))
            if entry.name in present and before is not None and before != entry.values:
                # Without a memory of it, a row that is there is taken as it is.
                self._update(table, entry.key, {c: v for c, v in entry.values.items() if before.get(c, ...) != v})
                self.counts["updated"] += 1
        self._remember(table, [each for each in entries if self._applied.get((table, each.name)) != each.values])

    def ids(self, table: str, name: str, key: str) -> dict[str, int]:
        """name -> id of the rows that belong to the whole system"""
        return dict(
            self.connection.execute(f"SELECT {name}, {key} FROM public.{table} WHERE hospital_id IS NULL".encode()).fetchall()  # noqa: S608
        )

    def insert(self, table: str, rows: list[Row]) -> None:
        """Add rows; a column that a row leaves out gets its default."""
        from psycopg import sql
        from psycopg.types.json import Jsonb

        for columns in dict.fromkeys(tuple(row) for row in rows):
            alike = [row for row in rows if tuple(row) == columns]
            names = sql.SQL(", ").join(map(sql.Identifier, columns))
            self.connection.execute(
                sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM jsonb_populate_recordset(NULL::{0}, %s)").format(
                    sql.Identifier("public", table), names
                ),
                (Jsonb(alike),),
            )

    def _present(self, table: str, key: list[str]) -> set[str]:
        from psycopg import sql

        found = self.connection.execute(
            sql.SQL("SELECT to_jsonb(k) FROM (SELECT {} FROM {}) AS k").format(
                sql.SQL(", ").join(map(sql.Identifier, key)), sql.Identifier("public", table)
            )
        ).fetchall()
        return {json.dumps(row, sort_keys=True) for (row,) in found}

    def _update(self, table: str, key: Row, change: Row) -> None:
        from psycopg import sql
        from psycopg.types.json import Jsonb

        self.connection.execute(
            sql.SQL("UPDATE {} AS t SET {} FROM jsonb_populate_record(NULL::{}, %s) AS new WHERE {}").format(
                sql.Identifier("public", table),
                sql.SQL(", ").join(sql.SQL("{0} = new.{0}").format(sql.Identifier(column)) for column in change),
                sql.Identifier("public", table),
                sql.SQL(" AND ").join(
                    sql.SQL("t.{0} IS NOT DISTINCT FROM new.{0}").format(sql.Identifier(column)) for column in key
                ),
            ),
            (Jsonb(key | change),),
        )

    def _remember(self, table: str, entries: list[Entry]) -> None:
        from psycopg.types.json import Jsonb

        if entries:
            self.connection.execute(
                """
                INSERT INTO skinspire_tools.reference (table_name, row_key, applied)
                SELECT %s, row_key, applied FROM jsonb_to_recordset(%s) AS new (row_key text, applied jsonb)
                ON CONFLICT (table_name, row_key) DO UPDATE SET applied = EXCLUDED.applied
                """,
                (table, Jsonb([{"row_key": each.name, "applied": each.values} for each in entries])),
            )


def _hospital(data: Row) -> list[Entry]:
    return [Entry.of(data["hospital"], "hospital_id")]


def _branch(data: Row) -> list[Entry]:
    return [Entry.of(data["branch"] | {"hospital_id": data["hospital"]["hospital_id"]}, "branch_id")]


def _parameters(data: Row, policy: Policy) -> list[Entry]:
    by_policy = {"PASSWORD_HASH_COST": str(policy.password_cost)}
    rows = [row | {"param_value": by_policy.get(row["param_code"], row["param_value"])} for row in data["parameters"]]
    return [Entry.of(row, "param_code") for row in rows]


def _flat(data: Row) -> Iterator[tuple[str, Row, str | None]]:
    """name, module, parent's name: parents first"""
    for module in data["modules"]:
        yield module["name"], module, None
        for part in module.get("parts", []):
            yield part["name"], part, module["name"]


def _modules(data: Row, ids: dict[str, int], *, parts: bool) -> list[Entry]:
    return [
        Entry(
            {"hospital_id": None, "module_name": name},
            {
                "description": module.get("description", name), "icon": module["icon"], "route": module["route"],
                "sequence": sequence, "parent_module": ids[parent] if parent else None,
            },
        )
        for sequence, (name, module, parent) in enumerate(_flat(data), start=1)
        if bool(parent) == parts
    ]  # fmt: skip


def _roles(data: Row) -> list[Entry]:
    return [
        Entry(
            {"hospital_id": None, "role_name": role["name"]},
            {"description": role["description"], "is_system_role": True},
        )
        for role in data["roles"]
    ]


def _access(data: Row, roles: dict[str, int], modules: dict[str, int]) -> list[Entry]:
    return [
        Entry(
            {"role_id": roles[role["name"]], "module_id": modules[name]},
            {column: letter in letters for letter, column in RIGHTS.items()},
        )
        for role in data["roles"]
        for name, _, parent in _flat(data)
        if (letters := _letters(data, role["access"], name, parent))
    ]


def _letters(data: Row, access: dict[str, str], name: str, parent: str | None) -> str:
    """What a role may do in a module; who may see a part sees the module that it is a part of."""
    if given := access.get(name) or access.get(parent or "") or access.get("*"):
        return given
    parts = [part["name"] for module in data["modules"] if module["name"] == name for part in module.get("parts", [])]
    return "v" if any(part in access for part in parts) else ""


def _administrator(
    rows: _Rows, data: Row, administrator: Row, role: int, policy: Policy, test_hash: str | None
) -> SignIn | None:
    if rows.connection.execute("SELECT 1 FROM public.user_role_mapping WHERE role_id = %s LIMIT 1", (role,)).fetchone():
        return None
    if rows.connection.execute("SELECT 1 FROM public.users WHERE user_id = %s", (administrator["user_id"],)).fetchone():
        return None  # people took the role away from it
    hospital = data["hospital"]["hospital_id"]
    if policy.test_data:
        password, hashed = TEST_PASSWORD, test_hash or hash_of_test_password(rows.connection)
    else:
        password = secrets.token_urlsafe(12)
        hashed = scrypt_hash(password)
    known = rows.connection.execute("SELECT 1 FROM public.staff WHERE staff_id = %s", (administrator["staff_id"],)).fetchone()
    staff = [] if known else [{
        "staff_id": administrator["staff_id"], "hospital_id": hospital, "branch_id": data["branch"]["branch_id"],
        "staff_type": "admin", "first_name": administrator["first_name"], "last_name": administrator["last_name"],
        "personal_info": {}, "contact_info": {"email": administrator["email"], "phone": administrator["user_id"]},
    }]  # fmt: skip
    rows.insert("staff", staff)
    rows.insert("users", [{
        "user_id": administrator["user_id"], "entity_type": "staff", "entity_id": administrator["staff_id"],
        "hospital_id": hospital if administrator.get("of_hospital") else None,
        "password_hash": hashed,
    }])  # fmt: skip
    rows.insert("user_role_mapping", [{"user_id": administrator["user_id"], "role_id": role}])
    return SignIn(administrator["role"], administrator["user_id"], password, generated=not policy.test_data)
