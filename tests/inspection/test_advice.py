"""db.advise: for each lint what makes it, and beside it what differs little and does not; all in one database."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator

import pytest
from conftest import CHECKOUT, Outcome, Project

from skinspire_db.config import project as settings
from skinspire_db.inspection import advice
from skinspire_db.postgres.cluster import Address

ADVICE = CHECKOUT / "sql" / "advice"
XID = "((pg_current_xact_id()::text::bigint %% 4294967296 - {} + 4294967296) %% 4294967296)::text::xid".replace("%%", "%")
WIDE = "(id int PRIMARY KEY, body text) WITH (autovacuum_enabled = off); ALTER TABLE {0} ALTER body SET STORAGE PLAIN"
ROWS = "SELECT n, repeat('x', 7000) FROM generate_series(1, {}) AS n"
MADE = f"""
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE fk_bad (id int PRIMARY KEY, parent int CONSTRAINT to_parents REFERENCES parents, other int);
CREATE INDEX ON fk_bad (other, parent);
CREATE TABLE fk_good (id int PRIMARY KEY, parent int CONSTRAINT to_parents REFERENCES parents, other int);
CREATE INDEX ON fk_good (parent, other) WHERE parent IS NOT NULL;

CREATE TABLE doubles (id int PRIMARY KEY, a int, b int);
CREATE INDEX double_first ON doubles (a); CREATE INDEX double_second ON doubles (a); CREATE INDEX double_third ON doubles (a);
CREATE INDEX double_of_key ON doubles (id);
CREATE INDEX single_down ON doubles (a DESC); CREATE INDEX single_some ON doubles (a) WHERE b > 0; CREATE INDEX single_more ON doubles (a, b);

CREATE TABLE reads (id int PRIMARY KEY, a int, b int, c int); INSERT INTO reads SELECT n, n, n, n FROM generate_series(1, 9000) AS n;
CREATE INDEX read_never ON reads (a); CREATE INDEX read_often ON reads (b); CREATE UNIQUE INDEX read_unique ON reads (c);
CREATE INDEX read_small ON reads (a) WHERE a = 1;
DO $$ BEGIN SET LOCAL enable_seqscan = off; FOR n IN 1..1000 LOOP PERFORM FROM reads WHERE b = n; END LOOP; END $$; ANALYZE reads;

CREATE INDEX broken ON doubles (b); CREATE INDEX whole ON doubles (b, a);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass;

CREATE TABLE keyless (id int UNIQUE NOT NULL);
CREATE TABLE keyed (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE keyed_part PARTITION OF keyed FOR VALUES FROM (0) TO (9);
CREATE TABLE keyless_whole (id int) PARTITION BY RANGE (id);
CREATE TABLE keyless_part PARTITION OF keyless_whole FOR VALUES FROM (0) TO (9);
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL);

CREATE TABLE seq_high (id serial PRIMARY KEY); SELECT setval('seq_high_id_seq', 1600000000);
CREATE SEQUENCE wide_seq; CREATE TABLE seq_wide (id int PRIMARY KEY DEFAULT nextval('wide_seq')); SELECT setval('wide_seq', 1600000000);
CREATE TABLE seq_low (id serial PRIMARY KEY); SELECT setval('seq_low_id_seq', 1400000000);
CREATE TABLE seq_big (id bigserial PRIMARY KEY); SELECT setval('seq_big_id_seq', 1600000000);
CREATE SEQUENCE round_seq MAXVALUE 10 CYCLE; SELECT setval('round_seq', 9);

CREATE TABLE key_high (id int PRIMARY KEY, plain int); INSERT INTO key_high SELECT 1600000000 + n, n FROM generate_series(1, 50) AS n;
CREATE TABLE key_low (id int PRIMARY KEY, plain int); INSERT INTO key_low SELECT n, 1600000000 + n FROM generate_series(1, 50) AS n;
ANALYZE key_high, key_low;

