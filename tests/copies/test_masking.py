"""Masked copies: nothing of the source but what rules keep; keys, conditions and sign-ins hold."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from conftest import Outcome, Project
from support import database

from skinspire_db.copies.masking import expressions, named, plan

PYPROJECT = '[tool.skinspire_db.environments.live]\nextends = "prod"\nsslmode = "disable"\n'


@pytest.fixture
def live(make_project: Callable[..., Project], template: str) -> Project:
    """A project whose protected environment `live` is set up, with the core's invented people; dev does not exist yet."""
    project = make_project("")
    (project.root / "pyproject.toml").write_text(f"[tool.skinspire_db]\n{PYPROJECT}")
    project.env["LIVE_DATABASE_URL"] = project.env["TEST_DATABASE_URL"].replace("/test_", "/live_")
    project.execute(f'CREATE DATABASE "{source(project)}" TEMPLATE {template}', "postgres")
    project.execute("UPDATE skinspire_tools.stamp SET environment = 'live'", source(project))
    return project


def source(project: Project) -> str:
    return database(project, "LIVE")


def masked(project: Project, *more: str) -> Outcome:
    arguments = ("--source=live", "--target=dev", "--masked", f"--confirm={source(project)}")
    return project.invoke("db.copy", *arguments, *more)


def test_nothing_of_a_person_leaves_a_protected_environment(live: Project) -> None:
    dry = live.invoke("--dry", "db.copy", "--source=live", "--target=dev", "--masked", f"--confirm={source(live)}", "--json")
    assert dry.code == 0 and dry.json["steps"][0]["summary"]["columns_searched_for"] > 50, dry.err
    refused = live.invoke("db.copy", "--source=live", "--target=dev", "--masked")
    assert refused.code == 2 and f"--masked --confirm={source(live)}" in refused.err
    outcome = masked(live, "--json")
    assert outcome.code == 0, outcome.err
    dump = live.dump()
    for column in PERSONAL:
        table, _, name = column.partition(".")
        for (value,) in live.query(
            f"SELECT DISTINCT ({name})::text FROM {table} WHERE length(({name})::text) > 5", source(live)
        ):
            assert value not in dump, column
    assert live.query(COUNTS) == live.query(COUNTS, source(live))


PERSONAL = (
    "users.user_id",
    "patients.last_name",
    "patients.mrn",
    "staff.staff_id",
    "patients.contact_info->'address'->>'street'",
)
COUNTS = """
    SELECT count(*), count(DISTINCT u.user_id), count(DISTINCT first_name), count(DISTINCT to_jsonb(p) - 'x') FROM patients p
    JOIN users u ON entity_id = patient_id JOIN user_role_mapping USING (user_id)
"""


@pytest.mark.slow
def test_the_masked_core_works(live: Project) -> None:
    """All commands work on the copy; people sign in with the documented password; the copy may be copied on."""
    assert masked(live).code == 0
    checked = live.invoke("mask.check", "--env=live", "--json")
    assert checked.code == 0 and checked.json["refusals"] == [], "each column of the core has a rule"
    assert live.invoke("db.verify").code == 0
    assert live.invoke("db.drift").code == 0
    prepared = live.invoke("db.prepare", "--json")
    assert (prepared.code, prepared.json["steps"]) == (0, [])
    for command in ("db.inspect", "db.history"):
        assert "a masked copy of live" in live.invoke(command).err
    hashes = live.query("SELECT DISTINCT password_hash = crypt('SkinSpire@2024', password_hash) FROM users")
    assert hashes == [(True,)]
    assert live.invoke("db.copy", "--source=dev", "--target=test").code == 0
    stamped = live.query("SELECT environment, masked_from, masked_rules FROM skinspire_tools.stamp", database(live, "TEST"))
    assert stamped == [("test", "live", "masks/core 1")]
    assert live.invoke("db.copy", "--source=live", "--target=dev").code == 2, "as it is, the protected one is not copied"
    assert live.invoke("db.reset", "--env=dev").code == 0
    assert "masked" not in live.invoke("db.inspect", "--env=dev").err, "nothing of the copy is left"


