"""The first morning, the shell's completion, and the way from the old scripts."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT, Project

# The first morning, and the shell's completion


def test_onboarding(project: Project) -> None:
    dry = project.invoke("--dry", "dev.onboard")
    assert dry.code == 0 and dry.out.count("would run upgrade -> triggers -> seed -> verify") == 2
    outcome = project.invoke("dev.onboard")
    assert outcome.code == 0, outcome.err
    assert "sign in as" in outcome.out and outcome.out.count("checks, ") == 2
    *_, inspect_, shell, tests = outcome.out.splitlines()
    assert [line.split("  ")[1] for line in (inspect_, shell, tests)] == [
        "invoke db.inspect --env=dev", "invoke db.shell --env=dev", "invoke dev.test",
    ]  # fmt: skip
    assert project.invoke(*inspect_.split("  ")[1].split()[1:]).code == 0
    project.execute("UPDATE hospitals SET name = 'Mine'")
    before = project.dump()
    answer = project.invoke("dev.onboard", "--json").json
    assert [each["environment"] for each in answer["environments"]] == ["dev", "test"] and len(answer["next"]) == 3
    assert all(each["checks"] for each in answer["environments"]), "verified, though there was nothing to do"
    assert project.dump() == before, "a second time changes nothing"


def test_onboarding_touches_nothing_of_others(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE TABLE precious (a int)")
    outcome = project.invoke("dev.onboard")
    assert outcome.code == 2 and "no stamp" in outcome.err
    assert project.invoke("dev.onboard", "--json").json["operation"] == "dev.onboard"
    assert [
        name
        for (name,) in project.query(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    ] == ["precious"]


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_completion_in_bash(tmp_path: Path) -> None:
    """The script that Invoke prints, sourced by a bash that then completes what is typed, in a subfolder too."""
    typed = ("invoke db.", "invoke db.insp", "invoke db.inspect --")
    lines = [
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; source <(invoke --print-completion-script bash)"
    ]
    for line in typed:
        words = line.split(" ")
        lines.append(f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}")
        lines.append(f'_complete_invoke invoke {shlex.quote(words[-1])}; echo "${{COMPREPLY[@]}}"')
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=CHECKOUT / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tasks, one, flags = (set(line.split()) for line in done.stdout.splitlines())
    assert tasks >= {"db.inspect", "db.doctor", "db.setup", "db.shell"} and one == {"db.inspect"}
    assert flags >= {"--env", "--table", "--section", "--format", "--exact", "--json"}


# The way from the old scripts

OLD_AND_NEW = (CHECKOUT / "docs/cookbook.md").read_text().partition("now, each after `invoke` |")[2].partition("\n\n")[0]


def test_every_old_script_and_scenario_has_its_row() -> None:
    for old in ("create_database", "reset_database", "install_triggers", "populate_test_data", "verify_db_service", "db_inspector",
                "copy_test_to_dev", "manage_db", "switch_env", "verify_triggers", "setup_db.bat", "pg_dump", "new developer",
                "corrupted database", "changed models", "preparing for tests", "connection trouble"):  # fmt: skip
        assert len(re.findall(rf"^\| [^|]*{re.escape(old)}", OLD_AND_NEW, re.MULTILINE)) == 1, old


@pytest.mark.slow
def test_every_command_of_the_table_works(project: Project) -> None:
    """Each as it stands, on a database that the ones before have left, prepared in between as a developer would."""
    for row in OLD_AND_NEW.strip().splitlines()[1:]:
        for command in re.findall(r"`([^`]+)`", row.split(" | ", 1)[1]):
            task, *arguments = shlex.split(command)
            if command == "db.create --env=dev":  # for an empty database
                project.invoke("db.reset", "--env=dev")
            else:
                assert project.invoke("db.prepare", "--env=dev").code == project.invoke("db.prepare", "--env=test").code == 0
            outcome = project.invoke(task, *arguments)
            assert outcome.code == 0, f"{command}: {outcome.err}"
