"""The declarative base and the column groups that tables share; an application's own models use them too."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import DateTime, FetchedValue, ForeignKey, MetaData, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

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
    """Rows that belong to one hospital."""

    @declared_attr
    def hospital_id(cls) -> Mapped[uuid.UUID]:
        """The tenant's column, with its foreign key and index."""
        return mapped_column(UUID, ForeignKey("hospitals.hospital_id"), index=True, sort_order=-10)