CREATE TABLE old (id int PRIMARY KEY); CREATE TABLE young (id int PRIMARY KEY);
UPDATE pg_class SET relfrozenxid = {XID.format(1200000000)} WHERE oid = 'old'::regclass;
UPDATE pg_class SET relfrozenxid = {XID.format(900000000)} WHERE oid = 'young'::regclass;

CREATE TABLE checked (id int PRIMARY KEY, a int);
ALTER TABLE checked ADD CONSTRAINT later CHECK (a > 0) NOT VALID, ADD CONSTRAINT at_once CHECK (a > 1);

CREATE TABLE guessed {WIDE.format("guessed")}; INSERT INTO guessed {ROWS.format(50)};
CREATE TABLE analysed {WIDE.format("analysed")}; INSERT INTO analysed {ROWS.format(50)}; ANALYZE analysed;
CREATE TABLE little {WIDE.format("little")}; INSERT INTO little {ROWS.format(5)};

CREATE TABLE hollow {WIDE.format("hollow")}; INSERT INTO hollow {ROWS.format(2000)}; DELETE FROM hollow WHERE id > 100; ANALYZE hollow;
CREATE TABLE solid {WIDE.format("solid")}; INSERT INTO solid {ROWS.format(2000)}; DELETE FROM solid WHERE id > 1500; ANALYZE solid;

CREATE TABLE off (id int PRIMARY KEY, hospital_id int); CREATE POLICY of_one ON off USING (hospital_id = 1);
CREATE TABLE enabled (id int PRIMARY KEY, hospital_id int); ALTER TABLE enabled ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_side ON enabled USING (hospital_id = current_setting('app.hospital_id')::int OR current_setting('app.all', true) = 'on');
CREATE POLICY always ON enabled FOR SELECT USING (true);
CREATE POLICY unset ON enabled USING (nullif(current_setting('app.hospital_id', true), '') IS NULL OR hospital_id = 1);
CREATE POLICY two_columns ON enabled USING (hospital_id = current_setting('app.hospital_id')::int OR id = 0);
CREATE POLICY other_tables ON enabled USING (EXISTS (SELECT FROM parents p WHERE p.id = enabled.id OR p.id = current_setting('app.id')::int));
CREATE POLICY to_one ON enabled TO {{role}} USING (true);
CREATE POLICY narrows ON enabled AS RESTRICTIVE USING (current_setting('app.x', true) IS NULL);
CREATE TABLE owned (id int PRIMARY KEY); ALTER TABLE owned ENABLE ROW LEVEL SECURITY; ALTER TABLE owned OWNER TO {{role}};
CREATE TABLE forced (LIKE owned INCLUDING ALL); ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE forced OWNER TO {{role}};

CREATE FUNCTION changing(int) RETURNS bool LANGUAGE sql VOLATILE RETURN $1 > 0; CREATE FUNCTION steady(int) RETURNS bool LANGUAGE sql STABLE RETURN $1 > 0;
CREATE POLICY calls_changing ON enabled USING (changing(id)); CREATE POLICY calls_steady ON enabled USING (steady(id) AND now() > '2020-01-01');
CREATE POLICY by_clock ON enabled WITH CHECK (id > extract(hour FROM clock_timestamp()));

CREATE VIEW seen_by_all AS SELECT * FROM enabled; CREATE VIEW behind AS SELECT * FROM seen_by_all;
CREATE VIEW seen_by_right WITH (security_invoker = true) AS SELECT * FROM enabled; CREATE VIEW of_parents AS SELECT * FROM parents;

CREATE FUNCTION lent() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1;
CREATE FUNCTION pinned() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp RETURN 1;
REVOKE EXECUTE ON FUNCTION pinned FROM PUBLIC; CREATE FUNCTION own_rights() RETURNS int LANGUAGE sql RETURN 1;

