"""The declarative base and the column groups that tables share; an application's own models use them too."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    DateTime,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, declared_attr, mapped_column

# Every constraint gets a name that can be told from its table and columns: a migration can only drop what has a name.
NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}

# Column types by name, so that a model reads like the table in the schema's description.
Code = Annotated[str, mapped_column(String(20))]
Actor = Annotated[str, mapped_column(String(50))]
Name = Annotated[str, mapped_column(String(100))]
Phone = Annotated[str, mapped_column(String(15))]
LongText = Annotated[str, mapped_column(Text)]
Json = Annotated[dict[str, Any], mapped_column(JSONB)]
Flag = Annotated[bool, mapped_column(server_default=text("false"))]
Active = Annotated[bool, mapped_column(server_default=text("true"))]
# Made by Python when the object is, so that it can be referred to before the flush, and by PostgreSQL for everyone else.
UuidKey = Annotated[
    uuid.UUID, mapped_column(UUID, primary_key=True, default=uuid.uuid4, server_default=text("gen_random_uuid()"))
]


def generate_uuid() -> uuid.UUID:
    """A new random key, for `default=generate_uuid` of a column of type UUID.

    Returns:
        A version 4 UUID; Python makes it when the object is flushed.
    """
    return uuid.uuid4()


class Base(DeclarativeBase):
    """The declarative base of the core tables."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {datetime: DateTime(timezone=True), uuid.UUID: UUID, dict[str, Any]: JSONB}  # noqa: RUF012


class TimestampMixin:
    """Who made and changed a row, and when. The triggers timestamps and user_tracking keep the four columns right.

    What they wrote is in the object after the flush: PostgreSQL returns it with the INSERT or UPDATE.
    """

    __mapper_args__: ClassVar[dict[str, Any]] = {"eager_defaults": True}

    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"), sort_order=100)
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"), server_onupdate=FetchedValue(), sort_order=101)
    created_by: Mapped[str | None] = mapped_column(String(50), server_default=FetchedValue(), sort_order=102)
    updated_by: Mapped[str | None] = mapped_column(
        String(50), server_default=FetchedValue(), server_onupdate=FetchedValue(), sort_order=103
    )


class SoftDeleteMixin:
    """Rows that are hidden rather than deleted."""

    is_deleted: Mapped[Flag] = mapped_column(sort_order=110)
    deleted_at: Mapped[datetime | None] = mapped_column(sort_order=111)
    deleted_by: Mapped[str | None] = mapped_column(String(50), sort_order=112)


class TenantMixin:
    """Rows that belong to one hospital: `hospital_id`, and a unique key over it and the primary key.

    Other tables refer to both columns of that key (`same_hospital`), so that no row refers to another hospital's row.
    """

    @declared_attr
    def hospital_id(cls) -> Mapped[uuid.UUID]:
        """The tenant's column, with its foreign key."""
        return mapped_column(UUID, ForeignKey("hospitals.hospital_id"), sort_order=-10)


class UserTenantMixin:
    """Rows that belong to a user, and to the user's hospital; those of a user of the whole system have none.

    The trigger hospital_of_user fills the column where it is not given.
    """

    @declared_attr
    def hospital_id(cls) -> Mapped[uuid.UUID | None]:
        """The user's hospital."""
        return mapped_column(UUID, server_default=FetchedValue(), sort_order=120)


@event.listens_for(TenantMixin, "instrument_class", propagate=True)
@event.listens_for(UserTenantMixin, "instrument_class", propagate=True)
def _unique_within_hospital(mapper: Mapper[Any], _: type) -> None:
    """Add UNIQUE (hospital_id, key) to the class's own table where it has no unique key over these columns."""
    table = mapper.local_table
    if not isinstance(table, Table) or "hospital_id" not in table.columns:
        return
    columns = ["hospital_id", *(column.name for column in table.primary_key if column.name != "hospital_id")]
    unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    if "hospital_id" not in table.primary_key.columns and all(set(each.columns.keys()) != set(columns) for each in unique):
        table.append_constraint(UniqueConstraint(*columns))


def same_hospital(column: str, target: str, **options: Any) -> ForeignKeyConstraint:
    """A foreign key over the hospital and a column, to a row of the same hospital.

    Args:
        column: The column that refers to the other table, beside the row's own hospital_id.
        target: What it refers to, as "table.column" or "schema.table.column"; that table has UNIQUE (hospital_id, column).
        options: As of ForeignKeyConstraint. ON DELETE SET NULL would take the hospital from the row, and is refused.

    Returns:
        The constraint, for `__table_args__`.

    Raises:
        ValueError: for an ON DELETE that sets columns of the key.
    """
    if str(options.get("ondelete") or "").upper().startswith("SET "):
        raise ValueError(
            f"same_hospital({column!r}, ...): ON DELETE {options['ondelete']} would change the row's hospital_id"
        )
    return ForeignKeyConstraint(["hospital_id", column], [f"{target.rpartition('.')[0]}.hospital_id", target], **options)


class _OutsideJoins(ForeignKey):
    """A part of a foreign key that is in the database, and that joins without an ON clause do not follow."""

    def get_referent(self, table: Any) -> None:
        """Nothing: beside another foreign key to the same table, SQLAlchemy could not choose one of the two."""


def also_same_hospital(column: str, target: str, **options: Any) -> ForeignKeyConstraint:
    """As `same_hospital`, for a column that has a foreign key of its own, by which joins and relationships go on being made.

    Rows of the whole system have no hospital, and a foreign key over a NULL refers to nothing: the other one holds for them.

    Args:
        column: As of `same_hospital`.
        target: As of `same_hospital`.
        options: As of `same_hospital`.

    Returns:
        The constraint, for `__table_args__`.
    """
    constraint = same_hospital(column, target, **options)
    for element in constraint.elements:
        element.__class__ = _OutsideJoins
    return constraint
