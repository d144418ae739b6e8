"""The place of the Alembic environment and its versions."""