@pytest.mark.slow
def test_a_masked_backup_is_restored_to_unprotected_environments_alone(live: Project) -> None:
    made = live.invoke("backup.create", "--env=live", "--masked", "--json")
    assert made.code == 0, made.err
    name = made.json["backup"]
    assert live.query(f"SELECT FROM pg_database WHERE datname ~ '^{source(live)}_'", "postgres") == [], "the copy is dropped"
    refused = live.invoke("backup.restore", "--env=live", f"--file={name}", f"--confirm={source(live)}")
    assert refused.code == 2 and "it is a masked backup, and live is protected" in refused.err
    assert live.invoke("backup.restore", "--env=dev", f"--file={name}").code == 0
    assert live.query("SELECT environment, masked_from FROM skinspire_tools.stamp") == [("dev", "live")]
    assert live.query(COUNTS) == live.query(COUNTS, source(live))
    assert "Bhattacharya" not in live.dump()
    assert live.invoke("db.verify").code == 0


RULES = """version = 1
summary = "rules that tests use"
{}
"""
WRONG = [
    ('[tables.patients]\nnonesuch = "text"', "masks/own.toml: there is no column patients.nonesuch"),
    ('[tables.nonesuch]\nx = "text"', "there is no table nonesuch"),
    ('[tables.patients]\nfirst_name = "date"', "date is no mask for patients.first_name, which is of type character varying(100)"),
    ('[tables.patients]\nmrn = { mask = "constant", value = "x" }', "two masked rows of patients would be equal in its key"),
    ('[tables.users]\nentity_type = { mask = "constant", value = "x" }', "masked rows of users would break ck_users_entity_type, on entity_type"),
    ('[tables.users]\nentity_id = "null"', "users.entity_id cannot be null"),
    ('[tables.patients]\nfirst_name = "nonesuch"', "own.toml:4: patients.first_name: there is no mask nonesuch"),
    ('drop_rows = ["users"]', "users, whose rows stay away"),
    ("nonesuch = 1", "nonesuch is no key of a file of rules"),
    ('[tables.patients]\ntitle = { mask = "json", paths = { a = "nonesuch" } }', "nonesuch is no mask of a json path"),
    ('[tables.patients]\ntitle = { mask = "digits", references = "users.nonesuch" }', "there is no column users.nonesuch"),
]  # fmt: skip


def rules(project: Project, text: str, name: str = "own") -> None:
    folder = project.root / "sql" / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "sql.lock").unlink(missing_ok=True)  # each text is a first version
    (folder / f"{name}.toml").write_text(RULES.format(text))
    assert project.invoke("sql.bump", f"--name=masks/{name}").code == 0


@pytest.mark.slow
def test_a_rule_that_cannot_hold_is_refused_before_the_copy(live: Project) -> None:
    for text, says in WRONG:
        rules(live, text)
        arguments = ("--source=live", "--target=dev", "--masked", f"--confirm={source(live)}")
        outcome = live.invoke("--dry", "db.copy", *arguments)
        assert outcome.code in (1, 2) and says in outcome.err and "sql/masks" in outcome.err, outcome.err


@pytest.mark.slow
def test_a_value_of_a_masked_column_that_is_kept_in_another_one_stops_the_copy(live: Project) -> None:
    live.execute("UPDATE patients SET medical_info = 'Bhattacharya' WHERE mrn = 'T000003'", source(live))
    rules(live, '[tables.patients]\nmedical_info = "keep"')
    outcome = masked(live, "--json")
    assert outcome.code == 1 and "1 value of patients.last_name, in patients.medical_info" in outcome.json["error"]["message"]
    assert live.query(f"SELECT FROM pg_database WHERE datname ~ '^{live.database}'", "postgres") == [], "no part of a copy"
    rules(live, '[tables.patients]\nmedical_info = "keep"\nlast_name = { mask = "constant", value = "Bhattacharya" }')
    assert masked(live).code == 0, "a value that is the constant is none of the source's"
    rules(live, '[tables.patients]\nmedical_info = "keep"\nlast_name = { mask = "constant", value = "Nobody" }')
    assert "1 value of patients.last_name, in patients.medical_info" in masked(live).err
    rules(live, '[tables.patients]\nmedical_info = "keep"')
    live.execute("UPDATE patients SET medical_info = 'nothing known' WHERE mrn = 'T000003'", source(live))
    outcome = masked(live, "--json")
    assert outcome.code == 0, outcome.err
    found = next(step["summary"] for step in outcome.json["steps"] if step["name"] == "search")
    assert found["values_found"] == 0 and found["values_looked_for"] > 200 and found["json_keys_dropped"] > 5


