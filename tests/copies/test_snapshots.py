"""snapshot.*: a database is what it was when the snapshot was taken, whatever was in between; and what is lost is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Project
from support import leftovers, without_names


@pytest.fixture
def one(clinic: Project) -> Iterator[Project]:
    """A project whose dev database is set up; what is made beside it is dropped."""
    yield clinic
    for left in leftovers(clinic):
        clinic.execute(f'DROP DATABASE "{left}" WITH (FORCE)', "postgres")


def test_a_snapshot_is_come_back_to_and_the_loss_is_named(one: Project) -> None:
    before = one.dump()
    taken = one.invoke("snapshot.take", "--name=before demo/1", "--json")
    assert taken.code == 0, taken.out
    assert taken.json["steps"][0]["summary"]["method"] == "template"
    again = one.invoke("snapshot.take", "--name=before demo/1")
    assert again.code == 2 and "there is a snapshot before demo/1" in again.err and "snapshot.drop" in again.err
    [shown] = one.invoke("snapshot.list", "--json").json["snapshots"]
    assert shown["name"] == "before demo/1" and shown["age"] == "less than a minute" and len(shown["database"].encode()) <= 63
    one.execute("UPDATE patients SET last_name = 'Precious'; DELETE FROM login_history; CREATE TABLE notes (t text)")
    one.execute("INSERT INTO notes VALUES ('x'); DELETE FROM parameter_settings")
    precious = one.dump()
    lost = ["notes: 1 row now, no such table in the snapshot", "parameter_settings: 0 rows now, 4 in the snapshot",
            "patients: 20 rows, not the same as in the snapshot", "definitions: not the same as in the snapshot"]  # fmt: skip
    foreseen = one.invoke("--dry", "snapshot.restore", "--name=before demo/1", "--json")
    assert foreseen.code == 0 and foreseen.json["steps"][1]["lines"] == lost and one.dump() == precious
    with one.connect(application_name="the web"):
        done = one.invoke("snapshot.restore", "--name=before demo/1", "--json")
    assert done.code == 0 and done.json["lost"] == lost, done.out
    assert any("the web" in note for note in done.json["notes"])
    assert without_names(one.dump()) == without_names(before)
    assert one.invoke("db.undo").code == 0 and without_names(one.dump()) == without_names(precious)
    history = [row["operation"] for row in one.invoke("db.history", "--json").json["journal"]]
    assert history == ["db.undo", "snapshot.take", "db.setup"]
    dropped = one.invoke("snapshot.drop", "--name=before demo/1")
    assert dropped.code == 0, dropped.err
    assert one.invoke("snapshot.list", "--json").json["snapshots"] == []
    for command in ("restore", "drop"):
        absent = one.invoke(f"snapshot.{command}", "--name=before demo/1")
        assert absent.code == 1 and "there is no snapshot before demo/1" in absent.err and "snapshot.list" in absent.err
        for wrong in ("", " ", "a\nb", "x" * 101, None):
            refused = one.invoke(f"snapshot.{command}", *([] if wrong is None else [f"--name={wrong}"]))
            assert refused.code == 2 and "snapshot" in refused.err and refused.err.count("\n") == 1, (wrong, refused.err)


@pytest.mark.slow
def test_odd_names_sessions_pruning_protection_and_forgeries(one: Project) -> None:
    (one.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nsnapshots = 4\n")
    odd = ["x" * 100, "Zürich \\ '; DROP DATABASE x; --", "日本", "scratch_0123456789ab"]
    one.execute("UPDATE skinspire_tools.stamp SET masked_from = 'prod', masked_at = now(), masked_rules = 'all 1'")
    for name in odd:
        assert one.invoke("snapshot.take", f"--name={name}").code == 0, name
    shown = one.invoke("snapshot.list", "--json").json["snapshots"]
    assert [each["name"] for each in shown] == odd[::-1] and len({each["database"] for each in shown}) == 4
    assert all(len(each["database"].encode()) <= 63 for each in shown)
    # Sessions of the source go on; the fifth snapshot is one too many.
    one.execute(f"ALTER DATABASE \"{one.database}\" SET work_mem = '7MB'; COMMENT ON DATABASE \"{one.database}\" IS 'mine'")
    with one.connect(application_name="the web") as web:
        streamed = one.invoke("snapshot.take", "--name=fifth", "--json")
        assert streamed.code == 0 and "the web" in streamed.json["notes"][0], streamed.out
        assert streamed.json["steps"][0]["summary"]["method"] == "stream" and web.execute("SELECT 1").fetchone() == (1,)
    assert "dropped: " + odd[0] in streamed.json["steps"][-1]["lines"][0]
    # Of a database that is gone: made anew, with what belongs to it.
    one.execute(f'DROP DATABASE "{one.database}"', "postgres")
    assert one.invoke("snapshot.restore", "--name=fifth").code == 0
    assert one.query("SHOW work_mem") == [("7MB",)] and one.query("SELECT masked_from FROM skinspire_tools.stamp") == [
        ("prod",)
    ]
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert one.query(comment) == [("mine",)]
    # Another role's database with a name and a comment as a snapshot's is none.
    [fifth] = [
        each["database"] for each in one.invoke("snapshot.list", "--json").json["snapshots"] if each["name"] == "fifth"
    ]
    role = f"forger_{one.database}"
    try:
        one.execute(f'CREATE ROLE {role}; ALTER DATABASE "{fifth}" OWNER TO {role}', "postgres")
        refused = one.invoke("snapshot.restore", "--name=fifth")
        assert refused.code == 1 and "there is no snapshot fifth" in refused.err
    finally:
        one.execute(f'ALTER DATABASE "{fifth}" OWNER TO CURRENT_USER; DROP ROLE {role}', "postgres")
    # One that is not what was recorded is not swapped in; a broken record is no snapshot.
    one.execute(f'ALTER DATABASE "{fifth}" ALLOW_CONNECTIONS true', "postgres")
    one.execute("UPDATE patients SET last_name = 'Forged'", fifth)
    damaged = one.invoke("snapshot.restore", "--name=fifth")
    assert damaged.code == 1 and "public.patients differs" in damaged.err.replace('"', ""), damaged.err
    one.execute(f'COMMENT ON DATABASE "{fifth}" IS \'skinspire-db snapshot {{"name": 7}}\'', "postgres")
    assert "fifth" not in one.invoke("snapshot.list").out
    # A protected environment asks for its database's name.
    one.env["PROD_DATABASE_URL"] = one.env["DEV_DATABASE_URL"]
    one.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'")
    for command in ("take", "restore", "drop"):
        name = "new" if command == "take" else "日本"
        for extra in ([], ["--confirm=other"]):
            refused = one.invoke(f"snapshot.{command}", "--env=prod", f"--name={name}", *extra)
            assert refused.code == 2 and f"--confirm={one.database}" in refused.err, refused.err
    assert one.invoke("snapshot.take", "--env=prod", "--name=new", f"--confirm={one.database}").code == 0
    assert one.invoke("snapshot.restore", "--env=prod", "--name=new", f"--confirm={one.database}").code == 0
    wrong = one.invoke("snapshot.restore", "--env=prod", "--name=日本", f"--confirm={one.database}")
    assert wrong.code == 2 and "is stamped dev, not prod" in wrong.err
