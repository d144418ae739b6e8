"""An application under asyncio, with the service's blocks and with sessions of its own."""

import asyncio
from skinspire_db.database_service import get_async_engine, get_async_session
from sqlalchemy import String, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


async def add(name, user=None):
    async with get_async_session(user=user) as session:
        session.add(Product(name=name))


async def count():
    async with get_async_session(read_only=True) as session:
        return await session.scalar(select(func.count()).select_from(Product))


async def add_by_own_session(name):
    async with AsyncSession(get_async_engine()) as session:
        session.add(Product(name=name))
        await session.commit()
        return await session.scalar(text("SELECT current_database()"))
