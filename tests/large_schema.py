"""An application of 150 tables with everything that models can say, and the same after 20 changes of different kinds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import DOMAIN, JSONB

from skinspire_db.clinic.models.base import NAMING_CONVENTION

TABLES = 150
# what a database made before the changes has otherwise than the models after them
DIFFERENCES = [
    "column public.t_003.added missing",
    "column public.t_004.body extra",
    "column public.t_005.body differs",
    "column public.t_006.body differs",
    "column public.t_007.amount differs",
    "column public.t_008.amount differs",
    "column public.t_009.doubled differs",
    "column public.t_010.body differs",
    "column public.t_011.id differs",
    "constraint ck_t_012_positive on public.t_012 differs",
    "constraint fk_t_013_former_id on public.t_013 differs",
    "constraint uq_t_014_code on public.t_014 missing",
    "index ix_t_015_open on public.t_015 differs",
    "index ix_t_016_body on public.t_016 missing",
    "sequence public.numbers differs",
    "table public.t_001 differs",
    "table public.t_150 extra",
    "table public.t_151 missing",
    "type public.email differs",
    "type public.state differs",
]


def build(*, changed: bool = False) -> MetaData:
    """The tables; t_020 and every tenth after it are in the schema `annex`."""
    made = MetaData(naming_convention=NAMING_CONVENTION)
    Sequence("numbers", metadata=made, start=100, increment=5 if changed else 1, maxvalue=1_000_000, cycle=True)
    Table("overview", made, Column("id", Integer, primary_key=True), info={"is_view": True})
    for number in range(1, TABLES + 1):
        _table(made, number + 1 if changed and number == TABLES else number, changed)
    return made


def _table(made: MetaData, number: int, changed: bool) -> None:
    def now(table: int, then: Any, now: Any) -> Any:
        return now if changed and number == table else then

    name = f"t_{number:03}"
    schema = "annex" if number >= 20 and number % 10 == 0 and number < TABLES else None
    body = Column(
        "body",
        now(5, Text(collation=now(6, None, "C")), String(500)),
        nullable=now(10, True, False),
        comment=f"what {name}'s says",
    )
    columns: list[Any] = [
        Column("id", Integer, Identity(always=not now(11, False, True), start=number), primary_key=True),
        Column("code", String(20), nullable=False, server_default="none"),
        *([] if now(4, False, True) else [body]),
        Column("amount", Numeric(10, 2), server_default=text(now(7, "0.5", "1.5")), comment=now(8, "how much", "how many")),
        Column("doubled", Numeric, Computed(f"amount * {now(9, 2, 3)}", persisted=True)),
        Column(
            "state",
            Enum("new", "open", *(["paused"] if changed else []), "closed", name="state", inherit_schema=False),
            server_default="new",
        ),
        Column(
            "email",
            DOMAIN(
                "email",
                Text(),
                check=f"VALUE ~ '{'.@.' if changed else '@'}'",
                constraint_name="has_at",
                inherit_schema=False,
            ),
        ),
        Column("numbered", Integer, server_default=text("nextval('numbers'::regclass)")),
        Column("facts", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("created_at", DateTime(timezone=True), server_default=text("now()")),
        Column("updated_at", DateTime(timezone=True), server_default=text("now()")),
        CheckConstraint(now(12, "amount > 0", "amount >= 0"), name="positive"),
        Index(f"ix_{name}_open", "code", postgresql_where=text(now(15, "state = 'open'", "state <> 'closed'"))),
        Index(f"ix_{name}_lower", text("lower(code)")),
    ]
    if number > 1:
        former = f"t_{number - 1:03}" if number <= TABLES else "t_001"
        target = f"annex.{former}.id" if f"annex.{former}" in made.tables else f"{former}.id"
        columns.append(Column("former_id", ForeignKey(target, ondelete=now(13, None, "CASCADE")), index=True))
    if now(14, False, True) or number != 14:
        columns.append(UniqueConstraint("code"))
    if now(3, False, True):
        columns.append(Column("added", Text))
    if now(16, False, True):
        columns.append(Index(f"ix_{name}_body", "body"))
    Table(name, made, *columns, schema=schema, comment=now(1, f"the {number}th", None))
