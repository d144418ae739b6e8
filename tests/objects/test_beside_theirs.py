"""An old clinic with functions and triggers of its own: ours are installed beside them, or the error says what is in the way."""

from __future__ import annotations

import pytest
from conftest import Project

OWN = """
    SELECT c.relname, t.tgname, t.tgenabled::text, pg_get_triggerdef(t.oid), md5(p.prosrc)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgname !~ '^_[0-9]{3}_' ORDER BY 1, 2
"""


def settle(project: Project, text: str) -> None:
    pyproject = project.root / "pyproject.toml"
    table = "[tool.skinspire_db]\n"
    kept = pyproject.read_text().replace("\n# ours\n", "\n").partition(table)
    pyproject.write_text(f"{kept[0]}{table}{text}\n{kept[2]}")


@pytest.mark.slow
def test_our_triggers_beside_theirs(old_clinic: Project) -> None:
    assert old_clinic.invoke("env.stamp", "--env=dev", f"--confirm={old_clinic.database}").code == 0
    before = old_clinic.query(OWN)
    assert before
    outcome = old_clinic.invoke("triggers.install")
    assert outcome.code == 2 and "update_timestamp() exists already" in outcome.err and "function_schema" in outcome.err
    settle(old_clinic, 'function_schema = "skinspire"')
    outcome = old_clinic.invoke("triggers.install")
    assert outcome.code == 1, outcome.out
    assert (
        "fires after _100_timestamps and changes updated_at" in outcome.err and "function update_timestamp()" in outcome.err
    )
    assert old_clinic.query("SELECT to_regnamespace('skinspire') IS NULL") == [(True,)], "and nothing is kept of it"
    settle(old_clinic, 'disabled_triggers = ["timestamps", "user_tracking"]')
    outcome = old_clinic.invoke("triggers.install", "--verify")
    assert outcome.code == 0, outcome.err
    outcome = old_clinic.invoke("triggers.status")
    assert outcome.code == 0 and "NOT APPLICABLE" in outcome.out and "no column users.locked_until" in outcome.out
    assert old_clinic.invoke("triggers.verify").code == 0 and old_clinic.invoke("triggers.diff").code == 0
    assert old_clinic.query(OWN) == before
