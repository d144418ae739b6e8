"""The models of an application with hospitals of its own, in the old style, one attribute named otherwise than its column."""

import uuid
from sqlalchemy import UUID, Boolean, Column, ForeignKey, Integer, Text
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()


class Clinic(Base):
    __tablename__ = "clinics"
    id = Column(UUID, primary_key=True, default=uuid.uuid4)
    is_active = Column(Boolean, nullable=False, default=True)


class Order(Base):
    __tablename__ = "orders"
    number = Column(Integer, primary_key=True)
    owner = Column("hospital_id", UUID, ForeignKey("clinics.id"), nullable=False)
    item = Column(Text)
    lines = relationship("Line", back_populates="order")


class Line(Base):
    __tablename__ = "lines"
    line = Column(Integer, primary_key=True)
    hospital_id = Column(UUID, ForeignKey("clinics.id"))
    number = Column(Integer, ForeignKey("orders.number"))
    order = relationship("Order", back_populates="lines")
