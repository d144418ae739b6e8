"""The sample application and its database, which the tests of adoption begin with."""

from __future__ import annotations

from conftest import Project


def test_the_sample_is_a_database_that_the_tools_have_not_made(old_clinic: Project) -> None:
    assert old_clinic.query("SELECT to_regclass('skinspire_tools.stamp'), count(*) FROM patients GROUP BY 1") == [(None, 30)]
    refused = old_clinic.forked("db.setup", "--env=dev")
    assert (refused.code, "no stamp" in refused.err) == (2, True)