MODELS = """
from sqlalchemy import CheckConstraint, Column, Date, ForeignKey, Identity, Integer, MetaData, Numeric, Sequence, String, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, ENUM, INET, JSONB

metadata = MetaData()
people = Table(
    "people", metadata,
    Column("id", Integer, Identity(), primary_key=True, comment="numbers of ours"),
    Column("phone", String(10), CheckConstraint("phone ~ '^[0-9]{10}$'", name="digits"), unique=True, nullable=False),
    Column("name", Text, info={"mask": "full_name"}),
    Column("remarks", Text, info={"mask": "keep"}),
    Column("share", Numeric(5, 2), CheckConstraint("share BETWEEN 0 AND 100", name="share")),
    Column("stars", Integer, CheckConstraint("stars >= 1 AND stars <= 5", name="stars"), nullable=False),
    Column("mood", ENUM("sad", "happy", "tired", name="mood"), nullable=False),
    Column("born", Date, nullable=False), Column("died", Date), CheckConstraint("died > born", name="life"),
    Column("tags", ARRAY(String(20))), Column("address", INET), Column("stay", DATERANGE),
    Column("facts", JSONB, info={"mask": {"mask": "json", "paths": {"contact.city": "keep", "contact.phone": "phone", "kind": "keep"}}}),
    comment="who comes to us",
)
visits = Table(
    "visits", metadata,
    Column("person_id", ForeignKey("people.id"), primary_key=True), Column("number", Integer, primary_key=True),
    Column("ticket", Integer, Sequence("tickets"), server_default=text("nextval('tickets')"), unique=True),
    Column("seen_by", String(30), info={"mask": {"mask": "digits", "references": "people.phone"}}),
    Column("moved", Date, info={"mask": {"mask": "shift", "by": "person_id"}}),
    UniqueConstraint("person_id", "number", "seen_by"),
)
"""
ROWS = """
    INSERT INTO people (phone, name, remarks, share, stars, mood, born, died, tags, address, stay, facts)
    SELECT 9000000000 + n * 7919, 'Person ' || n, 'kept words', n % 101, 1 + n % 5, 'tired', date '1950-03-03' + n, date '1950-03-04' + n,
        ARRAY['Secretary ' || n], '10.0.0.1', daterange(date '2020-02-02', date '2020-02-03' + n),
        jsonb_build_object('kind', 'plain', 'contact', jsonb_build_object('city', 'Springfield', 'phone', '0441234' || n, 'street', 'Elm Street'), 'secret', 'hidden away')
    FROM generate_series(1, 300) n;
    INSERT INTO visits (person_id, number, seen_by, moved) SELECT id, k, phone, born + k FROM people, generate_series(1, 2) k
"""
JOINED = """
    SELECT count(*), count(DISTINCT p.phone), count(DISTINCT p.id), count(DISTINCT p.name), count(DISTINCT p.tags), min(length(p.phone)), max(length(p.phone)),
        min(length(p.id::text)), max(length(p.id::text)), bool_and(facts->>'kind' = 'plain'), bool_and(facts->'contact'->>'city' = 'Springfield'), bool_and(remarks = 'kept words')
    FROM visits v JOIN people p ON p.id = v.person_id AND p.phone = v.seen_by
"""


@pytest.fixture
def own(make_project: Callable[..., Project]) -> Project:
    """A project of models of its own, with people in test."""
    project = make_project('metadata = ["app:metadata"]\npeople = false')
    (project.root / "app.py").write_text(MODELS)
    assert project.process("db.setup", "--env=test").code == 0
    project.execute(ROWS, database(project, "TEST"))
    return project


