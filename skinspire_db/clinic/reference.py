"""The core's reference data: the rows that reference.toml stands for, and the first administrators."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config.policy import Policy
from skinspire_db.content import files
from skinspire_db.content.files import Row
from skinspire_db.content.reference import add
from skinspire_db.lifecycle.result import SignIn, Summary
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

FILE = Path(__file__).with_name("reference.toml")
TEST_PASSWORD = "SkinSpire@2024"  # noqa: S105  # documented, for invented people in dev and test only
TEST_PASSWORD_COST = 4  # bcrypt's lowest: a password that the README names is not made safer by a slow hash
RIGHTS = {"v": "can_view", "a": "can_add", "e": "can_edit", "d": "can_delete", "x": "can_export"}


def load() -> Row:
    """The core's file as data, not to be changed."""
    return files.load(FILE)


def rows(data: Row, policy: Policy) -> Row:
    """The rows that the file stands for, by table, as other files of reference data have them."""
    return {
        "hospitals": {"key": "hospital_id", "rows": [data["hospital"]]},
        "branches": {
            "key": "branch_id", "rows": [data["branch"] | {"hospital_id": data["hospital"]["hospital_id"]}]
        },
        "parameter_settings": {"key": "param_code", "rows": _parameters(data, policy)},
        "module_master": {"key": ["hospital_id", "module_name"], "rows": _modules(data)},
        "role_master": {
            "key": ["hospital_id", "role_name"],
            "rows": [
                {"role_name": role["name"], "description": role["description"], "is_system_role": True}
                for role in data["roles"]
            ],
        },
        # A right that was revoked stays so.
        "role_module_access": {"key": ["role_id", "module_id"], "rows": _access(data), "restore": False},
    }  # fmt: skip


def complete(connection: Connection, data: Row, policy: Policy) -> Summary:
    """Make an administrator for each role that no user has.

    With the documented password under a policy that allows test data, else with a generated one, which is in the
    summary's `sign_in` and nowhere else.
    """
    made = [_administrator(connection, data, each, role, policy) for each, role in _missing(connection, data)]
    return Summary({"administrators": len(made)}, sign_in=made)


def incomplete(connection: Connection, data: Row) -> dict[str, int]:
    """How many rows of which tables complete() would add."""
    number = len(_missing(connection, data))
    return dict.fromkeys(("staff", "users", "user_role_mapping"), number) if number else {}


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


def _parameters(data: Row, policy: Policy) -> list[Row]:
    by_policy = {"PASSWORD_HASH_COST": str(policy.password_cost)}
    return [row | {"param_value": by_policy.get(row["param_code"], row["param_value"])} for row in data["parameters"]]


def _flat(data: Row) -> Iterator[tuple[str, Row, str | None]]:
    """name, module, parent's name: parents first"""
    for module in data["modules"]:
        yield module["name"], module, None
        for part in module.get("parts", []):
            yield part["name"], part, module["name"]


def _modules(data: Row) -> list[Row]:
    return [
        {
            "module_name": name, "description": module.get("description", name), "icon": module["icon"],
            "route": module["route"], "sequence": sequence,
            "parent_module": {"module_name": parent} if parent else None,
        }
        for sequence, (name, module, parent) in enumerate(_flat(data), start=1)
    ]  # fmt: skip


def _access(data: Row) -> list[Row]:
    return [
        {"role_id": {"role_name": role["name"]}, "module_id": {"module_name": name}}
        | {column: letter in letters for letter, column in RIGHTS.items()}
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


def _missing(connection: Connection, data: Row) -> list[tuple[dict[str, Any], int | None]]:
    """The administrators to make, with the id of their role, which may not be there yet."""
    roles = dict(connection.execute("SELECT role_name, role_id FROM public.role_master WHERE hospital_id IS NULL").fetchall())
    names = [each["role"] for each in data["administrators"]], [each["user_id"] for each in data["administrators"]]
    taken = connection.execute(
        """
        SELECT ARRAY(SELECT DISTINCT r.role_name::text FROM public.user_role_mapping m
                     JOIN public.role_master r USING (role_id)
                     WHERE r.hospital_id IS NULL AND r.role_name = ANY (%s)),
               ARRAY(SELECT user_id::text FROM public.users WHERE user_id = ANY (%s))
        """,
        names,
    ).fetchone()
    assert taken
    return [  # a user who is there without the role is one that people took it away from
        (each, roles.get(each["role"]))
        for each in data["administrators"]
        if each["role"] not in taken[0] and each["user_id"] not in taken[1]
    ]


def _administrator(connection: Connection, data: Row, administrator: Row, role: int | None, policy: Policy) -> SignIn:
    hospital = data["hospital"]["hospital_id"]
    own = hospital if administrator.get("of_hospital") else None
    if policy.test_data:
        password, hashed = TEST_PASSWORD, hash_of_test_password(connection)
    else:
        password = secrets.token_urlsafe(12)
        hashed = scrypt_hash(password)
    known = connection.execute("SELECT 1 FROM public.staff WHERE staff_id = %s", (administrator["staff_id"],)).fetchone()
    staff = [] if known else [{
        "staff_id": administrator["staff_id"], "hospital_id": hospital, "branch_id": data["branch"]["branch_id"],
        "staff_type": "admin", "first_name": administrator["first_name"], "last_name": administrator["last_name"],
        "personal_info": {}, "contact_info": {"email": administrator["email"], "phone": administrator["user_id"]},
    }]  # fmt: skip
    user = {
        "user_id": administrator["user_id"], "entity_type": "staff", "entity_id": administrator["staff_id"],
        "hospital_id": own,
        "password_hash": hashed,
    }  # fmt: skip
    mapping = {"user_id": administrator["user_id"], "role_id": role, "hospital_id": own}
    with connection.pipeline():  # none needs the answer to another
        add(connection, ("public", "staff"), staff)
        add(connection, ("public", "users"), [user])
        add(connection, ("public", "user_role_mapping"), [mapping])
    return SignIn(administrator["role"], administrator["user_id"], password, generated=not policy.test_data)
