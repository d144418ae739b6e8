"""db.copy --hospital: the rows of one hospital, of the whole system, and what they need; no row of another hospital."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Project
from support import database

from skinspire_db.copies.one_hospital import OneHospital

# Every way in which rows belong together; what is whose stands in the texts: "A" and "S" (of the system) are wanted.
SHAPES = """
CREATE EXTENSION citext;
CREATE TABLE hospitals (id varchar(15) PRIMARY KEY, note text);
CREATE TABLE users (id int PRIMARY KEY, hospital_id varchar(15) REFERENCES hospitals, manager int REFERENCES users, note text);
CREATE TABLE "Odd ""1"" table" (hospital_id citext NOT NULL, id serial, note text, PRIMARY KEY (hospital_id, id));
-- Referred to, and belonging to no hospital: countries over a ring of two tables.
CREATE TABLE regions (id int PRIMARY KEY, parent int REFERENCES regions, note text);
CREATE TABLE countries (code citext COLLATE "C", part smallint, region int REFERENCES regions, capital int, note text, UNIQUE (code, part));
CREATE TABLE cities (id int PRIMARY KEY, code citext, part bigint, note text, FOREIGN KEY (code, part) REFERENCES countries (code, part));
ALTER TABLE countries ADD CONSTRAINT capital FOREIGN KEY (capital) REFERENCES cities DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE country_names (city int REFERENCES cities, note text);
CREATE TABLE patients (id int, hospital_id varchar(15) NOT NULL REFERENCES hospitals, city int REFERENCES cities, made_by int REFERENCES users,
    note text, PRIMARY KEY (hospital_id, id)) PARTITION BY LIST (hospital_id);
CREATE TABLE patients_a PARTITION OF patients FOR VALUES IN ('A'); CREATE TABLE patients_rest PARTITION OF patients DEFAULT;
-- Without a hospital of their own: a chain, a ring with a self reference, a partitioned table.
CREATE TABLE visits (id int PRIMARY KEY, owner varchar(15) NOT NULL, patient int NOT NULL, note text, FOREIGN KEY (owner, patient) REFERENCES patients);
CREATE TABLE comments (id int PRIMARY KEY, visit int REFERENCES visits, parent int REFERENCES comments, task int, note text);
CREATE TABLE tasks (id int PRIMARY KEY, comment int REFERENCES comments, note text);
ALTER TABLE comments ADD CONSTRAINT of_task FOREIGN KEY (task) REFERENCES tasks DEFERRABLE;
CREATE TABLE lines (id int, visit int REFERENCES visits, note text) PARTITION BY RANGE (id);
CREATE TABLE lines_low PARTITION OF lines FOR VALUES FROM (0) TO (10); CREATE TABLE lines_high PARTITION OF lines FOR VALUES FROM (10) TO (100);
CREATE TABLE rights (role int NOT NULL REFERENCES users, note text); CREATE TABLE settings (name text, note text); CREATE TABLE reasons (id int PRIMARY KEY, note text);
ALTER TABLE visits ADD reason int REFERENCES reasons;
CREATE TABLE parent (id int, note text); CREATE TABLE heir (hospital_id varchar(15)) INHERITS (parent);

INSERT INTO hospitals VALUES ('A', 'A'), ('B', 'B'), ('a', 'another');
INSERT INTO users VALUES (1, NULL, NULL, 'S'), (2, 'A', 1, 'A'), (3, 'A', 3, 'A'), (4, 'B', 1, 'B'), (5, 'B', 4, 'B');
INSERT INTO "Odd ""1"" table" (hospital_id, note) SELECT h, upper(h) FROM unnest(ARRAY['a', 'B']) h, generate_series(1, 3) n;
INSERT INTO regions VALUES (1, NULL, 'A'), (2, 1, 'A'), (3, 1, 'B'), (4, NULL, 'B');
BEGIN; INSERT INTO countries VALUES ('in', 1, 2, 1, 'A'), ('fr', 1, 3, 2, 'B'), ('xx', 2, 4, NULL, 'B');
INSERT INTO cities VALUES (1, 'IN', 1, 'A'), (2, 'FR', 1, 'B'), (3, 'in', 1, 'A'), (4, NULL, 1, 'B'), (5, 'in', 1, 'B'); COMMIT;
INSERT INTO country_names VALUES (3, 'A'), (1, 'A'), (2, 'B'), (5, 'B'), (NULL, 'S');
INSERT INTO patients VALUES (1, 'A', 3, 2, 'A'), (2, 'A', NULL, 1, 'A'), (1, 'B', 2, 4, 'B'), (2, 'B', 4, NULL, 'B');
INSERT INTO reasons VALUES (1, 'A'), (2, 'B');
INSERT INTO visits VALUES (1, 'A', 1, 'A', 1), (2, 'A', 2, 'A', NULL), (3, 'B', 1, 'B', 2), (4, 'B', 2, 'B', 1);
INSERT INTO comments VALUES (1, 1, NULL, NULL, 'A'), (2, NULL, 1, NULL, 'A'), (3, NULL, 2, NULL, 'A'), (4, 3, NULL, NULL, 'B'), (5, NULL, 4, NULL, 'B'),
    (6, NULL, NULL, NULL, 'S'), (7, NULL, 6, NULL, 'S');
