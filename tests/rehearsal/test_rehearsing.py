"""migrate.rehearse: the pending revisions on a copy, what each statement locks, and what is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Outcome, Project
from migration_support import revision

TABLES = """
CREATE TABLE people (id int PRIMARY KEY, name varchar(100), hidden text);
CREATE TABLE visits (id int PRIMARY KEY, person int NOT NULL, note text);
INSERT INTO people SELECT n, repeat('x', n), CASE WHEN n % 2 = 0 THEN 'x' END FROM generate_series(1, 100) AS n;
INSERT INTO visits SELECT n, n % 200, 'secret note' FROM generate_series(1, 1000) AS n;
"""
MODELS = """
from sqlalchemy import Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None] = mapped_column(String(100))
    hidden: Mapped[str | None] = mapped_column(Text)
    nick: Mapped[str | None] = mapped_column(Text)

class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    person: Mapped[int]
    note: Mapped[str | None] = mapped_column(Text)
"""
NICK = "ALTER TABLE people ADD nick text", "ALTER TABLE people DROP nick"
TABLE = """
CREATE TABLE {t} (id int, a int NOT NULL, v varchar(9), n numeric(9, 2), at timestamp);
INSERT INTO {t} SELECT g, g, 'abcdefghi', g + 0.25, '2026-01-01 12:00' FROM generate_series(1, 10) AS g;
CREATE INDEX {t}_n ON {t} (n); CREATE MATERIALIZED VIEW {t}_seen AS SELECT id FROM {t};
"""
# statement -> what it does to {t}: "readers" or "writers" are stopped, it is "rewritten", "scanned" meanwhile, "rows" are locked, or a
# value is "lost".
DANGEROUS = {
    "ALTER TABLE {t} ALTER v TYPE varchar(5) USING left(v, 5)": "readers rewritten scanned lost",
    "ALTER TABLE {t} ALTER a TYPE bigint": "readers rewritten scanned",
    "ALTER TABLE {t} ALTER n TYPE numeric(9, 1)": "readers rewritten scanned lost",
    "ALTER TABLE {t} ALTER at TYPE date": "readers rewritten scanned lost",
    "ALTER TABLE {t} ALTER a TYPE text USING a::text": "readers rewritten scanned",
    "ALTER TABLE {t} ADD b uuid DEFAULT gen_random_uuid()": "readers rewritten scanned",
    "ALTER TABLE {t} ADD b serial": "readers rewritten scanned",
    "ALTER TABLE {t} ADD b int GENERATED ALWAYS AS (a + 1) STORED": "readers rewritten scanned",
    "ALTER TABLE {t} SET UNLOGGED": "readers rewritten scanned",
    "CLUSTER {t} USING {t}_n": "readers rewritten scanned",
    "ALTER TABLE {t} ALTER v SET NOT NULL": "readers scanned",
    "ALTER TABLE {t} ADD CHECK (a > 0)": "readers scanned",
    "ALTER TABLE {t} ADD PRIMARY KEY (id)": "readers scanned",
    "ALTER TABLE {t} ADD UNIQUE (id)": "readers scanned",
    "ALTER TABLE {t} ADD FOREIGN KEY (id) REFERENCES people (id)": "writers scanned",
    "CREATE INDEX {t}_a ON {t} (a)": "writers scanned",
    "CREATE UNIQUE INDEX {t}_id ON {t} (id)": "writers scanned",
    "REINDEX TABLE {t}": "readers writers scanned",
    "CREATE TRIGGER own BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": "writers",
    "LOCK TABLE {t}": "readers",
    "ALTER TABLE {t} DROP COLUMN v": "readers lost",
    "DROP TABLE {t} CASCADE": "readers lost",
    "TRUNCATE {t}": "readers rewritten lost",
    "DELETE FROM {t}": "rows lost",
    "DELETE FROM {t} WHERE id = 3": "rows lost",
    "UPDATE {t} SET v = NULL": "rows lost",
    "UPDATE {t} SET a = a + 1": "rows",
    "DO $$ BEGIN EXECUTE format('ALTER TABLE %I DROP COLUMN v', '{t}'); END $$": "readers lost",
    "DO $$ BEGIN EXECUTE format('ALTER TABLE %I ALTER v TYPE varchar(3) USING left(v, 3)', '{t}'); END $$": "readers rewritten scanned lost",
    "DO $$ BEGIN FOR i IN 1..3 LOOP UPDATE {t} SET a = i WHERE id = i; END LOOP; END $$": "rows",
    "CREATE TABLE {t}_new AS SELECT * FROM {t} WHERE id < 5; DROP TABLE {t} CASCADE; ALTER TABLE {t}_new RENAME TO {t}": "readers lost",
    "REFRESH MATERIALIZED VIEW {t}_seen": "readers rewritten",
}  # fmt: skip
HARMLESS = [
    "ALTER TABLE {t} ADD b int",
    "ALTER TABLE {t} ADD b int DEFAULT 5 NOT NULL",
    "ALTER TABLE {t} ADD b timestamptz DEFAULT now()",
    "ALTER TABLE {t} ADD b text, ADD c jsonb",
    "ALTER TABLE {t} ALTER a SET DEFAULT 3",
    "ALTER TABLE {t} ALTER a DROP DEFAULT",
    "ALTER TABLE {t} ALTER v TYPE varchar(40), ALTER n TYPE numeric(12, 2)",
    "ALTER TABLE {t} ALTER v TYPE text",
    "ALTER TABLE {t} ADD CONSTRAINT {t}_c CHECK (a > 0) NOT VALID",
    "ALTER TABLE {t} ADD CONSTRAINT {t}_f FOREIGN KEY (id) REFERENCES people (id) NOT VALID",
    "ALTER TABLE {t} ALTER a SET STATISTICS 500",
    "ALTER TABLE {t} SET (fillfactor = 90)",
    "ALTER TABLE {t} RENAME a TO b",
    "ALTER TABLE {t} RENAME TO {t}_older",
    "ALTER TABLE {t} ALTER a DROP NOT NULL",
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "ALTER INDEX {t}_n RENAME TO {t}_nn",
    "ALTER TABLE {t} ADD UNIQUE USING INDEX {t}_ready",
    "DROP INDEX {t}_n",
    "DROP MATERIALIZED VIEW {t}_seen",
    "COMMENT ON TABLE {t} IS 'x'",
    "GRANT SELECT ON {t} TO PUBLIC",
    "CREATE VIEW {t}_view AS SELECT id FROM {t}",
    "INSERT INTO {t} (id, a) VALUES (7, 7)",
    "UPDATE {t} SET a = 1 WHERE a IS NULL",
    "DELETE FROM {t} WHERE a IS NULL",
    "CREATE TABLE {t}_new (LIKE {t}); INSERT INTO {t}_new SELECT * FROM {t}; CREATE INDEX ON {t}_new (a); UPDATE {t}_new SET a = 1",
    "CREATE SEQUENCE {t}_numbers",
    "CREATE TYPE {t}_state AS ENUM ('a', 'b')",
    "DO $$ BEGIN PERFORM count(*) FROM {t}; END $$",
]  # fmt: skip


def make_shop(
    make_project: Callable[..., Project], tables: str = TABLES, *, environment: str = "dev", user: str = "skinspire"
) -> Project:
    """An application without the core, whose database has tables by its own first revision."""
    project = make_project('metadata = ["shop:Base"]\nmigrations = "migrations"\nreference = []\nsql = []\n')
    (project.root / "shop.py").write_text(MODELS)
    (project.root / "migrations" / "versions").mkdir(parents=True)
    if user != project.address.user:
        make = f"CREATE ROLE {user} CREATEDB LOGIN PASSWORD 'x'"
        project.execute(f"DO $$ BEGIN {make}; EXCEPTION WHEN duplicate_object THEN NULL; END $$", "postgres")
    project.execute(f'CREATE DATABASE "{project.database}" OWNER {user}', "postgres")
    revision(project, "first", None, tables)
    if environment == "prod":
        project.env["PROD_DATABASE_URL"] = project.url(project.database, user=user, password="x") + "?sslmode=disable"
    outcome = project.invoke("migrate.upgrade", f"--env={environment}")
    assert outcome.code == 0, outcome.err
    return project


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    return make_shop(make_project)


def found(outcome: Outcome) -> dict[str, Any]:
    """What a rehearsal has found, as --json has it."""
    rehearsal: dict[str, Any] = outcome.json["rehearsal"]
    return rehearsal


@pytest.mark.slow
def test_dangerous_statements_are_named_and_harmless_ones_left_alone(make_project: Callable[..., Project]) -> None:
    statements = {f"t{number:02}": sql for number, sql in enumerate([*DANGEROUS, *HARMLESS])}
    tables = [TABLES, *(TABLE.replace("{t}", table) for table in statements)]
    ready = next(table for table, sql in statements.items() if "USING INDEX" in sql)
    shop = make_shop(make_project, "".join([*tables, f"CREATE UNIQUE INDEX {ready}_ready ON {ready} (id)"]))
    revision(shop, "second", "first", ";".join(sql.replace("{t}", table) for table, sql in statements.items()))
    outcome = shop.invoke("migrate.rehearse", "--from=copy", "--longest-lock=1000", "--json")
    assert outcome.code == 3, outcome.err
    said: dict[str, set[str]] = {table: set() for table in statements}
    words = {"readers and writers": "readers", "writers": "writers", "writers of these rows": "rows", "": ""}
    for statement in found(outcome)["revisions"][0]["statements"]:
        locked: dict[str, set[str]] = {}
        for lock in statement["locks"]:
            locked.setdefault(lock["table"], set()).add(words[lock["stops"]])
        for table, stops in locked.items():
            name = table.partition("_")[0]
            if name in said:
                said[name] |= {min(stops - {""})} if stops - {""} else set()  # those who stop readers stop writers, too
                said[name] |= {"rewritten"} if table in statement["rewritten"] else set()
                said[name] |= {"scanned"} if table in statement["scanned"] and stops & {"readers", "writers"} else set()
    for loss in found(outcome)["losses"]:
        said[loss.split()[1].partition(".")[0].rstrip(":")].add("lost")
    lines = {sql: " ".join(sorted(said[table])) for table, sql in statements.items()}
    assert {sql: lines[sql] for sql in DANGEROUS} == {sql: " ".join(sorted(what.split())) for sql, what in DANGEROUS.items()}
    assert {sql for sql in HARMLESS if lines[sql] not in ("", "readers", "writers")} == set(), "held for a moment alone"


@pytest.mark.slow
def test_what_an_operator_decides_by(shop: Project) -> None:
    revision(
        shop, "second", "first", "ALTER TABLE people ALTER name TYPE varchar(50) USING left(name, 50)",
        "ALTER TABLE people ALTER name TYPE varchar(100)",
    )  # fmt: skip
    revision(
        shop, "third", "second",
        "ALTER TABLE visits ADD CONSTRAINT f FOREIGN KEY (person) REFERENCES people NOT VALID; CREATE INDEX ix ON visits (person);"
        "UPDATE people SET hidden = NULL WHERE id < 50",
        "ALTER TABLE visits DROP CONSTRAINT f; DROP INDEX ix",
    )  # fmt: skip
    before = shop.dump()
    outcome = shop.invoke("migrate.rehearse", "--from=copy", "--longest-lock=1000", "--json")
    assert outcome.code == 3, outcome.err
    result = found(outcome)
    assert result["losses"] == [
        "column people.name: character varying(100) becomes character varying(50): values over 50 characters are cut: 50 of 100 rows",
        "column people.hidden loses 24 of 50 values",
    ]
    people = next(each for each in result["tables"] if each["table"] == "people")
    assert people["before"]["values"]["hidden"] == 50 and people["after"]["values"]["hidden"] == 26
    first, *third = (each for one in result["revisions"] for each in one["statements"])
    assert first["rewritten"] == ["people"] and first["locks"][0]["mode"] == "AccessExclusiveLock"
    assert [each["sql"].split()[0] for each in third] == ["ALTER", "CREATE", "UPDATE"], "one text, three statements"
    assert third[1]["scanned"] == {"visits": 1000} and third[2]["locks"][-1]["rows"] == 49
    assert {(each["table"], each["gave_up"], each["says"]) for each in result["queue"]} == {
        ("people", True, ""), ("visits", True, "")
    }  # fmt: skip
    assert all(each["waited"] > 0 for each in result["queue"])
    failed = [each["name"] for each in outcome.json["checks"] if each["status"] != "pass"]
    assert failed == ["constraint f on visits"]
    after = shop.dump()
    assert "secret note" not in outcome.out and before.count("\n") + 1 == after.count("\n"), (
        "the journal alone has a line more"
    )
    names = shop.query(f"SELECT datname FROM pg_database WHERE datname LIKE '{shop.database}%'")
    assert names == [(shop.database,)]


@pytest.fixture
def prod(make_project: Callable[..., Project]) -> Project:
    """The shop in a protected environment, with a revision pending that adds a column."""
    shop = make_shop(make_project, environment="prod", user="shop_owner")
    revision(shop, "second", "first", *NICK)
    return shop


def rehearsed(project: Project, *arguments: str, code: int = 0) -> Outcome:
    outcome = project.invoke("migrate.rehearse", "--longest-lock=1000", *arguments)
    assert outcome.code == code, outcome
    return outcome


@pytest.mark.slow
def test_a_protected_environment_from_its_proved_backup(prod: Project) -> None:
    """What is refused first, each with a remedy that leads on; then the rehearsal, its journal line, and what the upgrade says of it."""
    outcome = rehearsed(prod, "--env=prod", code=2)
    assert "no backup of prod in" in outcome.err and "invoke backup.create --env=prod" in outcome.err
    assert prod.invoke("backup.create", "--env=prod").code == 0
    outcome = rehearsed(prod, "--env=prod", code=2)
    assert "was proved by a restore -> invoke backup.verify --full --env=prod" in outcome.err
    assert prod.invoke("backup.verify", "--full", "--env=prod").code == 0
    plan = prod.invoke("--dry", "migrate.upgrade", "--env=prod")
    assert "would second was never rehearsed: invoke migrate.rehearse" in plan.out, plan
    before = prod.dump()
    assert "1 pending" in prod.invoke("--dry", "migrate.rehearse", "--env=prod").out and prod.dump() == before

    outcome = rehearsed(prod, "--env=prod", "--json")
    assert found(outcome)["queue"][0]["table"] == "people" and outcome.json["steps"][1]["name"] == "copy"
    history = prod.query("SELECT operation, steps::text FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 1")
    assert history[0][0] == "migrate.rehearse" and '"rehearsed": "second ' in history[0][1]
    assert "never rehearsed" not in prod.invoke("--dry", "migrate.upgrade", "--env=prod").out
    revision(prod, "second", "first", "ALTER TABLE people ADD nick varchar", "ALTER TABLE people DROP nick")
    outcome = prod.invoke("migrate.upgrade", "--env=prod")
    assert outcome.code == 0 and "careful: second was never rehearsed" in outcome.out, "its file is another one now"
    assert "nothing is pending" in rehearsed(prod, "--env=prod").err
    revision(prod, "third", "second", "ALTER TABLE people ALTER nick TYPE text", "ALTER TABLE people ALTER nick TYPE varchar")
    outcome = rehearsed(prod, "--env=prod", "--json")
    assert [each["revision"] for each in found(outcome)["revisions"]] == ["second", "third"], "the backup is older"


@pytest.mark.slow
def test_copies_of_other_kinds_and_elsewhere(prod: Project) -> None:
    outcome = rehearsed(prod, "--env=prod", "--from=copy", "--keep")
    kept = outcome.err.partition("the copy stays: ")[2].partition(" ")[0]
    assert prod.query("SELECT count(*) FROM people", kept) == [(100,)], "for a role that is no superuser"
    rehearsed(prod, "--env=prod", "--from=masked", "--keep")
    assert prod.query("SELECT count(*) FROM people WHERE name ~ '^x+$'", kept)[0][0] < 100
    prod.execute(f'DROP DATABASE "{kept}"', "postgres")
    outcome = rehearsed(prod, "--env=prod", "--from=copy", "--on=embedded", "--keep", code=2)
    assert "prod is protected: a copy of its rows does not stay on another server" in outcome.err


@pytest.mark.slow
def test_what_a_rehearsal_finds(shop: Project) -> None:
    """Revisions that fail, or leave others waiting, are findings and not failures of the task."""
    code = "    connection = op.get_bind()\n    [name] = connection.exec_driver_sql('SELECT min(name) FROM people').one()\n"
    code += "    connection.exec_driver_sql('SET LOCAL lock_timeout = 0')\n    op.execute('ALTER TABLE people ADD c int')\n"
    code += "    cursor = connection.connection.cursor()\n    cursor.execute('LOCK TABLE visits')\n"
    path = shop.root / "migrations" / "versions" / f"{revision(shop, 'second', 'first')}.py"
    path.write_text(path.read_text().replace("    pass\n", code, 1))
    outcome = rehearsed(shop, "--from=copy", "--json", code=3)
    own = found(outcome)["revisions"][0]["statements"][-1]
    assert own["sql"] == "beside its statements" and own["locks"][0]["mode"] == "AccessExclusiveLock"
    bad = {each["name"]: each["detail"] for each in outcome.json["checks"] if each["status"] != "pass"}
    assert bad["downgrade"] == "column public.people.c stays"
    assert 'column "c" of relation "people" already exists' in bad["revision second again"]
    path.write_text(path.read_text().replace("    pass\n", "    op.execute('ALTER TABLE people DROP c')\n"))
    outcome = rehearsed(shop, "--from=copy", "--json", code=3)
    bad = {each["name"]: each["detail"] for each in outcome.json["checks"] if each["status"] != "pass"}
    assert "the revision sets lock_timeout" in bad.pop("queue of people") and bad == {}
    waits = "DO $$ BEGIN SET LOCAL lock_timeout = 0; ALTER TABLE people ADD c int; END $$"
    revision(shop, "second", "first", waits, "ALTER TABLE people DROP c")
    outcome = rehearsed(shop, "--from=copy", "--to=second", code=3)
    assert "queue of people: it does not give up" in outcome.err and "can wait longer than 2 s" in outcome.out, outcome
    revision(shop, "second", "first", "CREATE TABLE other (id int); INSERT INTO visits SELECT * FROM visits")
    outcome = rehearsed(shop, "--from=copy", code=3)
    assert "revision second: " in outcome.err and "visits_pkey" in outcome.err and "(1)" not in outcome.out


@pytest.mark.slow
def test_a_concurrent_revision(shop: Project) -> None:
    sql = "CREATE INDEX CONCURRENTLY ix ON visits (person)"
    path = (
        shop.root / "migrations" / "versions" / f"{revision(shop, 'second', 'first', sql, 'DROP INDEX CONCURRENTLY ix')}.py"
    )
    path.write_text(path.read_text() + "concurrently = True\n")
    outcome = rehearsed(shop, "--from=copy", "--json", "--to=second")
    [statement] = found(outcome)["revisions"][0]["statements"]
    assert statement["sql"] == sql and statement["wal"] > 0 and found(outcome)["queue"] == []


def test_bad_input(shop: Project) -> None:
    for arguments, says in {
        ("--from=nowhere",): "--from=nowhere is no source of a copy -> use --from=backup",
        ("--on=moon",): "--on=moon is no server",
        ("--longest-lock=soon",): "--longest-lock=soon is no number of seconds",
        ("--to=nonesuch",): "nonesuch",
        ("--env=mars",): "unknown environment",
        ("--env=prod",): "prod has no database",
        ("--env=test",): "does not exist",
    }.items():
        outcome = shop.invoke("migrate.rehearse", *arguments)
        assert outcome.code in (1, 2) and says in outcome.err and outcome.err.count("\n") == 1, outcome
    outcome = shop.invoke("migrate.rehearse")
    assert "nothing is pending" in outcome.err and "migrate.rehearse: nothing was rehearsed, " in outcome.out, outcome
    shop.env["DEV_DATABASE_URL"] = "postgresql://u:p@127.0.0.1:9/gone"
    outcome = shop.invoke("migrate.rehearse")
    assert outcome.code == 1 and "127.0.0.1:9" in outcome.err