@pytest.mark.slow
def test_keys_conditions_and_soft_references_hold_with_no_rule_but_the_models_own(own: Project) -> None:
    copy = ("db.copy", "--source=test", "--target=dev", "--masked", "--secret-env=OF_COPIES")
    assert "OF_COPIES names a variable that is not set" in own.process("--dry", *copy).err
    own.env["OF_COPIES"] = "a secret of at least sixteen characters"
    outcome = own.process(*copy)
    assert outcome.code == 0, outcome.err
    taken = own.query("SELECT * FROM people ORDER BY 1"), own.query("SELECT * FROM visits ORDER BY 1, 2")
    assert own.query(JOINED) == own.query(JOINED, database(own, "TEST"))
    for column in ("phone", "name", "share", "stars", "mood", "tags", "remarks", "facts->'contact'->>'phone'"):
        counted = f"SELECT array_agg(n ORDER BY n) FROM (SELECT count(*) AS n FROM people GROUP BY {column}) AS s"
        assert own.query(counted) == own.query(counted, database(own, "TEST")), f"as many duplicates in {column}"
    dump = own.dump()
    for value in ("Secretary", "Elm Street", "hidden away", "Person 1", "9000007919", "10.0.0.1", "2020-02-02"):
        assert value not in dump, value
    # The same person's dates are shifted alike, and their order is that of the source.
    assert own.query("SELECT DISTINCT max(moved) - min(moved) FROM visits GROUP BY person_id") == [(1,)]
    assert own.query("SELECT count(DISTINCT mood), bool_or(mood = 'tired') FROM people") == [(1, False)]
    own.execute("INSERT INTO people (phone, stars, mood, born) VALUES ('1234567890', 1, 'sad', now())")
    own.execute("INSERT INTO visits (person_id, number) SELECT id, 99 FROM people LIMIT 20")
    assert own.process("db.drift").code == 0, "the comments of the models are there"
    assert own.process(*copy).code == 0
    again = own.query("SELECT * FROM people ORDER BY 1"), own.query("SELECT * FROM visits ORDER BY 1, 2")
    assert again == taken, "the same secret, the same pseudonyms"
    own.env["OF_COPIES"] = "another secret of more than sixteen characters"
    assert own.process(*copy).code == 0
    assert not {row[0] for row in own.query("SELECT phone FROM people")} & {row[1] for row in taken[0]}


@pytest.mark.slow
def test_the_secret_is_in_no_statement_and_no_log(own: Project) -> None:
    """Every statement of the source's server is looked at while it runs."""
    own.env["OF_COPIES"] = "a secret of at least sixteen characters"
    secret = plan.secret_of(own.env["OF_COPIES"])
    seen = []
    copying = own.start("db.copy", "--source=test", "--target=dev", "--masked", "--secret-env=OF_COPIES")
    try:
        while copying.poll() is None:
            seen += [
                row[0]
                for row in own.query("SELECT query FROM pg_stat_activity WHERE application_name ~ 'skinspire'", "postgres")
            ]
            seen += subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout.splitlines()
    finally:
        copying.kill()
        copying.communicate()
    assert any("COPY (SELECT" in each for each in seen), "the copy's own statements were seen"
    assert not any(secret in each or own.env["OF_COPIES"] in each for each in seen)


@pytest.mark.slow
def test_an_old_clinic_is_masked_by_types_alone_and_works(old_clinic: Project) -> None:
    assert old_clinic.process("db.adopt", "--env=dev", f"--confirm={old_clinic.database}").code == 0
    outcome = old_clinic.process("db.copy", "--source=dev", "--target=test", "--masked", "--json")
    assert outcome.code == 0, outcome.err
    for command in ("db.verify", "db.drift", "db.prepare"):
        done = old_clinic.process(command, "--env=test")
        assert done.code == 0, done.err
    columns = old_clinic.process("mask.check", "--env=test", "--json")
    assert columns.code == 3 and all(each["rule"] == "none" for each in columns.json["columns"])
    # With the rules that mask.new writes, people sign in with the documented password.
    assert old_clinic.process("mask.new", "--env=dev").code == 0
    assert old_clinic.process("sql.bump", "--name=masks/rules").code == 0
    outcome = old_clinic.process("db.copy", "--source=dev", "--target=test", "--masked")
    assert outcome.code == 0, outcome.err
    assert old_clinic.query("SELECT DISTINCT password_hash FROM users", database(old_clinic, "TEST")) == [(named.PASSWORD,)]


