"""Every kind of damage, in every mode, in random order; the state is looked at before each test."""

import contextlib, gc, os, random
import psycopg, pytest
from sqlalchemy import text
from skinspire_db.catalog import definitions as catalogue
from skinspire_db.database_service import get_db_engine, get_db_session

COUNT, MODES = int(os.environ["LEAKS"]), ("session", "database", "clone")
ROWS = """
    SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' AND relname !~ '^seeded_' ORDER BY 1
"""
DEFINITIONS = [
    "ALTER TABLE patients ADD COLUMN q int",
    "CREATE TABLE zz (id serial PRIMARY KEY)",
    "COMMENT ON TABLE staff IS 'x'",
    "GRANT SELECT ON staff TO public",
    "DROP TABLE login_history CASCADE",
    "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
    "CREATE FUNCTION zf() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE users DISABLE TRIGGER ALL",
    "ALTER SEQUENCE role_master_role_id_seq INCREMENT 7",
    "CREATE TEMP TABLE tt (x int)",
    "CREATE SCHEMA of_mine",
    "DROP INDEX ix_users_live",
    "ALTER TABLE staff RENAME TO people",
    "SELECT lo_create(0)",
]
left, first = [], {}
gc.disable()  # what was left is collected between the tests: in the middle of a traceback Python 3.11 stumbles over it


def state(connection):
    with connection.transaction(force_rollback=True):
        rows = {}
        for (name,) in connection.execute(ROWS).fetchall():
            query = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM ONLY {name} t"
            rows[name] = connection.execute(query).fetchone()
        for (name,) in connection.execute("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S'").fetchall():
            rows[name] = connection.execute(f"SELECT last_value, is_called FROM {name}").fetchone()
        rows["large objects"] = connection.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
        return rows | {key: value for key, value in catalogue.snapshot(connection).items() if "seeded_" not in key}


def change(connection, what, rng):
    connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
    connection.execute(
        text(
            {
                "insert": f"INSERT INTO parameter_settings (param_code, param_value) VALUES ('C{rng.randrange(10**9)}', 'x')",
                "update": f"UPDATE patients SET first_name = 'Z{rng.random()}' WHERE mrn IN (SELECT mrn FROM patients LIMIT 3)",
                "delete": "DELETE FROM users WHERE entity_type = 'patient'",
                "truncate": "TRUNCATE login_history, user_sessions, role_module_access RESTART IDENTITY",
                "nextval": f"INSERT INTO role_master (role_name) VALUES ('{rng.random()}')",
                "setval": "SELECT setval('role_master_role_id_seq', 999)",
                "definition": rng.choice(DEFINITIONS),
            }[what]
        )
    )


def do(what, db, rng):
    if what == "error":
        with get_db_session() as session:
            session.execute(text("SELECT nextval('role_master_role_id_seq')"))
            session.execute(text("INSERT INTO patients (patient_id) VALUES (NULL)"))
    elif what == "rollback":
        with get_db_session() as session:
            change(session, rng.choice(["insert", "delete", "nextval", "definition"]), rng)
            raise ValueError
    elif what == "nested":
        with get_db_session() as outer:
            change(outer, "insert", rng)
            with get_db_session() as inner:
                change(inner, "update", rng)
    elif what == "leave a session":
        block = get_db_session()
        change(block.__enter__(), "insert", rng)
        left.append(block)
    elif what == "leave a connection":
        connection = get_db_engine().connect()
        change(connection, "update", rng)
        left.append(connection)
    elif what == "another connection":
        where = db.url
        connection = psycopg.connect(
            host=where.host,
            port=where.port,
            user=where.username,
            password=where.password,
            dbname=db.name,
            options="-clock_timeout=50ms",
        )
        connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('OTHER', 'x')")
        if rng.random() < 0.6:
            connection.commit()
        left.append(connection) if rng.random() < 0.5 else connection.close()
    elif what == "sql":
        with db.connection.transaction():
            db.connection.execute("SET LOCAL lock_timeout = '50ms'")
            db.connection.execute("INSERT INTO parameter_settings (param_code, param_value) VALUES ('SQL', 'x')")
    elif what == "reset the statistics":
        db.connection.execute("SELECT pg_stat_reset()")
    else:
        with get_db_session() as session:
            change(session, what, rng)


ACTIONS = [
    "insert",
    "update",
    "delete",
    "truncate",
    "nextval",
    "setval",
    "definition",
    "error",
    "rollback",
    "nested",
    "leave a session",
    "leave a connection",
    "another connection",
    "sql",
    "reset the statistics",
]

numbers = list(range(COUNT))
random.Random(int(os.environ["ORDER"])).shuffle(numbers)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.db(MODES[n % 3])) for n in numbers])
def test_nothing_leaks(db, number):
    now = state(db.observer)
    before = first.setdefault("state", now)
    differs = {key: (before.get(key), now.get(key)) for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    assert not differs
    rng = random.Random(number)
    for what in rng.choices(ACTIONS, k=rng.randint(1, 4)):
        with contextlib.suppress(Exception):
            do(what, db, rng)
    del left[:-3]
    gc.collect()