GRANT SELECT ON parents TO PUBLIC; GRANT SELECT ON fk_bad TO {{role}}; GRANT UPDATE (other) ON fk_good TO PUBLIC;
CREATE SCHEMA annex; GRANT CREATE ON SCHEMA annex TO PUBLIC; CREATE SCHEMA shown; GRANT USAGE ON SCHEMA shown TO PUBLIC;

ALTER ROLE {{role}} IN DATABASE {{database}} SET zero_damaged_pages = on; ALTER ROLE {{role}} IN DATABASE {{database}} SET track_counts = on;

CREATE EXTENSION pgcrypto; CREATE TABLE of_extension (a int); ALTER EXTENSION pgcrypto ADD TABLE of_extension;
CREATE SCHEMA skinspire_tools; CREATE TABLE skinspire_tools.of_the_tools (a int);
"""
FOUND = {
    "unindexed_foreign_keys": {"fk_bad.to_parents"},
    "duplicate_indexes": {"double_second", "double_third", "double_of_key"},
    "unused_indexes": {"read_never"},
    "invalid_indexes": {"broken"},
    "no_primary_key": {"keyless", "keyless_whole"},
    "sequence_space": {"seq_high_id_seq", "wide_seq"},
    "integer_key_space": {"key_high.id"},
    "wraparound": {"old"},
    "unvalidated_constraints": {"checked.later"},
    "never_analysed": {"guessed"},
    "bloat": {"hollow"},
    "policies_off": {"off"},
    "policies_void": {"owned"},
    "policies_escape": {"enabled.one_side", "enabled.always", "enabled.unset"},
    "policies_volatile": {"enabled.calls_changing", "enabled.by_clock"},
    "definer_views": {"seen_by_all", "behind"},
    "definer_functions": {"lent()"},
    "public_rights": {"parents", "fk_good.other", "schema annex", "lent()"},
    "dangerous_settings": {"zero_damaged_pages of role {role} in {database}"},
    "lagging_slots": set[str](),
    "own": {"1"},
}
OWN = """/*
level = "{level}"
title = "{name}"
why = "w"
remedy = "r"
manual = "m"
*/
{query}
"""


def write_lint(project: Project, name: str, query: str, level: str = "info") -> None:
    folder = project.root / "sql" / "advice"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.sql").write_text(OWN.format(level=level, name=name, query=query))


def by_lint(outcome: Outcome) -> dict[str, set[str]]:
    assert outcome.json["operation"] == "db.advise", outcome.out
    found: dict[str, set[str]] = {check["name"]: set() for check in outcome.json["checks"] if check["status"] != "unknown"}
    for each in outcome.json["findings"]:
        found[each["lint"]].add(each["object"])
    return found


@pytest.fixture(scope="module")
def troubled(server: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose database has all of it. The tools come by an admin URL, the application as a role that owns tables."""
    project = Project(tmp_path_factory.mktemp("troubled"), server)
    name, role = f"troubled_{secrets.token_hex(4)}", f"role_{secrets.token_hex(4)}"
    (project.root / "pyproject.toml").write_text("[tool.skinspire_db]\n")
    own = project.url(name)
    project.env = {"DEV_DATABASE_URL": project.url(name, user=role), "DEV_ADMIN_URL": own, "PROD_DATABASE_URL": own}
    project.execute(f"CREATE DATABASE {name}", "postgres")
    project.execute(f"CREATE ROLE {role} LOGIN", "postgres")
    try:
        project.execute(MADE.format(role=role, database=name))
        yield project
    finally:
        project.execute(f"DROP DATABASE {name} WITH (FORCE)", "postgres")
        project.execute(f"DROP ROLE {role}", "postgres")