@pytest.mark.slow
def test_a_value_that_a_mask_lets_through_is_found(live: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a text, in keys and in documents; the search does not know what the masks are."""
    for name, broken in (
        ("phone", lambda value: value),  # in no column of the core but under a path of its documents
        ("text", lambda value: value),
        ("uuid", lambda value: value),
        ("code", lambda value, length: f"left({value}, {length})"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(expressions, name, broken)
            outcome = masked(live)
        assert outcome.code == 1 and "nothing is swapped in" in outcome.err, (name, outcome.err)
        assert live.query(f"SELECT FROM pg_database WHERE datname = '{live.database}'", "postgres") == []


@pytest.mark.slow
def test_pseudonyms_of_digits_are_one_to_one(live: Project) -> None:
    """All numbers of four digits as texts, of six as numbers, and an invented phone number of each length."""
    secret = f"SET skinspire_db.masking = '{'5' * 64}'"
    digits, whole, phone = expressions.characters("t.v"), expressions.whole_number("t.n"), expressions.phone("t.v")
    with live.connect(source(live)) as connection:
        connection.execute(secret.encode())
        texts = "SELECT lpad(n::text, 4, '0') AS v FROM generate_series(0, 9999) AS n"
        query = f"SELECT count(DISTINCT m), bool_and(m ~ '^[0-9]{{4}}$'), count(*) FILTER (WHERE m = v) FROM (SELECT v, {digits} AS m FROM ({texts}) AS t) AS s"
        ((count, kept, same),) = connection.execute(query.encode()).fetchall()
        assert (count, kept) == (10_000, True) and same < 10
        numbers = "SELECT n FROM generate_series(100000, 104999) AS n"
        query = f"SELECT count(DISTINCT m), min(m) >= 100000, max(m) < 1000000 FROM (SELECT {whole} AS m FROM ({numbers}) AS t) AS s"
        assert connection.execute(query.encode()).fetchone() == (5_000, True, True)
        phones = "SELECT '+' || repeat('9', n) AS v FROM generate_series(1, 30) AS n UNION ALL SELECT '0221-77'"
        query = f"SELECT bool_and(length(v) = length({phone}) AND (left(v, 1) = '+') = (left({phone}, 1) = '+') AND {phone} ~ '^[+]?[0-9]+$') FROM ({phones}) AS t"
        assert connection.execute(query.encode()).fetchone() == (True,)
        # What is prepared for large tables is the same, of each number of digits.
        both = [(digits, expressions.prepared(digits)), (whole, expressions.prepared(whole))]
        same = " AND ".join(f"bool_and({one} = {other})" for one, other in both)
        each = "SELECT n, n::text AS v FROM (SELECT (10 ^ k)::bigint + n * 7 AS n FROM generate_series(1, 17) AS k, generate_series(0, 99) AS n) AS s"
        assert all("string_agg" in other for _, other in both)
        assert connection.execute(f"SELECT {same} FROM ({each}) AS t".encode()).fetchone() == (True,)
        paths = named._json("t.v", "jsonb", {"a": "null", "b.c": "phone", "d": "keep"})
        document = """SELECT '{"a": "x", "b": {"c": "123", "x": 1}, "d": [1]}'::jsonb AS v"""
        query = f"SELECT m - 'b', length(m->'b'->>'c') FROM (SELECT {paths} AS m FROM ({document}) AS t) AS s"
        assert connection.execute(query.encode()).fetchone() == ({"d": [1]}, 3)
