"""What of a test's changes is seen, what is put back, and what needs a new clone."""

from __future__ import annotations

from typing import Any

import pytest

from skinspire_db.testing import seeded
from skinspire_db.testing.changes import Changes
from skinspire_db.testing.modes import ClinicDatabase


@pytest.mark.db
def test_a_partitions_rows_are_the_tables(db: ClinicDatabase) -> None:
    for statement in (
        "CREATE TABLE visits (id int, year int, note text, PRIMARY KEY (id, year)) PARTITION BY LIST (year)",
        "CREATE TABLE visits_now PARTITION OF visits FOR VALUES IN (2026) PARTITION BY RANGE (id)",
        "CREATE TABLE visits_now_low PARTITION OF visits_now FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE visits_other PARTITION OF visits DEFAULT",
        "INSERT INTO visits VALUES (1, 2026, ''), (2, 2026, ''), (1, 1999, '')",
    ):
        db.observer.execute(statement.encode())
    changes = Changes(db)
    db.observer.execute("UPDATE visits SET note = 'x' WHERE id = 1")
    changes.only(visits=2)
    db.observer.execute("DELETE FROM visits WHERE year = 1999")
    with pytest.raises(AssertionError, match=r"visits: deleted id=1, year=1999"):
        changes.none()


DEFINITIONS, SETTINGS = "definitions were changed", "settings of the database were changed"

ITS_OWN = "DO $$BEGIN EXECUTE format('ALTER DATABASE %I {}', current_database()); END$$"

MANY = "INSERT INTO parameter_settings (param_code, param_value) SELECT n, 'x' FROM generate_series(1, 50001) n"


@pytest.mark.parametrize(
    ("damage", "mended"),
    [
        (["UPDATE patients SET first_name = 'x'"], {"public.patients"}),
        (["TRUNCATE login_history"], {"public.login_history"}),
        (["DELETE FROM skinspire_tools.journal"], {"skinspire_tools.journal"}),
        (["SELECT nextval('role_master_role_id_seq')"], set()),
        (["SELECT setval('role_master_role_id_seq', 1, false)"], set()),
        (["ANALYZE", "VACUUM patients", "REINDEX TABLE staff"], set()),
        (["VACUUM FULL role_master"], DEFINITIONS),
        (["CREATE VIEW v AS SELECT 1"], DEFINITIONS),
        (["ALTER TABLE users ENABLE ROW LEVEL SECURITY"], DEFINITIONS),
        (["GRANT SELECT ON users TO public"], DEFINITIONS),
        ([ITS_OWN.format("SET work_mem = 8192")], SETTINGS),
        ([ITS_OWN.format("CONNECTION LIMIT 5")], SETTINGS),
        (["SELECT pg_stat_reset()"], "the server's statistics were reset"),
        ([MANY], "very many rows were written"),
    ],
)
def test_what_is_put_back_and_what_needs_a_new_clone(
    db_clone: ClinicDatabase, damage: list[str], mended: set[str] | str
) -> None:
    state = seeded.Seeded(db_clone.connect())
    before = rows_of(db_clone)
    with db_clone.connect() as other:
        for statement in damage:
            other.execute(statement.encode())
        other.execute("SELECT pg_stat_force_next_flush()")
    if isinstance(mended, str):
        with pytest.raises(seeded.Unrestorable, match=mended):
            state.put_back()
    else:
        assert set(state.put_back()) == mended
        assert rows_of(db_clone) == before
        state.mark()
        assert state.put_back() == []
    state.connection.close()


def test_a_table_that_a_trigger_always_guards_needs_a_new_clone(db_clone: ClinicDatabase) -> None:
    db_clone.connection.execute("ALTER TABLE users ENABLE ALWAYS TRIGGER _100_timestamps")
    state = seeded.Seeded(db_clone.connect())
    state.connection.execute("UPDATE users SET is_active = false WHERE entity_type = 'patient'")
    state.connection.execute("SELECT pg_stat_force_next_flush()")
    with pytest.raises(seeded.Unrestorable, match=r"public\.users cannot be put back row by row"):
        state.put_back()
    state.connection.close()


def rows_of(db: ClinicDatabase) -> Any:
    """All rows and sequences, journal and stamp too."""
    query = "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'S') AND oid >= 16384 AND relname !~ '^seeded_'"
    found = {}
    for (name,) in db.connection.execute(query.encode()).fetchall():
        columns = "last_value, is_called" if name.endswith("_seq") else "t"
        rows = f"SELECT array_agg(row({columns})::text ORDER BY row({columns})::text) FROM {name} t"
        found[name] = db.connection.execute(rows.encode()).fetchone()
    return found