def test_each_lint_finds_what_makes_it_and_not_its_near_miss(troubled: Project) -> None:
    """Also a lint of the project, one in place of ours, those that cannot look, and sessions: one at work, two that wait."""
    for lint in ("idle_transactions", "long_transactions"):
        write_lint(troubled, lint, "")
        (troubled.root / "sql" / "advice" / f"{lint}.sql").write_text(
            (ADVICE / f"{lint}.sql").read_text().replace("limit  = 60", "limit = 0").replace("limit  = 10", "limit = 0")
        )
    write_lint(troubled, "own", "SELECT 1 AS object, 'one' AS detail")
    write_lint(troubled, "breaks", "SELECT 1 / 0 AS object, '' AS detail")
    write_lint(troubled, "columns", "SELECT 1 AS object")
    with contextlib.ExitStack() as open_:
        waits, works, _idle = (open_.enter_context(contextlib.closing(troubled.connect())) for _ in range(3))
        # The lock also keeps autovacuum from freezing the table in between.
        waits.execute("BEGIN; LOCK TABLE old IN SHARE UPDATE EXCLUSIVE MODE")
        pids = waits.info.backend_pid, works.info.backend_pid
        works.pgconn.send_query(b"SELECT pg_sleep(600)")
        outcome = troubled.invoke("db.advise", "--env=dev", "--json", "--fail-on=info")
    found = by_lint(outcome)
    assert found.pop("idle_transactions") == {f"session {pids[0]}"}
    assert found.pop("long_transactions") == {f"session {pids[1]}"}
    names = {"role": troubled.env["DEV_DATABASE_URL"].partition("//")[2].partition(":")[0], "database": troubled.database}
    assert found == {lint: {each.format(**names) for each in objects} for lint, objects in FOUND.items()}
    checks = {check["name"]: check for check in outcome.json["checks"]}
    assert {name for name, check in checks.items() if check["status"] == "unknown"} == {"breaks", "columns"}
    assert "division by zero" in checks["breaks"]["detail"] and "no column detail" in checks["columns"]["detail"]
    assert outcome.code == 3 and outcome.json["error"]["type"] == "Drifted"
    for name in ("breaks", "columns", "own", "idle_transactions", "long_transactions"):
        (troubled.root / "sql" / "advice" / f"{name}.sql").unlink()


@pytest.mark.slow
def test_levels_and_exit_codes(troubled: Project) -> None:
    """A protected environment on the test server, whose login is a superuser and which does without fsync."""
    outcome = troubled.invoke("db.advise", "--env=prod", "--json")
    found = by_lint(outcome)
    assert {"fsync", "full_page_writes"} <= found["dangerous_settings"]
    assert found["policies_void"] == {f"role {troubled.address.user}"}
    assert outcome.code == 3 and outcome.json["error"]["remedy"].startswith("type in invoke db.shell --env=prod: ")
    shown = troubled.invoke("db.advise", "--env=dev")
    assert shown.code == 3 and "error: policies_off: 1 finding: the table has policies" in shown.out, shown.out
    assert "enabled.one_side" in shown.out and "see PostgreSQL's manual, Row Security Policies" in shown.out


@pytest.mark.slow
def test_each_remedy_runs(troubled: Project) -> None:
    """Each in a transaction that is rolled back, but for those that cannot run in one."""
    findings = troubled.invoke("db.advise", "--env=dev", "--json").json["findings"]
    remedies = {each["remedy"] for each in findings if each["remedy"]}
    assert len(remedies) > 15 and "ALTER TABLE keyless ADD PRIMARY KEY (id);" in remedies
    with troubled.connect() as connection:
        for remedy in remedies:
            if not remedy.startswith(("VACUUM", "ALTER SYSTEM")):
                with connection.transaction(force_rollback=True):
                    connection.execute(remedy.replace(" CONCURRENTLY", "").encode())


