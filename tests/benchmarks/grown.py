"""Writes the core beside an application of any size: tables, revisions, trigger files."""

from __future__ import annotations

import hashlib
from pathlib import Path

CORE_TABLES, CORE_FILES = 12, 7  # what a project without content of its own has
CORE_HEAD = "8d1f0a6b2c47"
MODELS = """
from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Identity, Integer, MetaData, String, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(naming_convention={{"ix": "ix_%(table_name)s_%(column_0_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s"}})
for n in range({tables}):
    former = [Column("former", ForeignKey(f"grown_{{n // 2:04}}.id"), index=True)] if n else []
    Table(
        f"grown_{{n:04}}", metadata, Column("id", Integer, Identity(), primary_key=True), Column("code", String(20), unique=True),
        Column("body", Text), Column("facts", JSONB, server_default=text("'{{}}'::jsonb")), *former,
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        Column("updated_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint("length(body) < 1000", name=f"body_{{n}}"),
    )
"""
SETTINGS = """
[tool.skinspire_db]
metadata = ["skinspire_db.clinic.models:Base", "grown_models:metadata"]
tenancy = {tenancy}
"""
REVISION = '''"""revision {number}"""

from alembic import op

revision = "{name}"
down_revision = {former!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("COMMENT ON TABLE hospitals IS 'as of revision {number}'")


def downgrade() -> None:
    pass
'''
TRIGGER = """/*
version = 1
summary = "trigger file {number}"
order   = {order}
attach  = {{ tables = ["{table}"] }}
when    = "BEFORE INSERT OR UPDATE"
*/
CREATE OR REPLACE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW;
END
$$;
"""
PROOF = "SELECT pg_temp.expect(true, 'it is there');\n"


def write(
    root: Path, *, tables: int = CORE_TABLES, revisions: int = 1, files: int = CORE_FILES, tenancy: bool = False
) -> None:
    """Write an application into its folder.

    Args:
        root: the folder.
        tables: how many there are together with the core's.
        revisions: how many there are on top of the core's.
        files: how many trigger files there are together with the core's.
        tenancy: the setting of that name.
    """
    (root / "pyproject.toml").write_text(SETTINGS.format(tenancy=str(tenancy).lower()))
    (root / "grown_models.py").write_text(MODELS.format(tables=tables - CORE_TABLES))
    versions = root / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    former = CORE_HEAD
    for number in range(revisions):
        name = hashlib.sha256(str(number).encode()).hexdigest()[:12]
        (versions / f"{name}_r.py").write_text(REVISION.format(number=number, name=name, former=former))
        former = name
    proofs = root / "sql" / "triggers" / "verify"
    proofs.mkdir(parents=True, exist_ok=True)
    locked = []
    for number in range(files - CORE_FILES):
        name = f"grown_{number:03}"
        text = TRIGGER.format(number=number, order=900 + number, name=name, table="hospitals")
        (proofs.parent / f"{name}.sql").write_text(text)
        (proofs / f"{name}.sql").write_text(PROOF)
        locked.append(f"triggers/{name} 1 {hashlib.sha256(text.encode()).hexdigest()}\n")
    (root / "sql" / "sql.lock").write_text("".join(locked))
