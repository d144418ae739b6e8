"""A first file of rules, from the live schema: every column without a rule, masked by its name and type, for a person to loosen."""

from __future__ import annotations

import re

from skinspire_db.copies.masking import named, types
from skinspire_db.copies.masking.catalogue import Column
from skinspire_db.copies.masking.plan import Plan

# What the name of a text says of it; the first that matches. A name that says nothing is left to the type.
NAMES = (
    (r"pass(word|wd|phrase)|pwd", "password"),
    (r"e?mail", "email"),
    (r"phone|mobile|fax|whatsapp|(^|_)tel(_|$)", "phone"),
    (r"(first|given|middle|fore)_?name", "first_name"),
    (r"(last|family|sur)_?name|surname", "last_name"),
    (r"address|street", "address"),
    (r"(^|_)(full_?|patient_?|doctor_?|contact_?|guardian_?|user_?)name$", "full_name"),
)
BY_TYPE = "default"


def mask_of(plan: Plan, column: Column) -> str:
    """The mask that a column's name and type suggest."""
    mask = plan.masks[column.place]
    is_text = types.resolved(plan.catalogue, column.type).known in types.TEXTS
    if is_text and mask.name == "text":  # neither a key nor one of a list
        return next((guess for pattern, guess in NAMES if re.search(pattern, column.name, re.IGNORECASE)), BY_TYPE)
    return (
        mask.name
        if mask.name in ("keep", "null", "date", "uuid", "json", "digits") and named.fits(plan.catalogue, column, mask.name)
        else BY_TYPE
    )


def text(plan: Plan, columns: list[Column], summary: str) -> str:
    """The TOML of the file."""
    lines = ["version = 1", f'summary = "{summary}"', "drop_rows = []"]
    table = ""
    for column in columns:
        if column.table_name != table:
            table = column.table_name
            lines += ["", f"[tables.{_key(table)}]"]
        lines.append(f'{_key(column.name)} = "{mask_of(plan, column)}" # {column.declared}'.replace("\n", " "))
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    """A name as a key of TOML."""
    import json

    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
