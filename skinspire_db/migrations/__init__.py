"""Migrations: the revision files and their order, running them, and writing new ones; Alembic does the work."""
