"""The settings that the application and the triggers read at run time."""

from __future__ import annotations

from sqlalchemy import String, text
from sqlalchemy.orm import Mapped, mapped_column

from skinspire_db.clinic.models.base import Base, Code, LongText, TimestampMixin


class ParameterSetting(TimestampMixin, Base):
    """A named value, kept as text; `data_type` says how to read it."""

    __tablename__ = "parameter_settings"

    param_code: Mapped[str] = mapped_column(String(50), primary_key=True)
    param_value: Mapped[str | None] = mapped_column(String(500))
    data_type: Mapped[Code | None]
    module: Mapped[str | None] = mapped_column(String(50))
    is_editable: Mapped[bool | None] = mapped_column(server_default=text("true"))
    description: Mapped[LongText | None]
