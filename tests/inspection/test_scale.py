"""scale.check: a hostile table for each rule of a cluster, and beside it a harmless one that differs in nothing else."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from conftest import Project

from skinspire_db.catalog import tenant_tables
from skinspire_db.inspection import scale

Connection = psycopg.Connection[Any]
TENANT = "hospital_id uuid NOT NULL"
CHILD = f"{TENANT}, visit_id int NOT NULL, UNIQUE (hospital_id, visit_id)"
VISITS = f"CREATE TABLE visits (visit_id int PRIMARY KEY, {TENANT}, note text, UNIQUE (hospital_id, visit_id));"
PLAIN = "CREATE TABLE codes (code int PRIMARY KEY);"
FUNCTION = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
# What is made before, the hostile table t, what is said of it, the harmless table t, and what that becomes.
RULES = [
    ("", f"CREATE TABLE t (id int PRIMARY KEY, {TENANT})", "the primary key has no hospital_id",
     f"CREATE TABLE t (id int PRIMARY KEY, {TENANT}, UNIQUE (id, hospital_id))", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, id int, code text UNIQUE, PRIMARY KEY (hospital_id, id))", "unique constraint t_code_key has no",
     f"CREATE TABLE t ({TENANT}, id int, code text, PRIMARY KEY (hospital_id, id), UNIQUE (code, hospital_id))", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, code text); CREATE UNIQUE INDEX i ON t (lower(code))", "unique index i has no hospital_id",
     f"CREATE TABLE t ({TENANT}, code text); CREATE UNIQUE INDEX i ON t (hospital_id, lower(code))", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, code text); CREATE UNIQUE INDEX i ON t (code) INCLUDE (hospital_id)", "unique index i has no",
     f"CREATE TABLE t ({TENANT}, code text); CREATE INDEX i ON t (code) INCLUDE (hospital_id)", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, code int); CREATE UNIQUE INDEX i ON t (code) WHERE code > 0", "unique index i has no",
     f"CREATE TABLE t ({TENANT}, code int); CREATE UNIQUE INDEX i ON t (code, hospital_id) WHERE code > 0", "distributed"),
    ("", f"CREATE TABLE t (id int PRIMARY KEY, {TENANT}); CREATE UNIQUE INDEX i ON t (hospital_id, id) WHERE id > 0", "the primary key",
     f"CREATE TABLE t (id int PRIMARY KEY, {TENANT}); CREATE UNIQUE INDEX i ON t (hospital_id, id)", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, r int4range, EXCLUDE USING gist (r WITH &&))", "exclusion constraint",
     f"CREATE TABLE t ({TENANT}, r int4range, EXCLUDE USING gist (hospital_id WITH =, r WITH &&))", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, r int4range, EXCLUDE USING gist (hospital_id WITH <>, r WITH &&))",
     "does not compare hospital_id for equality", "CREATE TABLE t (r int4range, EXCLUDE USING gist (r WITH &&))", "reference"),
    (VISITS, f"CREATE TABLE t ({TENANT}, v int REFERENCES visits)", "foreign key t_v_fkey to visits does not compare hospital_id",
     f"CREATE TABLE t ({TENANT}, v int, FOREIGN KEY (v, hospital_id) REFERENCES visits (visit_id, hospital_id))", "distributed"),
    (VISITS, f"CREATE TABLE t ({TENANT}, other uuid, v int, FOREIGN KEY (other, v) REFERENCES visits (hospital_id, visit_id))",
     "does not compare hospital_id with hospital_id",
     f"CREATE TABLE t ({TENANT}, other uuid, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id))", "distributed"),
    (VISITS, f"CREATE TABLE t ({TENANT}, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id) ON DELETE SET NULL (v))",
     "has ON DELETE SET NULL",
     f"CREATE TABLE t ({TENANT}, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id) ON DELETE CASCADE)", "distributed"),
    (VISITS, f"CREATE TABLE t ({TENANT}, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id) ON UPDATE CASCADE)",
     "has ON UPDATE CASCADE",
     f"CREATE TABLE t ({TENANT}, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id) DEFERRABLE)", "distributed"),
    ("CREATE TABLE hospitals (hospital_id uuid PRIMARY KEY, name text UNIQUE);",
     f"CREATE TABLE t ({TENANT} REFERENCES hospitals ON DELETE SET DEFAULT)", "has ON DELETE SET DEFAULT",
     f"CREATE TABLE t ({TENANT} REFERENCES hospitals ON DELETE CASCADE)", "distributed"),
    (PLAIN, f"CREATE TABLE t ({TENANT}, code int REFERENCES codes, hospital serial, c int GENERATED ALWAYS AS IDENTITY UNIQUE)", "t_c_key",
     f"CREATE TABLE t ({TENANT}, code int REFERENCES codes ON DELETE SET NULL, c int GENERATED ALWAYS AS IDENTITY)", "distributed"),
    (VISITS, "CREATE TABLE t (v int REFERENCES visits)", "leads to the distributed table visits",
     "CREATE TABLE t (v int)", "reference"),
    (VISITS, "CREATE TABLE t (hospital_id uuid, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id))",
     "leads to the distributed table visits",
     f"CREATE TABLE t ({TENANT}, v int, FOREIGN KEY (hospital_id, v) REFERENCES visits (hospital_id, visit_id))", "distributed"),
    ("CREATE TABLE big (id int PRIMARY KEY) PARTITION BY RANGE (id);", f"CREATE TABLE t ({TENANT}, b int REFERENCES big)", "which stays local",
     "CREATE TABLE t (b int REFERENCES big)", "reference"),
    ("CREATE TABLE big (id int PRIMARY KEY) PARTITION BY RANGE (id);", "CREATE TABLE t (b int REFERENCES big ON DELETE CASCADE)",
     "leads with ON DELETE CASCADE to the local table big", "CREATE TABLE t (b int REFERENCES big ON DELETE RESTRICT)", "reference"),
    (PLAIN, "CREATE TABLE t (id serial REFERENCES codes ON DELETE SET DEFAULT)", "SET DEFAULT to a sequence",
     "CREATE TABLE t (id int DEFAULT 1 REFERENCES codes ON DELETE SET DEFAULT)", "reference"),
    ("", "CREATE TABLE t (base int, hospital_id int GENERATED ALWAYS AS (base) STORED NOT NULL)", "a generated column",
     "CREATE TABLE t (base int, hospital_id int NOT NULL DEFAULT 1, g int GENERATED ALWAYS AS (base) STORED)", "distributed"),
    ("", "CREATE TABLE t (hospital_id point NOT NULL)", "type point, which has no hash function",
     "CREATE TABLE t (hospital_id varchar(20) NOT NULL)", "distributed"),
    ("CREATE TABLE whole (hospital_id bigint NOT NULL, id int, PRIMARY KEY (hospital_id, id));",
     "CREATE TABLE t (hospital_id int NOT NULL, id int, FOREIGN KEY (hospital_id, id) REFERENCES whole)", "of type bigint in whole",
     "CREATE TABLE t (hospital_id bigint NOT NULL, id int, FOREIGN KEY (hospital_id, id) REFERENCES whole)", "distributed"),
    ("", f"CREATE TABLE t ({TENANT}, a int) PARTITION BY RANGE (a); CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (9)"
     " PARTITION BY RANGE (a); CREATE TABLE q PARTITION OF p FOR VALUES FROM (0) TO (9)", "its partitions are partitioned",
     f"CREATE TABLE t ({TENANT}, a int) PARTITION BY RANGE (a); CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (9)", "distributed"),
    (f"CREATE TABLE parent ({TENANT});", "CREATE TABLE t () INHERITS (parent)", "a table with inheritance",
     "CREATE TABLE t (LIKE parent)", "distributed"),
    (FUNCTION, f"CREATE TABLE t ({TENANT}); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();"
     "ALTER TRIGGER g ON t DEPENDS ON EXTENSION btree_gist", "trigger g depends on an extension",
     f"CREATE TABLE t ({TENANT}); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "distributed"),
    (PLAIN, f"CREATE TABLE t ({TENANT}); CREATE POLICY y ON t USING (EXISTS (SELECT FROM codes))", "policy y has a subquery",
     f"CREATE TABLE t ({TENANT}); CREATE POLICY y ON t USING (hospital_id = current_setting('a.b')::uuid)", "distributed"),
    ("CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;",
     f"CREATE FOREIGN TABLE t ({TENANT}) SERVER files OPTIONS (filename '/dev/null')", "a foreign table cannot be distributed",
     "CREATE FOREIGN TABLE t (a int) SERVER files OPTIONS (filename '/dev/null')", "local"),
    ("", f'CREATE TABLE t ("Odd Id" int PRIMARY KEY, {TENANT})', 'UNIQUE (hospital_id, "Odd Id")',
     "CREATE TABLE t (a int) PARTITION BY RANGE (a)", "local"),
]  # fmt: skip


@pytest.fixture
def empty(project: Project) -> Any:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    with psycopg.connect(**project.address.parameters, dbname=project.database) as opened:
        yield opened
        opened.rollback()


def judged(connection: Connection) -> dict[str, scale.Judgement]:
    return {each.table: each for each in scale.judge(tenant_tables.read(connection))}


def test_a_hostile_table_for_each_rule_and_a_harmless_neighbour(empty: Connection) -> None:
    """In one database, as most of the time would go into making one for each."""
    empty.execute("CREATE EXTENSION btree_gist; CREATE EXTENSION file_fdw")
    for before, hostile, says, harmless, becomes in RULES:
        for statement, expected in ((hostile, "NOT POSSIBLE"), (harmless, becomes)):
            with empty.transaction(force_rollback=True):
                empty.execute((before + statement).encode())
                found = judged(empty)["t"]
                assert found.verdict == expected, (statement, found)
                if expected == "NOT POSSIBLE":
                    assert says in "; ".join(found.reasons + found.remedies) and found.remedies and not found.statements, (
                        found
                    )
                else:
                    assert bool(found.statements) is (becomes != "local") and not found.remedies, found


def test_a_column_whose_collation_is_not_deterministic() -> None:
    """Told of the catalogue's row, as PostgreSQL makes such a collation with ICU alone."""
    for deterministic, verdict in ((True, "distributed"), (False, "NOT POSSIBLE")):
        table = tenant_tables.TenantTable(
            1, "t", "r", False, False, False, None, None, True, True, "text", False, True, deterministic
        )
        [found] = scale.judge({1: table})
        assert found.verdict == verdict