@pytest.mark.slow
def test_waivers(clinic: Project) -> None:
    """One that holds, and those that do not count: each is said."""
    clinic.execute("CREATE TABLE keyless (a int); CREATE TABLE keyless_too (a int); CREATE TABLE keyless_three (a int)")
    assert clinic.invoke("db.advise").code == 0, "a warning is no failure by default"
    assert clinic.invoke("db.advise", "--fail-on=warning").code == 3
    form = '[[waiver]]\nlint = "no_primary_key"\nobject = "{}"\n'
    waivers = clinic.root / "waivers.toml"
    waivers.write_text(form.format("keyless*") + 'reason = "a log"\nuntil = 2999-12-31\n')
    outcome = clinic.invoke("db.advise", "--fail-on=warning", "--json")
    assert outcome.code == 0 and outcome.json["findings"] == [], outcome.out
    assert [each["waived"] for each in outcome.json["waived"]] == ["a log (until 2999-12-31)"] * 3
    waivers.write_text(
        form.format("keyless") + "until = 2999-12-31\n"
        + form.format("keyless_too") + 'reason = "a log"\nuntil = 2020-01-01\n'
        + form.format("keyless_three") + 'reason = "a log"\n'
        + form.format("gone") + 'reason = "a log"\nuntil = 2999-12-31\n'
    )  # fmt: skip
    outcome = clinic.invoke("db.advise", "--fail-on=warning", "--json")
    assert outcome.code == 3 and len(outcome.json["findings"]) == 3
    said = " ".join(outcome.json["steps"][0]["lines"])
    for says in (
        "waiver of no_primary_key for keyless has no reason", "for keyless_too ended on 2020-01-01", "for keyless_three has no date",
        "for gone is not needed here",
    ):  # fmt: skip
        assert says in said, said
    for text, says in {
        "x = 1": "something else than [[waiver]]: x", "waiver = 1": "something else", "[[waiver]]\nlint = 'a'": "needs lint and object",
        form.format("a") + "reason = 1": "reason is no str", form.format("a") + "who = 'x'": "there is no who",
        form.format("a") + "until = 'soon'": "until is no date", "x": "is not valid TOML",
        form.format("a").replace("no_primary_key", "no_primary_kye"): "there is none of that name -> write no_primary_key",
    }.items():  # fmt: skip
        waivers.write_text(text)
        refused = clinic.invoke("db.advise")
        assert refused.code == 2 and says in refused.err, (text, refused.err)


@pytest.mark.slow
def test_bad_input(clinic: Project) -> None:
    refused = clinic.invoke("db.advise", "--fail-on=everything")
    assert refused.code == 2 and "--fail-on=everything is none of error, warning, info" in refused.err
    lint = clinic.root / "sql" / "advice" / "own.sql"
    for query, level, says in (
        ("SELECT 1", "fatal", "level is none of error, warning, info"), ("COMMIT; SELECT 1", "info", "COMMIT in an SQL file"),
    ):  # fmt: skip
        write_lint(clinic, "own", query, level)
        refused = clinic.invoke("db.advise")
        assert refused.code == 1 and says in refused.err and "own.sql" in refused.err, refused.err
    for text, says in (
        ("SELECT 1", "there is no header"),
        ("/*\nlevel = 'info'\n*/\n", "needs title"),
        ("/*\nlimit = 'x'\n*/", "limit = 'x'"),
    ):
        lint.write_text(text)
        assert says in clinic.invoke("db.advise").err
    lint.unlink()
    outcome = clinic.invoke("db.advise", "--json", "--fail-on=info")
    assert outcome.code == 0 and outcome.json["findings"] == [], "on the core: no finding"


def test_the_document_has_each_lint_with_its_level() -> None:
    lints = advice.lints(settings.Project(CHECKOUT / "docs", {}))
    written = re.findall(
        r"^\| `(\w+)` \| (\w+) \|", (CHECKOUT / "docs" / "advice.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert written == [(lint.name, lint.level) for lint in lints] and len(lints) == 23
    assert {lint.name for lint in lints} - FOUND.keys() == {"idle_transactions", "long_transactions", "costly_statements"}
