"""What is tested: it knows nothing of tests."""

from sqlalchemy import func, select, text
from skinspire_db.database_service import get_active_env, get_database_url, get_db_engine, get_db_session
from skinspire_db.clinic.models import Patient, User


def patients():
    with get_db_session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(Patient))


def rename(key, name, user=None):
    with get_db_session(user=user) as session:
        session.get(Patient, key).first_name = name


def fail_after_renaming(key, name):
    with get_db_session() as session:
        session.get(Patient, key).first_name = name
        session.flush()
        raise RuntimeError("the application failed")


async def rename_async(key, name):
    async with get_db_session() as session:
        session.get(Patient, key).first_name = name