INSERT INTO tasks VALUES (1, 3, 'A'), (2, 5, 'B'), (3, NULL, 'S'); INSERT INTO comments VALUES (8, NULL, NULL, 1, 'A'), (9, NULL, 8, 3, 'A'), (10, NULL, NULL, 2, 'B');
INSERT INTO lines VALUES (1, 1, 'A'), (11, 2, 'A'), (2, 3, 'B'), (12, 4, 'B'), (13, NULL, 'S');
INSERT INTO rights VALUES (1, 'S'), (2, 'A'), (4, 'B'); INSERT INTO settings VALUES ('x', 'S');
INSERT INTO parent VALUES (1, 'S'); INSERT INTO heir VALUES (1, 'A', 'A'), (2, 'B', 'B'), (3, 'S', NULL);
SELECT lo_from_bytea(0, 'a large object');
"""


@pytest.fixture
def shapes(project: Project) -> Project:
    """A project whose test database has two hospitals in tables of every shape."""
    test = database(project, "TEST")
    project.execute(f'CREATE DATABASE "{test}"', "postgres")
    for part in SHAPES.split("\n\n"):
        project.execute(part, test)
    assert project.invoke("env.stamp", "--env=test", f"--confirm={test}").code == 0
    return project


def notes(project: Project, name: str) -> dict[str, list[str]]:
    """The texts of all rows that are to come, or that came, by table."""
    tables = project.query(
        "SELECT attrelid::regclass::text FROM pg_attribute WHERE attname = 'note' AND attrelid >= 16384 AND EXISTS"
        " (SELECT FROM pg_class WHERE oid = attrelid AND relkind = 'r') ORDER BY 1",
        name,
    )
    return {
        table: [note for (note,) in project.query(f"SELECT note FROM ONLY {table} ORDER BY note", name)]
        for (table,) in tables
    }


def test_one_hospital_with_all_that_it_needs(shapes: Project) -> None:
    before = notes(shapes, database(shapes, "TEST"))
    outcome = shapes.invoke("db.copy", "--source=test", "--target=dev", "--hospital=A", "--json")
    assert outcome.code == 0, outcome.out
    wanted = {table: [note for note in found if note in ("A", "S")] for table, found in before.items()}
    assert notes(shapes, shapes.database) == wanted
    # The sequence is behind the rows that came, and the keys are complete: PostgreSQL checked each on the way.
    shapes.execute("""INSERT INTO "Odd ""1"" table" (hospital_id) VALUES ('A')""")
    assert shapes.query('SELECT max(id) FROM "Odd ""1"" table"') == [(7,)]
    source, copy, compare, *_ = outcome.json["steps"]
    assert source["summary"]["hospital"] == "A" and copy["summary"]["method"] == "stream"
    assert compare["summary"]["rows"] >= sum(map(len, wanted.values()))
    said = " ".join(outcome.json["notes"])
    assert "no foreign key ties them to a hospital: public.parent, public.settings" in said and "skinspire_tools" not in said
    assert "left out: large objects" in said


@pytest.mark.slow
def test_reference_data_is_whole_and_needs_what_it_refers_to(shapes: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (shapes.root / "seed.toml").write_text('[countries]\nkey = ["code"]\n')
    (shapes.root / "pyproject.toml").write_text('[tool.skinspire_db]\nreference = ["seed.toml"]\n')
    outcome = shapes.invoke("db.copy", "--source=test", "--target=dev", "--hospital=A")
    assert outcome.code == 0, outcome.err
    counts = "SELECT (SELECT count(*) FROM countries), (SELECT count(*) FROM regions), (SELECT count(*) FROM cities)"
    assert shapes.query(counts) == [(3, 4, 3)]
    # What was copied is looked at by other code than chose it.
    monkeypatch.setattr(OneHospital, "_where", lambda self, table: "")
    outcome = shapes.invoke("db.copy", "--source=test", "--target=dev", "--hospital=A")
    assert outcome.code == 1 and "the copy holds rows of other hospitals: public." in outcome.err, outcome.err


@pytest.mark.slow
def test_what_cannot_be_copied_alone(shapes: Project) -> None:
    test = database(shapes, "TEST")

    def refused(hospital: str, *options: str) -> str:
        outcome = shapes.invoke("--dry", "db.copy", "--source=test", "--target=dev", f"--hospital={hospital}", *options)
        assert outcome.code in (1, 2) and outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, outcome.err
        assert shapes.query(f"SELECT 1 FROM pg_database WHERE datname = '{shapes.database}'", "postgres") == []
        return outcome.err

    assert "the source has no hospital C -> --hospital=A, or B or a" in refused("C")
    assert "the source has no hospital A' OR true --" in refused("A' OR true --"), "it is a value and no SQL"
    assert "the source has no hospital A0123456789012345" in refused("A0123456789012345"), "not cut to varchar(15)"
    assert "--hospital names no hospital" in refused("") and "--hospital names no hospital" in refused(" ")
    assert "give one of the two" in refused("A", "--schema-only")
    assert "a template is copied whole" in refused("A", "--method=template")
    for change, back, names in (
        (
            "users SET manager = 4 WHERE id = 2",
            "users SET manager = 1 WHERE id = 2",
            ["users_manager_fkey", "(1 row of public.users to public.users)"],
        ),
        (
            "users SET manager = 4 WHERE id = 1",
            "users SET manager = NULL WHERE id = 1",
            ["users_manager_fkey"],
        ),  # of the system
        ("patients SET made_by = 5 WHERE id = 1", "patients SET made_by = NULL WHERE id = 1", ["patients_made_by_fkey"]),
        (
            "comments SET parent = 4 WHERE id = 1",
            "comments SET parent = NULL WHERE id = 1",
            ["comments_parent_fkey", "public.comments"],
        ),
        ("comments SET task = 2 WHERE id = 2", "comments SET task = NULL WHERE id = 2", ["of_task (", "public.tasks"]),
    ):
        shapes.execute(f"UPDATE {change}", test)
        said = refused("A")
        assert all(name in said for name in (*names, "hospital A cannot be copied alone")), (change, said)
        shapes.execute(f"UPDATE {back}", test)
    shapes.execute("CREATE TABLE ward (id int, hospital_id int)", test)
    assert "--hospital=A is no integer, which public.ward.hospital_id is" in refused("A")
    for table in ("ward", '"Odd ""1"" table"', "heir", "users", "patients"):
        shapes.execute(f"ALTER TABLE {table} RENAME hospital_id TO clinic", test)
    assert "no table of the source has a column hospital_id" in refused("A")


@pytest.mark.slow
def test_one_hospital_of_a_protected_environment(make_project: Callable[..., Project]) -> None:
    """Masked only; rules of a partitioned table are its partitions'."""
    project = make_project("")
    (project.root / "pyproject.toml").write_text(
        '[tool.skinspire_db]\nmetadata = ["shop:Base"]\n[tool.skinspire_db.environments.live]\nextends = "prod"\nsslmode = "disable"\n'
    )
    (project.root / "shop.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase\n\n\nclass Base(DeclarativeBase): ...\n"
    )
    project.env["LIVE_DATABASE_URL"] = project.env["TEST_DATABASE_URL"].replace("/test_", "/live_")
    live = database(project, "LIVE")
    project.execute(f'CREATE DATABASE "{live}"', "postgres")
    for part in SHAPES.split("\n\n"):
        project.execute(part, live)
    assert project.invoke("env.stamp", "--env=live", f"--confirm={live}").code == 0
    copy = ("db.copy", "--source=live", "--target=dev", "--hospital=A", f"--confirm={live}")
    outcome = project.invoke(*copy)
    assert outcome.code == 2 and "live is protected" in outcome.err
    outcome = project.invoke(*copy, "--masked")
    assert outcome.code == 2 and "masked rows of patients_rest would break the bounds of the partition" in outcome.err, (
        outcome.err
    )
    masks = project.root / "sql" / "masks"
    masks.mkdir(parents=True)
    rules = 'version = 1\nsummary = "x"\n[tables.hospitals]\nid = "keep"\n[tables.patients]\nnote = "constant"\n'
    (masks / "own.toml").write_text(rules.replace('"constant"', '{ mask = "constant", value = "invented" }'))
    assert project.invoke("sql.bump", "--name=masks/own").code == 0
    outcome = project.invoke(*copy, "--masked")
    assert outcome.code == 0, outcome.err
    before, after = notes(project, live), notes(project, project.database)
    assert {table: sum(note in ("A", "S") for note in found) for table, found in before.items()} == {
        table: len(found) for table, found in after.items()
    }
    assert after["patients_a"] == ["invented", "invented"] and project.query("SELECT id FROM hospitals") == [("A",)]
    assert not {"A", "S"} & {note for found in after.values() for note in found}