def test_the_core_distributes(clinic: Project) -> None:
    outcome = clinic.invoke("scale.check", "--env=dev", "--json")
    assert outcome.code == 0, outcome.out
    verdicts = {each["table"]: each["verdict"] for each in outcome.json["tables"]}
    assert {name for name, verdict in verdicts.items() if verdict == "distributed"} == {"branches", "patients", "staff"}
    assert set(verdicts.values()) == {"distributed", "reference"} and len(verdicts) == 12
    [patients] = [each for each in outcome.json["tables"] if each["table"] == "patients"]
    assert patients["statements"] == [
        "SET citus.enable_unsafe_triggers TO on;",
        "ALTER TABLE patients DROP CONSTRAINT pk_patients, ADD CONSTRAINT pk_patients PRIMARY KEY (hospital_id, patient_id);",
        "SELECT create_distributed_table('patients', 'hospital_id');",
    ]
    clinic.execute(
        "CREATE TABLE visits (visit_id int PRIMARY KEY, hospital_id uuid NOT NULL, patient_id uuid REFERENCES patients)"
    )
    outcome = clinic.invoke("scale.check", "--env=dev")
    assert outcome.code == 3 and "NOT POSSIBLE" in outcome.out and "visits" in outcome.err
    assert "ADD FOREIGN KEY (hospital_id, patient_id) REFERENCES patients (hospital_id, patient_id)" in outcome.out.replace(
        "\n", ""
    )


