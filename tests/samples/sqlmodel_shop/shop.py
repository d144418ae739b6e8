"""An application with SQLModel: its sessions on the service's engine, and the service's blocks with SQLModel's sessions."""

from skinspire_db.database_service import get_db_engine, get_db_session
from sqlmodel import Field, Session, SQLModel, select


class Product(SQLModel, table=True):
    __tablename__ = "products"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)


def add(name):
    with Session(get_db_engine()) as session:
        session.add(Product(name=name))
        session.commit()
        return len(session.exec(select(Product)).all())


def names():
    with get_db_session(read_only=True) as session:
        return session.exec(select(Product.name).order_by(Product.name)).all()
