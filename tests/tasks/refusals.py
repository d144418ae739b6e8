"""What the tests of refusals share."""

from __future__ import annotations

from conftest import Project

FOREIGN = "CREATE TABLE precious (a int); INSERT INTO precious VALUES (1)"


def refused(project: Project, *arguments: str, code: int, says: str, process: bool = False) -> str:
    """The command fails with this exit code and one line that says this; the same through --json. Returns the remedy."""
    run = project.process if process else project.invoke
    outcome = run(*arguments)
    assert outcome.code == code, outcome.out + outcome.err
    assert says in outcome.err, outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, f"not one line: {outcome.err}"
    answer = run(*arguments, "--json").json
    assert (answer["ok"], answer["exit_code"]) == (False, code)
    assert says in answer["error"]["message"]
    return answer["error"]["remedy"] or ""