def test_the_statements_for_primary_keys_run(clinic: Project) -> None:
    """What is PostgreSQL's own of them: the exchange of the primary keys, also where foreign keys lead to these tables."""
    with clinic.connect() as connection:
        for each in judged(connection).values():
            for statement in each.statements:
                if statement.startswith("ALTER"):
                    connection.execute(statement.encode())
        connection.rollback()


def test_verify_names_tables_whose_keys_do_not_keep_hospitals_apart(clinic: Project) -> None:
    """As a note: the keys of an application's own tables are its own."""
    clinic.execute(
        "CREATE TABLE visits (visit_id int PRIMARY KEY, hospital_id uuid NOT NULL, patient_id uuid REFERENCES patients);"
        "CREATE TABLE bills (bill_id int PRIMARY KEY, hospital_id uuid NOT NULL, patient_id uuid REFERENCES patients,"
        " UNIQUE (hospital_id, bill_id), FOREIGN KEY (hospital_id, patient_id) REFERENCES patients (hospital_id, patient_id));"
        "CREATE TABLE refunds (hospital_id uuid, bill_id int, PRIMARY KEY (hospital_id, bill_id), CONSTRAINT r"
        " FOREIGN KEY (hospital_id, bill_id) REFERENCES bills (hospital_id, bill_id) ON DELETE SET NULL (bill_id));"
        "CREATE TABLE notes (note_id int PRIMARY KEY, patient_id uuid REFERENCES patients, user_id text REFERENCES users)"
    )
    outcome = clinic.invoke("db.verify", "--json")
    assert outcome.code == 0, outcome.out
    [detail] = [check["detail"] for check in outcome.json["checks"] if check["name"] == "tenant keys"]
    assert detail == (
        "11 tables with hospital_id keep hospitals apart by their keys; refunds: r takes hospital_id from a row ON DELETE; visits:"
        " no unique key (hospital_id, visit_id), visits_patient_id_fkey may lead to another hospital's row of patients"
    )
    shown = " ".join(clinic.invoke("db.verify").out.split())
    assert "note: the keys of refunds, visits do not keep hospitals apart; --verbose says how" in shown
